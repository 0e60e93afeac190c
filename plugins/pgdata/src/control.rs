//! The beginning of `global/pg_control` (`ControlFileData` in PostgreSQL's pg_control.h, little-endian machines), as far as
//! it is the same from version 11 to 18. Its checksum is the host's to verify when it seals.

use crate::Lsn;
use crate::wal::SegmentSize;

/// How much of the file is needed, in bytes.
pub const NEEDED: usize = 52;

/// The size of the file since version 10, in bytes.
pub const SIZE: u64 = 8192;

/// What `pg_control` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The cluster.
    pub system_identifier: u64,
    /// What the server did when it wrote it.
    pub state: State,
    /// Where replay from the last checkpoint begins.
    pub redo: Lsn,
    /// The timeline of the last checkpoint.
    pub timeline: u32,
}

/// What a server did when it wrote its control file (`DBState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It was starting.
    Starting,
    /// It was shut down.
    ShutDown,
    /// It was shut down while it was a standby.
    ShutDownInRecovery,
    /// It was shutting down.
    ShuttingDown,
    /// It was recovering from a crash.
    InCrashRecovery,
    /// It was a standby, or restoring from an archive.
    InArchiveRecovery,
    /// It was running as a primary.
    InProduction,
}

impl State {
    /// Whether the files were whole when the server wrote this: nothing ran any more.
    pub fn is_shut_down(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }

    /// As `pg_controldata` says it.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Starting => "starting up",
            Self::ShutDown => "shut down",
            Self::ShutDownInRecovery => "shut down in recovery",
            Self::ShuttingDown => "shutting down",
            Self::InCrashRecovery => "in crash recovery",
            Self::InArchiveRecovery => "in archive recovery",
            Self::InProduction => "in production",
        }
    }
}

/// A control file that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It is too short.
    #[error("has {0} bytes and is no control file")]
    Short(usize),
    /// Its layout is not known.
    #[error("has the control file version {0}; versions 1100 to 1899 (PostgreSQL 11 to 18) are read")]
    Version(u32),
    /// Its state is not known.
    #[error("has the state {0}, which PostgreSQL does not know")]
    State(u32),
    /// Where it has the size of a WAL segment is not known.
    #[error(
        "has the control file version {0}, in which the size of a WAL segment is not looked for (PostgreSQL 13 to 18)"
    )]
    Layout(u32),
    /// No server has such WAL segments.
    #[error("has WAL segments of {0} bytes, which PostgreSQL never writes")]
    SegmentSize(u32),
}

impl Control {
    /// Reads the beginning of a control file.
    ///
    /// # Errors
    /// Where it is too short, of a version whose layout is not known, or in a state that does not exist.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        let short = ControlError::Short(bytes.len());
        let u32_at = |at: usize| {
            bytes.get(at..at + 4).and_then(|four| Some(u32::from_le_bytes(four.try_into().ok()?)))
        };
        let u64_at = |at: usize| {
            bytes.get(at..at + 8).and_then(|eight| Some(u64::from_le_bytes(eight.try_into().ok()?)))
        };
        let system_identifier = u64_at(0).ok_or(short)?;
        let version = u32_at(8).ok_or(short)?;
        if !(1100..1900).contains(&version) {
            return Err(ControlError::Version(version));
        }
        let state = match u32_at(16).ok_or(short)? {
            0 => State::Starting,
            1 => State::ShutDown,
            2 => State::ShutDownInRecovery,
            3 => State::ShuttingDown,
            4 => State::InCrashRecovery,
            5 => State::InArchiveRecovery,
            6 => State::InProduction,
            other => return Err(ControlError::State(other)),
        };
        let redo = Lsn(u64_at(40).ok_or(short)?);
        let timeline = u32_at(48).ok_or(short)?;
        Ok(Self { system_identifier, state, redo, timeline })
    }
}

/// The size of a WAL segment, as a control file of version 1300, 1700 or 1800 (PostgreSQL 13 to 18) has it.
///
/// # Errors
/// Where it is too short, of another version, or names a size that no server has.
pub fn wal_segment_size(bytes: &[u8]) -> Result<SegmentSize, ControlError> {
    let u32_at = |at: usize| {
        let four = bytes.get(at..at + 4).and_then(|four| four.try_into().ok());
        four.map(u32::from_le_bytes).ok_or(ControlError::Short(bytes.len()))
    };
    let version = u32_at(8)?;
    if !matches!(version, 1300 | 1700 | 1800) {
        return Err(ControlError::Layout(version));
    }
    let size = u32_at(228)?;
    SegmentSize::new(size.into()).ok_or(ControlError::SegmentSize(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control_file() -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        bytes[..8].copy_from_slice(&7_575_000_000_000_000_001u64.to_le_bytes());
        bytes[8..12].copy_from_slice(&1300u32.to_le_bytes());
        bytes[16..20].copy_from_slice(&6u32.to_le_bytes());
        bytes[40..48].copy_from_slice(&0x0300_0028u64.to_le_bytes());
        bytes[48..52].copy_from_slice(&2u32.to_le_bytes());
        bytes
    }

    #[test]
    fn the_cluster_its_state_and_its_timeline_are_read() {
        let control = Control::parse(&control_file()).unwrap();
        assert_eq!(control.system_identifier, 7_575_000_000_000_000_001);
        assert_eq!(
            (control.state, control.redo, control.timeline),
            (State::InProduction, Lsn(0x0300_0028), 2)
        );
        assert!(!control.state.is_shut_down());
    }

    #[test]
    fn what_is_no_control_file_is_refused() {
        assert_eq!(Control::parse(&control_file()[..NEEDED - 1]), Err(ControlError::Short(NEEDED - 1)));
        assert_eq!(Control::parse(&[0; 8192]), Err(ControlError::Version(0)));
        let mut bytes = control_file();
        bytes[16] = 9;
        assert_eq!(Control::parse(&bytes), Err(ControlError::State(9)));
    }

    #[test]
    fn the_size_of_a_segment_is_read_where_its_place_is_known() {
        let mut bytes = control_file();
        bytes[228..232].copy_from_slice(&(64u32 << 20).to_le_bytes());
        assert_eq!(wal_segment_size(&bytes).map(SegmentSize::bytes), Ok(64 << 20));
        bytes[228..232].copy_from_slice(&5u32.to_le_bytes());
        assert_eq!(wal_segment_size(&bytes), Err(ControlError::SegmentSize(5)));
        bytes[8..12].copy_from_slice(&1201u32.to_le_bytes());
        assert_eq!(wal_segment_size(&bytes), Err(ControlError::Layout(1201)));
        assert_eq!(wal_segment_size(&bytes[..200]), Err(ControlError::Layout(1201)));
        assert_eq!(wal_segment_size(&control_file()[..230]), Err(ControlError::Short(230)));
    }
}
