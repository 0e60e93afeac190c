//! How transient failures are met.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::seconds;
use crate::error::{Error, Kind};

/// How transient failures (connection lost, 5xx, 429, timeouts) are met; a permanent one fails at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How long one object's transfer may go without a byte of progress, tries and waiting included.
    pub at_most: Duration,
    /// How long a request may go without an answer or a byte.
    pub idle: Duration,
    /// The first wait; it doubles, with jitter, up to `longest_wait`.
    pub first_wait: Duration,
    /// The longest wait between two tries.
    pub longest_wait: Duration,
}

impl Default for Retry {
    /// Ten minutes without progress, which outlasts the restart of a store's server and a failover of its network; 30 s
    /// without a byte; waits from a quarter of a second to 15 s.
    fn default() -> Self {
        Self {
            at_most: Duration::from_secs(600),
            idle: Duration::from_secs(30),
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(15),
        }
    }
}

/// Why one request failed, and whether the next could do better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) error: Error,
    pub(super) again: Again,
    /// Whether the store did not take the credentials, so that others could change it.
    pub(super) of_credentials: bool,
    /// What the answer lacks that another question could bring.
    pub(super) lacks: Lacks,
}

/// What the answer to a request that failed lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lacks {
    /// Nothing, or there was no answer.
    Nothing,
    /// The store's word for why it refuses, which an answer with a body could have.
    Word,
    /// The range that was asked for, which the object does not have.
    Range,
}

/// Whether it is worth another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// No: the next answer would be the same.
    Never,
    /// Yes, when it is time.
    Soon,
    /// Yes, and the store says when (`Retry-After`).
    After(Duration),
}

impl Failure {
    /// One that will not pass.
    pub(super) fn never(kind: Kind, message: impl Into<String>) -> Self {
        Error::new(kind, message).into()
    }

    /// One that may pass.
    pub(super) fn transient(message: impl Into<String>) -> Self {
        Self { again: Again::Soon, ..Error::new(Kind::Transient, message).into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, again: Again::Never, of_credentials: false, lacks: Lacks::Nothing }
    }
}

/// What is told of a store that does not answer as it should, while it is asked again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The store's URL or path as messages have it.
    pub store: String,
    /// What it was asked for: an object, or the objects below a prefix.
    pub about: String,
    /// Which try it is, from 1, since something came the last time.
    pub attempt: u32,
    /// Why the try failed, or that nothing has come so far.
    pub cause: String,
    /// When the next try is made. `None` while this one is still waited for.
    pub next_try_in: Option<Duration>,
}

/// Who is told. Called on the threads that read the store: must not block.
pub type Notices = Arc<dyn Fn(Notice) + Send + Sync>;

/// Awaits the answer to one request, or its next bytes, for no longer than `idle`.
pub(super) async fn within<T>(
    idle: Duration,
    request: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let late = |_| Err(Failure::transient(format!("no answer for {idle:?}")));
    tokio::time::timeout(idle, request).await.unwrap_or_else(late)
}

/// The tries of one thing since it last made progress.
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

    /// How many failed.
    pub(super) fn failed(&self) -> u32 {
        self.failed
    }

    /// How long is to be waited until it is time for another try.
    ///
    /// # Errors
    /// The failure itself, where it will not pass or there is no time left for another try.
    pub(super) fn after(&mut self, failure: Failure) -> Result<Duration, Error> {
        self.wait_after(failure, self.since.elapsed())
    }

    /// How long is to be waited, when so much time is spent already.
    fn wait_after(&mut self, failure: Failure, spent: Duration) -> Result<Duration, Error> {
        let asked = match failure.again {
            Again::Never => return Err(failure.error),
            Again::Soon => Duration::ZERO,
            Again::After(asked) => asked,
        };
        self.failed += 1;
        let wait = self.wait().max(asked);
        if spent.saturating_add(wait) >= self.retry.at_most {
            let tries = if self.failed == 1 { "1 try".to_owned() } else { format!("{} tries", self.failed) };
            let message = format!("given up after {tries} in {}: {}", seconds(spent), failure.error.message);
            return Err(Error::new(failure.error.kind, message));
        }
        Ok(wait)
    }

    /// Doubled with each try and up to the longest; of that, between a half and all, so that many that failed together do
    /// not come again together.
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
    fn what_will_not_pass_fails_at_once() {
        let error =
            Tries::new(retry(60)).wait_after(Failure::never(Kind::Denied, "no"), Duration::ZERO).unwrap_err();
        assert_eq!(error, Error::new(Kind::Denied, "no"));
    }

    #[test]
    fn a_store_that_says_when_is_asked_no_sooner_and_not_beyond_the_time() {
        let failure = |seconds| Failure {
            again: Again::After(Duration::from_secs(seconds)),
            ..Failure::transient("busy")
        };
        let mut tries = Tries::new(retry(60));
        assert_eq!(tries.wait_after(failure(20), Duration::ZERO), Ok(Duration::from_secs(20)));
        assert_eq!(tries.wait_after(failure(7200), Duration::ZERO).unwrap_err().kind, Kind::Transient);
        assert!(tries.wait_after(failure(u64::MAX), Duration::from_secs(1)).is_err());
    }
}
