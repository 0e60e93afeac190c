//! The recorder: removes secrets from every event, passes it on, and collects the report.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use foundation::redact::Redactor;

use super::Job;
use crate::event::{Event, EventSink, Level};
use crate::outcome::{Attempt, Finding, Report};
use crate::usage::Usage;
use crate::{Outcome, Plan, RunResult};

/// How many lines of output are kept of one attempt; the oldest lines are dropped first.
const LINES: usize = 1000;
/// How many bytes of output are kept of one attempt.
const OUTPUT_BYTES: usize = 256 * 1024;
/// How many bytes are kept of one line.
const LINE_BYTES: usize = 8 * 1024;
/// How many different denials are kept of one attempt.
const DENIALS: usize = 100;
/// How many findings are kept of one attempt.
const FINDINGS: usize = 1000;

/// Removes the secrets from every event of a run, passes the event on, and keeps what the report needs.
pub(super) struct Recorder {
    next: Arc<dyn EventSink>,
    redactor: Redactor,
    started: jiff::Timestamp,
    clock: Instant,
    record: Mutex<Record>,
}

#[derive(Default)]
struct Record {
    ended: Vec<Attempt>,
    current: Option<Current>,
    result: Option<RunResult>,
    message: Option<String>,
}

impl Recorder {
    pub(super) fn new(next: Arc<dyn EventSink>, redactor: Redactor) -> Self {
        Self {
            next,
            redactor,
            started: jiff::Timestamp::now(),
            clock: Instant::now(),
            record: Mutex::default(),
        }
    }

    /// Emits a warning of the host about the run.
    pub(super) fn warn(&self, message: String) {
        let origin = "host".to_owned();
        self.emit(Event::Log { method: None, level: Level::Warn, origin, message, fields: Vec::new() });
    }

    /// Ends an attempt that was only checked, and returns its plan and its findings.
    pub(super) fn end_check(&self) -> (Option<Plan>, Vec<Finding>) {
        let current = self.record().current.take();
        current.map(|current| (current.attempt.plan, current.attempt.findings)).unwrap_or_default()
    }

    /// Returns a text without the secrets of the run.
    pub(super) fn without_secrets(&self, text: String) -> String {
        match self.redactor.redact(&text) {
            Cow::Borrowed(_) => text,
            Cow::Owned(text) => text,
        }
    }

    /// Returns the report of what was recorded so far.
    pub(super) fn report(&self, job: &Job) -> Report {
        let record = self.record();
        Report {
            result: record.result.unwrap_or(RunResult::Failed),
            datadir: job.directories.datadir.to_string_lossy().into_owned(),
            scope: job.scope.clone(),
            message: record.message.clone().map(|message| self.without_secrets(message)),
            started: format!("{:.3}", self.started),
            duration: self.clock.elapsed(),
            attempts: record.ended.clone(),
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        // A panic cannot leave half an event in the record.
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSink for Recorder {
    fn emit(&self, event: Event) {
        let event = event.map_texts(&|text| self.without_secrets(text));
        self.record().take(&event);
        self.next.emit(event);
    }

    fn takes_calls(&self) -> bool {
        self.next.takes_calls()
    }

    fn redacted(&self, text: &str) -> String {
        self.redactor.redact(text).into_owned()
    }
}

impl Record {
    fn take(&mut self, event: &Event) {
        match event {
            Event::AttemptStarted { method } => self.current = Some(Current::of(method)),
            Event::AttemptEnded { outcome, message, rule, remedy, touched, duration, usage, .. } => {
                if let Some(current) = self.current.take() {
                    let mut attempt = current.finish();
                    attempt.outcome = *outcome;
                    attempt.message.clone_from(message);
                    attempt.rule.clone_from(rule);
                    attempt.remedy.clone_from(remedy);
                    attempt.touched = *touched;
                    attempt.duration = *duration;
                    attempt.usage.clone_from(usage.as_ref());
                    self.ended.push(attempt);
                }
            }
            Event::RunEnded { result, message } => {
                self.result = Some(*result);
                self.message.clone_from(message);
            }
            Event::State { .. } | Event::Step { .. } | Event::Phase { .. } | Event::Called { .. } => {}
            of_an_attempt => {
                if let Some(current) = &mut self.current {
                    current.take(of_an_attempt);
                }
            }
        }
    }
}

/// The attempt that runs now.
struct Current {
    attempt: Attempt,
    output: VecDeque<String>,
    output_bytes: usize,
}

impl Current {
    fn of(method: &str) -> Self {
        let attempt = Attempt {
            method: method.to_owned(),
            outcome: Outcome::Failed,
            rule: None,
            message: String::new(),
            remedy: None,
            duration: Duration::ZERO,
            touched: false,
            plan: None,
            bytes: 0,
            files: 0,
            usage: Usage::default(),
            denials: Vec::new(),
            output: Vec::new(),
            output_dropped: 0,
            findings: Vec::new(),
        };
        Self { attempt, output: VecDeque::new(), output_bytes: 0 }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Planned { plan, .. } => self.attempt.plan = Some(plan.clone()),
            Event::Progress { bytes, files, .. } => {
                self.attempt.bytes = *bytes;
                self.attempt.files = *files;
            }
            Event::Log { method: Some(method), origin, message, fields, .. }
                if *method == self.attempt.method =>
            {
                self.line(origin, message, fields);
            }
            Event::Retrying { store, about, attempt, cause, .. } => {
                let tried = ("attempt".to_owned(), attempt.to_string());
                self.line(store, &format!("{about}: {cause}"), &[tried]);
            }
            Event::Denied { denial, .. } => {
                let denials = &mut self.attempt.denials;
                if denials.len() < DENIALS && !denials.contains(denial) {
                    denials.push(denial.clone());
                }
            }
            Event::Found { finding, .. } if self.attempt.findings.len() < FINDINGS => {
                self.attempt.findings.push(finding.clone());
            }
            _ => {}
        }
    }

    fn line(&mut self, origin: &str, message: &str, fields: &[(String, String)]) {
        let mut line = format!("{origin}: {message}");
        for (name, value) in fields {
            line.push_str(&format!(" {name}={value}"));
            if line.len() > LINE_BYTES {
                break;
            }
        }
        if line.len() > LINE_BYTES {
            line.truncate(line.floor_char_boundary(LINE_BYTES));
            line.push('…');
        }
        self.output_bytes += line.len();
        self.output.push_back(line);
        while self.output.len() > LINES || self.output_bytes > OUTPUT_BYTES {
            let Some(oldest) = self.output.pop_front() else { break };
            self.output_bytes -= oldest.len();
            self.attempt.output_dropped += 1;
        }
    }

    fn finish(mut self) -> Attempt {
        self.attempt.output = self.output.into();
        self.attempt
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CapabilityKind;
    use crate::event::{HostCall, Step};
    use crate::{Denial, Rule};

    fn record(events: impl IntoIterator<Item = Event>) -> Attempt {
        let recorder = Recorder::new(Arc::new(|_| {}), Redactor::new());
        recorder.emit(Event::AttemptStarted { method: "m".into() });
        events.into_iter().for_each(|event| recorder.emit(event));
        recorder.emit(Event::AttemptEnded {
            method: "m".into(),
            outcome: Outcome::Failed,
            message: "why".into(),
            rule: None,
            remedy: None,
            touched: true,
            duration: Duration::from_secs(1),
            usage: Box::default(),
        });
        let mut record = recorder.record();
        record.ended.pop().unwrap()
    }

    fn line(message: &str) -> Event {
        Event::Log {
            method: Some("m".into()),
            level: Level::Info,
            origin: "stdout".into(),
            message: message.into(),
            fields: vec![("n".into(), "1".into())],
        }
    }

    fn call(object: &str) -> HostCall {
        HostCall {
            step: Step::Plan,
            capability: Some(CapabilityKind::Read),
            function: "filesystem.open-at",
            object: object.to_owned(),
            calls: 1,
            bytes_read: 0,
            bytes_written: 0,
            duration: Duration::ZERO,
            answer: "ok",
        }
    }

    #[test]
    fn the_report_keeps_what_the_method_printed() {
        let attempt = record([line("hello")]);
        assert_eq!(attempt.output, ["stdout: hello n=1"]);
        assert!(attempt.touched);
        assert_eq!((attempt.outcome, attempt.message.as_str()), (Outcome::Failed, "why"));
    }

    #[test]
    fn a_flood_of_lines_keeps_the_newest_thousand_and_counts_the_rest() {
        let attempt = record((0..2500).map(|n| line(&n.to_string())));
        assert_eq!(attempt.output.len(), LINES);
        assert_eq!(attempt.output.last().map(String::as_str), Some("stdout: 2499 n=1"));
        assert_eq!(attempt.output_dropped, 1500);
    }

    #[test]
    fn long_lines_are_cut_and_the_output_stays_within_its_bytes() {
        let attempt = record((0..100).map(|_| line(&"é".repeat(100_000))));
        assert!(attempt.output.iter().all(|line| line.len() <= LINE_BYTES + '…'.len_utf8()));
        assert!(attempt.output.iter().map(String::len).sum::<usize>() <= OUTPUT_BYTES);
        assert_eq!(attempt.output.len() as u64 + attempt.output_dropped, 100);
    }

    #[test]
    fn a_denial_is_recorded_once_and_no_more_than_a_hundred_of_them() {
        let denied = |n: usize| Event::Denied {
            method: "m".into(),
            denial: Denial { capability: CapabilityKind::Read, what: format!("/{n}"), remedy: None },
        };
        assert_eq!(record((0..50).map(|_| denied(1))).denials.len(), 1);
        assert_eq!(record((0..500).map(denied)).denials.len(), DENIALS);
    }

    #[test]
    fn findings_are_bounded_too() {
        let found = |n: usize| Event::Found {
            method: "m".into(),
            finding: Finding { check: Rule::Modes, level: Level::Warn, message: n.to_string() },
        };
        assert_eq!(record((0..2 * FINDINGS).map(found)).findings.len(), FINDINGS);
    }

    #[test]
    fn every_event_is_passed_on() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let recorder = Recorder::new(Arc::new(move |event| drop(sender.send(event))), Redactor::new());
        recorder.emit(Event::State { state: "stopped" });
        assert!(matches!(receiver.try_recv(), Ok(Event::State { state: "stopped" })));
    }

    #[test]
    fn a_secret_is_in_no_event_and_not_in_the_report() {
        let redactor = Redactor::new();
        redactor.add(&foundation::secret::Secret::new("swordfish")).unwrap();
        let (sender, emitted) = std::sync::mpsc::channel();
        let recorder = Recorder::new(Arc::new(move |event| drop(sender.send(event))), redactor);
        let (method, secret) = (|| "m".to_owned(), || "it is swordfish.".to_owned());
        recorder.emit(Event::AttemptStarted { method: method() });
        let plan = Plan {
            backup: secret(),
            tablespaces: vec![crate::Tablespace {
                oid: 1,
                name: Some(secret()),
                location: "/swordfish".into(),
            }],
            ..Plan::default()
        };
        recorder.emit(Event::Planned { method: method(), plan });
        recorder.emit(Event::Phase { method: method(), name: secret() });
        recorder.emit(Event::Log {
            method: Some(method()),
            level: Level::Info,
            origin: "plugin".to_owned(),
            message: secret(),
            fields: vec![(secret(), secret())],
        });
        let denial = Denial { capability: CapabilityKind::Store, what: secret(), remedy: Some(secret()) };
        recorder.emit(Event::Denied { method: method(), denial });
        let finding = Finding { check: Rule::Modes, level: Level::Warn, message: secret() };
        recorder.emit(Event::Found { method: method(), finding });
        recorder.emit(Event::AttemptEnded {
            method: method(),
            outcome: Outcome::Failed,
            message: secret(),
            rule: None,
            remedy: Some(secret()),
            touched: false,
            duration: Duration::ZERO,
            usage: Box::default(),
        });
        recorder.emit(Event::Called { method: method(), call: call(&secret()) });
        recorder.emit(Event::RunEnded { result: RunResult::Failed, message: Some(secret()) });
        let record = recorder.record();
        let everything =
            format!("{:?} {:?} {:?}", emitted.try_iter().collect::<Vec<_>>(), record.ended, record.message);
        assert!(everything.matches("it is <secret>.").count() >= 20, "{everything}");
        assert!(!everything.contains("swordfish"), "{everything}");
    }
}
