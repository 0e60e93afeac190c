//! The log on standard error, as text or as one JSON object per line.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use jiff::Timestamp;
use replica::event::Event;
use replica::{EventSink, Level, Outcome, Redactor};
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use super::terminal::Terminal;
use super::text::{amount, json_line, printable, time};
use super::usage;
use crate::cli::LogFormat;

/// Writes the events of a run, and the trace events of this program's crates, to the terminal.
#[derive(Clone)]
pub struct Log {
    terminal: Terminal,
    format: LogFormat,
    level: Level,
    redactor: Redactor,
    /// How many denials of the current attempt were shown.
    denials: Arc<AtomicUsize>,
}

/// The crates whose trace events follow `--log-level`. Other crates' trace events are shown only if they are warnings or errors.
const OUR_CRATES: [&str; 4] = ["understudy", "replica", "sandbox", "transfer"];

/// How many denials of one attempt the text log shows, unless the level is `debug` or `trace`.
const DENIALS: usize = 3;

impl Log {
    /// Creates a log of every event that is at least as serious as `level`.
    pub fn new(terminal: Terminal, format: LogFormat, level: Level) -> Self {
        Self { terminal, format, level, redactor: Redactor::new(), denials: Arc::default() }
    }

    /// Returns the redactor. Secrets that are added to it are removed from every later line.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// From now on, also writes the trace events of this program's crates.
    pub fn take_traces(&self) {
        let subscriber = tracing_subscriber::registry().with(Traces(self.clone()));
        if tracing::subscriber::set_global_default(subscriber).is_err() {
            self.say(Level::Debug, "trace events are not logged, because another subscriber receives them");
        }
    }

    /// Logs a message of the program itself.
    pub fn say(&self, level: Level, message: &str) {
        self.emit(Event::Log {
            method: None,
            level,
            origin: "host".to_owned(),
            message: message.to_owned(),
            fields: Vec::new(),
        });
    }

    /// Returns whether the log shows each attempt when it ends, so that the summary need not repeat the attempt.
    pub fn logs_attempts(&self) -> bool {
        self.level >= Level::Warn
    }

    /// Returns whether an event is a denial beyond the first [`DENIALS`] of an attempt. An interpreter that looks for its modules causes
    /// dozens of denials. The report and the log in JSON have all of them, and the method's own error names the one that mattered.
    fn exceeds_denial_limit(&self, event: &Event) -> bool {
        match event {
            Event::AttemptStarted { .. } => self.denials.store(0, Ordering::Relaxed),
            Event::Denied { .. } => {
                let limited = self.level < Level::Debug;
                return self.denials.fetch_add(1, Ordering::Relaxed) >= DENIALS && limited;
            }
            _ => {}
        }
        false
    }

    /// If an attempt has ended, writes a line about what it used.
    fn usage(&self, event: &Event) {
        let Event::AttemptEnded { method, usage, .. } = event else { return };
        if let Some(used) = usage::line(usage).filter(|_| self.level >= Level::Info) {
            let line = format!("{} {:5} {}: {used}", now(), level_name(Level::Info), printable(method));
            self.terminal.line(&line);
        }
    }

    /// Writes a value as one JSON object with the time.
    pub fn json(&self, value: &impl Serialize) {
        self.terminal.line(&json_line(&Timed { time: now(), value }));
    }
}

/// A value with the time of its line.
#[derive(Serialize)]
struct Timed<'v, V: Serialize> {
    time: String,
    #[serde(flatten)]
    value: &'v V,
}

/// Returns the current time in the format of RFC 3339, with milliseconds.
pub(super) fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

impl EventSink for Log {
    fn emit(&self, event: Event) {
        let Some(level) = level(&event).filter(|level| *level <= self.level) else { return };
        // A run's events are redacted already. Trace events are redacted only here.
        let event = event.map_texts(&|text| self.redactor.redact(&text).into_owned());
        match self.format {
            LogFormat::Json => self.json(&event),
            LogFormat::Text if self.exceeds_denial_limit(&event) => {}
            LogFormat::Text => {
                if let Some((about, text)) = sentence(&event) {
                    let line = format!("{} {:5} {about}{}", now(), level_name(level), printable(&text));
                    self.terminal.line(&line);
                }
                self.usage(&event);
            }
        }
    }
}

/// Returns the level of an event; `None` for progress.
fn level(event: &Event) -> Option<Level> {
    match event {
        Event::Progress { .. } | Event::Phase { .. } | Event::Called { .. } => None,
        Event::Step { .. } => Some(Level::Debug),
        Event::State { .. }
        | Event::AttemptStarted { .. }
        | Event::Planned { .. }
        | Event::RunEnded { .. } => Some(Level::Info),
        Event::Log { level, .. } => Some(*level),
        Event::Denied { .. } | Event::Retrying { .. } => Some(Level::Warn),
        Event::Found { finding, .. } => Some(finding.level),
        Event::AttemptEnded { outcome, .. } => Some(match outcome {
            Outcome::Created | Outcome::NotApplicable => Level::Info,
            _ => Level::Warn,
        }),
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::Error => "ERROR",
        Level::Warn => "WARN",
        Level::Info => "INFO",
        Level::Debug => "DEBUG",
        Level::Trace => "TRACE",
    }
}

/// Returns the beginning of an event's line, which names the method, and the text of the line. `None` if the log has no line for the event,
/// such as for the end of the run, which the summary shows.
fn sentence(event: &Event) -> Option<(String, String)> {
    let of = |method: &str, origin: &str| match origin {
        "host" => format!("{}: ", printable(method)),
        origin => format!("{} ({}): ", printable(method), printable(origin)),
    };
    Some(match event {
        Event::Progress { .. } | Event::Phase { .. } | Event::Called { .. } | Event::RunEnded { .. } => {
            return None;
        }
        Event::State { state } => ("state: ".to_owned(), (*state).to_owned()),
        Event::AttemptStarted { method } => (of(method, "host"), "trying".to_owned()),
        Event::Step { method, step } => (of(method, "host"), format!("step {}", super::step_word(*step))),
        Event::Planned { method, plan } => {
            let mut text = format!("would restore {}", plan.backup);
            let size = amount(plan.bytes.map(|bytes| bytes.0), plan.files);
            if !size.is_empty() {
                let _infallible = write!(text, ", {size}");
            }
            if let Some(timeline) = plan.timeline {
                let _infallible = write!(text, ", timeline {timeline}");
            }
            if let Some(lsn) = plan.stop_lsn {
                let _infallible = write!(text, ", consistent at {lsn}");
            }
            (of(method, "host"), text)
        }
        Event::Log { method, origin, message, fields, .. } => {
            let mut text = message.clone();
            for (name, value) in fields {
                let _infallible = write!(text, " {name}={value}");
            }
            (method.as_deref().map(|method| of(method, origin)).unwrap_or_default(), text)
        }
        Event::Retrying { method, store, about, attempt, cause, next_try_in } => {
            let next = match next_try_in {
                Some(wait) => format!("asked again in {}", time(*wait)),
                None => "still waiting".to_owned(),
            };
            (of(method, "host"), format!("{store}: {about}: attempt {attempt}: {cause}; {next}"))
        }
        Event::Denied { method, denial } => {
            let mut text = format!("denied: {denial}");
            if let Some(remedy) = &denial.remedy {
                let _infallible = write!(text, "; to allow it: {remedy}");
            }
            (of(method, "host"), text)
        }
        Event::Found { method, finding } => {
            (of(method, "host"), format!("{}: {}", finding.check, finding.message))
        }
        Event::AttemptEnded { method, outcome, message, remedy, duration, .. } => {
            let mut text = format!("{outcome} after {}", time(*duration));
            if !message.is_empty() {
                let _infallible = write!(text, ": {message}");
            }
            if let Some(remedy) = remedy {
                let _infallible = write!(text, "; to change that: {remedy}");
            }
            (of(method, "host"), text)
        }
    })
}

/// Writes trace events to the log.
struct Traces(Log);

impl<S: tracing::Subscriber> Layer<S> for Traces {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _context: Context<'_, S>) -> bool {
        let level = from_tracing(*metadata.level());
        let root = metadata.target().split("::").next().unwrap_or_default();
        level <= self.0.level && (level <= Level::Warn || OUR_CRATES.contains(&root))
    }

    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        let mut fields = TraceFields::default();
        event.record(&mut fields);
        self.0.emit(Event::Log {
            method: None,
            level: from_tracing(*event.metadata().level()),
            origin: event.metadata().target().to_owned(),
            message: fields.message,
            fields: fields.others,
        });
    }
}

fn from_tracing(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

/// The fields of a trace event.
#[derive(Default)]
struct TraceFields {
    message: String,
    others: Vec<(String, String)>,
}

impl Visit for TraceFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.others.push((name.to_owned(), format!("{value:?}"))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::terminal::tests::Captured;
    use replica::Rule;

    use super::*;

    fn log(format: LogFormat, level: Level) -> (Log, Captured) {
        let captured = Captured::default();
        (Log::new(Terminal::to(captured.clone()), format, level), captured)
    }

    fn plugin_says(level: Level, message: &str) -> Event {
        Event::Log {
            method: Some("tarball".to_owned()),
            level,
            origin: "plugin".to_owned(),
            message: message.to_owned(),
            fields: vec![("file".to_owned(), "base.tar".to_owned())],
        }
    }

    #[test]
    fn a_line_has_time_level_method_and_origin() {
        let (log, captured) = log(LogFormat::Text, Level::Info);
        log.emit(plugin_says(Level::Warn, "slow"));
        let lines = captured.lines();
        let (time, rest) = lines[0].split_once(' ').unwrap();
        time.parse::<Timestamp>().unwrap();
        assert_eq!(rest, "WARN  tarball (plugin): slow file=base.tar");
    }

    #[test]
    fn events_that_are_less_serious_than_the_level_are_not_logged() {
        let (log, captured) = log(LogFormat::Text, Level::Warn);
        log.emit(plugin_says(Level::Info, "no"));
        log.emit(Event::AttemptStarted { method: "tarball".to_owned() });
        log.emit(plugin_says(Level::Error, "yes"));
        assert_eq!(captured.lines().len(), 1);
    }

    #[test]
    fn a_log_in_json_is_one_object_per_line_whatever_a_plugin_logs() {
        let (log, captured) = log(LogFormat::Json, Level::Info);
        log.emit(plugin_says(Level::Info, "a\nb\u{1b}[2J\u{9b}"));
        log.emit(Event::State { state: "creating replica" });
        let lines = captured.lines();
        assert_eq!(lines.len(), 2);
        let first: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(first["event"], "log");
        assert_eq!(first["method"], "tarball");
        assert_eq!(first["message"], "a\nb\u{1b}[2J\u{9b}");
        assert!(first["time"].as_str().unwrap().parse::<Timestamp>().is_ok());
    }

    #[test]
    fn the_line_for_a_denial_has_the_setting_that_would_allow_the_request() {
        let (log, captured) = log(LogFormat::Text, Level::Info);
        let remedy = "[method.x.grants] read = [\"/mnt\"]".to_owned();
        let denial = replica::Denial {
            capability: replica::CapabilityKind::Read,
            what: "/mnt/\u{1b}[1m".to_owned(),
            remedy: Some(remedy),
        };
        log.emit(Event::Denied { method: "x".to_owned(), denial });
        let line = &captured.lines()[0];
        assert!(
            line.ends_with(
                "x: denied: read /mnt/\\u{1b}[1m; to allow it: [method.x.grants] read = [\"/mnt\"]"
            ),
            "{line}"
        );
        // The line names the capability only once.
        let denial = replica::Denial {
            capability: replica::CapabilityKind::Program,
            what: "the program restore with the arguments [\"--all\"]".to_owned(),
            remedy: None,
        };
        log.emit(Event::Denied { method: "x".to_owned(), denial });
        let line = &captured.lines()[1];
        assert!(line.ends_with("x: denied: the program restore with the arguments [\"--all\"]"), "{line}");
    }

    #[test]
    fn a_retry_is_logged_with_store_attempt_and_cause() {
        let (log, captured) = log(LogFormat::Text, Level::Warn);
        let retrying = |next_try_in| Event::Retrying {
            method: "x".to_owned(),
            store: "s3://backups".to_owned(),
            about: "base.tar".to_owned(),
            attempt: 2,
            cause: "connection refused\u{1b}".to_owned(),
            next_try_in,
        };
        log.emit(retrying(Some(Duration::from_millis(1500))));
        log.emit(retrying(None));
        let lines = captured.lines();
        let says = "x: s3://backups: base.tar: attempt 2: connection refused\\u{1b}; ";
        assert!(lines[0].ends_with(&format!("{says}asked again in 1.5 s")), "{lines:?}");
        assert!(lines[1].ends_with(&format!("{says}still waiting")), "{lines:?}");
    }

    #[test]
    fn the_text_log_shows_three_denials_of_an_attempt_and_the_json_log_all() {
        for (format, shown) in [(LogFormat::Text, 3), (LogFormat::Json, 18)] {
            let (log, captured) = log(format, Level::Warn);
            for number in 0..18 {
                let what = format!("/usr/lib/python3/{number}");
                let denial =
                    replica::Denial { capability: replica::CapabilityKind::Read, what, remedy: None };
                log.emit(Event::Denied { method: "x".to_owned(), denial });
            }
            assert_eq!(captured.lines().len(), shown, "{format:?}");
            log.emit(Event::AttemptStarted { method: "y".to_owned() });
        }
    }

    #[test]
    fn the_line_for_a_failed_attempt_has_the_cause_and_the_remedy() {
        let (log, captured) = log(LogFormat::Text, Level::Info);
        log.emit(Event::AttemptEnded {
            method: "x".to_owned(),
            outcome: Outcome::Rejected,
            message: "no such file".to_owned(),
            rule: Some(Rule::Component),
            remedy: Some("plugin = \"/x.wasm\"".to_owned()),
            touched: false,
            duration: Duration::from_millis(1200),
            usage: Default::default(),
        });
        let line = &captured.lines()[0];
        let expected = "WARN  x: rejected after 1.2 s: no such file; to change that: plugin = \"/x.wasm\"";
        assert!(line.ends_with(expected), "{line}");
    }

    #[test]
    fn trace_events_of_our_crates_follow_the_level_and_of_others_only_warnings_are_shown() {
        let (log, captured) = log(LogFormat::Text, Level::Debug);
        let subscriber = tracing_subscriber::registry().with(Traces(log));
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "sandbox::engine", images = 3, "cached");
            tracing::debug!(target: "wasmtime::x", "hidden");
            tracing::warn!(target: "wasmtime::x", "shown");
            tracing::trace!(target: "sandbox", "hidden");
        });
        let lines = captured.lines();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].ends_with("DEBUG cached images=3"), "{}", lines[0]);
    }
}
