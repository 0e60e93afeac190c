//! The program's output for people and other programs: the log, the progress, the report, the audit and the summary. All are made from
//! the events of the run.

pub mod about;
pub mod audit;
mod bar;
mod json;
mod log;
pub mod output_file;
mod plain;
pub mod report;
pub mod summary;
mod terminal;
pub mod text;
mod usage;

use std::sync::Arc;

use replica::EventSink;
use replica::event::{Event, Step};

pub use log::Log;
pub use terminal::Terminal;

use crate::cli::{LogFormat, ProgressStyle};

/// Passes each event on to several event sinks.
pub struct Fanout(Vec<Arc<dyn EventSink>>);

impl Fanout {
    /// Creates a fanout that passes every event to each sink, in this order.
    pub fn new(readers: Vec<Arc<dyn EventSink>>) -> Self {
        Self(readers)
    }
}

impl EventSink for Fanout {
    fn emit(&self, event: Event) {
        // There may be a great number of these events, so they are not copied for sinks that ignore them.
        if matches!(event, Event::Called { .. }) {
            for reader in self.0.iter().filter(|reader| reader.takes_calls()) {
                reader.emit(event.clone());
            }
            return;
        }
        if let Some((last, readers)) = self.0.split_last() {
            for reader in readers {
                reader.emit(event.clone());
            }
            last.emit(event);
        }
    }

    fn takes_calls(&self) -> bool {
        self.0.iter().any(|reader| reader.takes_calls())
    }
}

/// Returns the event sink that shows progress in this style; `None` for [`ProgressStyle::None`].
pub fn progress(
    style: ProgressStyle,
    log_format: LogFormat,
    terminal: &Terminal,
) -> Option<Arc<dyn EventSink>> {
    let style = match (style, log_format) {
        (ProgressStyle::Auto, LogFormat::Json) => ProgressStyle::Json,
        (ProgressStyle::Auto, LogFormat::Text) if terminal.is_terminal() => ProgressStyle::Bar,
        (ProgressStyle::Auto, LogFormat::Text) => ProgressStyle::Plain,
        (style, _) => style,
    };
    match style {
        ProgressStyle::Bar => Some(Arc::new(bar::Bar::new(terminal))),
        ProgressStyle::Plain => Some(Arc::new(plain::Plain::new(terminal.clone()))),
        ProgressStyle::Json => Some(Arc::new(json::JsonProgress::new(terminal.clone()))),
        ProgressStyle::None | ProgressStyle::Auto => None,
    }
}

/// Returns the name of a step, as in the JSON of its event.
pub(crate) fn step_word(step: Step) -> &'static str {
    match step {
        Step::Preflight => "preflight",
        Step::Plan => "plan",
        Step::Accept => "accept",
        Step::Empty => "empty",
        Step::Create => "create",
        Step::Seal => "seal",
    }
}

/// Returns the description of a step for a person.
pub(crate) fn step_description(step: Step) -> &'static str {
    match step {
        Step::Preflight => "checking the method",
        Step::Plan => "planning",
        Step::Accept => "comparing the plan",
        Step::Empty => "emptying the data directory",
        Step::Create => "filling the data directory",
        Step::Seal => "checking and sealing",
    }
}
