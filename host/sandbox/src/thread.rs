//! A thread of its own for each run of a component, and waiting for it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    /// It writes nothing any more and does not come to its end.
    #[error(
        "the method was ended and nothing of it writes any more; giving back the memory that it held took too long to wait for"
    )]
    Ending,
    #[error("cannot start a thread: {0}")]
    NotStarted(String),
}

/// Says that nothing of a run writes any more: neither its component nor a job of its data plane. What remains is to give back
/// memory, which after a long queue takes longer than a system call that does not hang.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quiet(Arc<AtomicBool>);

impl Quiet {
    /// The last writer is gone, for good.
    pub(crate) fn say(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_said(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Runs `work` on a new thread and waits for its end. The thread is the only one that `work` may restrict.
///
/// Returns when the thread is gone, or, once `cancel` is cancelled, after `hung` at the latest: with [`Lost::Ending`] where `quiet`
/// was said by then, with [`Lost::Hung`] where something may still write.
pub(crate) async fn run<T: Send + 'static>(
    name: &str,
    cancel: &CancellationToken,
    hung: Duration,
    quiet: &Quiet,
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
        () = given_up => Err(if quiet.is_said() { Lost::Ending } else { Lost::Hung }),
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
        let lost = run::<()>("test", &cancel, HUNG, &Quiet::default(), || panic!("a bug")).await;
        assert_eq!(lost, Err(Lost::Panicked("a bug".to_owned())));
    }

    #[tokio::test]
    async fn a_cancelled_run_that_hangs_in_a_system_call_is_given_up() {
        let cancel = CancellationToken::new();
        let (release, hangs) = mpsc::channel::<()>();
        cancel.cancel();
        let lost =
            run("test", &cancel, Duration::from_millis(10), &Quiet::default(), move || hangs.recv().is_ok())
                .await;
        assert_eq!(lost, Err(Lost::Hung));
        release.send(()).unwrap();
    }

    #[tokio::test]
    async fn a_run_that_writes_nothing_any_more_is_not_said_to_hang() {
        let (cancel, quiet) = (CancellationToken::new(), Quiet::default());
        let (release, frees) = mpsc::channel::<()>();
        let (said, is_said) = oneshot::channel();
        let says = quiet.clone();
        let work = move || {
            says.say();
            let _ = said.send(());
            frees.recv().is_ok()
        };
        let cancels = async {
            is_said.await.unwrap();
            cancel.cancel();
        };
        let (lost, ()) = tokio::join!(run("test", &cancel, Duration::from_millis(10), &quiet, work), cancels);
        assert_eq!(lost, Err(Lost::Ending));
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
        assert_eq!(
            run("test", &cancel, Duration::ZERO, &Quiet::default(), move || waits.recv().is_ok()).await,
            Ok(true)
        );
        releases.await.unwrap().unwrap();
    }
}
