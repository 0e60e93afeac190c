//! Asks the source about a replication slot.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::ask::{Connections, Psql};
use super::{Source, SourceError};

/// The first version with READ_REPLICATION_SLOT, which a role that may only replicate may ask.
const READS_SLOTS: u32 = 150_000;

/// The server's words about a slot that READ_REPLICATION_SLOT cannot read.
const IS_LOGICAL: &str = "logical replication slot";

/// A replication slot, as the source reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// There is a physical slot.
    Physical,
    /// There is a physical slot, and a standby or program receives WAL by it now.
    Active,
    /// There is a physical slot, and WAL that it should have kept is gone.
    Lost,
    /// There is a slot for logical replication.
    Logical,
    /// There is no such slot.
    Missing,
}

/// Asks about a slot: in a database, which reports whether the slot is in use, or else in replication mode.
pub(super) async fn ask(
    source: &Source,
    bin_dir: &Path,
    name: &str,
    cancel: &CancellationToken,
) -> Result<Slot, SourceError> {
    // The server allows no other names (`ReplicationSlotValidateName`).
    if name.is_empty() || !name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
        return Err(SourceError::permanent("it is not a valid name of a replication slot"));
    }
    let psql = Psql::of(source, bin_dir, cancel);
    let Connections { replication, database } = Connections::to(source)?;
    let question = format!(
        "SELECT slot_type, active, wal_status FROM pg_catalog.pg_replication_slots WHERE slot_name = '{name}'"
    );
    let error = match psql.run(&database, &[&question], &[]).await {
        Ok(answer) => return of_row(&answer),
        Err(error) => error,
    };
    let can_read = source.facts.as_ref().is_ok_and(|facts| facts.server_version >= READS_SLOTS);
    if !can_read {
        return Err(error);
    }
    match psql.run(&replication, &[&format!("READ_REPLICATION_SLOT \"{name}\"")], &[]).await {
        Ok(answer) => of_row(&answer),
        Err(error) if error.message.contains(IS_LOGICAL) => Ok(Slot::Logical),
        Err(error) => Err(error),
    }
}

/// Parses a row of the slot's type and whether it is in use, or of its type and where it begins. If there is no slot, there is no row, or
/// one without a type.
fn of_row(answer: &[u8]) -> Result<Slot, SourceError> {
    let row = String::from_utf8_lossy(answer);
    let fields: Vec<&str> = row.trim_end().split('|').collect();
    match fields[..] {
        ["physical", "t", ..] => Ok(Slot::Active),
        ["physical", "f", "lost"] => Ok(Slot::Lost),
        ["physical", ..] => Ok(Slot::Physical),
        ["logical", ..] => Ok(Slot::Logical),
        ["", ..] => Ok(Slot::Missing),
        _ => Err(SourceError::permanent("the source describes the slot in a way that PostgreSQL does not")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_answers_are_read() {
        for (answer, slot) in [
            ("physical|f|reserved\n", Slot::Physical),
            ("physical|f|\n", Slot::Physical),
            ("physical|t|reserved\n", Slot::Active),
            ("physical|f|lost\n", Slot::Lost),
            ("physical|0/3000148|1\n", Slot::Physical),
            ("physical||\n", Slot::Physical),
            ("logical|f|reserved\n", Slot::Logical),
            ("||\n", Slot::Missing),
            ("", Slot::Missing),
        ] {
            assert_eq!(of_row(answer.as_bytes()).unwrap(), slot, "{answer:?}");
        }
        assert!(of_row(b"other|f|\n").is_err());
    }
}
