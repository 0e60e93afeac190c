//! `check`: reports what `create` would do, and touches nothing.

use std::sync::Arc;

use replica::create_replica::{Cancel, CancelReason, Checked, result_of_check, result_of_strict_check};
use replica::{Level, Plan, Refusal, RunResult, check_methods};
use serde::Serialize;
use tokio::runtime::Builder;

use super::config_source::ConfigSource;
use super::create::show_not_started;
use super::job::{AcceptedConfig, PreparedRun};
use super::{NotStarted, print};
use crate::cli::{CheckArgs, LogArgs, LogLevel};
use crate::config::Environment;
use crate::render::text::{amount, columns, json_line, printable};
use crate::render::{Fanout, Log, Terminal};
use crate::signals::{CurrentStep, Signals};

/// Checks every method and returns the exit code.
pub fn run(args: &CheckArgs, environment: Environment<'_>) -> u8 {
    let source = ConfigSource::File(&args.job);
    check(&source, args.job.log, CheckOptions { strict: args.strict, json: args.json }, environment)
}

/// What decides the exit code and the output of a check.
#[derive(Clone, Copy)]
pub(super) struct CheckOptions {
    /// Whether every method must be usable.
    pub(super) strict: bool,
    /// Whether to print JSON.
    pub(super) json: bool,
}

/// Checks the methods of a configuration and returns the exit code.
pub(super) fn check(
    source: &ConfigSource<'_>,
    log_args: LogArgs,
    options: CheckOptions,
    environment: Environment<'_>,
) -> u8 {
    let terminal = Terminal::stderr();
    let level = log_args.level.unwrap_or(LogLevel::Warn);
    let log = Log::new(terminal.clone(), log_args.format, level.into());
    match attempt(source, options.strict, environment, &log) {
        Ok(result) => {
            if options.json {
                print(&format!("{}\n", json_line(&result)));
            } else {
                let lines = result.lines();
                print(&lines.iter().map(|line| format!("{}\n", printable(line))).collect::<String>());
            }
            result.exit_code
        }
        Err(error) => {
            show_not_started(&error, &log, &terminal, log_args.format);
            error.exit_code
        }
    }
}

fn attempt(
    source: &ConfigSource<'_>,
    strict: bool,
    environment: Environment<'_>,
    log: &Log,
) -> Result<CheckResult, NotStarted> {
    let accepted = AcceptedConfig::read(source, environment)?;
    accepted.warnings().iter().for_each(|warning| log.say(Level::Warn, warning));
    log.take_traces();
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(NotStarted::failed)?;
    let result = runtime.block_on(async {
        let signals = Signals::take().map_err(NotStarted::failed)?;
        let (cancel, step) = (Cancel::new(), CurrentStep::default());
        let watch = tokio::spawn({
            let (cancel, step, log) = (cancel.clone(), step.clone(), log.clone());
            async move { signals.watch(&cancel, &step, &log).await }
        });
        let PreparedRun { job, candidates, run_directory: _run_directory } =
            accepted.prepare(cancel.token(), log.redactor()).await?;
        let datadir = job.directories.datadir.display().to_string();
        let readers = Fanout::new(vec![Arc::new(step), Arc::new(log.clone())]);
        let events = source.with_remedies(Arc::new(readers));
        let mut checked = check_methods(&job, &candidates, events, &cancel).await;
        if let Ok(methods) = &mut checked {
            source.write_remedies_of_check(methods);
        }
        watch.abort();
        Ok(CheckResult::of(datadir, checked, cancel.reason(), strict))
    });
    runtime.shutdown_background();
    result
}

/// The result of a check, which is printed as JSON or as lines for a person.
#[derive(Serialize)]
struct CheckResult {
    exit_code: u8,
    datadir: String,
    /// The first method that `create` would run.
    would_use: Option<String>,
    /// Why no method may be tried.
    refused: Option<String>,
    methods: Vec<Checked>,
}

impl CheckResult {
    fn of(
        datadir: String,
        checked: Result<Vec<Checked>, Refusal>,
        cancelled: Option<CancelReason>,
        strict: bool,
    ) -> Self {
        let (methods, refused) = match checked {
            Ok(methods) => (methods, None),
            Err(Refusal { message, remedy: Some(remedy), .. }) => {
                (Vec::new(), Some(format!("{message} ({remedy})")))
            }
            Err(Refusal { message, .. }) => (Vec::new(), Some(message)),
        };
        let would_use =
            methods.iter().find(|checked| checked.error.is_none()).map(|checked| checked.method.clone());
        let result = match (&refused, strict) {
            (Some(_), _) => RunResult::Refused,
            (None, false) => result_of_check(&methods, cancelled),
            (None, true) => result_of_strict_check(&methods, cancelled),
        };
        Self { exit_code: result.exit_code(), datadir, would_use, refused, methods }
    }

    fn lines(&self) -> Vec<String> {
        let rows: Vec<_> = self.methods.iter().map(row).collect();
        let table = columns(&rows);
        let mut lines = Vec::new();
        for (line, checked) in table.into_iter().zip(&self.methods) {
            lines.push(line);
            let remedy = checked.error.as_ref().and_then(|error| error.remedy.as_ref());
            lines.extend(remedy.map(|remedy| format!("  to change that: {remedy}")));
            lines.extend(
                checked.findings.iter().map(|finding| format!("  {}: {}", finding.check, finding.message)),
            );
        }
        lines.push(match (&self.refused, &self.would_use) {
            (Some(why), _) => format!("no method may be tried: {why}"),
            (None, Some(method)) => {
                format!("{method} would be used for {}; nothing was touched", self.datadir)
            }
            (None, None) if self.methods.is_empty() => {
                "no method would be tried: without a source only those with no_leader = true are".to_owned()
            }
            (None, None) => format!("no method would create {}; nothing was touched", self.datadir),
        });
        lines
    }
}

fn row(checked: &Checked) -> Vec<String> {
    let what = match (&checked.error, &checked.plan) {
        (Some(ended), _) => match &ended.rule {
            Some(rule) => format!("({rule}) {}", ended.message),
            None => ended.message.clone(),
        },
        (None, Some(plan)) => plan_text(plan),
        (None, None) => String::new(),
    };
    let word = checked.error.as_ref().map_or("accepted", |error| error.outcome.word());
    vec![checked.method.clone(), word.to_owned(), what]
}

fn plan_text(plan: &Plan) -> String {
    let mut parts = vec![plan.backup.clone()];
    parts.push(amount(plan.bytes.map(|bytes| bytes.0), plan.files));
    parts.extend(plan.postgresql_major.map(|major| format!("PostgreSQL {major}")));
    parts.extend(plan.timeline.map(|timeline| format!("timeline {timeline}")));
    parts.extend(plan.stop_lsn.map(|lsn| format!("consistent at {lsn}")));
    parts.extend(match plan.tablespaces.len() {
        0 => None,
        1 => Some("1 tablespace".to_owned()),
        count => Some(format!("{count} tablespaces")),
    });
    parts.retain(|part| !part.is_empty());
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use replica::create_replica::AttemptError;
    use replica::{Failure, Outcome, Rule};

    use super::*;

    fn checked(method: &str, outcome: Option<Outcome>, policy: bool) -> Checked {
        let error = outcome.map(|outcome| {
            let mut error = AttemptError::from(Failure::new(outcome, "why"));
            error.rule = Some(Rule::Grant);
            error.remedy = Some("a = 1".to_owned());
            error.policy = policy;
            error
        });
        Checked { method: method.to_owned(), error, plan: None, findings: Vec::new() }
    }

    fn result(methods: Vec<Checked>) -> CheckResult {
        CheckResult::of("/data".to_owned(), Ok(methods), None, false)
    }

    #[test]
    fn a_check_succeeds_if_one_method_would_be_used() {
        let result =
            result(vec![checked("a", Some(Outcome::NotApplicable), false), checked("b", None, false)]);
        assert_eq!((result.exit_code, result.would_use.as_deref()), (0, Some("b")));
        let lines = result.lines();
        assert_eq!(lines[0], "a  not-applicable  (grant) why");
        assert_eq!(lines[1], "  to change that: a = 1");
        assert!(lines.last().unwrap().contains("b would be used"));
    }

    #[test]
    fn the_exit_code_of_a_failed_check_is_that_of_create() {
        let code = |outcome, policy| result(vec![checked("a", Some(outcome), policy)]).exit_code;
        assert_eq!(code(Outcome::RetryLater, false), 75);
        assert_eq!(code(Outcome::Rejected, true), 3);
        assert_eq!(code(Outcome::Rejected, false), 1);
        assert_eq!(result(vec![]).exit_code, 1);
        let refused =
            CheckResult::of("/data".to_owned(), Err(Refusal::new(Rule::InUse, "a server runs")), None, false);
        assert_eq!(refused.exit_code, 3);
        assert_eq!(
            CheckResult::of("/data".to_owned(), Ok(vec![]), Some(CancelReason::Interrupt), false).exit_code,
            130
        );
    }

    #[test]
    fn a_strict_check_succeeds_only_if_every_method_can_be_used() {
        let code = |methods| CheckResult::of("/data".to_owned(), Ok(methods), None, true).exit_code;
        let good = || checked("good", None, false);
        assert_eq!(code(vec![good(), good()]), 0);
        assert_eq!(code(vec![good(), checked("b", Some(Outcome::NotApplicable), false)]), 1);
        assert_eq!(code(vec![checked("a", Some(Outcome::Rejected), true), good()]), 3);
        assert_eq!(code(vec![checked("a", Some(Outcome::RetryLater), false), good()]), 75);
        assert_eq!(code(vec![]), 1);
    }
}
