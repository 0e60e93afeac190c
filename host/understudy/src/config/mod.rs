//! The configuration: one TOML file and the flags that override it, parsed once into types. All problems are reported together, each with
//! its place and, for a misspelt name, the most similar valid name.

mod authorities;
mod basebackup;
mod belongs;
mod check;
mod component;
mod duplicate;
mod grants;
mod input;
mod kept;
mod keys;
mod methods;
mod owned_file;
pub mod problem;
pub mod reference;
mod replica;
mod secret;
mod source;
mod syntax;
mod tree;
mod trusted;
mod visible;

use foundation::nearest::nearest;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::replica::Directories;
use ::replica::create_replica::BASEBACKUP;
use ::replica::source::Conninfo;
use sandbox::Secret;
use toml::de::DeTable;

pub use authorities::Authorities;
pub use basebackup::BasebackupSection;
pub use component::{ComponentSection, Plugin};
pub use grants::GrantsSection;
pub use input::FlagText;
pub use problem::{ConfigError, Origin, Place, Problem};
pub use replica::check_config_file;
pub use secret::{SecretSource, Shape};
pub use source::{SourceSettings, check_entries, check_passfile};

pub(crate) use methods::is_method_name;
pub(crate) use problem::not_absolute;
pub(crate) use tree::parse_duration;
pub(crate) use visible::invisible;

use check::Parts;
use input::Input;
use kept::Kept;
use keys::{Key, names};
use tree::{Reader, Section, Setting};

/// How many bytes the configuration file may have. A larger file is likely the wrong file.
const FILE_LIMIT: u64 = 1 << 20;

/// The keys at the top of the file.
const KEYS: &[Key] = &[
    Key::new("scope", "text", "required, or `--scope`", "the name of the cluster, as in Patroni"),
    Key::new("replica", "table", "", "[`[replica]`](#replica)"),
    Key::new("source", "table", "no source", "[`[source]`](#source)"),
    Key::new(
        "method",
        "table",
        "",
        "one table for each method: [`[method.NAME]`](#methodname), \
         [`[method.basebackup]`](#methodbasebackup)",
    ),
];

/// Looks up an environment variable. The variables are `PGPASSFILE`, `UNDERSTUDY_PLUGIN_PATH`, those that `{ env = ".." }` names, those
/// with credentials for stores with `credentials = "auto"`, those of proxies (for their passwords only: the HTTP client of the stores looks
/// the proxies up itself), and `XDG_CACHE_HOME` for `inspect`.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<OsString>;

/// The flags of the command line, which override the file or add to it.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--scope`.
    pub scope: Option<String>,
    /// `--datadir`.
    pub datadir: Option<PathBuf>,
    /// `--connstring`; an empty string means no source (loop rule 4).
    pub connstring: Option<String>,
    /// `--bin-dir`.
    pub bin_dir: Option<PathBuf>,
    /// `--timeout`.
    pub timeout: Option<Duration>,
    /// Whether `--role` is given. Only Patroni passes this flag, so Patroni started the program and will start the replica.
    pub by_patroni: bool,
    /// `--from-leader`.
    pub from_leader: bool,
    /// `--force`.
    pub force: bool,
    /// Whether a data directory that holds a cluster is refused: the verb is `run`, without `--force` and `--keep-data`.
    pub only_empty: bool,
    /// The method that `options` are for: that of `--method`, or the one that `run` tries.
    pub method: Option<String>,
    /// Options of that method, which replace those of the same names in the file. The same name twice makes a list of texts.
    pub options: Vec<GivenOption>,
}

/// An option of a method, given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenOption {
    /// Its name.
    pub name: String,
    /// Its value, which is read by the kind that the method describes.
    pub value: String,
    /// The flag that gave it, as messages name it: `--NAME`, or `--option NAME`.
    pub flag: String,
}

/// The checked configuration: the settings of the file, overridden by the flags.
#[derive(Clone, Debug)]
pub struct Config {
    /// The configuration file; `None` if the configuration was made from flags.
    pub file: Option<PathBuf>,
    /// The name of the Patroni cluster.
    pub scope: String,
    /// The data directory and the mapped places.
    pub directories: Directories,
    /// The directory of PostgreSQL's programs.
    pub bin_dir: PathBuf,
    /// The methods to try, in order (loop rules 1 and 2).
    pub methods: Vec<String>,
    /// The section of each method that is a component.
    pub components: BTreeMap<String, ComponentSection>,
    /// The section of `basebackup`.
    pub basebackup: BasebackupSection,
    /// Where plugins are looked up by name (loop rule 6).
    pub plugin_path: Vec<PathBuf>,
    /// The server to copy from; `None` if there is no source.
    pub source: Option<SourceSettings>,
    /// How the finished standby reaches its primary (loop rule 29): the operator's connection string, and the passfile that the
    /// standby keeps using. `None` without `configure_standby`.
    pub standby: Option<(Conninfo, Option<PathBuf>)>,
    /// Where `standby_passfile` was written, if it is set.
    pub standby_passfile_at: Option<Origin>,
    /// The server's `restore_command`, which is written together with `standby`. Without `standby`, the report shows the line for Patroni's
    /// configuration instead.
    pub restore_command: Option<String>,
    /// The trigger file to remove; `None` means the default.
    pub trigger_file: Option<String>,
    /// The server's `config_file` and where it was written; `None` if the setting is left out.
    pub config_file: Option<(PathBuf, Origin)>,
    /// Whether the backup is an atomic snapshot.
    pub snapshot: bool,
    /// Whether restored settings that run commands make the seal fail.
    pub refuse_commands: bool,
    /// How long the whole run may take; `None` means no limit.
    pub timeout: Option<Duration>,
    /// Whether the run ends when the process that started it ends.
    pub end_with_parent: bool,
    /// Whether to empty a directory even if it holds another cluster or files that are not PostgreSQL's.
    pub force: bool,
    /// Whether a data directory that holds a cluster is refused.
    pub only_empty: bool,
    /// Whether the file holds a password or another secret in a connection string.
    pub holds_secret: bool,
    /// The files with secrets that `[source]` of the file names, even if a flag replaces that section.
    pub files_of_source: Vec<PathBuf>,
    /// The passwords of the proxies that the environment names, to be kept out of logs and reports.
    pub proxy_secrets: Vec<Secret>,
    /// The files and directories that the operator names. None of them may lie in a place that a run empties.
    kept: Vec<Kept>,
    /// Warnings, which do not prevent a run.
    pub warnings: Vec<String>,
    /// The user to become if the program runs as root; `None` means the default.
    pub user: Option<String>,
    /// The directory of state files; `None` means the default.
    pub state_dir: Option<PathBuf>,
    /// The least Landlock ABI that the kernel must have; `None` means that any is enough.
    pub require_landlock: Option<u32>,
}

impl Config {
    /// Reads the file, applies the flags, and checks the result.
    ///
    /// # Errors
    /// Fails if the file cannot be read or others may change it, and otherwise with every problem of the file and of the flags. If there is
    /// none, fails with a problem for each file and directory that the operator names and that a run would empty.
    pub fn load(
        file: &Path,
        overrides: &Overrides,
        environment: Environment<'_>,
    ) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: file.to_owned(), source };
        let (text, judged) = trusted::read(file, FILE_LIMIT).map_err(unreadable)?;
        judged.refuse_if_others_may_change().map_err(ConfigError::NotTrusted)?;
        let mut config = Self::parse(file, &text, overrides, environment).map_err(ConfigError::Problems)?;
        judged.refuse_another_owner(config.user.as_deref()).map_err(ConfigError::NotTrusted)?;
        config.kept.push(Kept::configuration(file));
        config.refuse_misplaced()?;
        config.warnings.extend(judged.warn_of_readers().filter(|_| config.holds_secret));
        Ok(config)
    }

    /// Reads a configuration that was made from flags, and applies further flags, as [`Config::load`] does with a file.
    ///
    /// # Errors
    /// Every problem, with the flag that caused it.
    pub fn of_flags(
        text: &FlagText,
        overrides: &Overrides,
        environment: Environment<'_>,
    ) -> Result<Self, ConfigError> {
        let config = Self::parse_from(text.input(), text.text(), overrides, environment);
        let config = config.map_err(ConfigError::Problems)?;
        config.refuse_misplaced()?;
        Ok(config)
    }

    /// Refuses files and directories of the operator in places that a run would empty.
    fn refuse_misplaced(&self) -> Result<(), ConfigError> {
        let misplaced = self.kept.iter().filter_map(|kept| kept.problem(&self.directories));
        let misplaced: BTreeSet<_> = misplaced.collect();
        match misplaced.is_empty() {
            true => Ok(()),
            false => Err(ConfigError::Problems(misplaced.into_iter().collect())),
        }
    }

    /// Returns the files and directories that the operator names and that no run may change, each with its name in messages.
    pub fn trusted(&self) -> impl Iterator<Item = (&Path, String)> {
        self.kept.iter().map(Kept::trusted)
    }

    /// Parses the text of the file, applies the flags, and checks the result. Does not read `file`, whose name is only for messages.
    ///
    /// # Errors
    /// Every problem, in the order of the file, flags last.
    pub fn parse(
        file: &Path,
        text: &str,
        overrides: &Overrides,
        environment: Environment<'_>,
    ) -> Result<Self, Vec<Problem>> {
        Self::parse_from(Input::File(file), text, overrides, environment)
    }

    fn parse_from(
        input: Input<'_>,
        text: &str,
        overrides: &Overrides,
        environment: Environment<'_>,
    ) -> Result<Self, Vec<Problem>> {
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // The content of a document with syntax errors is not checked, because the parser guesses parts of it.
            return Err(syntax::problems(input, text, &errors));
        }
        let reader = Reader::new(input, text);
        let config = read(&reader, document.get_ref(), overrides, environment);
        let problems = reader.into_problems();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }
}

/// Reads every section and combines the sections with the flags; `None` if a setting that a run needs is missing or cannot be used.
fn read(
    reader: &Reader<'_>,
    document: &DeTable<'_>,
    overrides: &Overrides,
    environment: Environment<'_>,
) -> Option<Config> {
    let root = Section::root(reader, document, names(KEYS));
    let scope = Setting::read(root.get("scope"), |value| value.word().map(str::to_owned));
    let replica =
        root.get("replica").and_then(|value| value.section(names(replica::KEYS))).map(replica::read);
    let source = root.get("source").and_then(|value| value.section(names(source::KEYS)));
    let source = source.map(|section| source::read(section, environment));
    let mut components = BTreeMap::new();
    let mut basebackup = BasebackupSection::default();
    if let Some(sections) = root.get("method").and_then(|value| value.table()) {
        for (name, value) in sections.entries() {
            let keys = if name.text == BASEBACKUP { basebackup::KEYS } else { component::KEYS };
            let Some(section) = value.section(names(keys)) else { continue };
            if name.text == BASEBACKUP {
                basebackup = basebackup::read(section);
            } else if is_method_name(&name.text) {
                components.insert(name.text, component::read(section, environment));
            } else {
                reader.problem(
                    name.place,
                    format!("`{}` cannot be the name of a method", name.text.escape_debug()),
                );
            }
        }
    }
    let mut replica = replica.unwrap_or_default();
    replica.is_misspelt = replica.place.is_none()
        && root.entries().iter().any(|(name, _)| nearest(&name.text, ["replica"]).is_some());
    root.finish();
    let parts = Parts { scope, replica, source, components, basebackup };
    parts.check(reader, overrides, environment)
}

#[cfg(test)]
mod tests;
