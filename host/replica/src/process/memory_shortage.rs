//! Which process the kernel kills first when memory runs short.

use std::fs::{self, File};
use std::io::Write;

/// This process's `oom_score_adj` (proc_pid_oom_score_adj(5)).
const PATH: &str = "/proc/self/oom_score_adj";

/// The score of a process that the kernel kills before all others.
const FIRST: &str = "1000";

/// This process's score, opened before Landlock forbids to write it.
pub(super) struct Score {
    file: File,
    own: String,
}

impl Score {
    /// Opens the score; `None` if the file cannot be written, for example in a container with a read-only `/proc`. The kernel then chooses
    /// which process it kills first, as for every program.
    pub(super) fn open() -> Option<Self> {
        let own = fs::read_to_string(PATH).ok()?;
        let file = File::options().write(true).open(PATH).ok()?;
        Some(Self { file, own })
    }

    /// Calls `start`, so that the processes that it starts are killed before all others.
    pub(super) fn while_first<T>(&mut self, start: impl FnOnce() -> T) -> T {
        // A process may raise its score, and lower it again to what it was.
        let _ = self.file.write_all(FIRST.as_bytes());
        let started = start();
        let _ = self.file.write_all(self.own.trim_end().as_bytes());
        started
    }
}
