//! The configuration: one TOML file and the flags over it, parsed once into types. Whatever is wrong with either is
//! told at once, each problem with its place and the nearest right name.

mod authorities;
mod basebackup;
mod belongs;
mod check;
mod component;
mod duplicate;
mod grants;
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
pub use component::ComponentSection;
pub use grants::GrantsSection;
pub use problem::{ConfigError, Origin, Place, Problem};
pub use replica::check_config_file;
pub use secret::{SecretSource, Shape};
pub use source::{SourceSettings, check_entries, check_passfile};

pub(crate) use problem::not_absolute;
pub(crate) use tree::parse_duration;
pub(crate) use visible::invisible;

use check::Parts;
use kept::Kept;
use keys::{Key, names};
use tree::{Reader, Section, Setting};

/// A configuration file larger than this is taken for a mistake in its name.
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

/// How the environment is asked: for `PGPASSFILE`, for `UNDERSTUDY_PLUGIN_PATH`, for what `{ env = ".." }` names, for the credentials
/// of a store with `credentials = "auto"`, for the passwords of proxies, and for `XDG_CACHE_HOME` by `inspect`. The proxies
/// themselves the stores' own client looks up.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<OsString>;

/// What the command line says in place of the file, or besides it.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--scope`
    pub scope: Option<String>,
    /// `--datadir`
    pub datadir: Option<PathBuf>,
    /// `--connstring`; empty means no source (semantics rule 4).
    pub connstring: Option<String>,
    /// `--bin-dir`
    pub bin_dir: Option<PathBuf>,
    /// `--timeout`
    pub timeout: Option<Duration>,
    /// `--role`, which only Patroni passes: it started the program, and would start what the program makes.
    pub by_patroni: bool,
    /// `--from-leader`
    pub from_leader: bool,
    /// `--force`
    pub force: bool,
    /// `--method`: whose the further options are.
    pub method: Option<String>,
    /// Every `--key=value` that is no flag of the program.
    pub options: Vec<(String, String)>,
}

/// Everything that the operator decided, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file.
    pub file: PathBuf,
    /// The name of the Patroni cluster.
    pub scope: String,
    /// The data directory and the mapped places.
    pub directories: Directories,
    /// PostgreSQL's programs.
    pub bin_dir: PathBuf,
    /// The methods to try, in order (semantics rules 1 and 2).
    pub methods: Vec<String>,
    /// The section of each method that is a component.
    pub components: BTreeMap<String, ComponentSection>,
    /// The section of `basebackup`.
    pub basebackup: BasebackupSection,
    /// Where plugins are looked up by name (semantics rule 6).
    pub plugin_path: Vec<PathBuf>,
    /// The server to copy from.
    pub source: Option<SourceSettings>,
    /// How the replica reaches its primary later (semantics rule 29): the operator's conninfo and a lasting passfile.
    pub standby: Option<(Conninfo, Option<PathBuf>)>,
    /// Where the lasting passfile is named, where one is.
    pub standby_passfile_at: Option<Place>,
    /// The server's `restore_command`, written with `standby`; without it, the line for Patroni's configuration is told.
    pub restore_command: Option<String>,
    /// The trigger file to remove, where it is not the default.
    pub trigger_file: Option<String>,
    /// The server's `config_file`, where it is not in the data directory, and where it is named.
    pub config_file: Option<(PathBuf, Place)>,
    /// The backup is an atomic snapshot.
    pub snapshot: bool,
    /// Settings that run commands fail the seal.
    pub refuse_commands: bool,
    /// How long the whole run may take.
    pub timeout: Option<Duration>,
    /// The run ends when the process that started it does.
    pub end_with_parent: bool,
    /// Empty a directory that holds another cluster, or something else than PostgreSQL's files.
    pub force: bool,
    /// The file holds a password or the like in a connection string.
    pub holds_secret: bool,
    /// What must not be told of the proxies that the environment names.
    pub proxy_secrets: Vec<Secret>,
    /// Files and directories of the operator's, none of which may lie where a run empties.
    kept: Vec<Kept>,
    /// What is not as it should be and does not keep the program from its work.
    pub warnings: Vec<String>,
    /// The user to become where the program runs as root.
    pub user: Option<String>,
    /// Where state files live, where it is not the default.
    pub state_dir: Option<PathBuf>,
    /// The least Landlock ABI.
    pub require_landlock: Option<u32>,
}

impl Config {
    /// Reads the file and lays the flags over it.
    ///
    /// # Errors
    /// Every problem of the file and of the flags, in one go; where there is none, every file and directory of the operator's that a
    /// run would empty.
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
        let lying = config.kept.iter().filter_map(|kept| kept.problem(&config.directories));
        let lying: BTreeSet<_> = lying.collect();
        if !lying.is_empty() {
            return Err(ConfigError::Problems(lying.into_iter().collect()));
        }
        config.warnings.extend(judged.warn_of_readers().filter(|_| config.holds_secret));
        Ok(config)
    }

    /// The same from the text of the file.
    ///
    /// # Errors
    /// Every problem, in the order of the file, flags last.
    pub fn parse(
        file: &Path,
        text: &str,
        overrides: &Overrides,
        environment: Environment<'_>,
    ) -> Result<Self, Vec<Problem>> {
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            // What a broken document seems to say besides is guesswork, and stays unsaid.
            return Err(syntax::problems(file, text, &errors));
        }
        let reader = Reader::new(file, text);
        let config = read(&reader, document.get_ref(), overrides, environment);
        let problems = reader.into_problems();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }
}

/// Reads every section, then puts them together with the flags.
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
            } else if methods::is_method_name(&name.text) {
                components.insert(name.text, component::read(section, environment));
            } else {
                reader.problem(
                    name.place,
                    format!("`{}` is no name that a method can have", name.text.escape_debug()),
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
