//! What a method is given besides its request: where to tell what happens, and when to stop.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::event::{Event, EventSink, Level};

/// One run of one method. The loop cancels it on a signal and when a deadline passes, and knows which it was;
/// the method only has to stop.
#[derive(Clone)]
pub struct Run {
    method: Arc<str>,
    cancel: CancellationToken,
    events: Arc<dyn EventSink>,
}

impl Run {
    /// A run of the method of this name.
    pub fn new(method: &str, cancel: CancellationToken, events: Arc<dyn EventSink>) -> Self {
        Self { method: method.into(), cancel, events }
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
        self.emit(Event::Progress {
            method: self.method.to_string(),
            bytes,
            bytes_expected,
            files,
            files_expected,
        });
    }
}
