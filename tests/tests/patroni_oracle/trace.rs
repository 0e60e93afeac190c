//! What a run did, in words that both programs share.

use std::collections::BTreeSet;

use serde::Deserialize;

/// Patroni's four parameters of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameters {
    pub(crate) scope: String,
    pub(crate) role: String,
    pub(crate) datadir: String,
    pub(crate) connstring: String,
}

/// What the data directory held, besides `global/pg_control`, which is looked at apart.
pub(crate) type Files = BTreeSet<String>;

/// The file that makes a data directory startable.
pub(crate) const CONTROL_FILE: &str = "global/pg_control";

/// One call of a method, or one try of basebackup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) place: usize,
    pub(crate) number: usize,
    /// None where none of the four was passed.
    pub(crate) parameters: Option<Parameters>,
    /// What the data directory held when it was called.
    pub(crate) at_start: Files,
}

/// Something that a run did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// These files were removed.
    Emptied(Files),
    Called(Call),
}

/// What a run did, in order, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    pub(crate) states: Vec<String>,
    pub(crate) acts: Vec<Act>,
    pub(crate) created: bool,
    /// What is in the data directory at the end.
    pub(crate) left: Files,
}

impl Trace {
    /// The calls, in order.
    pub(crate) fn calls(&self) -> impl Iterator<Item = &Call> {
        self.acts.iter().filter_map(|act| match act {
            Act::Called(call) => Some(call),
            Act::Emptied(_) => None,
        })
    }

    /// Files that vanished between two looks.
    pub(crate) fn vanished(&mut self, before: &Files, now: &Files) {
        let gone: Files = before.difference(now).filter(|path| *path != CONTROL_FILE).cloned().collect();
        if !gone.is_empty() {
            self.acts.push(Act::Emptied(gone));
        }
    }
}

/// Patroni's answer, as drive.py tells it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) events: Vec<Told>,
    /// The exit code that Patroni gives the loop.
    pub(crate) returned: Option<i32>,
    /// An exception that left the loop.
    pub(crate) raised: Option<String>,
    pub(crate) left: Files,
}

/// One event of it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Told {
    State(String),
    Emptied(Files),
    Call(ToldCall),
    /// Seconds between two tries: what this project pauses is the operator's to say.
    Slept(#[expect(dead_code, reason = "part of the answer")] f64),
}

/// One call of `cancellable.call`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ToldCall {
    pub(crate) position: usize,
    pub(crate) r#try: usize,
    pub(crate) argv: Vec<String>,
    pub(crate) at_start: Files,
    pub(crate) passfile: Option<String>,
}

impl ToldCall {
    /// Whether it is the native fallback.
    pub(crate) fn is_basebackup(&self) -> bool {
        self.argv.first().is_some_and(|program| program.ends_with("/pg_basebackup"))
    }
}

impl Answer {
    /// The calls, in order.
    pub(crate) fn calls(&self) -> impl Iterator<Item = &ToldCall> {
        self.events.iter().filter_map(|event| match event {
            Told::Call(call) => Some(call),
            _ => None,
        })
    }

    /// What both programs tell. `parameters` reads those of a call; calls at places from `first_added` on were put
    /// in by the judge and are left out.
    pub(crate) fn trace(
        &self,
        parameters: impl Fn(&ToldCall) -> Option<Parameters>,
        left_out: impl Fn(&ToldCall) -> bool,
    ) -> Trace {
        let mut trace = Trace { created: self.returned == Some(0), ..Trace::default() };
        for event in &self.events {
            match event {
                Told::State(state) => trace.states.push(state.clone()),
                Told::Emptied(had) => trace.vanished(had, &Files::new()),
                Told::Call(call) if left_out(call) => {}
                Told::Call(call) => trace.acts.push(Act::Called(Call {
                    place: call.position,
                    number: call.r#try,
                    parameters: parameters(call),
                    at_start: without_control_file(&call.at_start),
                })),
                Told::Slept(_) => {}
            }
        }
        trace.left = without_control_file(&self.left);
        trace
    }
}

/// The files besides `global/pg_control`.
pub(crate) fn without_control_file(files: &Files) -> Files {
    files.iter().filter(|path| *path != CONTROL_FILE).cloned().collect()
}
