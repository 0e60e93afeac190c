//! Reads a program's output. `on_line` gets every line. A bounded number of lines is logged, and the last lines are kept.

use std::collections::VecDeque;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::lines::{Cut, Splitter, shown};
use crate::Run;
use crate::event::Level;

/// How many lines of a program's output are logged. Beyond that, lines are only kept as the end of the output.
pub const MOST_LINES: u64 = 10_000;

/// How many lines at the end of the output are kept for the message of a failure.
pub const TAIL: usize = 20;

/// A line of a program's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The stream that the line came from.
    pub stream: Stream,
    /// The line without its end, free of control characters, at most [`super::LONGEST_LINE`] bytes. It may contain secrets, and the
    /// beginning of a secret where it was cut, so it must not be logged: use [`Line::shown`].
    pub text: String,
    /// The line as the program wrote it, without its end; at most [`super::LONGEST_KEPT_LINE`] bytes.
    pub bytes: Vec<u8>,
    /// Whether `bytes` contains the whole line.
    pub is_whole: bool,
}

impl Line {
    /// Returns the line for a log: `redact` removes the secrets before the line is cut to [`super::LONGEST_LINE`] bytes.
    pub fn shown(&self, redact: impl FnOnce(&str) -> String) -> String {
        shown(&self.bytes, self.is_whole, redact)
    }
}

/// The stream that a program wrote to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// How a line is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineUse {
    /// The line is logged, and kept for the message of a failure.
    Log(Level),
    /// The line is not logged, because it was used otherwise, such as for progress.
    Taken,
}

/// A reader of one of the program's streams.
pub(super) struct Reader<R> {
    stream: Option<R>,
    kind: Stream,
    splitter: Splitter,
    chunk: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn of(stream: Option<R>, kind: Stream) -> Self {
        Self { stream, kind, splitter: Splitter::default(), chunk: vec![0; 16 << 10] }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Reads the next lines. Nothing is lost if the future is dropped.
    pub(super) async fn read(&mut self) -> Vec<Line> {
        let Some(stream) = &mut self.stream else { return Vec::new() };
        let texts = match stream.read(&mut self.chunk).await {
            Ok(count) if count > 0 => self.splitter.push(&self.chunk[..count]),
            // The program and its descendants have closed the pipe.
            Ok(_) | Err(_) => {
                self.stream = None;
                self.splitter.finish().into_iter().collect()
            }
        };
        let line = |Cut { text, bytes, is_whole }| Line { stream: self.kind, text, bytes, is_whole };
        texts.into_iter().map(line).collect()
    }
}

/// The receiver of a program's lines.
pub(super) struct Log<'a> {
    run: &'a Run,
    name: &'a str,
    on_line: &'a mut (dyn FnMut(&Line) -> LineUse + Send),
    tail: VecDeque<Line>,
    logged: u64,
    dropped: u64,
}

impl<'a> Log<'a> {
    pub(super) fn of(
        run: &'a Run,
        name: &'a str,
        on_line: &'a mut (dyn FnMut(&Line) -> LineUse + Send),
    ) -> Self {
        Self { run, name, on_line, tail: VecDeque::new(), logged: 0, dropped: 0 }
    }

    /// Returns the last lines that were not used otherwise.
    pub(super) fn into_tail(self) -> Vec<String> {
        let redact = |text: &str| self.run.redacted(text);
        self.tail.iter().map(|line| line.shown(redact)).collect()
    }

    pub(super) fn take(&mut self, lines: Vec<Line>) {
        for line in lines {
            let LineUse::Log(level) = (self.on_line)(&line) else { continue };
            if self.logged < MOST_LINES {
                self.logged += 1;
                self.run.log(level, self.name, line.shown(|text| self.run.redacted(text)));
            } else {
                self.dropped += 1;
            }
            if self.tail.len() == TAIL {
                self.tail.pop_front();
            }
            self.tail.push_back(line);
        }
    }

    /// Logs a message that says how many lines were not logged.
    pub(super) fn report_dropped(&self) {
        if self.dropped > 0 {
            let message = format!("{} more lines of {} were not logged", self.dropped, self.name);
            self.run.log(Level::Warn, "host", message);
        }
    }
}
