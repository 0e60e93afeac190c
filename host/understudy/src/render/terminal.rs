//! Standard error for log lines, progress lines and the bar, so that they do not overwrite each other. Only clap's usage messages are
//! printed elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressDrawTarget};

use super::text::is_printable;

/// Writes whole lines, and hides the progress bar during each write. Clones write to the same output.
#[derive(Clone)]
pub struct Terminal {
    bars: MultiProgress,
    out: Arc<Mutex<Box<dyn Write + Send>>>,
    is_terminal: bool,
}

impl Terminal {
    /// Creates the terminal for standard error.
    pub fn stderr() -> Self {
        Self {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            out: Arc::new(Mutex::new(Box::new(io::stderr()))),
            is_terminal: io::stderr().is_terminal(),
        }
    }

    /// Creates a terminal for any other output, for tests.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        Self {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            out: Arc::new(Mutex::new(Box::new(out))),
            is_terminal: false,
        }
    }

    /// Returns whether standard error is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Returns the container of the bars. Bars are hidden until the container gets a draw target.
    pub(super) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Writes one line. Ignores errors, because there is no other output to report them to.
    pub fn line(&self, text: &str) {
        debug_assert!(is_printable(text), "not filtered: {text:?}");
        self.bars.suspend(|| {
            let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
            let _gone = writeln!(out, "{text}").and_then(|()| out.flush());
        });
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An output in memory.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(crate) fn lines(&self) -> Vec<String> {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_of_several_threads_are_not_mixed() {
        let captured = Captured::default();
        let terminal = Terminal::to(captured.clone());
        std::thread::scope(|scope| {
            for name in ["aaaaaaaa", "bbbbbbbb"] {
                let terminal = terminal.clone();
                scope.spawn(move || (0..100).for_each(|_| terminal.line(name)));
            }
        });
        let lines = captured.lines();
        assert_eq!(lines.len(), 200);
        assert!(lines.iter().all(|line| line == "aaaaaaaa" || line == "bbbbbbbb"));
    }
}
