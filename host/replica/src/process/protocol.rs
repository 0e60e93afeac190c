//! The protocol between the host and a guard: lines on a socket that is the guard's standard input.

use std::ffi::OsString;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Confinement, Status};

/// The longest line that either side reads, in bytes: arguments and environment of a program.
pub(super) const LONGEST: u64 = 4 << 20;

/// The host's first line, in JSON: what to run. Its second line is [`GO`]. Any further line, or the end of the socket, is the order to
/// end the program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) writable: Vec<OsString>,
    pub(super) require_landlock: Option<u32>,
    pub(super) grace: Duration,
    /// What the program itself may do, besides the guard's own bounds; `None` for no more bounds.
    pub(super) confinement: Option<Confinement>,
}

/// The host has recorded the guard in the state file: the program may start.
pub(super) const GO: &str = "go";

/// The host wants the program to end.
pub(super) const STOP: &str = "stop";

/// The messages of a guard, in JSON, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum GuardMessage {
    /// The guard is ready and waits for [`GO`]. `landlock` is the Landlock ABI that it enforces, 0 for none.
    Ready { landlock: u32 },
    /// A system call of the guard failed; the guard ends.
    Refused { message: String },
    /// The program could not be executed; the guard ends.
    NotStarted { message: String },
    /// The program ended, and no process that it started is left.
    Ended {
        status: Status,
        /// How many processes the program had left behind.
        leftover_processes: u32,
    },
}
