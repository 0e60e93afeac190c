//! The method `command`: runs one granted program as Patroni runs a custom method (`create_replica` in
//! patroni/postgresql/bootstrap.py), so that a restore script moves over as it stands. The host confines the program to its grant.
//!
//! The program fills the data directory. Nothing is known of its backup before it has run, so the plan is empty: the seal compares what
//! the program restored with the source.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod arguments;

use understudy::program;
use understudy::{Description, Failure, Method, Need, NeedKind, OptionSpec, Plan, Request, log, progress};

struct Command;

impl Method for Command {
    // With `no_params` the program knows by itself where the data directory is.
    const NEEDS_PARAMETERS: bool = false;

    fn describe() -> Description {
        Description::new(
            "command",
            env!("CARGO_PKG_VERSION"),
            "runs a program or script that restores a backup, as Patroni runs a custom method",
        )
        .option(
            OptionSpec::text("program")
                .required()
                .doc("the name of the granted program (`grants.programs.NAME`)"),
        )
        .option(OptionSpec::texts("arguments").doc(
            "the arguments before all others: the words after the program in Patroni's `command`, each a text of its own",
        ))
        .option(OptionSpec::texts("parameters").doc(
            "the method's own keys in Patroni's configuration, each as `key=value`, which the program gets as `--key=value`",
        ))
        .option(OptionSpec::flag("builds-on-existing").default(false).doc(
            "whether the program keeps or replaces the files of a directory that holds data, as with pgBackRest's `--delta`; without \
             it, `keep_data` is rejected while there is old data",
        ))
        .need(Need::new(NeedKind::Program, "program", "it fills the data directory"))
    }

    fn plan(request: &Request) -> Result<Plan, Failure> {
        let program: String = request.require("program")?;
        // A wrong option and a missing grant are found before anything is emptied.
        program::check(&program, &arguments::of(request)?)?;
        log::info!(
            "nothing is known of what the program `{program}` restores before it has run: cluster, version, timeline and \
             tablespaces are compared at the end"
        );
        Ok(Plan {
            backup: format!("what the program `{program}` restores"),
            builds_on_existing: request.flag("builds-on-existing")?,
            ..Plan::default()
        })
    }

    fn create(request: &Request, _: &Plan) -> Result<(), Failure> {
        let program: String = request.require("program")?;
        progress::phase(&format!("running {program}"));
        let completed = program::run(&program, &arguments::of(request)?)?;
        if completed.ending.is_success() {
            return Ok(());
        }
        let said = completed.last_line().unwrap_or_else(|| "it printed nothing".to_owned());
        Err(Failure::failed(format!("the program `{program}` {}: {said}", completed.ending)))
    }
}

understudy::export!(Command);

#[cfg(test)]
mod tests;
