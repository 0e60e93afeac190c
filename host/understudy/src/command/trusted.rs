//! The files and directories that a run trusts: those that decide what is executed and with which secrets, and those that record what
//! happens. No place to which a component or a native program may write overlaps any of them.

use std::path::{Path, PathBuf};

use replica::mounts::{Location, Mounts, links_and_end};
use replica::{Directories, Refusal, Rule};
use sandbox::{ComponentSource, Grants};

use crate::config::Config;
use crate::plugin_path;

/// Where Debian's packages look for the configuration of each cluster, which the seal judges and a later start of the server reads.
const DEBIANS_FILES: [&str; 2] = ["/etc/postgresql", "/etc/postgresql-common"];

/// Everything that a run trusts.
pub(super) struct Trusted {
    entries: Vec<Entry>,
    /// The files and directories that the grants of all methods name. Their paths are looked up each time that they are used.
    granted: Vec<Entry>,
}

/// A file or a directory that a run trusts.
struct Entry {
    /// The name of the file or directory in messages, with the setting that names it.
    what: String,
    place: Location,
    /// The directories of the symbolic links on the path. Whoever may write to such a directory can replace the link, so that the path
    /// leads elsewhere.
    links_in: Vec<Location>,
    /// Whether the data directory or a mapped place may contain the file or directory.
    may_lie_in_data: bool,
}

impl Entry {
    fn of(path: &Path, what: String, mounts: &Mounts) -> Self {
        let mut links = links_and_end(path);
        let end = links.pop().unwrap_or_else(|| path.to_owned());
        let links_in = links.iter().filter_map(|link| link.parent());
        Self {
            what,
            place: Location::of(&end, mounts),
            links_in: links_in.map(|directory| Location::of(directory, mounts)).collect(),
            may_lie_in_data: false,
        }
    }

    /// Returns whether the file or directory is `directory` or lies in it, or whether a link on the path to it lies there.
    fn lies_in(&self, directory: &Location) -> bool {
        self.place.lies_in(directory) || self.has_link_in(directory)
    }

    /// Returns whether the path can be made to lead elsewhere by someone who may write to `directory`, but cannot replace `directory` itself.
    fn is_redirected_in(&self, directory: &Location) -> bool {
        let lies_below = self.place.lies_in(directory) && !directory.lies_in(&self.place);
        lies_below || self.has_link_in(directory)
    }

    /// Returns whether a link on the path lies in `directory`.
    fn has_link_in(&self, directory: &Location) -> bool {
        self.links_in.iter().any(|link| link.lies_in(directory))
    }

    /// Returns whether the file or directory overlaps `directory`, or whether a link on the path to it lies in `directory`.
    fn overlaps(&self, directory: &Location) -> bool {
        self.place.overlaps(directory) || self.lies_in(directory)
    }
}

impl Trusted {
    /// Lists what a run with this configuration trusts. `outputs` are the files that the program writes, such as the audit, each with its
    /// name.
    pub(super) fn of(
        config: &Config,
        state_dir: &Path,
        outputs: &[(PathBuf, &'static str)],
        default_passfile: Option<&Path>,
    ) -> Self {
        let mounts = Mounts::of_this_process();
        let mut entries = Vec::new();
        let mut add = |path: &Path, what: String| entries.push(Entry::of(path, what, &mounts));
        for (path, what) in config.trusted() {
            add(path, what);
        }
        add(state_dir, format!("the state directory {} (`replica.state_dir`)", state_dir.display()));
        for (path, name) in outputs {
            add(path, format!("the {name} {} (`--{name}`)", path.display()));
        }
        for directory in &config.plugin_path {
            add(
                directory,
                format!("{}, where plugins are looked up (`replica.plugin_path`)", directory.display()),
            );
        }
        for name in &config.methods {
            let looked_up = match config.components.get(name) {
                Some(section) => section.looked_up(name),
                None => Some(name.as_str()),
            };
            let found = looked_up.and_then(|plugin| plugin_path::find(&config.plugin_path, plugin));
            if let Some(ComponentSource::File(file)) = found {
                add(&file, format!("the plugin of the method {name}, {}", file.display()));
            }
        }
        if let Ok(program) = std::env::current_exe() {
            add(&program, format!("the program itself, {}", program.display()));
        }
        for (name, section) in &config.components {
            for (path, what) in section.grants.open.trusts() {
                add(&path, format!("{what} (method {name})"));
            }
        }
        let of_libpq =
            default_passfile.map(|passfile| [passfile.to_owned(), passfile.with_file_name(".postgresql")]);
        let of_libpq = of_libpq.into_iter().flatten().map(|path| {
            let what = format!("{}, which libpq reads", path.display());
            (path, what)
        });
        let named = config
            .config_file
            .iter()
            .map(|(path, _)| (path.clone(), "what `replica.config_file` names".to_owned()));
        let of_debian = DEBIANS_FILES.map(|path| {
            let what = format!("{path}, where Debian keeps the configuration of clusters");
            (PathBuf::from(path), what)
        });
        let of_postgresql = named.chain(of_debian);
        for (path, what) in of_libpq.chain(of_postgresql) {
            entries.push(Entry { may_lie_in_data: true, ..Entry::of(&path, what, &mounts) });
        }
        let granted = config.components.iter().flat_map(|(name, section)| {
            let grants = &section.grants.open;
            grants.reads().chain(grants.writes()).map(move |(path, key)| {
                let what = format!("{}, which `method.{name}.grants.{key}` names", path.display());
                (path, what)
            })
        });
        let granted = granted.map(|(path, what)| Entry::of(&path, what, &mounts)).collect();
        Self { entries, granted }
    }

    /// Refuses grants that would let a program write to a file or directory that the run trusts, and a data directory or mapped place that
    /// contains one.
    ///
    /// # Errors
    /// A refusal by the rule `grant` that names the setting to change.
    pub(super) fn refuse_to_write(&self, directories: &Directories, grants: &Grants) -> Result<(), Refusal> {
        let mounts = Mounts::of_this_process();
        let refused = |message: String| Err(Refusal::new(Rule::Grant, message).by_policy());
        for (written, key) in grants.writes() {
            let place = Location::of(&written, &mounts);
            if let Some(entry) = self.entries.iter().find(|entry| entry.overlaps(&place)) {
                return refused(format!(
                    "`{key}` names {}, which overlaps {}: a program that writes there could change what later runs execute and trust; name a \
                     directory in `{key}` that has nothing else in it",
                    written.display(),
                    entry.what
                ));
            }
            if let Some(entry) = self.granted.iter().find(|entry| entry.is_redirected_in(&place)) {
                return refused(format!(
                    "`{key}` names {}, which contains {}, or a link on the path to it: a program that writes there could replace it by a link \
                     to another place; what may be written may be read, so name only the outer directory, or move the other one elsewhere",
                    written.display(),
                    entry.what
                ));
            }
        }
        for place in std::iter::once(directories.datadir.as_path()).chain(directories.mapped()) {
            let location = Location::of(place, &mounts);
            let inside = |entry: &&Entry| !entry.may_lie_in_data && entry.lies_in(&location);
            if let Some(entry) = self.entries.iter().find(inside) {
                return refused(format!(
                    "the method may write to {}, which contains {}: move the latter to a place where no method may write",
                    place.display(),
                    entry.what
                ));
            }
            if let Some(entry) = self.granted.iter().find(|entry| entry.has_link_in(&location)) {
                // What is granted and lies there itself is refused too, by the check of each method's grants.
                return refused(format!(
                    "the method may write to {}, which contains a link on the path to {}, and could replace the link: name the path without it",
                    place.display(),
                    entry.what
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::config::Overrides;

    /// A folder with a configuration whose method has a script as its program.
    struct Stage {
        folder: tempfile::TempDir,
        config: Config,
    }

    impl Stage {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
            for directory in
                ["bin", "real", "scripts", "plugins", "scratch", "secrets", "homes", "data", "state", "logs"]
            {
                fs::create_dir(at(directory)).unwrap();
            }
            let script = |name: &str, first: &str| {
                fs::write(at(name), format!("#!{first}\n")).unwrap();
                fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
            };
            script("real/inner", "/bin/sh");
            symlink(at("real/inner"), at("bin/inner")).unwrap();
            script("scripts/tool", &at("bin/inner").display().to_string());
            fs::write(at("plugins/m.wasm"), "").unwrap();
            fs::write(at("secrets/key"), "x").unwrap();
            let text = format!(
                "scope = \"s\"\n[replica]\ndatadir = {data:?}\nbin_dir = {bin:?}\nplugin_path = [{plugins:?}]\nmethods = [\"m\"]\n\
                 [method.m.grants]\nkeys.k = {{ file = {key:?} }}\n[method.m.grants.programs.tool]\npath = {tool:?}\n\
                 env = {{ X = {{ key = \"k\" }} }}\n",
                data = at("data"),
                bin = at("pg/bin"),
                plugins = at("plugins"),
                key = at("secrets/key"),
                tool = at("scripts/tool"),
            );
            fs::write(at("understudy.toml"), text).unwrap();
            let config = Config::load(&at("understudy.toml"), &Overrides::default(), &|_| None).unwrap();
            Self { folder, config }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.folder.path().canonicalize().unwrap().join(name)
        }

        /// Judges grants that let a program write below `path`. The error is the message of the refusal.
        fn writes(&self, path: &Path) -> Result<(), String> {
            let outputs = [(self.at("logs/audit"), "audit")];
            let passfile = self.at("homes/.pgpass");
            let trusted = Trusted::of(&self.config, &self.at("state"), &outputs, Some(&passfile));
            let mut grants = self.config.components["m"].grants.open.clone();
            grants.programs.get_mut("tool").unwrap().write.push(path.to_owned());
            trusted.refuse_to_write(&self.config.directories, &grants).map_err(|refusal| {
                assert!(refusal.policy && refusal.rule == Rule::Grant, "{refusal}");
                refusal.message
            })
        }
    }

    #[test]
    fn no_program_writes_what_the_run_executes_trusts_or_records() {
        let stage = Stage::new();
        stage.writes(&stage.at("scratch")).unwrap();
        for (written, what) in [
            ("scripts", "`method.m.grants.programs.tool.path`"),
            ("bin", "`programs.tool`"),
            ("real", "`programs.tool`"),
            ("plugins", "`replica.plugin_path"),
            ("plugins/deep", "`replica.plugin_path"),
            ("pg", "`replica.bin_dir`"),
            ("pg/bin/deep", "`replica.bin_dir`"),
            ("secrets", "`method.m.grants.keys.k"),
            ("state", "`replica.state_dir`"),
            ("state/components", "`replica.state_dir`"),
            ("logs", "`--audit`"),
            ("homes", "libpq"),
            ("", "configuration"),
        ] {
            let why = stage.writes(&stage.at(written)).unwrap_err();
            assert!(why.contains("`programs.tool.write` names") && why.contains(what), "{written}: {why}");
        }
        for written in
            ["/", "/usr", "/usr/lib", "/usr/local/bin", "/etc", "/usr/share/x", "/etc/postgresql/15/main"]
        {
            stage.writes(Path::new(written)).unwrap_err();
        }
        let own = std::env::current_exe().unwrap();
        assert!(stage.writes(own.parent().unwrap()).unwrap_err().contains("the program itself"));
    }

    #[test]
    fn a_link_to_a_trusted_place_is_that_place() {
        let stage = Stage::new();
        symlink(stage.at("plugins"), stage.at("scratch/link")).unwrap();
        assert!(stage.writes(&stage.at("scratch/link")).unwrap_err().contains("`replica.plugin_path"));
    }

    #[test]
    fn no_program_can_replace_what_is_granted_by_a_link() {
        let mut stage = Stage::new();
        for directory in ["backups/a", "scratch/deep"] {
            fs::create_dir_all(stage.at(directory)).unwrap();
        }
        symlink(stage.at("backups/a"), stage.at("logs/link")).unwrap();
        let (read, linked, written) =
            (stage.at("backups/a"), stage.at("logs/link"), stage.at("scratch/deep"));
        let grants = &mut stage.config.components.get_mut("m").unwrap().grants.open;
        grants.read.push(read);
        let tool = grants.programs.get_mut("tool").unwrap();
        tool.read.push(linked);
        tool.write.push(written);
        for (written, named) in [("backups", "grants.read`"), ("scratch", "grants.programs.tool.write`")] {
            let why = stage.writes(&stage.at(written)).unwrap_err();
            assert!(why.contains("by a link") && why.contains(named), "{written}: {why}");
        }
        stage.writes(&stage.at("scratch/deep")).unwrap();
        // The path of the grant leads through a link there.
        fs::create_dir(stage.at("links")).unwrap();
        fs::rename(stage.at("logs/link"), stage.at("links/link")).unwrap();
        let through = stage.at("links/link");
        let grants = &mut stage.config.components.get_mut("m").unwrap().grants.open;
        grants.programs.get_mut("tool").unwrap().read = vec![through];
        let why = stage.writes(&stage.at("links")).unwrap_err();
        assert!(why.contains("by a link") && why.contains("grants.programs.tool.read`"), "{why}");
        // The method writes the data directory itself.
        symlink(stage.at("backups"), stage.at("data/link")).unwrap();
        let inside = stage.at("data/link/a");
        stage.config.components.get_mut("m").unwrap().grants.open.read = vec![inside];
        let why = stage.writes(&stage.at("scratch/deep")).unwrap_err();
        assert!(why.contains("name the path without it"), "{why}");
    }

    #[test]
    fn an_interpreter_in_the_data_directory_is_refused() {
        let stage = Stage::new();
        fs::write(stage.at("data/inner"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(stage.at("data/inner"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(stage.at("bin/inner")).unwrap();
        symlink(stage.at("data/inner"), stage.at("bin/inner")).unwrap();
        let why = stage.writes(&stage.at("scratch")).unwrap_err();
        assert!(why.contains("which contains") && why.contains("`programs.tool`"), "{why}");
    }
}
