//! What a method is given besides its request: where to tell what happens, and when to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::event::{Event, EventSink, Level};

/// One run of one method. The loop cancels it on a signal and when a deadline passes, and knows which it was;
/// the method only has to stop.
#[derive(Clone)]
pub struct Run {
    method: Arc<str>,
    cancel: CancellationToken,
    events: Arc<dyn EventSink>,
    activity: Activity,
}

/// When a method last read, wrote or finished something: a method that does nothing of it for too long is stalled. Clones are
/// of the same method.
#[derive(Clone, Debug)]
pub struct Activity {
    began: Instant,
    /// Milliseconds after `began`.
    last: Arc<AtomicU64>,
}

impl Default for Activity {
    fn default() -> Self {
        Self { began: Instant::now(), last: Arc::default() }
    }
}

impl Activity {
    /// It just did. Cheap, and may be called from any thread.
    pub fn mark(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(now, Ordering::Relaxed);
    }

    /// For how long it has not.
    pub fn idle(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

impl Run {
    /// A run of the method of this name.
    pub fn new(method: &str, cancel: CancellationToken, events: Arc<dyn EventSink>) -> Self {
        Self { method: method.into(), cancel, events, activity: Activity::default() }
    }

    /// The method's name.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Whether the method must stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Waits until the method must stop.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// The token behind [`Run::is_cancelled`], for what waits on several things.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Where what it moves is noted. [`Run::progress`] does so itself.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Tells an event.
    pub fn emit(&self, event: Event) {
        self.events.emit(event);
    }

    /// Tells a line of log about this method.
    pub fn log(&self, level: Level, origin: &str, message: impl Into<String>) {
        self.emit(Event::Log {
            method: Some(self.method.to_string()),
            level,
            origin: origin.to_owned(),
            message: message.into(),
            fields: Vec::new(),
        });
    }

    /// Tells how far the method is.
    pub fn progress(&self, bytes: u64, bytes_expected: Option<u64>, files: u64, files_expected: Option<u64>) {
        self.activity.mark();
        self.emit(Event::Progress {
            method: self.method.to_string(),
            bytes,
            bytes_expected,
            files,
            files_expected,
        });
    }
}
