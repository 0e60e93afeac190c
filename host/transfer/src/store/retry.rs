//! Retries of transient failures.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::seconds;
use crate::error::{Error, Kind};

/// How transient failures (lost connections, 5xx, 429, timeouts) are retried. A permanent failure is not retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How long the transfer of one object may go without a byte of progress, retries and waits included.
    pub at_most: Duration,
    /// How long a request may go without a response or a byte.
    pub idle: Duration,
    /// The first wait; it doubles, with jitter, up to `longest_wait`.
    pub first_wait: Duration,
    /// The longest wait between two attempts.
    pub longest_wait: Duration,
}

impl Default for Retry {
    /// Allows ten minutes without progress, which outlasts the restart of a store's server and a failover of its network, and 30 s without
    /// a byte. Waits from a quarter of a second to 15 s.
    fn default() -> Self {
        Self {
            at_most: Duration::from_secs(600),
            idle: Duration::from_secs(30),
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(15),
        }
    }
}

/// Why a request failed, and whether another one may succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) retry: RetryAdvice,
    /// Whether the store refused the credentials, so that renewed ones may help.
    pub(super) credentials_refused: bool,
    /// What the response lacks; another kind of request may return that.
    pub(super) missing: Missing,
}

/// What an error response lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// Nothing, or there was no response.
    Nothing,
    /// The store's error code, which a response with a body may have.
    ErrorCode,
    /// The requested range, which the object does not have.
    Range,
}

/// Whether and when to retry a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RetryAdvice {
    /// Never, because the next response would be the same.
    Never,
    /// After the usual wait.
    Soon,
    /// After the time that the store names (`Retry-After`), or the usual wait if that is longer.
    After(Duration),
}

impl Failure {
    /// Makes a permanent failure.
    pub(super) fn never(kind: Kind, message: impl Into<String>) -> Self {
        Error::new(kind, message).into()
    }

    /// Makes a transient failure.
    pub(super) fn transient(message: impl Into<String>) -> Self {
        Self { retry: RetryAdvice::Soon, ..Error::new(Kind::Transient, message).into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, retry: RetryAdvice::Never, credentials_refused: false, missing: Missing::Nothing }
    }
}

/// A notice that a store does not respond, or that a request is retried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The store's URL or path for messages.
    pub store: String,
    /// What was requested: an object, or the objects below a prefix.
    pub about: String,
    /// The number of the attempt since the last progress, counted from 1.
    pub attempt: u32,
    /// Why the attempt failed, or that there is no response so far.
    pub cause: String,
    /// The wait before the next attempt; `None` if this one is still in progress.
    pub next_try_in: Option<Duration>,
}

/// A receiver of notices. It is called on the threads that read the store, and must not block.
pub type Notices = Arc<dyn Fn(Notice) + Send + Sync>;

/// Waits for the response to a request, or for its next bytes, but no longer than `idle`.
pub(super) async fn within<T>(
    idle: Duration,
    request: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let late = |_| Err(Failure::transient(format!("no response for {idle:?}")));
    tokio::time::timeout(idle, request).await.unwrap_or_else(late)
}

/// The attempts at one request since the last progress.
#[derive(Debug)]
pub(super) struct Tries {
    retry: Retry,
    since: Instant,
    failed: u32,
}

impl Tries {
    pub(super) fn new(retry: Retry) -> Self {
        Self { retry, since: Instant::now(), failed: 0 }
    }

    /// Returns how many attempts have failed.
    pub(super) fn failed(&self) -> u32 {
        self.failed
    }

    /// Returns the wait before the next attempt.
    ///
    /// # Errors
    /// The failure itself if it is permanent, or no time is left for another attempt.
    pub(super) fn after(&mut self, failure: Failure) -> Result<Duration, Error> {
        self.wait_after(failure, self.since.elapsed())
    }

    /// Returns the wait before the next attempt when `spent` has passed since the last progress.
    fn wait_after(&mut self, failure: Failure, spent: Duration) -> Result<Duration, Error> {
        let requested = match failure.retry {
            RetryAdvice::Never => return Err(failure.error),
            RetryAdvice::Soon => Duration::ZERO,
            RetryAdvice::After(wait) => wait,
        };
        self.failed += 1;
        let wait = self.wait().max(requested);
        if spent.saturating_add(wait) >= self.retry.at_most {
            let tries = if self.failed == 1 { "1 try".to_owned() } else { format!("{} tries", self.failed) };
            let message = format!("given up after {tries} in {}: {}", seconds(spent), failure.error.message);
            return Err(Error::new(failure.error.kind, message));
        }
        Ok(wait)
    }

    /// Returns the usual wait, which doubles with each attempt up to the longest wait. It is reduced at random by up to one half, so that
    /// requests that failed together are not retried together.
    fn wait(&self) -> Duration {
        let doublings = self.failed.saturating_sub(1).min(31);
        let full = self.retry.first_wait.saturating_mul(1 << doublings).min(self.retry.longest_wait);
        full.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(at_most: u64) -> Retry {
        Retry {
            at_most: Duration::from_secs(at_most),
            idle: Duration::from_secs(1),
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(8),
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_until_the_time_is_up() {
        let mut tries = Tries::new(retry(60));
        let mut waits = Vec::new();
        let given_up = loop {
            let spent = waits.iter().sum();
            match tries.wait_after(Failure::transient("down"), spent) {
                Ok(wait) => waits.push(wait),
                Err(error) => break error,
            }
        };
        for (wait, most) in waits.iter().zip([1.0, 2.0, 4.0, 8.0, 8.0, 8.0]) {
            assert!(wait.as_secs_f64() >= most / 2.0 && wait.as_secs_f64() <= most, "{waits:?}");
        }
        assert!(waits.len() >= 7 && waits.iter().sum::<Duration>() < Duration::from_secs(60), "{waits:?}");
        assert_eq!(given_up.kind, Kind::Transient);
        assert!(given_up.message.starts_with("given up after "), "{given_up}");
    }

    #[test]
    fn a_permanent_failure_is_not_retried() {
        let error =
            Tries::new(retry(60)).wait_after(Failure::never(Kind::Denied, "no"), Duration::ZERO).unwrap_err();
        assert_eq!(error, Error::new(Kind::Denied, "no"));
    }

    #[test]
    fn retry_after_is_obeyed_within_the_time_limit() {
        let failure = |seconds| Failure {
            retry: RetryAdvice::After(Duration::from_secs(seconds)),
            ..Failure::transient("busy")
        };
        let mut tries = Tries::new(retry(60));
        assert_eq!(tries.wait_after(failure(20), Duration::ZERO), Ok(Duration::from_secs(20)));
        assert_eq!(tries.wait_after(failure(7200), Duration::ZERO).unwrap_err().kind, Kind::Transient);
        assert!(tries.wait_after(failure(u64::MAX), Duration::from_secs(1)).is_err());
    }
}
