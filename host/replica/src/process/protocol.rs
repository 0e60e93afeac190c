//! The protocol between the host and a guard: lines on a socket that is the guard's standard input.

use std::ffi::OsString;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Confinement, Exceeded, Resources, Status};

/// How many bytes a line may have. The longest line contains a program's arguments and environment.
pub(super) const LONGEST: u64 = 4 << 20;

/// The host's first line, in JSON: the program to run. The host's second line is [`GO`]. Any further line, or the end of the socket, tells
/// the guard to end the program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) writable: Vec<OsString>,
    pub(super) require_landlock: Option<u32>,
    pub(super) grace: Duration,
    /// The confinement of the program, in addition to the guard's Landlock domain; `None` if there is no additional confinement.
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
        /// The bound that the program exceeded; `None` if it exceeded none.
        exceeded: Option<Exceeded>,
        /// What the program and its descendants used.
        used: Resources,
    },
}
