//! Compares the loop with Patroni. The loop must do what Patroni does, except for the differences that the rules list.
//!
//! Each allowed difference is expressed as a change to the case: Patroni does with the changed case what the loop does with the
//! original case ("Patroni without this flag", "Patroni with an inserted method that wipes"). The change is made only if the
//! condition for the difference holds. Any remaining difference is a bug in the loop.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use replica::create_replica::BASEBACKUP;
use replica::{Outcome, Rule, RunResult};
use serde_json::{Map, Value, json};
use tests::patroni::Driver;

use crate::case::{BeforeCreate, Case, Ending, HOST_KEYS, Listed, Script, Try};
use crate::trace::{Act, Answer, CONTROL_FILE, Files, Parameters, PatroniCall, Trace};
use crate::understudy::{CONNSTRING, LoopOutcome, Run};

/// The differences that the table of rules lists and that a case can show, each with the number of its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Difference {
    /// 2: `--from-leader` without a source is an error with a message; Patroni returns 1 without a message.
    FromLeaderWithoutSource,
    /// 5: cancellation is checked after the method has ended too; in Patroni a cancelled program that succeeds counts as a success.
    CancelledBeforeTheSeal,
    /// 7: a quoted `"false"` is a string and not accepted as a flag; in Python it is true.
    QuotedFlag,
    /// 8: an attempt that ends before step 4 touches nothing; Patroni wipes, then runs the program.
    EndedBeforeTouching,
    /// 11: the host's own keys never reach the method.
    HostKeysInArguments,
    /// 12: a transient failure has its own outcome.
    RetryLater,
    /// 13: `keep_data` keeps data after a failure with `no_params` too.
    KeepDataWithNoParams,
    /// 13, and step 4 of an attempt: pg_control is removed although `keep_data` keeps the rest.
    ControlFileTakenAway,
    /// 15: unfinished data is removed before a method that does not build on it.
    UnfinishedTreeEmptied,
    /// 15: the exit code is 1; Patroni returns the exit code of the last program.
    ExitCode,
    /// 17a: `keep_data` is rejected for a method that does not build on old data.
    KeepDataRejected,
    /// 28: files from a cancelled basebackup are removed; Patroni leaves them.
    CancelledBasebackupRemoved,
}

impl Difference {
    /// All differences.
    pub(crate) const ALL: [Self; 12] = [
        Self::FromLeaderWithoutSource,
        Self::CancelledBeforeTheSeal,
        Self::QuotedFlag,
        Self::EndedBeforeTouching,
        Self::HostKeysInArguments,
        Self::RetryLater,
        Self::KeepDataWithNoParams,
        Self::ControlFileTakenAway,
        Self::UnfinishedTreeEmptied,
        Self::ExitCode,
        Self::KeepDataRejected,
        Self::CancelledBasebackupRemoved,
    ];
}

/// The first of the positions that the comparison gives to inserted methods.
const ADDED: usize = 1000;

/// Compares what the loop and Patroni did with a case, and returns the allowed differences between them.
pub(crate) fn judge(case: &Case, ours: &LoopOutcome, patroni: &mut Driver) -> Result<BTreeSet<Difference>> {
    let theirs: Answer = patroni.run(case)?;
    ensure!(theirs.raised.is_none(), "an exception left Patroni's loop: {:?}", theirs.raised);
    let ours = match ours {
        LoopOutcome::Ran(ours) => ours,
        LoopOutcome::Refused(message) => {
            ensure!(
                case.from_leader && !case.source,
                "the loop did not run although there was a source: {message}"
            );
            ensure!(message.contains("--from-leader"), "{message}");
            ensure!(theirs.returned == Some(1) && theirs.calls().next().is_none(), "Patroni did run");
            return Ok([Difference::FromLeaderWithoutSource].into());
        }
    };
    let mut judged = Comparison { case, ours, listed: listed(case), differences: BTreeSet::new() };
    judged.parameters(&theirs)?;
    judged.result(&theirs)?;
    let (changed_case, ignored) = judged.changed_case()?;
    let answer = match changed_case {
        Some(ref changed_case) => patroni.run(changed_case)?,
        None => theirs,
    };
    let mut expected = answer.trace(
        |call| judged.parameters_of(call),
        |call| call.position >= ADDED || ignored.contains(&call.position),
    );
    judged.cancelled_basebackup(&mut expected);
    judged.control_file(&answer)?;
    ensure!(
        expected == ours.trace,
        "Patroni: {expected:#?}\n\nUnderstudy: {:#?}\n\nreport: {:#?}\n\nthe case that Patroni had: {}",
        ours.trace,
        ours.report.attempts,
        serde_json::to_string(changed_case.as_ref().unwrap_or(case))?
    );
    Ok(judged.differences)
}

/// Returns the list of methods that applies, with positions (rules 1 and 2).
fn listed(case: &Case) -> Vec<Listed> {
    let listed = case.remote.as_ref().unwrap_or(&case.local);
    if case.from_leader || listed.is_empty() { vec![(0, BASEBACKUP.to_owned())] } else { listed.clone() }
}

struct Comparison<'a> {
    case: &'a Case,
    ours: &'a Run,
    listed: Vec<Listed>,
    differences: BTreeSet<Difference>,
}

impl Comparison<'_> {
    fn name(&self, position: usize) -> &str {
        &self.listed[position].1
    }

    /// Returns the changed case in which Patroni does what the loop did (`None` if no change is needed), and the positions whose calls
    /// are not compared.
    fn changed_case(&mut self) -> Result<(Option<Case>, BTreeSet<usize>)> {
        let (mut changed_case, mut ignored) = (self.case.clone(), BTreeSet::new());
        let before_any = self.differences.clone();
        if self.listed.iter().any(|(_, name)| quoted(self.case, name)) {
            self.differences.insert(Difference::QuotedFlag);
            unquote(&mut changed_case);
        }
        let mut touched_before = false;
        for ((position, before), attempt) in self.ours.attempts.iter().zip(&self.ours.report.attempts) {
            let (position, name) = (*position, self.name(*position).to_owned());
            let script = &self.case.scripts[&position];
            let flag = |key: &str| self.case.flag(&name, key);
            let plugin = name != BASEBACKUP;
            let keeps = plugin && flag("keep_data") && !script.builds && !before.is_empty();

            let ended_before = match script.before {
                BeforeCreate::GoesOn => None,
                BeforeCreate::NotApplicable => Some((Outcome::NotApplicable, None)),
                BeforeCreate::Refused => Some((Outcome::Rejected, Some(Rule::Grant))),
            }
            .filter(|_| plugin);
            let rejected = keeps && !touched_before;
            if let Some((outcome, rule)) = ended_before {
                ensure!(
                    attempt.outcome == outcome && attempt.rule == rule,
                    "position {position}: {attempt:?}"
                );
                ensure!(!attempt.touched, "position {position} was touched");
                self.differences.insert(Difference::EndedBeforeTouching);
                make_harmless(&mut changed_case, position);
                ignored.insert(position);
                continue;
            }
            ensure!(
                rejected == (attempt.rule == Some(Rule::KeepData)),
                "position {position}: rule 17a where it does not apply, or not where it does: {attempt:?}"
            );
            if rejected {
                ensure!(
                    attempt.outcome == Outcome::Rejected && !attempt.touched,
                    "position {position}: {attempt:?}"
                );
                self.differences.insert(Difference::KeepDataRejected);
                make_harmless(&mut changed_case, position);
                ignored.insert(position);
                continue;
            }
            if keeps {
                self.differences.insert(Difference::UnfinishedTreeEmptied);
                insert_wiper_before(&mut changed_case, position);
            }
            let failed = attempt.touched && attempt.outcome != Outcome::Created;
            if plugin && flag("keep_data") && flag("no_params") && failed {
                self.differences.insert(Difference::KeepDataWithNoParams);
                changed_case.change_section_at(position, |section| drop(section.remove("no_params")));
            }
            for (number, one) in script.tries.iter().enumerate() {
                let called =
                    self.ours.trace.calls().any(|call| call.position == position && call.number == number);
                if called && one.cancel && one.ends == Ending::Code(0) {
                    self.differences.insert(Difference::CancelledBeforeTheSeal);
                    if let Some(script) = changed_case.scripts.get_mut(&position) {
                        script.tries[number].ends = Ending::Code(1);
                    }
                }
            }
            touched_before |= attempt.touched;
        }
        let changed = self.differences != before_any;
        Ok((changed.then_some(changed_case), ignored))
    }

    /// Checks what Patroni passed to each program in the original case (rules 3, 6, 9, 10, 11).
    fn parameters(&mut self, theirs: &Answer) -> Result<()> {
        for call in theirs.calls() {
            let name = self.name(call.position);
            ensure!(call.is_basebackup() == (name == BASEBACKUP), "{call:?}");
            ensure!(call.passfile.is_some() == self.case.source, "{call:?}");
            if call.is_basebackup() {
                let expected = ["--pgdata=<datadir>", "-X", "stream", &format!("--dbname={CONNSTRING}")]
                    .map(str::to_owned);
                ensure!(call.argv[1..] == expected, "{call:?}");
                continue;
            }
            let section = self.case.sections.get(name).cloned().unwrap_or_default();
            let mut expected: Vec<String> = match section.get("command") {
                Some(_) => ["/opt/restore", "--quick", "two words"].map(str::to_owned).to_vec(),
                None => vec![name.to_owned()],
            };
            let no_params = self.case.flag(name, "no_params");
            let mut four = vec![
                ("scope", "batman".to_owned()),
                ("role", "replica".to_owned()),
                ("datadir", "<datadir>".to_owned()),
                ("connstring", if self.case.source { CONNSTRING.to_owned() } else { String::new() }),
            ];
            let mut leaked = false;
            for (key, value) in section.iter().filter(|(key, _)| *key != "command") {
                let is_the_hosts = HOST_KEYS.contains(&key.as_str());
                if is_the_hosts && no_params {
                    continue;
                }
                leaked |= is_the_hosts;
                let given = four.iter().position(|(name, _)| !no_params && name == key);
                let value = given.map(|index| four.remove(index).1).unwrap_or_else(|| python(value));
                expected.push(format!("--{key}={value}"));
            }
            if !no_params {
                expected.extend(four.into_iter().map(|(key, value)| format!("--{key}={value}")));
            }
            // The order of a section's keys does not matter.
            let sorted = |argv: &[String]| argv.iter().cloned().collect::<BTreeSet<_>>();
            ensure!(sorted(&call.argv) == sorted(&expected), "{expected:?}: {call:?}");
            if leaked {
                self.differences.insert(Difference::HostKeysInArguments);
            }
        }
        Ok(())
    }

    /// Returns which of the four parameters Patroni passed in a call, with the values of the original case.
    fn parameters_of(&self, call: &PatroniCall) -> Option<Parameters> {
        let name = self.listed.get(call.position).map(|(_, name)| name.as_str())?;
        if name == BASEBACKUP || self.case.flag(name, "no_params") {
            return None;
        }
        let last = |key: &str| {
            let prefix = format!("--{key}=");
            call.argv.iter().rev().find_map(|argument| argument.strip_prefix(&prefix)).map(str::to_owned)
        };
        Some(Parameters {
            scope: last("scope")?,
            role: last("role")?,
            datadir: last("datadir")?,
            connstring: last("connstring")?,
        })
    }

    /// Checks how the run ended (rules 12 and 15).
    fn result(&mut self, theirs: &Answer) -> Result<()> {
        let attempts = &self.ours.report.attempts;
        let created = attempts.last().is_some_and(|attempt| attempt.outcome == Outcome::Created);
        let all_retry = !attempts.is_empty() && attempts.iter().all(|one| one.outcome == Outcome::RetryLater);
        let expected = if created {
            RunResult::Created
        } else if self.ours.cancelled {
            RunResult::Interrupted
        } else if all_retry {
            self.differences.insert(Difference::RetryLater);
            RunResult::RetryLater
        } else {
            RunResult::Failed
        };
        ensure!(
            self.ours.report.result == expected,
            "{:?} for {attempts:#?}: {:?}",
            self.ours.report.result,
            self.ours.report.message
        );
        let another_code = theirs.returned.is_none_or(|code| !(0..=1).contains(&code));
        if expected == RunResult::Failed && another_code {
            self.differences.insert(Difference::ExitCode);
        }
        Ok(())
    }

    /// Checks that the loop removed the files of basebackup's first try if the run was cancelled before the second try (rule 28).
    fn cancelled_basebackup(&mut self, expected: &mut Trace) {
        let Some(last) = expected.calls().last() else { return };
        if self.name(last.position) != BASEBACKUP
            || last.number != 0
            || expected.created
            || expected.left.is_empty()
        {
            return;
        }
        let script = &self.case.scripts[&last.position].tries[0];
        if script.cancel || script.cancel_in_pause {
            self.differences.insert(Difference::CancelledBasebackupRemoved);
            expected.acts.push(Act::Emptied(std::mem::take(&mut expected.left)));
        }
    }

    /// Checks pg_control. Patroni keeps the file for a method with `keep_data`, and also after that method fails.
    fn control_file(&mut self, theirs: &Answer) -> Result<()> {
        let there = |files: &Files| files.contains(CONTROL_FILE);
        // The scripted methods assert that pg_control is missing when they begin.
        let at_a_call = theirs.calls().any(|call| there(&call.at_start) && call.position < ADDED);
        let touched = self.ours.report.attempts.iter().any(|attempt| attempt.touched);
        let created = self.ours.report.result == RunResult::Created;
        if self.ours.control_file_left {
            ensure!(
                created || !touched,
                "a directory that was touched and is not a replica has a pg_control"
            );
            ensure!(there(&theirs.left), "Patroni removed pg_control");
        } else {
            ensure!(!created, "a replica without pg_control");
        }
        let taken_away = there(&theirs.left) && !self.ours.control_file_left;
        if touched && (at_a_call || taken_away) {
            self.differences.insert(Difference::ControlFileTakenAway);
        }
        ensure!(touched || !taken_away, "pg_control was removed, and no attempt touched the directory");
        Ok(())
    }
}

/// Returns whether a flag of this section is a string.
fn quoted(case: &Case, name: &str) -> bool {
    let section = case.sections.get(name);
    section.is_some_and(|section| HOST_KEYS.iter().any(|key| section.get(*key).is_some_and(Value::is_string)))
}

fn unquote(case: &mut Case) {
    for section in case.sections.values_mut() {
        for (_, value) in section.iter_mut().filter(|(key, _)| HOST_KEYS.contains(&key.as_str())) {
            if value.is_string() {
                *value = json!(true);
            }
        }
    }
}

/// Formats a value as Python does.
fn python(value: &Value) -> String {
    match value {
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn script_without_effect() -> Script {
    let one = Try { ends: Ending::Code(1), leaves: Vec::new(), cancel: false, cancel_in_pause: false };
    Script { tries: [one.clone(), one], before: BeforeCreate::GoesOn, builds: false }
}

/// Replaces the method at this position with a method that does nothing and for which Patroni does not wipe.
fn make_harmless(case: &mut Case, position: usize) {
    case.change_section_at(position, |section| {
        let no_leader = section.get("no_leader").cloned();
        *section = Map::from_iter([("keep_data".to_owned(), json!(true))]);
        section.extend(no_leader.map(|value| ("no_leader".to_owned(), value)));
    });
    case.scripts.insert(position, script_without_effect());
}

/// Inserts a method that does nothing before this position, so that Patroni only wipes.
fn insert_wiper_before(case: &mut Case, position: usize) {
    let section = Map::from_iter([("no_leader".to_owned(), json!(true))]);
    case.insert_before(
        position,
        (ADDED + position, format!("wiper_before_{position}")),
        section,
        script_without_effect(),
    );
}
