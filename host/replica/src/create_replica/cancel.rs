//! How a run is told to stop, and by what.

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
    /// The process that started the run is gone, such as the Patroni that would start what it makes. Ends like SIGTERM.
    Orphaned,
}

impl CancelReason {
    /// How the run ends then.
    pub fn result(self) -> RunResult {
        match self {
            Self::Interrupt => RunResult::Interrupted,
            Self::Terminate | Self::Orphaned => RunResult::Terminated,
        }
    }

    /// What cancels, as it stands behind "cancelled by": the signal's name where it is one.
    pub fn signal(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
            Self::Orphaned => "the end of the process that started it",
        }
    }
}

/// The handle that cancels a run. Clones are the same handle; the first reason counts.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    token: CancellationToken,
    reason: Arc<OnceLock<CancelReason>>,
}

impl Cancel {
    /// A handle for one run.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells the run to stop. May be called from any thread, any number of times.
    pub fn cancel(&self, reason: CancelReason) {
        // The reason first: whoever sees the token cancelled also sees why.
        let _first_reason_counts = self.reason.set(reason);
        self.token.cancel();
    }

    /// Why the run was told to stop; none while it was not.
    pub fn reason(&self) -> Option<CancelReason> {
        self.token.is_cancelled().then(|| self.reason.get().copied()).flatten()
    }

    /// The token that everything of the run hangs on, for work before the loop such as asking the source.
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
