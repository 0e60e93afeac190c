//! The flags of `run`. They are the whole configuration of a run, so there is a flag only for what a first try of a method needs.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueHint};

use super::{LogArgs, OutputArgs, exit_codes};

// Each paragraph is one line: clap wraps it at the width of the terminal.
pub(crate) const RUN_NOTES: &str = "\
The plugin sees the data directory and what --read, --store and --key grant. `understudy inspect PLUGIN` lists its options and \
what it asks for. Relative paths refer to the current directory.

DIR is created if it does not exist, and must be empty unless --force or --keep-data is given. With --source, the finished \
replica is configured as a standby of that server.

Everything else needs a configuration file: credentials of stores, programs, servers and environment variables that a method \
may use, its limits, tablespaces, a WAL directory and several methods. --print-config prints the file that does what these \
flags do; `understudy create --config FILE` uses it.

As root it becomes --user, or postgres, before it reads the plugin. State files and compiled plugins are kept in --state-dir, or in \
.local/state/understudy below that user's home directory. Passwords are never arguments, because other users see arguments: \
--passfile, PGPASSFILE and --key name files.";

/// Returns the text below the flags in the help of `run`.
pub(super) fn help() -> String {
    format!("{RUN_NOTES}\n\n{}", exit_codes())
}

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Component file, a name that is looked up in the plugin path and among the included methods, or basebackup
    #[arg(value_parser = NonEmptyStringValueParser::new(), value_hint = ValueHint::FilePath)]
    pub plugin: String,
    /// Data directory to fill
    #[arg(long, value_name = "DIR", value_parser = NonEmptyStringValueParser::new(), value_hint = ValueHint::DirPath)]
    pub into: String,
    /// Option of the method; again for each item of a list
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair("NAME=VALUE"))]
    pub option: Vec<(String, String)>,
    /// Directory that the method may read
    #[arg(long, value_name = "DIR", value_parser = NonEmptyStringValueParser::new(), value_hint = ValueHint::DirPath)]
    pub read: Vec<String>,
    /// Store that the method may read, such as repo=file:///mnt/backups
    ///
    /// Requests are not signed: a store with credentials needs a configuration file.
    #[arg(long, value_name = "NAME=URL", value_parser = pair("NAME=URL"))]
    pub store: Vec<(String, String)>,
    /// File with a key, which decrypts what is in the store of this name, or else what is in any store
    #[arg(long, value_name = "NAME=FILE", value_parser = pair("NAME=FILE"))]
    pub key: Vec<(String, String)>,
    /// Server to copy from or to follow [default: none]
    #[arg(long, value_name = "CONNINFO", value_parser = NonEmptyStringValueParser::new())]
    pub source: Option<String>,
    /// Passfile for the source, which the finished standby uses, too [default: PGPASSFILE, for the source alone]
    #[arg(
        long,
        value_name = "FILE",
        requires = "source",
        value_parser = NonEmptyStringValueParser::new(),
        value_hint = ValueHint::FilePath
    )]
    pub passfile: Option<String>,
    /// Do not configure the finished replica as a standby of the source
    #[arg(long)]
    pub no_standby: bool,
    /// PostgreSQL's programs [default: the only ones in the usual places]
    #[arg(long, value_name = "DIR", value_parser = NonEmptyStringValueParser::new(), value_hint = ValueHint::DirPath)]
    pub bin_dir: Option<String>,
    /// Name of the Patroni cluster, which methods get
    #[arg(long, value_name = "NAME", default_value = "try", value_parser = NonEmptyStringValueParser::new())]
    pub scope: String,
    /// Let the method build on the files in DIR
    #[arg(long)]
    pub keep_data: bool,
    /// Empty DIR, even if it holds a cluster, or something else than PostgreSQL's files
    #[arg(long)]
    pub force: bool,
    /// Limit of the whole run, such as 4h
    #[arg(long, value_name = "TIME", value_parser = NonEmptyStringValueParser::new())]
    pub timeout: Option<String>,
    /// User that root becomes [default: postgres]
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new(), value_hint = ValueHint::Username)]
    pub user: Option<String>,
    /// Directory for state files and compiled plugins
    #[arg(long, value_name = "DIR", value_parser = NonEmptyStringValueParser::new(), value_hint = ValueHint::DirPath)]
    pub state_dir: Option<String>,
    /// Say what the run would do, as `check` does, and touch nothing
    #[arg(long, conflicts_with_all = ["report", "audit", "progress"])]
    pub plan_only: bool,
    /// Print the configuration file that does the same, and touch nothing
    #[arg(long, conflicts_with_all = ["plan_only", "json", "report", "audit", "progress"])]
    pub print_config: bool,
    /// Print the report as JSON, with --plan-only the result of the check
    #[arg(long)]
    pub json: bool,
    /// How the log is written.
    #[command(flatten)]
    pub log: LogArgs,
    /// Where the run reports what happens.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Returns a parser of two texts with `=` between them. The first one must not be empty. `form` is how a person writes both.
fn pair(form: &'static str) -> impl Fn(&str) -> Result<(String, String), String> + Clone {
    move |text| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("write {form}")),
    }
}
