//! Facts that the host read from the source server. Each fact is `None` if there is no source.
//!
//! ```
//! use understudy::source;
//!
//! /// Returns whether a backup is from the cluster of the source. Without a source, every backup is accepted.
//! fn is_of_this_cluster(system_identifier: u64) -> bool {
//!     source::system_identifier().is_none_or(|source| source == system_identifier)
//! }
//! # assert!(is_of_this_cluster(7));
//! ```

use crate::host;

/// A position in the WAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The timeline.
    pub timeline: u32,
    /// The 64 bits of the LSN.
    pub lsn: u64,
}

/// An ancestor of the server's timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// The timeline.
    pub timeline: u32,
    /// The LSN at which the next timeline forked off: the first byte that is not on this timeline.
    pub ended_at: u64,
}

/// Returns the server's `server_version_num`, such as 150018.
pub fn server_version() -> Option<u32> {
    host::server_version()
}

/// Returns the server's system identifier.
pub fn system_identifier() -> Option<u64> {
    host::system_identifier()
}

/// Returns the server's WAL position when the host queried it.
pub fn wal_position() -> Option<Position> {
    host::wal_position()
}

/// Returns the ancestors of the timeline of [`wal_position`], oldest first; empty on a cluster's first timeline.
pub fn timeline_history() -> Option<Vec<Ancestor>> {
    host::timeline_history()
}
