//! Starts a thread for each run of a component, and waits for it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// How long a cancelled run may hang in one system call before it is abandoned. A person who presses Ctrl-C waits that long, and Patroni
/// kills the program after ten seconds.
pub(crate) const HUNG: Duration = Duration::from_secs(2);

/// Why a run returned no result.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Lost {
    /// The host panicked.
    #[error("a fault in the host ended the run: {0}")]
    Panicked(String),
    /// A system call of the run does not return.
    #[error(
        "the method's thread hangs in a system call, as on a network file system that does not answer; \
         it was given up and may write once more when the call returns"
    )]
    Hung,
    /// The run writes nothing any more, but its thread has not ended.
    #[error("the method has ended and does not write any more; freeing its memory took too long to wait for")]
    Ending,
    /// No thread could be started.
    #[error("cannot start a thread: {0}")]
    NotStarted(String),
}

/// A flag that says that neither the component nor a job of its data plane writes any more. After that, the run only frees memory, which
/// may take a long time if many tasks were queued.
#[derive(Clone, Debug, Default)]
pub(crate) struct WritesEnded(Arc<AtomicBool>);

impl WritesEnded {
    /// Sets the flag. Nothing of the run may write after this.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Runs `work` on a new thread and waits until it ends. `work` may restrict this thread with Landlock.
///
/// Returns when the thread has ended, but no later than `hung` after `cancel` was cancelled. If the thread has not ended by then, returns
/// [`Lost::Ending`] if `writes_ended` is set, and [`Lost::Hung`] if something may still write.
pub(crate) async fn run<T: Send + 'static>(
    name: &str,
    cancel: &CancellationToken,
    hung: Duration,
    writes_ended: &WritesEnded,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Lost> {
    let (answer, answered) = oneshot::channel();
    let thread = std::thread::Builder::new()
        .name(name.chars().filter(|character| *character != '\0').take(15).collect())
        .spawn(move || {
            let outcome =
                catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Lost::Panicked(panic_message(&*panic)));
            // The receiver is gone if the run was abandoned.
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
            // The thread has sent its result, and ends within microseconds.
            let _ = thread.join();
            outcome.unwrap_or_else(|_| Err(Lost::Panicked("its thread ended without a result".to_owned())))
        }
        () = given_up => Err(if writes_ended.is_set() { Lost::Ending } else { Lost::Hung }),
    }
}

/// Returns the message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it gave no reason").to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_panic_on_the_thread_is_returned_as_an_error() {
        let cancel = CancellationToken::new();
        let lost = run::<()>("test", &cancel, HUNG, &WritesEnded::default(), || panic!("a bug")).await;
        assert_eq!(lost, Err(Lost::Panicked("a bug".to_owned())));
    }

    #[tokio::test]
    async fn a_cancelled_run_that_hangs_in_a_system_call_is_abandoned() {
        let cancel = CancellationToken::new();
        let (release, hangs) = mpsc::channel::<()>();
        cancel.cancel();
        let lost = run("test", &cancel, Duration::from_millis(10), &WritesEnded::default(), move || {
            hangs.recv().is_ok()
        })
        .await;
        assert_eq!(lost, Err(Lost::Hung));
        release.send(()).unwrap();
    }

    #[tokio::test]
    async fn a_run_that_writes_nothing_any_more_is_not_reported_as_hanging() {
        let (cancel, writes_ended) = (CancellationToken::new(), WritesEnded::default());
        let (release, frees) = mpsc::channel::<()>();
        let (said, is_set) = oneshot::channel();
        let says = writes_ended.clone();
        let work = move || {
            says.set();
            let _ = said.send(());
            frees.recv().is_ok()
        };
        let cancels = async {
            is_set.await.unwrap();
            cancel.cancel();
        };
        let (lost, ()) =
            tokio::join!(run("test", &cancel, Duration::from_millis(10), &writes_ended, work), cancels);
        assert_eq!(lost, Err(Lost::Ending));
        release.send(()).unwrap();
    }

    #[tokio::test]
    async fn run_waits_for_a_hanging_thread_until_it_is_cancelled() {
        let cancel = CancellationToken::new();
        let (release, waits) = mpsc::channel::<()>();
        let releases = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            release.send(())
        });
        assert_eq!(
            run("test", &cancel, Duration::ZERO, &WritesEnded::default(), move || waits.recv().is_ok()).await,
            Ok(true)
        );
        releases.await.unwrap().unwrap();
    }
}
