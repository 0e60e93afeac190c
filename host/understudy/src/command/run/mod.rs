//! `run`: tries one method without a configuration file. The flags become a configuration, which then goes the way of any other.

mod bin_dir;
mod flags;
mod print;
mod remedies;

use super::check::{CheckOptions, check};
use super::config_source::ConfigSource;
use super::create::{Creation, create, show_not_started};
use super::print as print_text;
use crate::cli::{LogLevel, RunArgs};
use crate::config::Environment;
use crate::render::{Log, Terminal};

pub(super) use flags::RunFlags;
pub(super) use remedies::{AsFlags, of_check, of_report};

/// Tries the method and returns the exit code.
pub fn run(args: &RunArgs, environment: Environment<'_>) -> u8 {
    if args.print_config {
        return print_configuration(args, environment);
    }
    let source = ConfigSource::Flags(args);
    if args.plan_only {
        let options = CheckOptions { strict: false, json: args.json };
        return check(&source, args.log, options, environment);
    }
    create(&Creation { source, log: args.log, output: &args.output, json: args.json }, environment)
}

fn print_configuration(args: &RunArgs, environment: Environment<'_>) -> u8 {
    let terminal = Terminal::stderr();
    let level = args.log.level.unwrap_or(LogLevel::Warn);
    let log = Log::new(terminal.clone(), args.log.format, level.into());
    match print::configuration(args, environment, &log) {
        Ok(text) => {
            print_text(&text);
            0
        }
        Err(error) => {
            show_not_started(&error, &log, &terminal, args.log.format);
            error.exit_code
        }
    }
}
