//! The method `command`: runs one granted program in the way in which Patroni runs a custom method (`create_replica` in
//! patroni/postgresql/bootstrap.py), so that a restore script written for Patroni needs no changes. The host confines the program to its
//! grant.
//!
//! The program fills the data directory. Nothing is known about its backup before it has run, so the plan has no facts about the backup.
//! Instead, the seal compares the restored cluster with the source.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod arguments;

use understudy::program;
use understudy::{Description, Failure, Method, Need, NeedKind, OptionSpec, Plan, Request, log, progress};

struct Command;

impl Method for Command {
    // With `no_params` the program must know the data directory itself.
    const NEEDS_PARAMETERS: bool = false;

    fn describe() -> Description {
        Description::new(
            "command",
            env!("CARGO_PKG_VERSION"),
            "runs a program or script that restores a backup, in the way in which Patroni runs a custom method",
        )
        .option(
            OptionSpec::text("program")
                .required()
                .doc("the name of the granted program (`grants.programs.NAME`)"),
        )
        .option(OptionSpec::texts("arguments").doc(
            "the program's first arguments: the words that follow the program in Patroni's `command`, one text for each word",
        ))
        .option(OptionSpec::texts("parameters").doc(
            "the keys of the method's section in Patroni's configuration, each as `key=value`; the program gets each as `--key=value`",
        ))
        .option(OptionSpec::flag("builds-on-existing").default(false).doc(
            "whether the program keeps or replaces old files in the data directory, as pgBackRest does with `--delta`; if it does not, \
             `keep_data` is rejected while there is old data",
        ))
        .need(Need::new(NeedKind::Program, "program", "it fills the data directory"))
    }

    fn plan(request: &Request) -> Result<Plan, Failure> {
        let program: String = request.require("program")?;
        // Reports a wrong option or a missing grant before the data directory is emptied.
        program::check(&program, &arguments::of(request)?)?;
        log::info!(
            "what the program `{program}` restores is not known before it has run: cluster, version, timeline and tablespaces are \
             compared with the source at the end"
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
