//! Whether a standby can follow through a replication slot of the source.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::ask::{Connections, Psql};
use super::{Source, SourceError};

/// The first version with READ_REPLICATION_SLOT, which a role that may only replicate may ask.
const READS_SLOTS: u32 = 150_000;

/// What the server says of a slot that READ_REPLICATION_SLOT cannot read.
const IS_LOGICAL: &str = "logical replication slot";

/// A replication slot, as the source told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// There is a physical one.
    Physical,
    /// There is a physical one, which another standby uses now.
    Active,
    /// There is one, for logical replication.
    Logical,
    /// There is none.
    Missing,
}

/// Asks for a slot: in a database, which says whether somebody uses it, or in replication mode.
pub(super) async fn ask(
    source: &Source,
    bin_dir: &Path,
    name: &str,
    cancel: &CancellationToken,
) -> Result<Slot, SourceError> {
    // The server has no others (`ReplicationSlotValidateName`).
    if name.is_empty() || !name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
        return Err(SourceError::lasting("it is no name of a replication slot"));
    }
    let psql = Psql::of(source, bin_dir, cancel);
    let Connections { replication, database } = Connections::to(source)?;
    let question =
        format!("SELECT slot_type, active FROM pg_catalog.pg_replication_slots WHERE slot_name = '{name}'");
    let error = match psql.run(&database, &[&question], &[]).await {
        Ok(answer) => return Ok(of_view(&answer)),
        Err(error) => error,
    };
    let can_read = source.facts.as_ref().is_ok_and(|facts| facts.server_version >= READS_SLOTS);
    if !can_read {
        return Err(error);
    }
    match psql.run(&replication, &[&format!("READ_REPLICATION_SLOT \"{name}\"")], &[]).await {
        Ok(answer) => Ok(of_view(&answer)),
        Err(error) if error.message.contains(IS_LOGICAL) => Ok(Slot::Logical),
        Err(error) => Err(error),
    }
}

/// A row that begins with the kind of the slot; none, or one without a kind, if there is no slot.
fn of_view(answer: &[u8]) -> Slot {
    let row = String::from_utf8_lossy(answer);
    let mut fields = row.trim_end().split('|');
    match (fields.next(), fields.next()) {
        (Some("physical"), Some("t")) => Slot::Active,
        (Some("physical"), _) => Slot::Physical,
        (Some("logical"), _) => Slot::Logical,
        _ => Slot::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_answers_are_read() {
        for (answer, slot) in [
            ("physical|f\n", Slot::Physical),
            ("physical|t\n", Slot::Active),
            ("physical|0/3000148|1\n", Slot::Physical),
            ("physical||\n", Slot::Physical),
            ("logical|f\n", Slot::Logical),
            ("||\n", Slot::Missing),
            ("", Slot::Missing),
        ] {
            assert_eq!(of_view(answer.as_bytes()), slot, "{answer:?}");
        }
    }
}
