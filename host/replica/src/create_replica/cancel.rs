//! How a run is cancelled, and why.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

use crate::RunResult;

/// Why a run is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReason {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// The process that started the run has ended, for example Patroni, which would start the replica. The run ends as after SIGTERM.
    ParentEnded,
}

impl CancelReason {
    /// Returns the result of a run that is cancelled for this reason.
    pub fn result(self) -> RunResult {
        match self {
            Self::Interrupt => RunResult::Interrupted,
            Self::Terminate | Self::ParentEnded => RunResult::Terminated,
        }
    }

    /// Returns the words that follow "cancelled by": the name of the signal, or what happened.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::ParentEnded => "the end of the process that started it",
        }
    }
}

/// The handle that cancels a run. All clones cancel the same run, and only the first reason is recorded.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    token: CancellationToken,
    reason: Arc<OnceLock<CancelReason>>,
}

impl Cancel {
    /// Returns a handle for one run.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancels the run. May be called from any thread, any number of times.
    pub fn cancel(&self, reason: CancelReason) {
        // The reason is set first, so that it is known to every thread that sees the cancelled token.
        let _first_reason_counts = self.reason.set(reason);
        self.token.cancel();
    }

    /// Returns why the run was cancelled; `None` if it was not.
    pub fn reason(&self) -> Option<CancelReason> {
        self.token.is_cancelled().then(|| self.reason.get().copied()).flatten()
    }

    /// Returns the token that is cancelled together with the run. Work before the loop, such as querying the source, uses it directly.
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_decides_the_exit_code() {
        let cancel = Cancel::new();
        assert_eq!(cancel.reason(), None);
        cancel.cancel(CancelReason::Terminate);
        cancel.clone().cancel(CancelReason::Interrupt);
        assert_eq!(cancel.reason().map(|reason| reason.result().exit_code()), Some(143));
    }
}
