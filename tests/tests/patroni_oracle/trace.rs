//! The trace of a run: what the run did, in the same form for Patroni and this project's loop.

use std::collections::BTreeSet;

use serde::Deserialize;

/// The four parameters that Patroni passes to a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) scope: String,
    pub(crate) role: String,
    pub(crate) datadir: String,
    pub(crate) connstring: String,
}

/// The files in the data directory. `global/pg_control` is compared separately.
pub(crate) type Files = BTreeSet<String>;

/// The file that makes a data directory startable.
pub(crate) const CONTROL_FILE: &str = "global/pg_control";

/// One call of a method, or one try of basebackup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) position: usize,
    pub(crate) number: usize,
    /// The parameters; `None` if none of the four was passed.
    pub(crate) parameters: Option<Parameters>,
    /// The files in the data directory at the time of the call.
    pub(crate) at_start: Files,
}

/// An action of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// These files were removed.
    Emptied(Files),
    Called(Call),
}

/// The actions of a run, in order, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) states: Vec<String>,
    pub(crate) acts: Vec<Act>,
    pub(crate) created: bool,
    /// The files in the data directory at the end.
    pub(crate) left: Files,
}

impl Trace {
    /// Returns the calls, in order.
    pub(crate) fn calls(&self) -> impl Iterator<Item = &Call> {
        self.acts.iter().filter_map(|act| match act {
            Act::Called(call) => Some(call),
            Act::Emptied(_) => None,
        })
    }

    /// Records the files that were removed between two observations.
    pub(crate) fn record_removed(&mut self, before: &Files, now: &Files) {
        let gone: Files = before.difference(now).filter(|path| *path != CONTROL_FILE).cloned().collect();
        if !gone.is_empty() {
            self.acts.push(Act::Emptied(gone));
        }
    }
}

/// What drive.py reports about Patroni.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) events: Vec<PatroniEvent>,
    /// The exit code of Patroni's loop.
    pub(crate) returned: Option<i32>,
    /// An exception that Patroni's loop did not catch.
    pub(crate) raised: Option<String>,
    pub(crate) left: Files,
}

/// An event that drive.py reports.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PatroniEvent {
    State(String),
    Emptied(Files),
    Call(PatroniCall),
    /// The pause between two tries in seconds. The pauses are not compared, because in this project the operator sets the pause.
    Slept(#[expect(dead_code, reason = "part of the answer")] f64),
}

/// One call to `cancellable.call`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PatroniCall {
    pub(crate) position: usize,
    pub(crate) r#try: usize,
    pub(crate) argv: Vec<String>,
    pub(crate) at_start: Files,
    pub(crate) passfile: Option<String>,
}

impl PatroniCall {
    /// Returns whether this call runs pg_basebackup.
    pub(crate) fn is_basebackup(&self) -> bool {
        self.argv.first().is_some_and(|program| program.ends_with("/pg_basebackup"))
    }
}

impl Answer {
    /// Returns the calls, in order.
    pub(crate) fn calls(&self) -> impl Iterator<Item = &PatroniCall> {
        self.events.iter().filter_map(|event| match event {
            PatroniEvent::Call(call) => Some(call),
            _ => None,
        })
    }

    /// Returns the trace. `parameters` returns the parameters of a call. Calls for which `left_out` returns true are not included.
    pub(crate) fn trace(
        &self,
        parameters: impl Fn(&PatroniCall) -> Option<Parameters>,
        left_out: impl Fn(&PatroniCall) -> bool,
    ) -> Trace {
        let mut trace = Trace { created: self.returned == Some(0), ..Trace::default() };
        for event in &self.events {
            match event {
                PatroniEvent::State(state) => trace.states.push(state.clone()),
                PatroniEvent::Emptied(had) => trace.record_removed(had, &Files::new()),
                PatroniEvent::Call(call) if left_out(call) => {}
                PatroniEvent::Call(call) => trace.acts.push(Act::Called(Call {
                    position: call.position,
                    number: call.r#try,
                    parameters: parameters(call),
                    at_start: without_control_file(&call.at_start),
                })),
                PatroniEvent::Slept(_) => {}
            }
        }
        trace.left = without_control_file(&self.left);
        trace
    }
}

/// Returns the files except `global/pg_control`.
pub(crate) fn without_control_file(files: &Files) -> Files {
    files.iter().filter(|path| *path != CONTROL_FILE).cloned().collect()
}
