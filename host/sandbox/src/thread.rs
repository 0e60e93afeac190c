//! A thread of its own for each run of a component, and waiting for it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How long a cancelled run may hang in one system call before it is given up: what a person who presses Ctrl-C waits for, and less
/// than the ten seconds after which Patroni kills.
pub(crate) const HUNG: Duration = Duration::from_secs(2);

/// A run that gave no answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    /// A fault in the host.
    #[error("a fault in the host ended the run: {0}")]
    Panicked(String),
    /// The kernel does not come back.
    #[error(
        "the method's thread hangs in a system call, as on a network file system that does not answer; \
         it was given up and may write once more when the call returns"
    )]
    Hung,
    /// No thread could be started.
    #[error("cannot start a thread: {0}")]
    NotStarted(String),
}

/// Runs `work` on a new thread and waits for its end. The thread is the only one that `work` may restrict.
///
/// Returns when the thread is gone, or, once `cancel` is cancelled, after `hung` at the latest.
pub(crate) async fn run<T: Send + 'static>(
    name: &str,
    cancel: &CancellationToken,
    hung: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Lost> {
    let (answer, answered) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name(name.chars().filter(|character| *character != '\0').take(15).collect())
        .spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Lost::Panicked(said(&*panic)));
            // Nobody listens any more where the run was given up.
            let _ = answer.send(outcome);
        })
        .map_err(|error| Lost::NotStarted(error.to_string()))?;
    let given_up = async {
        cancel.cancelled().await;
        tokio::time::sleep(hung).await;
    };
    tokio::select! {
        biased;
        outcome = answered => {
            // It has sent its last word; what is left of it takes microseconds.
            let _ = thread.join();
            outcome.unwrap_or_else(|_| Err(Lost::Panicked("no word".to_owned())))
        }
        () = given_up => Err(Lost::Hung),
    }
}

/// What a panic said.
pub(crate) fn said(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it gave no reason").to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_panic_in_the_host_is_an_answer_and_not_the_end_of_the_process() {
        let cancel = CancellationToken::new();
        let lost = run::<()>("test", &cancel, HUNG, || panic!("a bug")).await;
        assert_eq!(lost, Err(Lost::Panicked("a bug".to_owned())));
    }

    #[tokio::test]
    async fn a_cancelled_run_that_hangs_in_a_system_call_is_given_up() {
        let cancel = CancellationToken::new();
        let (release, hangs) = mpsc::channel::<()>();
        cancel.cancel();
        let lost = run("test", &cancel, Duration::from_millis(10), move || hangs.recv().is_ok()).await;
        assert_eq!(lost, Err(Lost::Hung));
        release.send(()).unwrap();
    }

    #[tokio::test]
    async fn a_run_that_hangs_is_waited_for_as_long_as_nobody_cancels() {
        let cancel = CancellationToken::new();
        let (release, waits) = mpsc::channel::<()>();
        let releases = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            release.send(())
        });
        assert_eq!(run("test", &cancel, Duration::ZERO, move || waits.recv().is_ok()).await, Ok(true));
        releases.await.unwrap().unwrap();
    }
}
