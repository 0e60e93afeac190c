//! Progress as lines, for logs and pipes: one every 10 s or every 10 %.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use replica::event::{Event, Step};
use replica::{Bytes, EventSink};

use super::Terminal;
use super::log::now;
use super::text::{cut, printable, time};

/// The maximum time between two lines while the method reports progress.
const INTERVAL: Duration = Duration::from_secs(10);
/// The progress in percent after which the next line is written.
const PERCENT: u64 = 10;
/// How many characters of a phase's name are shown.
const PHASE_LIMIT: usize = 60;

/// Writes progress as lines.
pub(super) struct Plain {
    terminal: Terminal,
    pace: Mutex<Pace>,
}

impl Plain {
    pub(super) fn new(terminal: Terminal) -> Self {
        Self { terminal, pace: Mutex::default() }
    }
}

impl EventSink for Plain {
    fn emit(&self, event: Event) {
        let line = self.pace.lock().unwrap_or_else(PoisonError::into_inner).line(&event, Instant::now());
        if let Some(line) = line {
            // The line has the format of a log line, because both appear together, such as in Patroni's log.
            self.terminal.line(&format!("{} INFO  {line}", now()));
        }
    }
}

/// The time of the last line, and the progress that it showed.
#[derive(Default)]
struct Pace {
    began: Option<Instant>,
    last: Option<Instant>,
    percent: u64,
    phase: String,
}

impl Pace {
    /// Returns the line that is due after this event, if there is one. A method that keeps changing its expected total gets no
    /// additional lines, because the percentage at which the next line is due never falls.
    fn line(&mut self, event: &Event, now: Instant) -> Option<String> {
        match event {
            Event::AttemptStarted { .. } => *self = Self { last: Some(now), ..Self::default() },
            // The rate does not include the time before this step.
            Event::Step { step: Step::Create, .. } => self.began = Some(now),
            Event::Phase { name, .. } => self.phase = cut(&printable(name), PHASE_LIMIT).into_owned(),
            Event::Progress { method, bytes, bytes_expected, files, files_expected } => {
                let percent = percent(*bytes, *bytes_expected).or(percent(*files, *files_expected));
                let further = percent.is_some_and(|percent| percent >= self.percent + PERCENT);
                let silent = self.last.is_none_or(|last| now.duration_since(last) >= INTERVAL);
                if further || silent {
                    self.last = Some(now);
                    self.percent = self.percent.max(percent.unwrap_or(0) / PERCENT * PERCENT);
                    return Some(self.format(method, percent, (*bytes, *bytes_expected), *files, now));
                }
            }
            _ => {}
        }
        None
    }

    fn format(
        &self,
        method: &str,
        percent: Option<u64>,
        (bytes, expected): (u64, Option<u64>),
        files: u64,
        now: Instant,
    ) -> String {
        let mut parts = Vec::new();
        parts.extend(percent.map(|percent| format!("{percent} %")));
        parts.push(match expected {
            Some(expected) => format!("{} of {}", Bytes(bytes), Bytes(expected)),
            None => Bytes(bytes).to_string(),
        });
        if files > 0 {
            parts.push(format!("{files} files"));
        }
        let seconds = self.began.map_or(0.0, |began| now.duration_since(began).as_secs_f64());
        if seconds > 0.0 && bytes > 0 {
            let rate = bytes as f64 / seconds;
            parts.push(format!("{}/s", Bytes(rate as u64)));
            let left = expected
                .filter(|expected| *expected > bytes)
                .map(|expected| (expected - bytes) as f64 / rate);
            let left = left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
            parts.extend(left.map(|left| format!("{} left", time(left))));
        }
        let phase = if self.phase.is_empty() { String::new() } else { format!("{}: ", self.phase) };
        format!("{}: {phase}{}", printable(method), parts.join(", "))
    }
}

/// Returns the progress in percent, at most 100; `None` if the total is unknown.
fn percent(done: u64, expected: Option<u64>) -> Option<u64> {
    let expected = u128::from(expected.filter(|expected| *expected > 0)?);
    u64::try_from((u128::from(done) * 100 / expected).min(100)).ok()
}

#[cfg(test)]
mod tests {
    use super::super::terminal::tests::Captured;
    use super::*;

    fn progress(bytes: u64, bytes_expected: Option<u64>) -> Event {
        Event::Progress {
            method: "tarball".to_owned(),
            bytes,
            bytes_expected,
            files: 0,
            files_expected: None,
        }
    }

    fn started(at: Instant) -> Pace {
        let mut pace = Pace::default();
        assert_eq!(pace.line(&Event::AttemptStarted { method: "tarball".to_owned() }, at), None);
        assert_eq!(pace.line(&Event::Step { method: "tarball".to_owned(), step: Step::Create }, at), None);
        pace
    }

    #[test]
    fn a_line_has_time_and_level_like_a_log_line() {
        let captured = Captured::default();
        let plain = Plain::new(Terminal::to(captured.clone()));
        plain.emit(progress(50, Some(100)));
        let lines = captured.lines();
        let (time, line) = lines[0].split_once(' ').unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{lines:?}");
        assert_eq!(line, "INFO  tarball: 50 %, 50 B of 100 B");
    }

    #[test]
    fn a_line_is_written_every_ten_percent() {
        let start = Instant::now();
        let mut pace = started(start);
        let lines: Vec<_> = (0..=1000)
            .filter_map(|i| pace.line(&progress(i << 20, Some(1000 << 20)), start + Duration::from_millis(i)))
            .collect();
        assert_eq!(lines.len(), 10, "{lines:?}");
        assert_eq!(lines[0], "tarball: 10 %, 100.0 MiB of 1000.0 MiB, 1000.0 MiB/s, 0.9 s left");
        assert_eq!(lines[9], "tarball: 100 %, 1000.0 MiB of 1000.0 MiB, 1000.0 MiB/s");
    }

    #[test]
    fn a_line_is_written_every_ten_seconds_if_the_method_is_slow_or_the_total_unknown() {
        let start = Instant::now();
        let mut pace = started(start);
        pace.line(&Event::Phase { method: "tarball".to_owned(), name: "WAL\u{1b}".to_owned() }, start);
        let lines: Vec<_> = (1..=60)
            .filter_map(|i| pace.line(&progress(i * 1024, None), start + Duration::from_secs(i)))
            .collect();
        assert_eq!(lines.len(), 6, "{lines:?}");
        assert_eq!(lines[0], "tarball: WAL\\u{1b}: 10.0 KiB, 1.0 KiB/s");
    }

    #[test]
    fn a_method_that_changes_its_expected_total_cannot_flood_the_log() {
        let start = Instant::now();
        let mut pace = started(start);
        let lines = (0..100_000u64)
            .filter_map(|i| pace.line(&progress(50, Some(if i % 2 == 0 { 50 } else { 5000 })), start));
        assert!(lines.count() <= 10);
    }
}
