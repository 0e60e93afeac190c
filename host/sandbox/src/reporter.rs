//! Reports the events of a run: log lines, progress and denials, each with a bound.
//!
//! Events go through a channel to the thread that drives the run. A reader of the event stream may open files or start threads, and
//! on the method's own thread Landlock would restrict both.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use replica::event::HostCall;
use replica::run::Activity;
use replica::{Bytes, CapabilityKind, Denial, Event, Level};
use tokio::sync::mpsc::UnboundedSender;
use transfer::store::Notice;

use crate::calls::{self, Call, Calls};
use crate::text::printable;

/// How many characters one line may have, whatever its origin.
pub(crate) const LINE_CHARACTERS: usize = 4096;
/// How many fields a line may have, and how many characters a field's name and value.
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
/// The least time between two events about retries of one store. Without it many objects that fail together would flood the log.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How many characters each text of such an event may have.
const RETRY_CHARACTERS: usize = 1024;
/// For how many stores the time of the last such event is remembered.
const RETRYING_STORES: usize = 64;
/// The least time between two events of progress.
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
    /// Records the calls of the component; `None` if nobody takes the records.
    calls: Option<Arc<Calls>>,
}

/// How much a method may log and print in one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBudget {
    /// How many bytes all its lines may have.
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
    /// Whether a line was dropped, so that all others are too.
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
    /// Makes a reporter for the method of this name. The receiver may be gone: the events of `describe` are dropped.
    pub(crate) fn new(method: &str, events: UnboundedSender<Event>) -> Self {
        Self {
            method: method.into(),
            events,
            reported: Arc::default(),
            activity: Activity::default(),
            log: LogBudget::default(),
            calls: None,
        }
    }

    /// Returns the same reporter, which reports this much of the component's log. `already` was logged by earlier calls of the attempt.
    #[must_use]
    pub(crate) fn within(self, log: LogBudget, already: Logged) -> Self {
        self.reported().logged = already;
        Self { log, ..self }
    }

    /// Returns the same reporter, which records the component's calls.
    #[must_use]
    pub(crate) fn recording(self, calls: Calls) -> Self {
        Self { calls: Some(Arc::new(calls)), ..self }
    }

    /// Begins the record of a call to `function`, which needs this capability. `object` is asked for only if calls are recorded.
    pub(crate) fn call(
        &self,
        capability: impl Into<Option<CapabilityKind>>,
        function: &'static str,
        object: impl FnOnce() -> String,
    ) -> Call {
        Call::begin(self, self.calls.as_ref(), capability.into(), function, object)
    }

    /// Returns the records of calls; `None` if nobody takes them.
    pub(crate) fn calls(&self) -> Option<&Arc<Calls>> {
        self.calls.as_ref()
    }

    /// Reports the record of a call. Waits while too many records wait.
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

    /// Returns the same reporter, which records the activity of the component in `activity`.
    #[must_use]
    pub(crate) fn noting(self, activity: &Activity) -> Self {
        Self { activity: activity.clone(), ..self }
    }

    /// Returns the record of the component's activity: a call that reads, writes or looks something up, and bytes that are moved. Log
    /// lines, reads of the clock and checks for cancellation do not count: a component can make any number of them without progress.
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
        self.printable_line(level, origin, printable(message, LINE_CHARACTERS), fields);
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
    pub(crate) fn program(&self, name: &str, line: &str) {
        self.component_line(Level::Info, &format!("program {name}"), line, Vec::new());
    }

    /// Reports a line that the component logged.
    pub(crate) fn log(&self, level: Level, message: &str, fields: Vec<(String, String)>) {
        let fields = fields.into_iter().take(FIELDS);
        let fields =
            fields.map(|(name, value)| (printable(&name, FIELD_NAME), printable(&value, FIELD_VALUE)));
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
        if self.reported().log_is_full {
            return;
        }
        let message = printable(message, LINE_CHARACTERS);
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

    /// Reports what the component works on now.
    pub(crate) fn phase(&self, name: &str) {
        let name = printable(name, PHASE_CHARACTERS);
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

    /// Records how much there is to do, as far as the component knows.
    pub(crate) fn expect(&self, bytes: Option<u64>, files: Option<u64>) {
        {
            let mut reported = self.reported();
            (reported.bytes_expected, reported.files_expected) = (bytes, files);
            reported.progress_waits = true;
        }
        self.progress(false);
    }

    /// Adds to what is done.
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

    /// Reports the last progress if it was held back. For the end of the run.
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
            store: printable(&store, RETRY_CHARACTERS),
            about: printable(&about, RETRY_CHARACTERS),
            attempt,
            cause: printable(&cause, RETRY_CHARACTERS),
            next_try_in,
        });
    }

    /// Reports a call that no grant covers. The same denial is reported once.
    pub(crate) fn denied(&self, mut denial: Denial) {
        if let Some(calls) = &self.calls
            && !calls.note_denial()
        {
            // A call that has no record of its own.
            let of = (denial.capability, denial.capability.word());
            calls::ended(self, calls, of, &denial.what, "denied", |_| {});
        }
        denial.what = printable(&denial.what, DENIAL_CHARACTERS);
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
                &format!("the method was denied more than {DENIALS} things: the rest is not reported"),
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
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use replica::CapabilityKind;

    fn reporter() -> (Reporter, UnboundedReceiver<Event>) {
        let (events, reported) = unbounded_channel();
        (Reporter::new("m", events), reported)
    }

    fn drain(mut reported: UnboundedReceiver<Event>) -> Vec<Event> {
        std::iter::from_fn(|| reported.try_recv().ok()).collect()
    }

    #[test]
    fn a_flood_of_log_lines_ends_in_one_warning() {
        let (reporter, reported) = reporter();
        for number in 0..LogBudget::default().lines + 50 {
            let origin = if number % 2 == 0 { "plugin" } else { "stdout" };
            reporter.component_line(Level::Info, origin, "x", Vec::new());
        }
        let reported = drain(reported);
        assert_eq!(reported.len() as u64, LogBudget::default().lines + 1);
        assert!(
            matches!(reported.last(), Some(Event::Log { origin, level: Level::Warn, .. }) if origin == "host")
        );
    }

    #[test]
    fn long_log_lines_are_cut_and_their_sum_is_bounded() {
        let (reporter, reported) = reporter();
        let line = "x".repeat(1 << 20);
        for _ in 0..3000 {
            reporter.log(Level::Info, &line, Vec::new());
        }
        let reported = drain(reported);
        assert!(reported.len() as u64 <= LogBudget::default().bytes.0 / LINE_CHARACTERS as u64 + 1);
        for event in reported {
            let Event::Log { message, .. } = event else { panic!("{event:?}") };
            assert!(message.chars().count() <= LINE_CHARACTERS + 1);
        }
    }

    #[test]
    fn the_granted_log_counts_what_earlier_calls_of_the_attempt_logged() {
        let (reporter, reported) = reporter();
        let budget = LogBudget { bytes: Bytes(10), lines: 5 };
        let reporter = reporter.within(budget, Logged { lines: 3, bytes: 1 });
        reporter.log(Level::Info, "four", vec![("a".to_owned(), "b".to_owned())]);
        assert_eq!(reporter.logged(), Logged { lines: 4, bytes: 7 });
        reporter.log(Level::Info, "five", Vec::new());
        reporter.log(Level::Info, "5", Vec::new());
        let reported = drain(reported);
        let Some(Event::Log { message, origin, .. }) = reported.last() else { panic!("{reported:?}") };
        assert_eq!((reported.len(), origin.as_str()), (2, "host"));
        assert!(message.contains("5 lines or 10 B (`log` in its grants)"), "{message}");
    }

    #[test]
    fn the_same_denial_is_reported_once_and_the_number_of_denials_is_bounded() {
        let (reporter, reported) = reporter();
        for number in 0..2 * DENIALS {
            let denial =
                Denial { capability: CapabilityKind::Read, what: format!("/{number}"), remedy: None };
            reporter.denied(denial.clone());
            reporter.denied(denial);
        }
        assert_eq!(drain(reported).len(), DENIALS + 1);
        assert_eq!(reporter.denials().len(), DENIALS);
        assert_eq!(reporter.denied_calls(), 4 * DENIALS as u64);
    }

    #[test]
    fn the_first_retry_of_a_store_is_reported_at_once_and_later_ones_are_throttled() {
        let (reporter, reported) = reporter();
        for number in 0..10_000 {
            for store in ["s3://one", "s3://two"] {
                reporter.retrying(Notice {
                    store: store.to_owned(),
                    about: number.to_string(),
                    attempt: 1,
                    cause: "x".repeat(2 * RETRY_CHARACTERS),
                    next_try_in: None,
                });
            }
        }
        let reported = drain(reported);
        assert!((2..100).contains(&reported.len()), "{}", reported.len());
        for event in &reported {
            let Event::Retrying { cause, .. } = event else { panic!("{event:?}") };
            assert!(cause.chars().count() <= RETRY_CHARACTERS + 1);
        }
    }

    #[test]
    fn progress_adds_up_is_throttled_and_its_last_state_is_reported() {
        let (reporter, reported) = reporter();
        for _ in 0..100_000 {
            reporter.done(3, 1);
        }
        reporter.flush();
        reporter.flush();
        let reported = drain(reported);
        assert!(reported.len() < 1000, "{}", reported.len());
        assert!(matches!(reported.last(), Some(Event::Progress { bytes: 300_000, files: 100_000, .. })));
    }

    #[test]
    fn phases_are_bounded_and_a_repeated_one_is_reported_once() {
        let (reporter, reported) = reporter();
        reporter.phase("same");
        reporter.phase("same");
        for number in 0..2 * PHASES {
            reporter.phase(&number.to_string());
        }
        let reported = drain(reported);
        assert_eq!(reported.len(), PHASES as usize + 1);
        assert!(matches!(reported.last(), Some(Event::Log { level: Level::Warn, .. })));
    }
}
