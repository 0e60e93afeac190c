//! Combines the sections with the flags and checks the result for missing settings, contradictions, and unknown methods.

use foundation::nearest::nearest;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::replica::create_replica::BASEBACKUP;
use ::replica::source::Conninfo;
use ::replica::{Directories, methods_to_try};
use sandbox::{ComponentSource, OptionValue};

use super::basebackup::{BasebackupSection, from_flag};
use super::component::ComponentSection;
use super::methods::Listed;
use super::problem::{Origin, Place, Problem, not_absolute};
use super::replica::ReplicaSection;
use super::source::{SourceSection, SourceSettings, parse_conninfo};
use super::tree::{Reader, Setting};
use super::visible::invisible;
use super::{Config, Environment, GivenOption, Overrides};
use crate::plugin_path;

/// The variable that names the caller's passfile.
const PGPASSFILE: &str = "PGPASSFILE";

/// The content of the file, section by section.
pub(super) struct Parts {
    pub(super) scope: Setting<String>,
    pub(super) replica: ReplicaSection,
    pub(super) source: Option<SourceSection>,
    pub(super) components: BTreeMap<String, ComponentSection>,
    pub(super) basebackup: BasebackupSection,
}

impl Parts {
    /// Applies the flags and checks the result; `None` if a setting that a run needs is missing or cannot be used, which is noted as a
    /// problem.
    pub(super) fn check(
        mut self,
        reader: &Reader<'_>,
        overrides: &Overrides,
        environment: Environment<'_>,
    ) -> Option<Config> {
        self.take_further_options(reader, overrides);
        let flag_path = |flag: &str, path: &Option<PathBuf>| {
            let path = path.clone()?;
            if !path.is_absolute() {
                reader.note(Problem::with_flag(flag, not_absolute(&path.to_string_lossy())));
            } else if let Some(why) = path.to_str().and_then(invisible) {
                reader.note(Problem::with_flag(flag, why));
            }
            Some(path)
        };
        if let Some(why) = overrides.scope.as_deref().and_then(invisible) {
            reader.note(Problem::with_flag("--scope", why));
        }
        let head = self.replica.place.unwrap_or(reader.place(0));
        let missing = |place: Place, message: &'static str| move || reader.problem(place, message);
        let is_misspelt = self.replica.is_misspelt;
        let missing_in_replica = |message: &'static str| {
            move || {
                if !is_misspelt {
                    reader.problem(head, message)
                }
            }
        };
        let scope = std::mem::take(&mut self.scope).under(
            overrides.scope.clone(),
            missing(
                reader.place(0),
                "`scope` is missing: write scope = \"NAME\" at the top, or give --scope",
            ),
        );
        let datadir = std::mem::take(&mut self.replica.datadir).under(
            flag_path("--datadir", &overrides.datadir),
            missing_in_replica(
                "`replica.datadir` is missing: write datadir = \"/path\" below [replica], or give --datadir",
            ),
        );
        let bin_dir = std::mem::take(&mut self.replica.bin_dir).under(
            flag_path("--bin-dir", &overrides.bin_dir),
            missing_in_replica(
                "`replica.bin_dir` is missing: write bin_dir = \"/usr/lib/postgresql/15/bin\" below [replica], or give \
                 --bin-dir",
            ),
        );
        if let Some(datadir) = &datadir {
            self.check_places(reader, datadir);
        }
        if let Some(bin_dir) = &overrides.bin_dir {
            reader.keep(bin_dir, "the path", Origin::Flag { flag: "--bin-dir".to_owned() });
        }
        let plugin_path = match self.replica.plugin_path.take() {
            Some(path) => path,
            None => self.plugin_path_of_environment(reader, environment),
        };
        let standby = self.standby(reader, overrides);
        let standby_passfile = standby.as_ref().and(self.replica.standby_passfile.clone());
        let in_file = self.source.as_ref().and_then(|source| source.settings.as_ref());
        let holds_secret = in_file.is_some_and(|settings| settings.conninfo.secrets().next().is_some());
        let files_of_source = in_file.map(SourceSettings::secret_files).unwrap_or_default();
        let remote_list = self.source.as_mut().and_then(|source| source.methods.take());
        // A source with a problem counts as a source. Otherwise the problem would cause further, misleading problems.
        let has_source = match overrides.connstring.as_deref() {
            Some(connstring) => !connstring.is_empty(),
            None => self.source.is_some(),
        };
        let source = self.source_in_force(reader, overrides, environment);
        let methods = self.methods(reader, overrides, remote_list, has_source, &plugin_path);
        Some(Config {
            file: reader.input().file().map(Path::to_owned),
            scope: scope?,
            directories: Directories {
                datadir: datadir?,
                tablespaces: self.replica.tablespace_map(),
                wal: self.replica.wal_dir.map(|(path, _)| path),
            },
            bin_dir: bin_dir?,
            methods: methods?,
            components: self.components,
            basebackup: self.basebackup,
            plugin_path,
            source,
            standby,
            standby_passfile_at: standby_passfile.map(|(_, origin)| origin),
            holds_secret,
            files_of_source,
            proxy_secrets: sandbox::secrets_of_proxies(environment),
            kept: reader.kept(),
            warnings: Vec::new(),
            restore_command: self.replica.restore_command,
            trigger_file: self.replica.trigger_file,
            config_file: self.replica.config_file,
            snapshot: self.replica.snapshot,
            refuse_commands: self.replica.refuse_commands,
            timeout: overrides.timeout.or(self.replica.timeout),
            end_with_parent: self.replica.end_with_parent.unwrap_or(overrides.by_patroni),
            force: overrides.force,
            only_empty: overrides.only_empty,
            user: self.replica.user,
            state_dir: self.replica.state_dir,
            require_landlock: self.replica.require_landlock,
        })
    }

    fn plugin_path_of_environment(&self, reader: &Reader<'_>, environment: Environment<'_>) -> Vec<PathBuf> {
        match plugin_path::from_environment(environment) {
            Ok(directories) => {
                for directory in &directories {
                    let origin = Origin::Flag { flag: plugin_path::VARIABLE.to_owned() };
                    reader.keep(directory, "one of the directories", origin);
                }
                directories
            }
            Err(problem) => {
                reader.note(problem);
                Vec::new()
            }
        }
    }

    /// Gives the options on the command line to the method that they are for.
    fn take_further_options(&mut self, reader: &Reader<'_>, overrides: &Overrides) {
        let Some(method) = overrides.method.as_deref() else {
            for option in &overrides.options {
                let message =
                    "is not a flag of this program; to set an option of a method, also pass --method NAME";
                reader.note(Problem::with_flag(&option.flag, message));
            }
            return;
        };
        if method == BASEBACKUP {
            for option in &overrides.options {
                self.basebackup.set(from_flag(option));
            }
            return;
        }
        let replica_lists = self.replica.methods.iter().flatten();
        let source_lists = self.source.iter().flat_map(|source| source.methods.iter().flatten());
        let known = self.components.contains_key(method)
            || replica_lists.chain(source_lists).any(|listed| listed.name == method);
        if !known {
            let names = self.components.keys().map(String::as_str).chain([BASEBACKUP]);
            let hint =
                nearest(method, names).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            let message = format!("`{}` is not listed and has no section{hint}", method.escape_debug());
            reader.note(Problem::with_flag("--method", message));
            return;
        }
        let section = self.components.entry(method.to_owned()).or_default();
        let given = &overrides.options;
        section.options.retain(|(name, _)| given.iter().all(|option| option.name != *name));
        for GivenOption { name, value, flag } in given.iter().cloned() {
            section.written.options.insert(name.clone(), flag);
            section.options.push((name, OptionValue::Untyped(value)));
        }
    }

    /// Notes a problem for each place that lies inside another, because emptying one would empty the other. Two tablespaces may have the
    /// same target, because one tablespace may be named twice, by its old path and by its OID; whether two different tablespaces share a
    /// target is checked with the plan.
    fn check_places(&self, reader: &Reader<'_>, datadir: &Path) {
        const TABLESPACE: &str = "another tablespace";
        let mut taken: Vec<(&Path, &str)> = vec![(datadir, "the data directory")];
        let wal = self.replica.wal_dir.iter().map(|(path, place)| (path, place, "`replica.wal_dir`"));
        let tablespaces = self.replica.tablespaces.iter().map(|(_, path, place)| (path, place, TABLESPACE));
        for (path, place, what) in wal.chain(tablespaces) {
            let clash = taken.iter().find(|(other, whose)| {
                let named_twice = what == TABLESPACE && *whose == TABLESPACE && path == other;
                !named_twice && (path.starts_with(other) || other.starts_with(path))
            });
            if let Some((other, whose)) = clash {
                let message = format!(
                    "`{}` and {whose}, `{}`, must be apart: neither may be inside the other",
                    path.display(),
                    other.display()
                );
                reader.problem(*place, message);
            }
            taken.push((path, what));
        }
    }

    /// Returns how the finished standby reaches its primary: the connection string of `--connstring` or `[source]`, and `standby_passfile`;
    /// `None` without `configure_standby`, or if there is no connection string.
    fn standby(&self, reader: &Reader<'_>, overrides: &Overrides) -> Option<(Conninfo, Option<PathBuf>)> {
        let place = self.replica.configure_standby?;
        let given = overrides.connstring.as_deref().filter(|text| !text.is_empty());
        let conninfo = match given {
            Some(text) => Conninfo::parse(text).ok(),
            None => match &self.source {
                Some(source) => source.settings.as_ref().map(|settings| settings.conninfo.clone()),
                None => {
                    reader.problem(
                        place,
                        "`replica.configure_standby` needs `[source] conninfo` for primary_conninfo",
                    );
                    None
                }
            },
        };
        Some((conninfo?, self.replica.standby_passfile.as_ref().map(|(path, _)| path.clone())))
    }

    /// Returns the source that this run copies from; `None` if there is none.
    fn source_in_force(
        &mut self,
        reader: &Reader<'_>,
        overrides: &Overrides,
        environment: Environment<'_>,
    ) -> Option<SourceSettings> {
        let from_caller = || {
            let passfile = PathBuf::from(environment(PGPASSFILE).filter(|path| !path.is_empty())?);
            reader.keep(&passfile, "the file", Origin::Flag { flag: PGPASSFILE.to_owned() });
            Some(passfile)
        };
        let from_file = self.source.take().and_then(|source| source.settings);
        match overrides.connstring.as_deref() {
            Some("") => None,
            Some(text) => {
                let conninfo = parse_conninfo(text)
                    .map_err(|why| reader.note(Problem::with_flag("--connstring", why)))
                    .ok()?;
                for (keyword, path) in conninfo.paths() {
                    let origin = Origin::Flag { flag: "--connstring".to_owned() };
                    reader.keep(path, format!("what `{keyword}` names"), origin);
                }
                // Patroni wrote the file that PGPASSFILE names for the connection string that it passes.
                match (from_caller(), from_file) {
                    (Some(passfile), _) => Some(SourceSettings {
                        conninfo,
                        passfile: Some(passfile),
                        ..SourceSettings::default()
                    }),
                    (None, Some(settings)) => Some(SourceSettings { conninfo, ..settings }),
                    (None, None) => Some(SourceSettings { conninfo, ..SourceSettings::default() }),
                }
            }
            None => {
                let mut settings = from_file?;
                if settings.password.is_none() && settings.passfile.is_none() {
                    settings.passfile = from_caller();
                }
                Some(settings)
            }
        }
    }

    /// Returns the methods to try. A name is an error if it is not `basebackup` and has neither a section nor a plugin. A method whose
    /// section has no plugin is not an error here, because the other methods can still be tried.
    fn methods(
        &self,
        reader: &Reader<'_>,
        overrides: &Overrides,
        remote_list: Option<Vec<Listed>>,
        has_source: bool,
        plugin_path: &[PathBuf],
    ) -> Option<Vec<String>> {
        for listed in self.replica.methods.iter().chain(&remote_list).flatten() {
            let name = &listed.name;
            let section = self.components.get(name);
            let looked_up = section.map_or(Some(name.as_str()), |section| section.looked_up(name));
            let plugin = looked_up.and_then(|plugin| plugin_path::find(plugin_path, plugin));
            let known = name == BASEBACKUP || section.is_some() || plugin.is_some();
            // The plugin may be a link into a place that a run empties, even if its directory lies elsewhere.
            if let Some(ComponentSource::File(plugin)) = plugin {
                let origin = reader.origin(listed.place);
                reader.keep(plugin, format!("the plugin of the method `{name}`"), origin);
            }
            if !known {
                let plugins = plugin_path::names(plugin_path);
                let names = self.components.keys().chain(&plugins).map(String::as_str).chain([BASEBACKUP]);
                let hint =
                    nearest(name, names).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                let message = format!(
                    "unknown method `{name}`: there is no section [method.{name}] and no {name}.wasm in {}{hint}",
                    plugin_path::shown(plugin_path)
                );
                reader.problem(listed.place, message);
            }
        }
        let names = |list: &[Listed]| list.iter().map(|listed| listed.name.clone()).collect::<Vec<_>>();
        let local = names(self.replica.methods.as_deref().unwrap_or_default());
        // The remote member's list is used only if there is a source.
        let remote = remote_list.filter(|_| has_source).map(|list| names(&list));
        methods_to_try(&local, remote.as_deref(), overrides.from_leader, has_source)
            .map_err(|error| reader.note(Problem::with_flag("--from-leader", error.to_string())))
            .ok()
    }
}
