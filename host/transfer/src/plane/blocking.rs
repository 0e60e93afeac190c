//! A queue of blocking tasks for threads other than the workers.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::error::{Error, Kind};

/// The most tasks that may wait.
const MOST: usize = 4096;

type Task = Box<dyn FnOnce() + Send>;

/// The queue of tasks that wait for a thread.
#[derive(Default)]
pub(super) struct BlockingTasks {
    waiting: Mutex<Waiting>,
    added: Condvar,
}

#[derive(Default)]
struct Waiting {
    tasks: VecDeque<Task>,
    stopping: bool,
}

impl BlockingTasks {
    /// Runs `work` on one of the threads and waits for its result.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let task = move || {
            let ended = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Error::of_panic(&*panic));
            // Sending fails if the caller has stopped waiting, which is not an error.
            let _ = answer.send(ended);
        };
        {
            let mut waiting = self.waiting();
            if waiting.tasks.len() >= MOST {
                return Err(Error::new(Kind::Limit, format!("{MOST} calls wait for the data plane already")));
            }
            waiting.tasks.push_back(Box::new(task));
        }
        self.added.notify_one();
        match answered.await {
            Ok(ended) => ended,
            Err(_) => Err(Error::new(Kind::Cancelled, "the data plane has ended")),
        }
    }

    /// Runs tasks until [`BlockingTasks::stop`]; the main function of each thread.
    pub(super) fn work(&self) {
        loop {
            let task = {
                let mut waiting = self.waiting();
                loop {
                    if waiting.stopping {
                        return;
                    }
                    match waiting.tasks.pop_front() {
                        Some(task) => break task,
                        None => waiting = self.added.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                    }
                }
            };
            task();
        }
    }

    /// Ends the threads. Drops the tasks that wait.
    pub(super) fn stop(&self) {
        let mut waiting = self.waiting();
        waiting.stopping = true;
        waiting.tasks.clear();
        drop(waiting);
        self.added.notify_all();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_number_of_waiting_tasks_is_bounded() {
        let tasks = BlockingTasks::default();
        // No thread runs any of these tasks.
        let mut waiting: Vec<_> = (0..MOST).map(|_| Box::pin(tasks.run(|| ()))).collect();
        assert!(waiting.iter_mut().all(|task| task.now_or_never().is_none()));
        let refused = tasks.run(|| ()).now_or_never().unwrap();
        assert_eq!(refused.unwrap_err().kind, Kind::Limit);
        tasks.stop();
        assert!(waiting.into_iter().all(|task| task.now_or_never().unwrap().is_err()));
    }

    #[test]
    fn a_task_that_panics_is_an_error_and_the_next_one_runs() {
        let tasks = std::sync::Arc::new(BlockingTasks::default());
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| tasks.work());
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let panics = runtime.block_on(tasks.run(|| panic!("as the test wants it")));
            assert!(panics.unwrap_err().message.contains("as the test wants it"));
            runtime.block_on(tasks.run(move || sender.send(()).unwrap())).unwrap();
            receiver.recv().unwrap();
            tasks.stop();
        });
    }
}
