//! Progress as JSON, one object per line.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use replica::event::Event;
use replica::{EventSink, Level};

use super::{Log, Terminal};
use crate::cli::LogFormat;

/// The minimum time between two objects for one attempt. The last object for an attempt is always written.
const INTERVAL: Duration = Duration::from_millis(250);

/// Writes progress as JSON.
pub(super) struct JsonProgress {
    log: Log,
    pace: Mutex<Pace>,
}

impl JsonProgress {
    pub(super) fn new(terminal: Terminal) -> Self {
        Self { log: Log::new(terminal, LogFormat::Json, Level::Info), pace: Mutex::default() }
    }
}

impl EventSink for JsonProgress {
    fn emit(&self, event: Event) {
        let due = self.pace.lock().unwrap_or_else(PoisonError::into_inner).due(event, Instant::now());
        for event in due.into_iter().flatten() {
            self.log.json(&event);
        }
    }
}

/// Decides which events are written, separately for each kind of event.
#[derive(Default)]
struct Pace {
    progress: Throttle,
    phase: Throttle,
}

/// The time of the last event that was written, and the latest event that was not written since.
#[derive(Default)]
struct Throttle {
    last: Option<Instant>,
    held: Option<Event>,
}

impl Throttle {
    fn due(&mut self, event: Event, now: Instant) -> Option<Event> {
        if self.last.is_some_and(|last| now.duration_since(last) < INTERVAL) {
            self.held = Some(event);
            return None;
        }
        *self = Self { last: Some(now), held: None };
        Some(event)
    }
}

impl Pace {
    fn due(&mut self, event: Event, now: Instant) -> [Option<Event>; 2] {
        match event {
            Event::Progress { .. } => match self.progress.due(event, now) {
                None => [None, None],
                due => [self.phase.held.take(), due],
            },
            Event::Phase { .. } => [self.phase.due(event, now), None],
            Event::AttemptEnded { .. } => {
                let ended = std::mem::take(self);
                [ended.phase.held, ended.progress.held]
            }
            _ => [None, None],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(bytes: u64) -> Event {
        Event::Progress {
            method: "m".to_owned(),
            bytes,
            bytes_expected: None,
            files: 0,
            files_expected: None,
        }
    }

    fn bytes(event: &Event) -> u64 {
        match event {
            Event::Progress { bytes, .. } => *bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_method_that_alternates_phases_and_progress_cannot_flood_the_log() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let phase = || Event::Phase { method: "m".to_owned(), name: "p".to_owned() };
        let written = |event| pace.due(event, start).into_iter().flatten().count();
        assert!((0..10_000).flat_map(|i| [phase(), progress(i)]).map(written).sum::<usize>() <= 2);
    }

    #[test]
    fn progress_is_written_four_times_a_second_and_its_last_event_is_not_lost() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let mut written = Vec::new();
        for i in 0..=1000 {
            written.extend(pace.due(progress(i), start + Duration::from_millis(i)).into_iter().flatten());
        }
        assert_eq!(written.iter().map(bytes).collect::<Vec<_>>(), [0, 250, 500, 750, 1000]);
        assert!(pace.due(progress(1001), start + Duration::from_millis(1001)).iter().all(Option::is_none));
        let ended = Event::AttemptEnded {
            method: "m".to_owned(),
            outcome: replica::Outcome::Created,
            message: String::new(),
            rule: None,
            remedy: None,
            touched: true,
            duration: Duration::ZERO,
            usage: Default::default(),
        };
        let last: Vec<_> =
            pace.due(ended, start + Duration::from_millis(1002)).into_iter().flatten().collect();
        assert_eq!(last.iter().map(bytes).collect::<Vec<_>>(), [1001]);
    }
}
