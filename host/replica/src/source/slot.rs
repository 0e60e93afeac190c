//! Asks the source about a replication slot.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::ask::{Connections, Psql};
use super::{Source, SourceError};

/// The first version with the command READ_REPLICATION_SLOT, which a role that may only replicate may use.
const READS_SLOTS: u32 = 150_000;

/// Part of the server's message about a slot that READ_REPLICATION_SLOT cannot read.
const IS_LOGICAL: &str = "logical replication slot";

/// A replication slot, as the source reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// There is a physical slot.
    Physical,
    /// There is a physical slot, and a standby or another program receives WAL through it now.
    Active,
    /// There is a physical slot, and the server has removed WAL that the slot should have kept.
    Lost,
    /// There is a slot for logical replication.
    Logical,
    /// There is no such slot.
    Missing,
}

/// Returns whether the server allows a replication slot of this name (`ReplicationSlotValidateName` in slot.c).
pub fn is_slot_name(name: &[u8]) -> bool {
    let allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    (1..NAMEDATALEN).contains(&name.len()) && name.iter().all(allowed)
}

/// The size of a name in bytes, with the null byte at its end (`pg_config_manual.h`).
const NAMEDATALEN: usize = 64;

/// Asks about a slot. Asks in a database first, because that answer says whether the slot is in use. If that fails, asks in replication
/// mode.
pub(super) async fn ask(
    source: &Source,
    bin_dir: &Path,
    name: &str,
    cancel: &CancellationToken,
) -> Result<Slot, SourceError> {
    if !is_slot_name(name.as_bytes()) {
        return Err(SourceError::permanent("it is not a valid name of a replication slot"));
    }
    let psql = Psql::of(source, bin_dir, cancel);
    let Connections { replication, database } = Connections::to(source)?;
    let question = format!(
        "SELECT slot_type, active, wal_status FROM pg_catalog.pg_replication_slots WHERE slot_name = '{name}'"
    );
    let error = match psql.run(&database, &[&question], &[]).await {
        Ok(answer) => return parse_row(&answer),
        Err(error) => error,
    };
    let can_read = source.facts.as_ref().is_ok_and(|facts| facts.server_version >= READS_SLOTS);
    if !can_read {
        return Err(error);
    }
    match psql.run(&replication, &[&format!("READ_REPLICATION_SLOT \"{name}\"")], &[]).await {
        Ok(answer) => parse_row(&answer),
        Err(error) if error.message.contains(IS_LOGICAL) => Ok(Slot::Logical),
        Err(error) => Err(error),
    }
}

/// Parses the answer to either question: a row with the slot's type, whether it is in use and its WAL status, or a row with its type and
/// its position. If there is no such slot, the answer has no row, or a row without a type.
fn parse_row(answer: &[u8]) -> Result<Slot, SourceError> {
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
    fn the_answers_in_a_database_and_in_replication_mode_are_parsed() {
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
            assert_eq!(parse_row(answer.as_bytes()).unwrap(), slot, "{answer:?}");
        }
        assert!(parse_row(b"other|f|\n").is_err());
    }
}
