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
