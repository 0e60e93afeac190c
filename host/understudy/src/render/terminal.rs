//! The one way to standard error: log lines, progress lines and the bar do not get into each other's way.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressDrawTarget};

use super::text::is_printable;

/// A line-wise writer that steps aside for a bar. Clones write to the same place.
#[derive(Clone)]
pub struct Terminal {
    bars: MultiProgress,
    out: Arc<Mutex<Box<dyn Write + Send>>>,
    is_terminal: bool,
}

impl Terminal {
    /// Standard error.
    pub fn stderr() -> Self {
        Self {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            out: Arc::new(Mutex::new(Box::new(io::stderr()))),
            is_terminal: io::stderr().is_terminal(),
        }
    }

    /// Anything else, for tests.
    pub fn to(out: impl Write + Send + 'static) -> Self {
        Self {
            bars: MultiProgress::with_draw_target(ProgressDrawTarget::hidden()),
            out: Arc::new(Mutex::new(Box::new(out))),
            is_terminal: false,
        }
    }

    /// Whether a person looks at it.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Where bars are drawn; they are hidden until somebody gives them a target.
    pub(super) fn bars(&self) -> &MultiProgress {
        &self.bars
    }

    /// Writes one line. A standard error that is gone is nobody's to complain to.
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

    /// What was written, line by line.
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
    fn lines_of_several_writers_stay_whole() {
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
