//! Threads for what may block and is no worker's business.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::error::{Error, Kind};

/// The most errands that wait.
const MOST: usize = 4096;

type Errand = Box<dyn FnOnce() + Send>;

/// Errands that wait for a thread.
#[derive(Default)]
pub(super) struct Errands {
    waiting: Mutex<Waiting>,
    come: Condvar,
}

#[derive(Default)]
struct Waiting {
    errands: VecDeque<Errand>,
    stopping: bool,
}

impl Errands {
    /// Runs `work` on one of the threads and waits for what it gives.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let errand = move || {
            let ended = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| panicked(&*panic));
            // Nobody waits any more where the caller gave up.
            let _ = answer.send(ended);
        };
        {
            let mut waiting = self.waiting();
            if waiting.errands.len() >= MOST {
                return Err(Error::new(Kind::Limit, format!("{MOST} calls wait for the data plane already")));
            }
            waiting.errands.push_back(Box::new(errand));
        }
        self.come.notify_one();
        match answered.await {
            Ok(ended) => ended,
            Err(_) => Err(Error::new(Kind::Cancelled, "the data plane has ended")),
        }
    }

    /// The life of one of the threads.
    pub(super) fn work(&self) {
        loop {
            let errand = {
                let mut waiting = self.waiting();
                loop {
                    if waiting.stopping {
                        return;
                    }
                    match waiting.errands.pop_front() {
                        Some(errand) => break errand,
                        None => waiting = self.come.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                    }
                }
            };
            errand();
        }
    }

    /// Ends the threads; what waits is dropped.
    pub(super) fn stop(&self) {
        let mut waiting = self.waiting();
        waiting.stopping = true;
        waiting.errands.clear();
        drop(waiting);
        self.come.notify_all();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A fault of the data plane's own as an error.
pub(crate) fn panicked(panic: &(dyn Any + Send)) -> Error {
    let said =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::new(Kind::Failed, format!("a fault in the data plane: {}", said.unwrap_or("it gave no reason")))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn no_more_errands_wait_than_may() {
        let errands = Errands::default();
        // Nobody does any of them.
        let mut waiting: Vec<_> = (0..MOST).map(|_| Box::pin(errands.run(|| ()))).collect();
        assert!(waiting.iter_mut().all(|errand| errand.now_or_never().is_none()));
        let refused = errands.run(|| ()).now_or_never().unwrap();
        assert_eq!(refused.unwrap_err().kind, Kind::Limit);
        errands.stop();
        assert!(waiting.into_iter().all(|errand| errand.now_or_never().unwrap().is_err()));
    }

    #[test]
    fn an_errand_that_panics_is_an_error_and_the_next_one_is_done() {
        let errands = std::sync::Arc::new(Errands::default());
        let (told, heard) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| errands.work());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let panics = runtime.block_on(errands.run(|| panic!("as the test wants it")));
            assert!(panics.unwrap_err().message.contains("as the test wants it"));
            runtime.block_on(errands.run(move || told.send(()).unwrap())).unwrap();
            heard.recv().unwrap();
            errands.stop();
        });
    }
}
