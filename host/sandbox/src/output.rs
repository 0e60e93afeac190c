//! A component's standard output and standard error, split into lines and reported as log lines.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use replica::Level;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::reporter::{LINE_CHARACTERS, Reporter};
use crate::text::printable;

/// How many of the newest lines are kept, and how many characters of each. They may hold the message of a panic or an exception.
const LAST_LINES: usize = 16;
const LAST_CHARACTERS: usize = 1000;
/// How many bytes a component may write at once.
const PERMIT: usize = 64 << 10;

/// Standard output or standard error. All streams that the component opens for one output write to the same lines.
#[derive(Clone)]
pub(crate) struct Output {
    lines: Arc<Mutex<Lines>>,
}

struct Lines {
    reporter: Reporter,
    origin: &'static str,
    /// The current line, which has no line end yet; at most as long as a line may be.
    line: Vec<u8>,
    /// The newest lines, whether or not they were reported.
    last: VecDeque<String>,
}

impl Output {
    /// Makes an output whose lines are reported with this origin, `stdout` or `stderr`.
    pub(crate) fn new(reporter: Reporter, origin: &'static str) -> Self {
        let lines = Lines { reporter, origin, line: Vec::new(), last: VecDeque::new() };
        Self { lines: Arc::new(Mutex::new(lines)) }
    }

    /// Reports the last line if it has no line end. Called at the end of the run.
    pub(crate) fn flush(&self) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if !lines.line.is_empty() {
            lines.end();
        }
    }

    /// Returns the newest lines, oldest first.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).last.iter().cloned().collect()
    }

    fn take(&self, bytes: &[u8]) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).take(bytes);
    }
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            // A character has up to four bytes. Bytes beyond the maximum length of a line are dropped.
            let room = (LINE_CHARACTERS * 4).saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        let line = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&line);
        if !text.trim().is_empty() {
            self.last.push_back(printable(&text, LAST_CHARACTERS));
            if self.last.len() > LAST_LINES {
                self.last.pop_front();
            }
            self.reporter.component_line(Level::Info, self.origin, &text, Vec::new());
        }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Output {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    /// Used by WASI 0.3 only, which is not linked.
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(PERMIT)
    }
}

#[cfg(test)]
mod tests {
    use replica::Event;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::reporter::LogBudget;

    fn printed(parts: &[&[u8]]) -> Vec<(String, String)> {
        let (events, mut reported) = unbounded_channel();
        let output = Output::new(Reporter::new("m", events), "stdout");
        for part in parts {
            output.take(part);
        }
        output.flush();
        std::iter::from_fn(|| reported.try_recv().ok())
            .map(|event| match event {
                Event::Log { origin, message, .. } => (origin, message),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn output_is_split_into_lines_at_line_ends_only() {
        let lines = printed(&[b"one\ntw", b"o\n\n", b"\x1b[31mthree"]);
        let texts: Vec<_> = lines.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["one", "two", "\\u{1b}[31mthree"]);
    }

    #[test]
    fn a_flood_of_output_ends_in_one_warning() {
        let line = [b'x'; 1024];
        let lines = printed(&vec![&[&line[..], b"\n"].concat()[..]; 5000]);
        let LogBudget { bytes, lines: most } = LogBudget::default();
        assert_eq!(lines.len() as u64, bytes.0 / 1024 + 1);
        assert_eq!(lines.last().map(|(origin, _)| origin.as_str()), Some("host"));
        assert_eq!(printed(&vec![&b"x\n"[..]; 20_000]).len() as u64, most + 1);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let lines = printed(&[&[b'x'; 100_000], b"\nnext\n"]);
        assert_eq!(lines[0].1.chars().count(), LINE_CHARACTERS + 1);
        assert_eq!(lines[1].1, "next");
    }
}
