//! What a method gets in addition to its request: a sink for its events, and a token that says when to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::event::{Event, EventSink, Level};
use crate::usage::SharedUsage;

/// One run of one method. The loop cancels the run on a signal or when a timeout passes, and records the reason; the method only has to
/// stop.
#[derive(Clone)]
pub struct Run {
    method: Arc<str>,
    cancel: CancellationToken,
    events: Arc<dyn EventSink>,
    activity: Activity,
    usage: SharedUsage,
}

/// When a method last read, wrote or finished something: a method that does none of these for too long is stalled. Clones share
/// the time.
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
    /// Notes that the method is active now. Cheap, and may be called from any thread.
    pub fn mark(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(now, Ordering::Relaxed);
    }

    /// Returns for how long the method has not been active.
    pub fn idle(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }
}

impl Run {
    /// Returns a run of the method of this name.
    pub fn new(method: &str, cancel: CancellationToken, events: Arc<dyn EventSink>) -> Self {
        Self {
            method: method.into(),
            cancel,
            events,
            activity: Activity::default(),
            usage: SharedUsage::default(),
        }
    }

    /// Returns the same run with another cancellation token.
    #[must_use]
    pub fn with_cancellation(self, cancel: CancellationToken) -> Self {
        Self { cancel, ..self }
    }

    /// Returns the method's name.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Returns whether the method must stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Waits until the method must stop.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Returns the token behind [`Run::is_cancelled`], for code that waits for several things.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Returns the record of the method's activity. [`Run::progress`] marks it too.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Returns the usage to which the method adds what each of its calls used.
    pub fn usage(&self) -> &SharedUsage {
        &self.usage
    }

    /// Returns whether [`Event::Called`] is to be emitted.
    pub fn takes_calls(&self) -> bool {
        self.events.takes_calls()
    }

    /// Emits an event.
    pub fn emit(&self, event: Event) {
        self.events.emit(event);
    }

    /// Returns a text without the secrets of the run. Secrets are removed from events automatically, but must be removed from a text before
    /// the text is cut.
    pub fn redacted(&self, text: &str) -> String {
        self.events.redacted(text)
    }

    /// Emits a log line about this method.
    pub fn log(&self, level: Level, origin: &str, message: impl Into<String>) {
        self.emit(Event::Log {
            method: Some(self.method.to_string()),
            level,
            origin: origin.to_owned(),
            message: message.into(),
            fields: Vec::new(),
        });
    }

    /// Emits the method's progress.
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
