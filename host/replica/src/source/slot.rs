//! Asking the source for a replication slot.

use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::ask::{self, Psql};
use super::{Source, SourceError};

/// Whom a replication slot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    /// A standby, or pg_basebackup.
    Physical,
    /// A subscriber of a database.
    Logical,
}

/// What the source tells of a replication slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// Whom it is for.
    pub kind: SlotKind,
    /// Somebody receives WAL by it; false also if only a database could tell, to which the role may not connect.
    pub active: bool,
    /// WAL that it should have kept is gone.
    pub lost: bool,
}

impl Source {
    /// Asks for the slot of this name, which must be one that a slot can have; `None` if there is none.
    ///
    /// # Errors
    /// What the server said, or that it did not answer in 15 seconds. A role that may only replicate cannot ask a server before
    /// version 15.
    pub async fn slot(
        &self,
        name: &str,
        bin_dir: &Path,
        cancel: &CancellationToken,
    ) -> Result<Option<SlotState>, SourceError> {
        // The name goes into a statement.
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(SourceError::lasting(format!(
                "`{}` is no name for a replication slot",
                name.escape_debug()
            )));
        }
        let psql = Psql::new(self, bin_dir, cancel);
        let (replication, database) = ask::conninfos(self)?;
        let statement = format!(
            "SELECT slot_type, active, wal_status FROM pg_catalog.pg_replication_slots WHERE slot_name = '{name}'"
        );
        let rows = psql.run(&database, &["SET search_path = pg_catalog", &statement], &[]).await;
        let told = rows.ok().and_then(|rows| parse(&rows));
        if let Some(slot) = told {
            return Ok(slot);
        }
        let rows = psql.run(&replication, &[&format!("READ_REPLICATION_SLOT {name}")], &[]).await?;
        parse_read(&rows).ok_or_else(|| {
            SourceError::lasting("the source did not answer READ_REPLICATION_SLOT as PostgreSQL does")
        })
    }
}

/// A row of slot_type, active and wal_status, or none.
fn parse(output: &[u8]) -> Option<Option<SlotState>> {
    let line = std::str::from_utf8(output).ok()?.trim();
    if line.is_empty() {
        return Some(None);
    }
    let mut fields = line.split('|');
    let (kind, active, wal_status) = (fields.next()?, fields.next()?, fields.next()?);
    Some(Some(SlotState { kind: kind_of(kind)?, active: active == "t", lost: wal_status == "lost" }))
}

/// READ_REPLICATION_SLOT's row of slot_type, restart_lsn and restart_tli, all empty if there is no such slot. It fails for a logical
/// slot.
fn parse_read(output: &[u8]) -> Option<Option<SlotState>> {
    let line = std::str::from_utf8(output).ok()?.trim();
    let kind = line.split_once('|')?.0;
    if kind.is_empty() {
        return Some(None);
    }
    Some(Some(SlotState { kind: kind_of(kind)?, active: false, lost: false }))
}

fn kind_of(word: &str) -> Option<SlotKind> {
    match word {
        "physical" => Some(SlotKind::Physical),
        "logical" => Some(SlotKind::Logical),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_source_tells_of_a_slot_is_read() {
        let slot = |kind, active, lost| Some(Some(SlotState { kind, active, lost }));
        assert_eq!(parse(b""), Some(None));
        assert_eq!(parse(b"physical|f|\n"), slot(SlotKind::Physical, false, false));
        assert_eq!(parse(b"physical|t|reserved\n"), slot(SlotKind::Physical, true, false));
        assert_eq!(parse(b"logical|f|lost\n"), slot(SlotKind::Logical, false, true));
        assert_eq!(parse(b"other|f|\n"), None);
        assert_eq!(parse_read(b"||\n"), Some(None));
        assert_eq!(parse_read(b"physical|0/3000148|1\n"), slot(SlotKind::Physical, false, false));
        assert_eq!(parse_read(b""), None);
    }
}
