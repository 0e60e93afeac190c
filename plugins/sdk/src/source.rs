//! What the host learned from the server that is copied; nothing where there is none.

use crate::host;

/// A place in the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The timeline.
    pub timeline: u32,
    /// The 64 bits of the LSN.
    pub lsn: u64,
}

/// A timeline that the server's own one descends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// The timeline.
    pub timeline: u32,
    /// The LSN at which it ended and the next one forked off: the first byte that is no longer its own.
    pub ended_at: u64,
}

/// The server's version as `server_version_num` has it, such as 150018.
pub fn server_version() -> Option<u32> {
    host::server_version()
}

/// The server's system identifier.
pub fn system_identifier() -> Option<u64> {
    host::system_identifier()
}

/// How far the server's WAL went when the host asked.
pub fn wal_position() -> Option<Position> {
    host::wal_position()
}

/// The ancestors of the timeline of [`wal_position`], oldest first; empty on a cluster's first timeline.
pub fn timeline_history() -> Option<Vec<Ancestor>> {
    host::timeline_history()
}
