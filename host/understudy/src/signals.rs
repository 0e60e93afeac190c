//! SIGINT and SIGTERM: the first cancels the run, any further one says what is being waited for. None skips the
//! clean-up, which is what makes the directory safe to leave (semantics rules 27 and 28).

use std::sync::{Arc, Mutex, PoisonError};

use replica::create_replica::{Cancel, CancelReason};
use replica::event::{Event, Step};
use replica::{EventSink, Level};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::parent::Parents;
use crate::render::{Log, step_doing};

/// What the run is at, for whoever asks.
#[derive(Clone, Default)]
pub struct Doing(Arc<Mutex<At>>);

/// Between attempts, or in one.
#[derive(Default)]
enum At {
    #[default]
    Nothing,
    Method {
        name: String,
        step: Option<Step>,
    },
}

impl EventSink for Doing {
    fn emit(&self, event: Event) {
        let mut at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::AttemptStarted { method } => *at = At::Method { name: method, step: None },
            Event::Step { method, step } => *at = At::Method { name: method, step: Some(step) },
            Event::AttemptEnded { .. } => *at = At::Nothing,
            _ => {}
        }
    }
}

impl Doing {
    /// What must end before the program does.
    fn waited_for(&self) -> String {
        let at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let At::Method { name, step } = &*at else { return "waiting for the run to end".to_owned() };
        match step {
            Some(Step::Empty | Step::Create | Step::Seal) => format!(
                "waiting for `{name}` to stop, and then at most two seconds for what it left in the data directory to be removed"
            ),
            Some(step) => format!("waiting for `{name}` to stop ({})", step_doing(*step)),
            None => format!("waiting for `{name}` to stop"),
        }
    }
}

/// Both signals, from now on.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes them over from the system, which would end the program.
    ///
    /// # Errors
    /// What the system says. Must be called within a runtime.
    pub fn take() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> CancelReason {
        tokio::select! {
            _ = self.interrupt.recv() => CancelReason::Interrupt,
            _ = self.terminate.recv() => CancelReason::Terminate,
        }
    }

    /// Cancels the run at the first signal and answers further ones. Never returns; drop it when the run has ended.
    pub async fn watch(mut self, cancel: &Cancel, doing: &Doing, log: &Log) -> std::convert::Infallible {
        let first = self.next().await;
        cancel.cancel(first);
        log.say(Level::Warn, &format!("{}: cancelling; {}", first.cause(), doing.waited_for()));
        loop {
            let again = self.next().await;
            log.say(Level::Warn, &format!("{}: cancelling already; {}", again.cause(), doing.waited_for()));
        }
    }
}

/// Cancels the run when the process that started it is gone.
pub async fn watch_parents(parents: Parents, cancel: &Cancel, doing: &Doing, log: &Log) {
    match parents.ended().await {
        Ok(who) => {
            cancel.cancel(CancelReason::ParentEnded);
            let waits = doing.waited_for();
            log.say(Level::Warn, &format!("{who} that started this run is gone: cancelling; {waits}"));
        }
        Err(why) => {
            let what = "the run does not end with the process that started it (`end_with_parent`)";
            log.say(Level::Warn, &format!("{what}: {why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_signal_is_told_what_is_waited_for() {
        let doing = Doing::default();
        assert!(doing.waited_for().contains("the run to end"));
        doing.emit(Event::AttemptStarted { method: "tarball".to_owned() });
        doing.emit(Event::Step { method: "tarball".to_owned(), step: Step::Plan });
        assert_eq!(doing.waited_for(), "waiting for `tarball` to stop (planning)");
        doing.emit(Event::Step { method: "tarball".to_owned(), step: Step::Create });
        assert!(doing.waited_for().contains("two seconds"));
    }
}
