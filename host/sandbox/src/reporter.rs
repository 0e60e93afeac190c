//! Reports the events of a run: log lines, progress and denials. The number and size of each are bounded.
//!
//! A channel carries the events to the thread that drives the run. The event sinks must not run on the method's thread: they may
//! open files or start threads, and Landlock would restrict both.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use replica::event::HostCall;
use replica::process::Line;
use replica::run::Activity;
use replica::{Bytes, CapabilityKind, Denial, Event, Level, Redactor};
use tokio::sync::mpsc::UnboundedSender;
use transfer::store::Notice;

use crate::calls::{self, Call, Calls, Ongoing};
use crate::text::printable_without;

/// How many characters one line may have, whatever its origin.
pub(crate) const LINE_CHARACTERS: usize = 4096;
/// How many fields a line may have, and how many characters the name and the value of a field may have.
const FIELDS: usize = 16;
const FIELD_NAME: usize = 64;
const FIELD_VALUE: usize = 1024;
/// How many phases a component may name in one run, and how many characters a name may have.
pub(crate) const PHASES: u32 = 1000;
const PHASE_CHARACTERS: usize = 200;
/// How many different denials of one run are reported.
pub(crate) const DENIALS: usize = 100;
/// How many characters the text of a denial may have.
const DENIAL_CHARACTERS: usize = 1024;
/// The minimum time between two events about retries of one store. Otherwise many objects that fail together would flood the log.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How many characters each text in an event about retries may have.
const RETRY_CHARACTERS: usize = 1024;
/// How many stores the reporter remembers, each with the time of its last reported retry.
const RETRYING_STORES: usize = 64;
/// The minimum time between two progress events.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

/// How much a component has logged and printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
}

/// Sends the events of one run, within bounds. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reporter {
    method: Arc<str>,
    events: UnboundedSender<Event>,
    reported: Arc<Mutex<Reported>>,
    activity: Activity,
    log: LogBudget,
    /// Removes secrets from a text before the text is cut. The event sinks remove secrets from all other texts.
    redactor: Redactor,
    /// Records the calls of the component; `None` if no event sink wants the records.
    calls: Option<Arc<Calls>>,
}

/// How much a method may log and print in one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBudget {
    /// How many bytes all lines together may have.
    pub bytes: Bytes,
    /// How many lines there may be.
    pub lines: u64,
}

impl Default for LogBudget {
    fn default() -> Self {
        Self { bytes: Bytes(4 << 20), lines: 10_000 }
    }
}

#[derive(Default)]
struct Reported {
    /// The lines that the component logged and printed in the attempt, and their bytes.
    logged: Logged,
    /// Whether a line was dropped. After the first one, all further lines are dropped too.
    log_is_full: bool,
    denied_calls: u64,
    phases: u32,
    phase: String,
    denied: HashSet<Denial>,
    denials: Vec<Denial>,
    denials_dropped: bool,
    bytes: u64,
    files: u64,
    bytes_expected: Option<u64>,
    files_expected: Option<u64>,
    progress_sent: Option<Instant>,
    progress_waits: bool,
    /// When a retry of each store was reported last.
    retrying: HashMap<String, Instant>,
}

impl Reporter {
    /// Makes a reporter for the method with this name. If the receiver is gone, as in `describe`, the events are dropped.
    pub(crate) fn new(method: &str, events: UnboundedSender<Event>) -> Self {
        Self {
            method: method.into(),
            events,
            reported: Arc::default(),
            activity: Activity::default(),
            log: LogBudget::default(),
            redactor: Redactor::new(),
            calls: None,
        }
    }

    /// Bounds the component's log by `log`. Earlier calls of the attempt logged `already`.
    #[must_use]
    pub(crate) fn within(self, log: LogBudget, already: Logged) -> Self {
        self.reported().logged = already;
        Self { log, ..self }
    }

    /// Returns the same reporter, which removes the secrets that `redactor` knows from each text before it cuts it.
    #[must_use]
    pub(crate) fn redacting(self, redactor: Redactor) -> Self {
        Self { redactor, ..self }
    }

    fn shown(&self, text: &str, limit: usize) -> String {
        printable_without(&self.redactor, text, true, limit)
    }

    /// Returns the same reporter, which records the component's calls.
    #[must_use]
    pub(crate) fn recording(self, calls: Calls) -> Self {
        Self { calls: Some(Arc::new(calls)), ..self }
    }

    /// Begins the record of a call to `function`, which needs this capability. Calls `object` only if calls are recorded.
    pub(crate) fn call(
        &self,
        capability: impl Into<Option<CapabilityKind>>,
        function: &'static str,
        object: impl FnOnce() -> String,
    ) -> Call {
        Call::begin(self, self.calls.as_ref(), capability.into(), function, object)
    }

    /// Begins the record of a call that is answered while the component calls other functions.
    pub(crate) fn ongoing(
        &self,
        capability: CapabilityKind,
        function: &'static str,
        object: impl FnOnce() -> String,
    ) -> Ongoing {
        Ongoing::begin(self, self.calls.as_ref(), capability, function, object)
    }

    /// Returns the records of calls; `None` if no event sink wants them.
    pub(crate) fn calls(&self) -> Option<&Arc<Calls>> {
        self.calls.as_ref()
    }

    /// Reports the record of a call. Blocks while too many records wait for the event sinks.
    pub(crate) fn called(&self, call: HostCall) {
        let Some(calls) = &self.calls else { return };
        calls.waiting().add(&call, || self.events.is_closed());
        self.send(Event::Called { method: self.method.to_string(), call });
    }

    /// Returns what the component has logged and printed in the attempt.
    pub(crate) fn logged(&self) -> Logged {
        self.reported().logged
    }

    /// Returns how many calls were denied, repeated ones included.
    pub(crate) fn denied_calls(&self) -> u64 {
        self.reported().denied_calls
    }

    /// Makes the reporter record the component's activity in `activity`.
    #[must_use]
    pub(crate) fn noting(self, activity: &Activity) -> Self {
        Self { activity: activity.clone(), ..self }
    }

    /// Returns the record of the component's activity. Calls that read, write or look something up count as activity, as do transferred
    /// bytes. Log lines, reads of the clock and checks for cancellation do not, because a component can make them without any progress.
    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    fn reported(&self) -> MutexGuard<'_, Reported> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, event: Event) {
        // Fails only if the run was abandoned, and then no reader is left.
        let _ = self.events.send(event);
    }

    /// Reports a log line from `origin`: `host`, `plugin`, `stdout` or `stderr`. The caller bounds the number of lines.
    pub(crate) fn line(&self, level: Level, origin: &str, message: &str, fields: Vec<(String, String)>) {
        self.printable_line(level, origin, self.shown(message, LINE_CHARACTERS), fields);
    }

    fn printable_line(&self, level: Level, origin: &str, message: String, fields: Vec<(String, String)>) {
        let (method, origin) = (Some(self.method.to_string()), origin.to_owned());
        self.send(Event::Log { method, level, origin, message, fields });
    }

    /// Reports a log line of the host about this run.
    pub(crate) fn host(&self, level: Level, message: &str) {
        self.line(level, "host", message, Vec::new());
    }

    /// Reports a line that a native program printed, within the budget of what the component logs.
    pub(crate) fn program(&self, name: &str, line: &Line) {
        self.component_line_of(Level::Info, &format!("program {name}"), Vec::new(), || {
            let text = String::from_utf8_lossy(&line.bytes);
            printable_without(&self.redactor, &text, line.is_whole, LINE_CHARACTERS)
        });
    }

    /// Reports a line that the component logged.
    pub(crate) fn log(&self, level: Level, message: &str, fields: Vec<(String, String)>) {
        let fields = fields.into_iter().take(FIELDS);
        let fields =
            fields.map(|(name, value)| (self.shown(&name, FIELD_NAME), self.shown(&value, FIELD_VALUE)));
        self.component_line(level, "plugin", message, fields.collect());
    }

    /// Reports a line that the component logged or printed. Lines beyond the budget are dropped, with one warning.
    pub(crate) fn component_line(
        &self,
        level: Level,
        origin: &str,
        message: &str,
        fields: Vec<(String, String)>,
    ) {
        self.component_line_of(level, origin, fields, || self.shown(message, LINE_CHARACTERS));
    }

    /// Does the same as [`Reporter::component_line`] for the printable text that `message` returns. Calls `message` only if the log is not
    /// full.
    fn component_line_of(
        &self,
        level: Level,
        origin: &str,
        fields: Vec<(String, String)>,
        message: impl FnOnce() -> String,
    ) {
        if self.reported().log_is_full {
            return;
        }
        let message = message();
        let bytes =
            message.len() + fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let LogBudget { bytes: most_bytes, lines: most_lines } = self.log;
        let fits = {
            let mut reported = self.reported();
            let Logged { lines, bytes: logged } = reported.logged;
            let with_this = Logged { lines: lines + 1, bytes: logged.saturating_add(bytes as u64) };
            let fits = with_this.lines <= most_lines && with_this.bytes <= most_bytes.0;
            if fits {
                reported.logged = with_this;
            } else {
                reported.log_is_full = true;
            }
            fits
        };
        if fits {
            self.printable_line(level, origin, message, fields);
        } else {
            let what = format!(
                "the method logged more than {most_lines} lines or {most_bytes} (`log` in its grants): the rest of its log is dropped"
            );
            self.host(Level::Warn, &what);
        }
    }

    /// Reports what the component is working on.
    pub(crate) fn phase(&self, name: &str) {
        let name = self.shown(name, PHASE_CHARACTERS);
        let full = {
            let mut reported = self.reported();
            if reported.phase == name || reported.phases > PHASES {
                return;
            }
            reported.phase.clone_from(&name);
            reported.phases += 1;
            reported.phases > PHASES
        };
        if full {
            self.host(
                Level::Warn,
                &format!("the method named more than {PHASES} phases: further ones are dropped"),
            );
        } else {
            self.send(Event::Phase { method: self.method.to_string(), name });
        }
    }

    /// Records how many bytes and files there are in all, if the component knows.
    pub(crate) fn expect(&self, bytes: Option<u64>, files: Option<u64>) {
        {
            let mut reported = self.reported();
            (reported.bytes_expected, reported.files_expected) = (bytes, files);
            reported.progress_waits = true;
        }
        self.progress(false);
    }

    /// Adds bytes and files to the progress.
    pub(crate) fn done(&self, bytes: u64, files: u64) {
        if (bytes, files) != (0, 0) {
            self.activity.mark();
        }
        {
            let mut reported = self.reported();
            reported.bytes = reported.bytes.saturating_add(bytes);
            reported.files = reported.files.saturating_add(files);
            reported.progress_waits = true;
        }
        self.progress(false);
    }

    /// Reports the latest progress if it was not reported yet. Called at the end of the run.
    pub(crate) fn flush(&self) {
        self.progress(true);
    }

    fn progress(&self, at_once: bool) {
        let event = {
            let mut reported = self.reported();
            let due = reported.progress_sent.is_none_or(|sent| sent.elapsed() >= PROGRESS_PAUSE);
            if !reported.progress_waits || !(due || at_once) {
                return;
            }
            reported.progress_sent = Some(Instant::now());
            reported.progress_waits = false;
            Event::Progress {
                method: self.method.to_string(),
                bytes: reported.bytes,
                bytes_expected: reported.bytes_expected,
                files: reported.files,
                files_expected: reported.files_expected,
            }
        };
        self.send(event);
    }

    /// Reports that a request to a store is retried, unless the last report about that store was less than [`RETRY_PAUSE`] ago.
    pub(crate) fn retrying(&self, notice: Notice) {
        {
            let mut reported = self.reported();
            let now = Instant::now();
            reported.retrying.retain(|_, at| now.duration_since(*at) < RETRY_PAUSE);
            if reported.retrying.contains_key(&notice.store) || reported.retrying.len() >= RETRYING_STORES {
                return;
            }
            reported.retrying.insert(notice.store.clone(), now);
        }
        let Notice { store, about, attempt, cause, next_try_in } = notice;
        self.send(Event::Retrying {
            method: self.method.to_string(),
            store: self.shown(&store, RETRY_CHARACTERS),
            about: self.shown(&about, RETRY_CHARACTERS),
            attempt,
            cause: self.shown(&cause, RETRY_CHARACTERS),
            next_try_in,
        });
    }

    /// Reports a call that no grant covers. Reports each denial only once.
    pub(crate) fn denied(&self, denial: Denial) {
        if let Some(calls) = &self.calls
            && !calls.note_denial()
        {
            // The denied call has no record of its own, so make one.
            let of = (denial.capability, denial.capability.word());
            calls::ended(self, calls, of, &denial.what, calls::DENIED, |_| {});
        }
        self.denied_in_record(denial);
    }

    /// Does the same as [`Reporter::denied`], but makes no record, because the call's own record ([`Ongoing`]) says that it was denied.
    pub(crate) fn denied_in_record(&self, mut denial: Denial) {
        denial.what = self.shown(&denial.what, DENIAL_CHARACTERS);
        let dropped = {
            let mut reported = self.reported();
            reported.denied_calls += 1;
            if reported.denied.contains(&denial) || reported.denials_dropped {
                return;
            }
            if reported.denied.len() == DENIALS {
                reported.denials_dropped = true;
            } else {
                reported.denied.insert(denial.clone());
                reported.denials.push(denial.clone());
            }
            reported.denials_dropped
        };
        if dropped {
            self.host(
                Level::Warn,
                &format!("the method was denied more than {DENIALS} different requests: further denials are not reported"),
            );
        } else {
            self.send(Event::Denied { method: self.method.to_string(), denial });
        }
    }

    /// Returns what was denied so far, in order.
    pub(crate) fn denials(&self) -> Vec<Denial> {
        self.reported().denials.clone()
    }
}

#[cfg(test)]
mod tests;
