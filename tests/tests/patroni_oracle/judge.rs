//! Who is right: Patroni, except where shared rules say otherwise, and then exactly there.
//!
//! A difference is expressed as a change to the case under which Patroni itself does what this project does with the
//! case as it was ("Patroni without this flag", "Patroni with a method before it that wipes"), made only where its
//! narrow condition holds. What then still differs is a mistake.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use replica::create_replica::BASEBACKUP;
use replica::{Outcome, Rule, RunResult};
use serde_json::{Map, Value, json};
use tests::patroni::Driver;

use crate::case::{Before, Case, Ends, HOST_KEYS, Listed, Script, Try};
use crate::trace::{Act, Answer, CONTROL_FILE, Files, Parameters, ToldCall, Trace};
use crate::understudy::{CONNSTRING, Ours, Run};

/// The differences that the table of rules lists, as far as a case can show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Difference {
    /// 2: `--from-leader` without a source is an error that says so; Patroni returns 1 and says nothing.
    FromLeaderWithoutSource,
    /// 5: cancellation is looked at after the method has ended too; a program that ends well all the same counts in Patroni.
    CancelledBeforeTheSeal,
    /// 7: a quoted `"false"` is a string, which no flag is; in Python it is true.
    QuotedFlag,
    /// 8: what ends before step 4 touches nothing; Patroni wipes, then runs the program.
    EndedBeforeTouching,
    /// 11: the host's own keys never reach the method.
    HostKeysInArguments,
    /// 12: a failure that may pass is told apart.
    RetryLater,
    /// 13: `keep_data` survives a failure with `no_params` too.
    KeepDataWithNoParams,
    /// 13, and step 4 of an attempt: pg_control is gone although `keep_data` keeps the rest.
    ControlFileTakenAway,
    /// 15: an unfinished tree is emptied for a method that does not build on it.
    UnfinishedTreeEmptied,
    /// 15: exit code 1; Patroni gives the last program's.
    ExitCode,
    /// 17a: `keep_data` for a method that does not build on old data.
    KeepDataRejected,
    /// 28: what a cancelled basebackup left is removed; Patroni leaves it.
    CancelledBasebackupRemoved,
}

impl Difference {
    /// All of them.
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

/// Places that the judge puts into a list.
const ADDED: usize = 1000;

/// Compares what the two did with a case.
pub(crate) fn judge(case: &Case, ours: &Ours, patroni: &mut Driver) -> Result<BTreeSet<Difference>> {
    let theirs: Answer = patroni.run(case)?;
    ensure!(theirs.raised.is_none(), "an exception left Patroni's loop: {:?}", theirs.raised);
    let ours = match ours {
        Ours::Ran(ours) => ours,
        Ours::Said(message) => {
            ensure!(case.from_leader && !case.source, "nothing was run, and a source there was: {message}");
            ensure!(message.contains("--from-leader"), "{message}");
            ensure!(theirs.returned == Some(1) && theirs.calls().next().is_none(), "Patroni did run");
            return Ok([Difference::FromLeaderWithoutSource].into());
        }
    };
    let mut judged = Judged { case, ours, listed: listed(case), differences: BTreeSet::new() };
    judged.parameters(&theirs)?;
    judged.result(&theirs)?;
    let (alike, ignored) = judged.alike()?;
    let answer = match alike {
        Some(ref alike) => patroni.run(alike)?,
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
        serde_json::to_string(alike.as_ref().unwrap_or(case))?
    );
    Ok(judged.differences)
}

/// The list that counts, with the names' places (rules 1 and 2).
fn listed(case: &Case) -> Vec<Listed> {
    let listed = case.remote.as_ref().unwrap_or(&case.local);
    if case.from_leader || listed.is_empty() { vec![(0, BASEBACKUP.to_owned())] } else { listed.clone() }
}

struct Judged<'a> {
    case: &'a Case,
    ours: &'a Run,
    listed: Vec<Listed>,
    differences: BTreeSet<Difference>,
}

impl Judged<'_> {
    fn name(&self, place: usize) -> &str {
        &self.listed[place].1
    }

    /// The case in which Patroni does what this project did, where it is another, and the places whose calls it makes
    /// besides.
    fn alike(&mut self) -> Result<(Option<Case>, BTreeSet<usize>)> {
        let (mut alike, mut ignored) = (self.case.clone(), BTreeSet::new());
        let before_any = self.differences.clone();
        if self.listed.iter().any(|(_, name)| quoted(self.case, name)) {
            self.differences.insert(Difference::QuotedFlag);
            unquote(&mut alike);
        }
        let mut touched_before = false;
        for ((place, before), attempt) in self.ours.attempts.iter().zip(&self.ours.report.attempts) {
            let (place, name) = (*place, self.name(*place).to_owned());
            let script = &self.case.scripts[&place];
            let flag = |key: &str| self.case.flag(&name, key);
            let plugin = name != BASEBACKUP;
            let keeps = plugin && flag("keep_data") && !script.builds && !before.is_empty();

            let ended_before = match script.before {
                Before::GoesOn => None,
                Before::NotApplicable => Some((Outcome::NotApplicable, None)),
                Before::Refused => Some((Outcome::Rejected, Some(Rule::Grant))),
            }
            .filter(|_| plugin);
            let rejected = keeps && !touched_before;
            if let Some((outcome, rule)) = ended_before {
                ensure!(attempt.outcome == outcome && attempt.rule == rule, "place {place}: {attempt:?}");
                ensure!(!attempt.touched, "place {place} was touched");
                self.differences.insert(Difference::EndedBeforeTouching);
                make_harmless(&mut alike, place);
                ignored.insert(place);
                continue;
            }
            ensure!(
                rejected == (attempt.rule == Some(Rule::KeepData)),
                "place {place}: rule 17a where it does not apply, or not where it does: {attempt:?}"
            );
            if rejected {
                ensure!(
                    attempt.outcome == Outcome::Rejected && !attempt.touched,
                    "place {place}: {attempt:?}"
                );
                self.differences.insert(Difference::KeepDataRejected);
                make_harmless(&mut alike, place);
                ignored.insert(place);
                continue;
            }
            if keeps {
                self.differences.insert(Difference::UnfinishedTreeEmptied);
                put_a_wiper_before(&mut alike, place);
            }
            let failed = attempt.touched && attempt.outcome != Outcome::Created;
            if plugin && flag("keep_data") && flag("no_params") && failed {
                self.differences.insert(Difference::KeepDataWithNoParams);
                alike.change_section_at(place, |section| drop(section.remove("no_params")));
            }
            for (number, one) in script.tries.iter().enumerate() {
                let called = self.ours.trace.calls().any(|call| call.place == place && call.number == number);
                if called && one.cancel && one.ends == Ends::Code(0) {
                    self.differences.insert(Difference::CancelledBeforeTheSeal);
                    if let Some(script) = alike.scripts.get_mut(&place) {
                        script.tries[number].ends = Ends::Code(1);
                    }
                }
            }
            touched_before |= attempt.touched;
        }
        let changed = self.differences != before_any;
        Ok((changed.then_some(alike), ignored))
    }

    /// What Patroni passed to each program as it was (rules 3, 6, 9, 10, 11).
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
            // The order of a section's keys is no matter of the loop's.
            let sorted = |argv: &[String]| argv.iter().cloned().collect::<BTreeSet<_>>();
            ensure!(sorted(&call.argv) == sorted(&expected), "{expected:?}: {call:?}");
            if leaked {
                self.differences.insert(Difference::HostKeysInArguments);
            }
        }
        Ok(())
    }

    /// What a call of Patroni's passed of the four, in the case as it was.
    fn parameters_of(&self, call: &ToldCall) -> Option<Parameters> {
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

    /// How the run ended, in each program's words (rules 12 and 15).
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

    /// What basebackup's first try left when the run was cancelled before its second (rule 28).
    fn cancelled_basebackup(&mut self, expected: &mut Trace) {
        let Some(last) = expected.calls().last() else { return };
        if self.name(last.place) != BASEBACKUP
            || last.number != 0
            || expected.created
            || expected.left.is_empty()
        {
            return;
        }
        let script = &self.case.scripts[&last.place].tries[0];
        if script.cancel || script.cancel_in_pause {
            self.differences.insert(Difference::CancelledBasebackupRemoved);
            expected.acts.push(Act::Emptied(std::mem::take(&mut expected.left)));
        }
    }

    /// Where Patroni leaves pg_control in place: for a method with `keep_data`, and after its failure.
    fn control_file(&mut self, theirs: &Answer) -> Result<()> {
        let there = |files: &Files| files.contains(CONTROL_FILE);
        // That it is never there when a method begins is asserted where the methods are.
        let at_a_call = theirs.calls().any(|call| there(&call.at_start) && call.position < ADDED);
        let touched = self.ours.report.attempts.iter().any(|attempt| attempt.touched);
        let created = self.ours.report.result == RunResult::Created;
        if self.ours.control_file_left {
            ensure!(created || !touched, "what was touched and is no replica has a pg_control");
            ensure!(there(&theirs.left), "Patroni took pg_control away");
        } else {
            ensure!(!created, "a replica without pg_control");
        }
        let taken_away = there(&theirs.left) && !self.ours.control_file_left;
        if touched && (at_a_call || taken_away) {
            self.differences.insert(Difference::ControlFileTakenAway);
        }
        ensure!(touched || !taken_away, "pg_control is gone, and nothing was touched");
        Ok(())
    }
}

/// Whether a flag of this section is a string.
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

/// As Python prints it.
fn python(value: &Value) -> String {
    match value {
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn leaves_nothing() -> Script {
    let one = Try { ends: Ends::Code(1), leaves: Vec::new(), cancel: false, cancel_in_pause: false };
    Script { tries: [one.clone(), one], before: Before::GoesOn, builds: false }
}

/// A method at this place that Patroni does not wipe for, and that does nothing.
fn make_harmless(case: &mut Case, place: usize) {
    case.change_section_at(place, |section| {
        let no_leader = section.get("no_leader").cloned();
        *section = Map::from_iter([("keep_data".to_owned(), json!(true))]);
        section.extend(no_leader.map(|value| ("no_leader".to_owned(), value)));
    });
    case.scripts.insert(place, leaves_nothing());
}

/// A method before this place that does nothing, so that Patroni only wipes for it.
fn put_a_wiper_before(case: &mut Case, place: usize) {
    let section = Map::from_iter([("no_leader".to_owned(), json!(true))]);
    case.insert_before(place, (ADDED + place, format!("wiper_before_{place}")), section, leaves_nothing());
}
