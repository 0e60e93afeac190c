//! What happens during a run, as one typed stream. The progress bar, the log, the JSON lines and the report are all readers of
//! it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::outcome::Finding;
use crate::usage::Usage;
use crate::{Outcome, Plan, Rule, RunResult};

/// Something that happened. Fields named `method` hold the name in the operator's list.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The state that Patroni would show: `creating replica`, then `stopped`.
    State {
        /// The state's name.
        state: &'static str,
    },
    /// An attempt began.
    AttemptStarted {
        /// Which method.
        method: String,
    },
    /// A step of the attempt began.
    Step {
        /// Which method.
        method: String,
        /// Which step.
        step: Step,
    },
    /// The method said what it would restore.
    Planned {
        /// Which method.
        method: String,
        /// What it would restore.
        plan: Plan,
    },
    /// The method has begun another phase of its work.
    Phase {
        /// Which method.
        method: String,
        /// Free text for people.
        name: String,
    },
    /// The method's progress.
    Progress {
        /// Which method.
        method: String,
        /// Bytes written so far.
        bytes: u64,
        /// Bytes in all, if that is known.
        bytes_expected: Option<u64>,
        /// Files written so far.
        files: u64,
        /// Files in all, if that is known.
        files_expected: Option<u64>,
    },
    /// A line of a method's log or output, or a line of the host.
    Log {
        /// Which method; `None` if the line is about the whole run.
        method: Option<String>,
        /// How serious.
        level: Level,
        /// Where the line comes from: `host`, `plugin`, `stdout`, `stderr` or a program's name.
        origin: String,
        /// The line, free of control characters.
        message: String,
        /// Further fields of the method's own.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        fields: Vec<(String, String)>,
    },
    /// A request to a store failed or is not answered, and is retried.
    Retrying {
        /// Which method.
        method: String,
        /// The store's URL or path, without credentials.
        store: String,
        /// What the request is for: an object, or the objects below a prefix.
        about: String,
        /// The number of the try, from 1, since data last arrived.
        attempt: u32,
        /// Why the try failed, or that nothing has arrived so far.
        cause: String,
        /// When the next try is made; `None` if this one still waits for an answer.
        #[serde(rename = "next_try_in_seconds", serialize_with = "maybe_seconds")]
        next_try_in: Option<Duration>,
    },
    /// A call that no grant covers.
    Denied {
        /// Which method.
        method: String,
        /// What it requested and the line that would allow it.
        denial: Denial,
    },
    /// The host has answered a call of the method. Emitted only if a reader wants such events ([`EventSink::takes_calls`]).
    Called {
        /// Which method.
        method: String,
        /// The call and its answer.
        call: HostCall,
    },
    /// A check of the host found something to report.
    Found {
        /// Which method.
        method: String,
        /// What it found.
        finding: Finding,
    },
    /// An attempt ended.
    AttemptEnded {
        /// Which method.
        method: String,
        /// How it ended.
        outcome: Outcome,
        /// Why it ended; empty for `created`.
        message: String,
        /// The rule that rejected it, or the check of the seal that failed.
        rule: Option<Rule>,
        /// The line of configuration that would change the answer.
        remedy: Option<String>,
        /// Whether the attempt touched the data directory: emptied it, or removed its pg_control.
        touched: bool,
        /// How long it took.
        #[serde(rename = "seconds", serialize_with = "seconds")]
        duration: Duration,
        /// The resources that the attempt used, with their limits.
        usage: Box<Usage>,
    },
    /// The run ended.
    RunEnded {
        /// How it ended.
        result: RunResult,
        /// Why it ended before any method was tried; `None` if one was tried.
        message: Option<String>,
    },
}

impl Event {
    /// Returns the event with every text that came from a method, a program or the machine passed through `change`, so that secrets
    /// can be removed before a person or a file gets it. Names of methods are the operator's own and stay.
    #[must_use]
    pub fn map_texts(self, change: &dyn Fn(String) -> String) -> Self {
        match self {
            event @ (Self::State { .. }
            | Self::AttemptStarted { .. }
            | Self::Step { .. }
            | Self::Progress { .. }) => event,
            Self::Planned { method, plan } => Self::Planned { method, plan: plan.map_texts(change) },
            Self::Phase { method, name } => Self::Phase { method, name: change(name) },
            Self::Log { method, level, origin, message, fields } => Self::Log {
                method,
                level,
                origin,
                message: change(message),
                fields: fields.into_iter().map(|(name, value)| (change(name), change(value))).collect(),
            },
            Self::Retrying { method, store, about, attempt, cause, next_try_in } => Self::Retrying {
                method,
                store: change(store),
                about: change(about),
                attempt,
                cause: change(cause),
                next_try_in,
            },
            Self::Denied { method, denial: Denial { capability, what, remedy } } => {
                let denial = Denial { capability, what: change(what), remedy: remedy.map(change) };
                Self::Denied { method, denial }
            }
            Self::Called { method, mut call } => {
                call.object = change(call.object);
                Self::Called { method, call }
            }
            Self::Found { method, finding } => Self::Found { method, finding: finding.map_texts(change) },
            Self::AttemptEnded { method, outcome, message, rule, remedy, touched, duration, usage } => {
                Self::AttemptEnded {
                    method,
                    outcome,
                    message: change(message),
                    rule,
                    remedy: remedy.map(change),
                    touched,
                    duration,
                    usage,
                }
            }
            Self::RunEnded { result, message } => Self::RunEnded { result, message: message.map(change) },
        }
    }
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

fn from_seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

fn maybe_seconds<S: serde::Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    duration.map(|duration| duration.as_secs_f64()).serialize(serializer)
}

/// The steps of an attempt, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The host checks what it can without running the method.
    Preflight,
    /// The method says what it would restore.
    Plan,
    /// The host compares the plan with the source, the map and the disk.
    Accept,
    /// The host empties the data directory.
    Empty,
    /// The method fills it.
    Create,
    /// The host checks it and makes it startable.
    Seal,
}

/// How serious a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// Something failed.
    Error,
    /// Something is not as it should be.
    Warn,
    /// What a person wants to know.
    Info,
    /// What an engineer wants to know.
    Debug,
    /// Everything.
    Trace,
}

/// A capability that a method can be granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapabilityKind {
    /// To read directories of the machine.
    Read,
    /// To write into the data directory and what belongs to it.
    Write,
    /// To read from a store.
    Store,
    /// To have something decrypted with a key.
    Key,
    /// To reach the network.
    Network,
    /// To run a program.
    Program,
    /// To see variables of the environment.
    Environment,
}

impl CapabilityKind {
    /// Every capability.
    pub const ALL: [Self; 7] =
        [Self::Read, Self::Write, Self::Store, Self::Key, Self::Network, Self::Program, Self::Environment];

    /// Returns the word that logs and reports use.
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Store => "store",
            Self::Key => "key",
            Self::Network => "network",
            Self::Program => "program",
            Self::Environment => "environment",
        }
    }
}

impl fmt::Display for CapabilityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A call that no grant covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Denial {
    /// The capability that the call needs.
    pub capability: CapabilityKind,
    /// What was requested, such as a path.
    pub what: String,
    /// The line of configuration that would allow it; `None` if no line would.
    pub remedy: Option<String>,
}

/// Prints the denial as `read /mnt/other` or `the program restore`: leaves out the capability if `what` begins with its name.
impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capability, what, .. } = self;
        let named = what.strip_prefix("the ").and_then(|rest| rest.strip_prefix(capability.word()));
        if named.is_some_and(|rest| rest.starts_with(' ')) {
            return f.write_str(what);
        }
        write!(f, "{capability} {what}")
    }
}

/// A call of a method to the host, with the host's answer. One value stands for all calls on a file or stream that the method opened.
///
/// The names of functions and answers, `W`, are constants of the program that makes the call, and texts where an audit is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCall<W = &'static str> {
    /// The step of the call: `plan` or `create`.
    pub step: Step,
    /// The capability that the call needs; `None` if it needs none.
    pub capability: Option<CapabilityKind>,
    /// The interface and the function, such as `store.get`.
    pub function: W,
    /// The object of the call: a path, an object in a store, or a name. Empty if the function has no object.
    pub object: String,
    /// How many calls this record stands for: 1, or for a file or stream the call that opened it and the calls on it.
    pub calls: u64,
    /// How many bytes were read from a file or store, or received from a server.
    pub bytes_read: u64,
    /// How many bytes were written to files or sent to a server.
    pub bytes_written: u64,
    /// The time from the call to its answer; for a call that opened something, the time until that was closed.
    #[serde(rename = "seconds", serialize_with = "seconds", deserialize_with = "from_seconds")]
    pub duration: Duration,
    /// `ok`, `denied`, `cancelled`, `trap`, or the word of the contract or of WASI for the error.
    pub answer: W,
}

impl HostCall {
    /// The answer to a call that succeeded.
    pub const OK: &'static str = "ok";
    /// The answer to a call that no grant covers.
    pub const DENIED: &'static str = "denied";
}

/// A receiver of events. Its functions may be called from any thread, and must not block for long.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn emit(&self, event: Event);

    /// Returns whether the sink wants [`Event::Called`]. There may be a great number of these events, so they are made only if a sink wants
    /// them.
    fn takes_calls(&self) -> bool {
        false
    }

    /// Returns a text without the secrets that the sink removes from the texts of events.
    fn redacted(&self, text: &str) -> String {
        text.to_owned()
    }
}

impl<F: Fn(Event) + Send + Sync> EventSink for F {
    fn emit(&self, event: Event) {
        self(event);
    }
}
