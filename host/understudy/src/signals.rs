//! SIGINT and SIGTERM. The first signal cancels the run; each further one logs what the program waits for. No signal skips the
//! clean-up, without which the data directory would not be safe to leave (loop rules 27 and 28).

use std::sync::{Arc, Mutex, PoisonError};

use replica::create_replica::{Cancel, CancelReason};
use replica::event::{Event, Step};
use replica::{EventSink, Level};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::parent::Parents;
use crate::render::{Log, step_description};

/// The step that the run is at, kept for the answer to a signal.
#[derive(Clone, Default)]
pub struct CurrentStep(Arc<Mutex<Position>>);

/// Where in the run the program is.
#[derive(Default)]
enum Position {
    #[default]
    BetweenAttempts,
    InAttempt {
        method: String,
        step: Option<Step>,
    },
}

impl EventSink for CurrentStep {
    fn emit(&self, event: Event) {
        let mut position = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::AttemptStarted { method } => *position = Position::InAttempt { method, step: None },
            Event::Step { method, step } => *position = Position::InAttempt { method, step: Some(step) },
            Event::AttemptEnded { .. } => *position = Position::BetweenAttempts,
            _ => {}
        }
    }
}

impl CurrentStep {
    /// Says what the program waits for before it ends.
    fn waited_for(&self) -> String {
        let position = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Position::InAttempt { method, step } = &*position else {
            return "waiting for the run to end".to_owned();
        };
        match step {
            Some(Step::Empty | Step::Create | Step::Seal) => format!(
                "waiting for `{method}` to stop, and then at most two seconds for what it left in the data directory to be removed"
            ),
            Some(step) => format!("waiting for `{method}` to stop ({})", step_description(*step)),
            None => format!("waiting for `{method}` to stop"),
        }
    }
}

/// The handlers of both signals.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes over both signals, which would otherwise end the program. Must be called within a runtime.
    ///
    /// # Errors
    /// Fails if the system does not let the program handle a signal.
    pub fn take() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> CancelReason {
        tokio::select! {
            _ = self.interrupt.recv() => CancelReason::Interrupt,
            _ = self.terminate.recv() => CancelReason::Terminate,
        }
    }

    /// Cancels the run at the first signal, and logs at each signal what the program waits for. Never returns: drop the future when the run
    /// has ended.
    pub async fn watch(mut self, cancel: &Cancel, step: &CurrentStep, log: &Log) -> std::convert::Infallible {
        let first = self.next().await;
        cancel.cancel(first);
        log.say(Level::Warn, &format!("{}: cancelling; {}", first.cause(), step.waited_for()));
        loop {
            let again = self.next().await;
            log.say(Level::Warn, &format!("{}: cancelling already; {}", again.cause(), step.waited_for()));
        }
    }
}

/// Cancels the run when the process that started it has ended.
pub async fn watch_parents(parents: Parents, cancel: &Cancel, step: &CurrentStep, log: &Log) {
    match parents.ended().await {
        Ok(parent) => {
            cancel.cancel(CancelReason::ParentEnded);
            let waits = step.waited_for();
            log.say(Level::Warn, &format!("{parent} that started this run is gone: cancelling; {waits}"));
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
    fn the_answer_to_a_second_signal_says_what_the_program_waits_for() {
        let step = CurrentStep::default();
        assert!(step.waited_for().contains("the run to end"));
        step.emit(Event::AttemptStarted { method: "tarball".to_owned() });
        step.emit(Event::Step { method: "tarball".to_owned(), step: Step::Plan });
        assert_eq!(step.waited_for(), "waiting for `tarball` to stop (planning)");
        step.emit(Event::Step { method: "tarball".to_owned(), step: Step::Create });
        assert!(step.waited_for().contains("two seconds"));
    }
}
