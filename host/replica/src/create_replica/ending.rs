//! How an attempt ended, whichever of the three kinds of error said so.

use tokio::task::JoinError;

use crate::seal::CheckFailed;
use crate::{Failure, Outcome, Refusal};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) outcome: Outcome,
    pub(super) message: String,
    pub(super) rule: Option<String>,
    pub(super) remedy: Option<String>,
    pub(super) policy: bool,
    /// Something of the method may still write.
    pub(super) may_write: bool,
}

impl Ending {
    pub(super) fn created() -> Self {
        Self {
            outcome: Outcome::Created,
            message: String::new(),
            rule: None,
            remedy: None,
            policy: false,
            may_write: false,
        }
    }
}

impl From<Refusal> for Ending {
    fn from(refusal: Refusal) -> Self {
        Self {
            outcome: Outcome::Rejected,
            message: refusal.message,
            rule: Some(refusal.rule.to_owned()),
            remedy: refusal.remedy,
            policy: refusal.policy,
            may_write: false,
        }
    }
}

impl From<Failure> for Ending {
    fn from(failure: Failure) -> Self {
        Self {
            outcome: failure.outcome,
            message: failure.chain(),
            rule: None,
            remedy: None,
            policy: false,
            may_write: failure.may_write,
        }
    }
}

impl From<CheckFailed> for Ending {
    fn from(check: CheckFailed) -> Self {
        Self {
            outcome: Outcome::CheckFailed,
            message: check.message,
            rule: Some(check.check.to_owned()),
            remedy: None,
            policy: false,
            may_write: false,
        }
    }
}

/// Does blocking work off the runtime's own threads.
///
/// # Errors
/// Where the work panicked.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Ending> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Failure::new(Outcome::Failed, format!("the host panicked{}", panic_message(error))).into()
    })
}

/// A part of a method that panicked.
pub(super) fn method_panicked(error: JoinError) -> Ending {
    Failure::new(Outcome::Failed, format!("the method panicked{}", panic_message(error))).into()
}

fn panic_message(error: JoinError) -> String {
    let Ok(payload) = error.try_into_panic() else { return String::new() };
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => format!(": {text}"),
        (_, Some(text)) => format!(": {text}"),
        _ => String::new(),
    }
}
