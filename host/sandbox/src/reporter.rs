//! What a run tells: log lines, progress and denials, each with a bound.
//!
//! Everything is sent to the other side of a channel. A reader of the event stream may open files or start threads,
//! and on the method's own thread both would happen behind its Landlock wall.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use replica::run::Activity;
use replica::{Denial, Event, Level};
use tokio::sync::mpsc::UnboundedSender;
use transfer::store::Notice;

use crate::text::printable;

/// Lines that a component may log in one run.
pub(crate) const LOG_LINES: u32 = 10_000;
/// Characters of all its log lines together.
pub(crate) const LOG_CHARACTERS: usize = 4 << 20;
/// Characters of one line, whoever wrote it.
pub(crate) const LINE_CHARACTERS: usize = 4096;
/// Fields of one line, and characters of a field's name and value.
const FIELDS: usize = 16;
const FIELD_NAME: usize = 64;
const FIELD_VALUE: usize = 1024;
/// Phases that a component may name in one run, and characters of a name.
pub(crate) const PHASES: u32 = 1000;
const PHASE_CHARACTERS: usize = 200;
/// Different denials that are told of one run.
pub(crate) const DENIALS: usize = 100;
/// Characters of what was denied.
const DENIAL_CHARACTERS: usize = 1024;
/// The pause between two events that tell of one store that is asked again: many objects fail together.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Characters of what such an event says in each of its parts.
const RETRY_CHARACTERS: usize = 1024;
/// Stores of which it is known when it was told of them last.
const RETRYING_STORES: usize = 64;
/// The pause between two events of progress.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

/// The mouth of one run. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reporter {
    method: Arc<str>,
    events: UnboundedSender<Event>,
    told: Arc<Mutex<Told>>,
    activity: Activity,
}

#[derive(Default)]
struct Told {
    lines: u32,
    characters: usize,
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
    /// When it was told last of each store that it is asked again.
    retrying: HashMap<String, Instant>,
}

impl Reporter {
    /// Reports for the method of this name. Nobody has to listen: what `describe` says is dropped.
    pub(crate) fn new(method: &str, events: UnboundedSender<Event>) -> Self {
        Self { method: method.into(), events, told: Arc::default(), activity: Activity::default() }
    }

    /// The same, noting what the component moves in `activity`.
    #[must_use]
    pub(crate) fn noting(self, activity: &Activity) -> Self {
        Self { activity: activity.clone(), ..self }
    }

    /// Where what the component moves is noted: a call that reads, writes or looks, and bytes that come and go. Neither its
    /// words nor its looks at the clock and at the cancellation are such: a component can have any number of them and get nowhere.
    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, event: Event) {
        // Fails only when the run was given up, and then nobody wants to know.
        let _ = self.events.send(event);
    }

    /// A line of log from `origin`: `host`, `plugin`, `stdout` or `stderr`. The caller bounds how many.
    pub(crate) fn line(&self, level: Level, origin: &str, message: &str, fields: Vec<(String, String)>) {
        self.send(Event::Log {
            method: Some(self.method.to_string()),
            level,
            origin: origin.to_owned(),
            message: printable(message, LINE_CHARACTERS),
            fields,
        });
    }

    /// The host's own word on this run.
    pub(crate) fn host(&self, level: Level, message: &str) {
        self.line(level, "host", message, Vec::new());
    }

    /// A line of the component's own log. What is too much is dropped, with one warning.
    pub(crate) fn log(&self, level: Level, message: &str, fields: Vec<(String, String)>) {
        let fields: Vec<_> = fields
            .into_iter()
            .take(FIELDS)
            .map(|(name, value)| (printable(&name, FIELD_NAME), printable(&value, FIELD_VALUE)))
            .collect();
        let characters = message.len().min(LINE_CHARACTERS)
            + fields.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        let full = {
            let mut told = self.told();
            if told.lines > LOG_LINES {
                return;
            }
            told.lines += 1;
            told.characters += characters;
            if told.characters > LOG_CHARACTERS {
                told.lines = LOG_LINES + 1;
            }
            told.lines > LOG_LINES
        };
        if full {
            self.host(
                Level::Warn,
                &format!(
                    "the method logged more than {LOG_LINES} lines or {LOG_CHARACTERS} characters: the rest of its log is dropped"
                ),
            );
        } else {
            self.line(level, "plugin", message, fields);
        }
    }

    /// What the component works on now.
    pub(crate) fn phase(&self, name: &str) {
        let name = printable(name, PHASE_CHARACTERS);
        let full = {
            let mut told = self.told();
            if told.phase == name || told.phases > PHASES {
                return;
            }
            told.phase.clone_from(&name);
            told.phases += 1;
            told.phases > PHASES
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

    /// How much there is to do, as far as the component knows.
    pub(crate) fn expect(&self, bytes: Option<u64>, files: Option<u64>) {
        {
            let mut told = self.told();
            (told.bytes_expected, told.files_expected) = (bytes, files);
            told.progress_waits = true;
        }
        self.progress(false);
    }

    /// How much more is done.
    pub(crate) fn done(&self, bytes: u64, files: u64) {
        if (bytes, files) != (0, 0) {
            self.activity.mark();
        }
        {
            let mut told = self.told();
            told.bytes = told.bytes.saturating_add(bytes);
            told.files = told.files.saturating_add(files);
            told.progress_waits = true;
        }
        self.progress(false);
    }

    /// Tells the last progress, where it was held back. For the end of the run.
    pub(crate) fn flush(&self) {
        self.progress(true);
    }

    fn progress(&self, at_once: bool) {
        let event = {
            let mut told = self.told();
            let due = told.progress_sent.is_none_or(|sent| sent.elapsed() >= PROGRESS_PAUSE);
            if !told.progress_waits || !(due || at_once) {
                return;
            }
            told.progress_sent = Some(Instant::now());
            told.progress_waits = false;
            Event::Progress {
                method: self.method.to_string(),
                bytes: told.bytes,
                bytes_expected: told.bytes_expected,
                files: told.files,
                files_expected: told.files_expected,
            }
        };
        self.send(event);
    }

    /// A store is asked again. What comes too soon after the last word on that store is not told.
    pub(crate) fn retrying(&self, notice: Notice) {
        {
            let mut told = self.told();
            let now = Instant::now();
            told.retrying.retain(|_, at| now.duration_since(*at) < RETRY_PAUSE);
            if told.retrying.contains_key(&notice.store) || told.retrying.len() >= RETRYING_STORES {
                return;
            }
            told.retrying.insert(notice.store.clone(), now);
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

    /// A call that no grant covers. The same denial is told once.
    pub(crate) fn denied(&self, mut denial: Denial) {
        denial.what = printable(&denial.what, DENIAL_CHARACTERS);
        let dropped = {
            let mut told = self.told();
            if told.denied.contains(&denial) || told.denials_dropped {
                return;
            }
            if told.denied.len() == DENIALS {
                told.denials_dropped = true;
            } else {
                told.denied.insert(denial.clone());
                told.denials.push(denial.clone());
            }
            told.denials_dropped
        };
        if dropped {
            self.host(
                Level::Warn,
                &format!("the method was denied more than {DENIALS} things: the rest is not told"),
            );
        } else {
            self.send(Event::Denied { method: self.method.to_string(), denial });
        }
    }

    /// What was denied so far, in order.
    pub(crate) fn denials(&self) -> Vec<Denial> {
        self.told().denials.clone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;
    use replica::CapabilityKind;

    fn reporter() -> (Reporter, UnboundedReceiver<Event>) {
        let (events, told) = unbounded_channel();
        (Reporter::new("m", events), told)
    }

    fn drain(mut told: UnboundedReceiver<Event>) -> Vec<Event> {
        std::iter::from_fn(|| told.try_recv().ok()).collect()
    }

    #[test]
    fn a_flood_of_log_lines_ends_in_one_warning() {
        let (reporter, told) = reporter();
        for _ in 0..LOG_LINES + 50 {
            reporter.log(Level::Info, "x", Vec::new());
        }
        let told = drain(told);
        assert_eq!(told.len(), LOG_LINES as usize + 1);
        assert!(
            matches!(told.last(), Some(Event::Log { origin, level: Level::Warn, .. }) if origin == "host")
        );
    }

    #[test]
    fn long_log_lines_are_cut_and_their_sum_is_bounded() {
        let (reporter, told) = reporter();
        let line = "x".repeat(1 << 20);
        for _ in 0..3000 {
            reporter.log(Level::Info, &line, Vec::new());
        }
        let told = drain(told);
        assert!(told.len() <= LOG_CHARACTERS / LINE_CHARACTERS + 1);
        for event in told {
            let Event::Log { message, .. } = event else { panic!("{event:?}") };
            assert!(message.chars().count() <= LINE_CHARACTERS + 1);
        }
    }

    #[test]
    fn the_same_denial_is_told_once_and_their_number_is_bounded() {
        let (reporter, told) = reporter();
        for number in 0..2 * DENIALS {
            let denial =
                Denial { capability: CapabilityKind::Read, what: format!("/{number}"), remedy: None };
            reporter.denied(denial.clone());
            reporter.denied(denial);
        }
        assert_eq!(drain(told).len(), DENIALS + 1);
        assert_eq!(reporter.denials().len(), DENIALS);
    }

    #[test]
    fn a_store_that_is_asked_again_is_told_of_at_once_and_seldom_from_then_on() {
        let (reporter, told) = reporter();
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
        let told = drain(told);
        assert!((2..100).contains(&told.len()), "{}", told.len());
        for event in &told {
            let Event::Retrying { cause, .. } = event else { panic!("{event:?}") };
            assert!(cause.chars().count() <= RETRY_CHARACTERS + 1);
        }
    }

    #[test]
    fn progress_adds_up_is_throttled_and_its_last_word_is_told() {
        let (reporter, told) = reporter();
        for _ in 0..100_000 {
            reporter.done(3, 1);
        }
        reporter.flush();
        reporter.flush();
        let told = drain(told);
        assert!(told.len() < 1000, "{}", told.len());
        assert!(matches!(told.last(), Some(Event::Progress { bytes: 300_000, files: 100_000, .. })));
    }

    #[test]
    fn phases_are_bounded_and_a_repeated_one_is_told_once() {
        let (reporter, told) = reporter();
        reporter.phase("same");
        reporter.phase("same");
        for number in 0..2 * PHASES {
            reporter.phase(&number.to_string());
        }
        let told = drain(told);
        assert_eq!(told.len(), PHASES as usize + 1);
        assert!(matches!(told.last(), Some(Event::Log { level: Level::Warn, .. })));
    }
}
