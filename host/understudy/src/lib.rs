//! The program `understudy`: configuration, flags, progress, reports, exit codes. The crates `replica` and `sandbox` create the
//! replica; this crate reads the operator's settings and reports what happened.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod cli;
pub mod command;
pub mod config;
pub mod included;
mod open_files;
pub mod parent;
pub mod plugin_path;
pub mod refused;
pub mod render;
pub mod root;
pub mod run_directory;
pub mod signals;

use std::ffi::OsString;
use std::process::ExitCode;

use cli::{Cli, Verb};
use config::Environment;

/// Runs the verb that the arguments name. The first argument is the program's own name.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: Environment<'_>) -> ExitCode {
    let cli = match Cli::read(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // clap reports `--help` and `--version` as errors with the exit code 0. A closed pipe is not an error.
            let _gone = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(command::USAGE));
        }
    };
    open_files::allow_more();
    ExitCode::from(match cli.verb {
        Verb::Create(args) => command::create::run(&args, environment),
        Verb::Check(args) => command::check::run(&args, environment),
        Verb::Inspect(args) => command::inspect::run(&args, environment),
        Verb::Patroni(args) => command::patroni::run(&args),
        Verb::Report(args) => command::report::run(&args),
        Verb::Completions { shell } => command::completions::run(shell),
        Verb::Man { verb } => command::man::run(verb.as_deref()),
    })
}
