//! Defines the command line. The help of a flag says what the flag means; the module `command` acts on the flags.

pub mod patroni;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::config::{Overrides, parse_duration};

/// Creates PostgreSQL replicas: tries the configured methods in order and stops at the first that succeeds.
///
/// Every method but basebackup is a WebAssembly component in a sandbox that sees only what the configuration grants it.
#[derive(Debug, Parser)]
#[command(name = "understudy", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs of the program.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create the replica
    ///
    /// Walks the methods in their order and stops at the first that creates the replica.
    #[command(after_long_help = create_help(), args_override_self = true)]
    Create(CreateArgs),
    /// Say what `create` would do, touching nothing
    ///
    /// Checks and plans every method, and compares each plan with the source, the server's version, the tablespace map and the disk.
    /// Exits with 0 if at least one method would be used, with --strict only if all would.
    #[command(args_override_self = true)]
    Check(CheckArgs),
    /// Show what a plugin is, what it asks for and which options it has
    ///
    /// Asks the plugin with everything denied. Two plugins: shows how their permissions differ. The compiled plugin and its answer
    /// are kept in understudy/components below XDG_CACHE_HOME or ~/.cache, unless root runs this.
    Inspect(InspectArgs),
    /// Convert Patroni's configuration into one for Understudy
    ///
    /// Prints the configuration of Understudy that creates replicas as this file of Patroni's does, and, as comments, what to change in
    /// Patroni's file and what could not be carried over. Reads nothing but its files. Leaves out what looks like a secret by its name or
    /// form, but cannot know the value of an option like `-p`: read the output before you pass it on.
    Patroni(PatroniArgs),
    /// Show what the methods of a run asked of the host
    ///
    /// Reads the file that `create --audit FILE` writes, during a run or after it. Shows for each method and capability how many calls
    /// were allowed and denied, the bytes, the time, the largest objects, and what was denied.
    Report(ReportArgs),
    /// Print a shell's completion script
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print a manual page in roff: that of the program, or of a verb
    #[command(hide = true)]
    Man {
        /// A verb.
        verb: Option<String>,
    },
}

// Each paragraph is one line: clap wraps it at the width of the terminal.
pub(crate) const CREATE_NOTES: &str = "\
As a Patroni method:
  command: understudy create --config /etc/understudy/understudy.toml
  keep_data: true

Patroni adds --scope, --role, --datadir and --connstring, which override the file. With --role the run ends when the process \
that started it does, unless `end_with_parent` in the file says otherwise. It passes keep_data, no_leader, no_master \
and no_params too, which are accepted and ignored: the file's own settings count. Any other --key=value is an option of the \
method that --method names.

As root it becomes `user` of the file, or postgres, before anything else. State files and compiled plugins are kept in \
`state_dir`, or in .local/state/understudy below that user's home directory. Of the environment it reads PGPASSFILE, \
UNDERSTUDY_PLUGIN_PATH, the variables of a proxy (HTTPS_PROXY and its like), what the file names, and, for a store with \
`credentials = \"auto\"`, what that cloud's own tools read.";

/// The exit codes of `create`, with what each means.
pub(crate) const EXIT_CODES: [(u8, &str); 8] = [
    (0, "created"),
    (1, "every method failed"),
    (2, "usage or configuration"),
    (3, "refused: by policy, or because the data directory is not safe to touch"),
    (4, "the last attempt failed a check of the end state"),
    (75, "every failure was retry-later"),
    (130, "cancelled by SIGINT"),
    (143, "cancelled by SIGTERM, or by the end of the process that started it"),
];

/// Returns the text below the flags in the help of `create`.
fn create_help() -> String {
    let codes: Vec<_> = EXIT_CODES.iter().map(|(code, meaning)| format!("{code:5}  {meaning}")).collect();
    format!("{CREATE_NOTES}\n\nExit codes:\n{}", codes.join("\n"))
}

/// The flags that `create` and `check` have in common: the configuration file and the flags that override it.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/understudy/understudy.toml")]
    pub config: PathBuf,
    /// Name of the Patroni cluster [overrides: scope]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub scope: Option<String>,
    /// Always `replica`; accepted because Patroni passes it
    #[arg(long, value_parser = PossibleValuesParser::new(["replica"]), hide_possible_values = true)]
    pub role: Option<String>,
    /// Data directory [overrides: replica.datadir]
    #[arg(long, value_name = "DIR")]
    pub datadir: Option<PathBuf>,
    /// Source to copy from, empty for none [overrides: source.conninfo]
    ///
    /// A password for it is taken from PGPASSFILE, or else from the file.
    #[arg(long, value_name = "CONNINFO")]
    pub connstring: Option<String>,
    /// PostgreSQL's programs [overrides: replica.bin_dir]
    #[arg(long, value_name = "DIR")]
    pub bin_dir: Option<PathBuf>,
    /// Method that further --key=value options are for
    ///
    /// Does not choose the methods to try: `methods` in the file does.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub method: Option<String>,
    /// Copy from the leader with basebackup, whatever `methods` says
    #[arg(long)]
    pub from_leader: bool,
    /// Empty a data directory that holds another cluster, or something else than PostgreSQL's files
    #[arg(long)]
    pub force: bool,
    /// Limit of the whole run, such as 4h [overrides: replica.timeout]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// How the log on standard error is written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Least serious level to log [default: info; of `check`: warn]
    #[arg(long, value_name = "LEVEL", value_enum)]
    pub log_level: Option<LogLevel>,
    /// Flags that Patroni passes and this program ignores.
    #[command(flatten)]
    pub ignored: patroni::Ignored,
    /// Every `--key=value` that is not a flag of the program.
    #[arg(skip)]
    pub further: Vec<(String, String)>,
}

/// `create`
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The configuration file and the flags that override it.
    #[command(flatten)]
    pub job: JobArgs,
    /// How progress is shown; auto is a bar on a terminal, lines elsewhere
    #[arg(long, value_name = "STYLE", value_enum, default_value_t)]
    pub progress: ProgressStyle,
    /// Write a report in JSON to this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write what the methods ask of the host to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
}

/// `check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration file and the flags that override it.
    #[command(flatten)]
    pub job: JobArgs,
    /// Exit with another code than 0 unless every method could be used
    #[arg(long)]
    pub strict: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Component file, or a name that is looked up in the plugin path and among the included methods
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub plugin: String,
    /// Another, to compare permissions with
    #[arg(value_name = "PLUGIN2", value_parser = NonEmptyStringValueParser::new())]
    pub other: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `patroni`
#[derive(Debug, Args)]
pub struct PatroniArgs {
    /// Patroni's configuration file, - for standard input
    pub file: PathBuf,
    /// Dynamic configuration, as `patronictl show-config` prints it [default: bootstrap.dcs of FILE]
    #[arg(long, value_name = "FILE")]
    pub dynamic: Option<PathBuf>,
    /// Write Understudy's configuration to this new file, and only the rest to standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `report`
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Audit, - for standard input
    pub file: PathBuf,
    /// How many objects to show for each method and capability, the largest first
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub objects: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressStyle {
    /// A bar on a terminal, lines elsewhere, JSON with `--log-format json`.
    #[default]
    Auto,
    /// A bar.
    Bar,
    /// Lines, one every 10 s or every 10 %.
    Plain,
    /// JSON, one object a line.
    Json,
    /// Not at all.
    None,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The least serious level that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// Failures and warnings.
    Warn,
    /// What happens.
    Info,
    /// Details for engineers.
    Debug,
    /// Everything.
    Trace,
}

impl From<LogLevel> for replica::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

impl JobArgs {
    /// Returns the flags that override settings of the file.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            scope: self.scope.clone(),
            datadir: self.datadir.clone(),
            connstring: self.connstring.clone(),
            bin_dir: self.bin_dir.clone(),
            timeout: self.timeout,
            by_patroni: self.role.is_some(),
            from_leader: self.from_leader,
            force: self.force,
            method: self.method.clone(),
            options: self.further.clone(),
        }
    }
}

impl Cli {
    /// Parses the arguments. The first one is the program's own name.
    ///
    /// # Errors
    /// Fails on a usage error. clap reports `--help` and `--version` as errors, too.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let (ours, further) = patroni::split(&Self::command(), arguments);
        let mut cli = Self::from_arg_matches(&Self::command().try_get_matches_from(ours)?)?;
        match &mut cli.verb {
            Verb::Create(CreateArgs { job, .. }) | Verb::Check(CheckArgs { job, .. }) => {
                job.further = further
            }
            Verb::Inspect(_)
            | Verb::Patroni(_)
            | Verb::Report(_)
            | Verb::Completions { .. }
            | Verb::Man { .. } => {}
        }
        Ok(cli)
    }
}
