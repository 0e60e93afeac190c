//! Why an attempt did not create a replica: a refusal, a failure of the method or a check of the seal.

use serde::Serialize;
use tokio::task::JoinError;

use crate::rule::Rule;
use crate::seal::SealError;
use crate::{Failure, Outcome, Refusal};

/// Why an attempt did not create a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttemptError {
    /// How the attempt ended; never [`Outcome::Created`].
    pub outcome: Outcome,
    /// What happened, for a person.
    pub message: String,
    /// The rule that rejected the method, or the check of the seal that failed.
    pub rule: Option<Rule>,
    /// The line of configuration that would change the answer.
    pub remedy: Option<String>,
    /// Whether the operator's policy (signature, grant, digest) refuses the method.
    pub policy: bool,
    /// Whether something of the method may still write into the data directory.
    #[serde(skip)]
    pub(super) may_still_write: bool,
}

impl From<Refusal> for AttemptError {
    fn from(refusal: Refusal) -> Self {
        Self {
            outcome: Outcome::Rejected,
            message: refusal.message,
            rule: Some(refusal.rule),
            remedy: refusal.remedy,
            policy: refusal.policy,
            may_still_write: false,
        }
    }
}

impl From<Failure> for AttemptError {
    fn from(failure: Failure) -> Self {
        Self {
            outcome: failure.outcome,
            message: failure.chain(),
            rule: None,
            remedy: None,
            policy: false,
            may_still_write: failure.may_still_write,
        }
    }
}

impl From<SealError> for AttemptError {
    fn from(error: SealError) -> Self {
        match error.check {
            None => Failure::cancelled().into(),
            Some(check) => Self {
                outcome: Outcome::CheckFailed,
                message: error.message,
                rule: Some(check),
                remedy: None,
                policy: false,
                may_still_write: false,
            },
        }
    }
}

/// Runs blocking work outside the runtime's own threads.
///
/// # Errors
/// Fails if the work panics.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AttemptError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Failure::new(Outcome::Failed, format!("the host panicked{}", panic_message(error))).into()
    })
}

/// Returns the error of a method that panicked.
pub(super) fn method_panicked(error: JoinError) -> AttemptError {
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
