//! What the host and a guard say to each other: a line of JSON each, on a socket that is the guard's standard input.

use std::ffi::OsString;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Status;

/// The longest line that either reads, in bytes: arguments and environment of a program.
pub(super) const LONGEST: u64 = 4 << 20;

/// The host's first line: what to run. Its second is [`GO`]; anything further, or the end of the socket, is the order
/// to end the program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) writable: Vec<OsString>,
    pub(super) require_landlock: Option<u32>,
    pub(super) grace: Duration,
}

/// The host has told the state file of the guard: the program may start.
pub(super) const GO: &str = "go";

/// The host wants the program to end.
pub(super) const STOP: &str = "stop";

/// What a guard tells, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Word {
    /// The guard stands and waits for [`GO`]; the Landlock ABI that is enforced, 0 for none.
    Ready { landlock: u32 },
    /// The guard could not do what it must; it ends.
    Refused { message: String },
    /// The program could not be executed; the guard ends.
    NotStarted { message: String },
    /// The program ended, and nothing that it started is left.
    Ended {
        status: Status,
        /// How many processes it had left behind.
        left_over: u32,
    },
}
