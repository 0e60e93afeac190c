//! `run`: tries one method without a configuration file. The flags become a configuration, which then goes the way of any other.

mod bin_dir;
mod flags;
mod print;
mod remedies;

use super::check::{CheckOptions, check};
use super::create::{Creation, create, show_not_started};
use super::job::Input;
use super::print as print_text;
use crate::cli::{LogLevel, RunArgs};
use crate::config::Environment;
use crate::render::{Log, Terminal};

pub(super) use flags::RunFlags;
pub(super) use remedies::{AsFlags, of_check, of_report};

/// Tries the method and returns the exit code.
pub fn run(args: &RunArgs, environment: Environment<'_>) -> u8 {
    let terminal = Terminal::stderr();
    let log = Log::new(terminal.clone(), args.log.format, args.log.level.unwrap_or(LogLevel::Warn).into());
    let flags = match RunFlags::of(args, environment) {
        Ok(flags) => flags,
        Err(error) => {
            show_not_started(&error, &log, &terminal, args.log.format);
            return error.exit_code;
        }
    };
    if args.print_config {
        return match print::configuration(args, &flags, environment, &log) {
            Ok(text) => {
                print_text(&text);
                0
            }
            Err(error) => {
                show_not_started(&error, &log, &terminal, args.log.format);
                error.exit_code
            }
        };
    }
    let input = Input::Flags(&flags);
    if args.plan_only {
        let options = CheckOptions { strict: false, json: args.json };
        return check(&input, args.log, options, environment);
    }
    create(&Creation { input, log: args.log, output: &args.output, json: args.json }, environment)
}
