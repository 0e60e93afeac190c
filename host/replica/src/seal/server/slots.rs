//! Checks the replication slots and origins that came with the backup. pg_basebackup omits slots; a copy of the directory may contain them.
//! A server does not start if it has more of them than its settings allow, or if `wal_level` is too low for them (`RestoreSlotFromDisk` in
//! `slot.c`, `StartupReplicationOrigin` in `origin.c`). All messages were seen with PostgreSQL 15.

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::Path;

use super::super::problem::{Problem, shown};
use super::Verdicts;
use super::ask::Server;
use crate::regular_file;

const DIRECTORY: &str = "pg_replslot";
const ORIGINS: &str = "pg_logical/replorigin_checkpoint";

/// The most slots that are read, which is the most that a server can have (`MAX_BACKENDS`, the bound of `max_replication_slots`).
const MOST: usize = (1 << 18) - 1;

/// The size of the header of `replorigin_checkpoint` (a magic number) and of its end (a checksum), in bytes.
const AROUND_ORIGINS: u64 = 8;

/// The size of an origin in `replorigin_checkpoint` (`ReplicationStateOnDisk`), in bytes.
const ORIGIN: u64 = 16;

/// Where the OID of the database and the persistency are in the file `state` of a slot, after the file's header and the slot's name
/// (`ReplicationSlotOnDisk`, the same in 13 to 18).
const DATABASE: Range<usize> = 80..84;
const PERSISTENCY: Range<usize> = 84..88;

/// The slots that the server restores at its start.
#[derive(Debug, Default, PartialEq, Eq)]
struct Slots {
    count: usize,
    /// The name of a slot for logical replication.
    logical: Option<String>,
    /// The name of a slot for physical replication.
    physical: Option<String>,
}

/// Checks slots and origins. Checks nothing if the directory is still to be filled.
pub(super) fn check(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    if server.replica.to_fill.is_some() {
        return Ok(());
    }
    let path = &server.replica.places.path;
    let unreadable = |what: &str, error: io::Error| {
        Problem::new(super::CHECK, format!("`{what}` cannot be read ({error}): PostgreSQL would not start"))
    };
    let slots = Slots::read(&path.join(DIRECTORY)).map_err(|error| unreadable(DIRECTORY, error))?;
    if slots.count > 0 {
        restored_slots(server, &slots, verdicts)?;
    }
    let origins = match regular_file::open(&path.join(ORIGINS)).and_then(|file| file.metadata()) {
        Ok(metadata) => metadata.len().saturating_sub(AROUND_ORIGINS) / ORIGIN,
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(unreadable(ORIGINS, error)),
    };
    if origins > 0 {
        restored_origins(server, origins, verdicts)?;
    }
    Ok(())
}

fn restored_slots(server: &Server<'_>, slots: &Slots, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    const NAME: &str = "max_replication_slots";
    let (count, most) = (slots.count, server.number(NAME)?);
    if i64::try_from(count).unwrap_or(i64::MAX) > most {
        verdicts.missing(format!(
            "`{DIRECTORY}` has {count} replication slots, and `{NAME}` is {most} ({}): PostgreSQL does not start with fewer than it has. \
             Remove the directories of the slots, or set `{NAME}` to at least {count} {}",
            server.place(NAME),
            server.remedy(NAME)
        ))?;
    }
    let level = server.setting("wal_level")?;
    let of_a_level =
        [(&slots.logical, "logical", level != "logical"), (&slots.physical, "physical", level == "minimal")];
    for (name, kind, _) in of_a_level.iter().filter(|(_, _, is_too_low)| *is_too_low) {
        let Some(name) = name else { continue };
        verdicts.missing(format!(
            "`{DIRECTORY}` has the slot `{}` for {kind} replication, and `wal_level` is `{level}` ({}): PostgreSQL does not start. Remove \
             the directory of the slot, or raise `wal_level` {}",
            shown(name.as_bytes()),
            server.place("wal_level"),
            server.remedy("wal_level")
        ))?;
    }
    verdicts.report(format!(
        "`{DIRECTORY}` has {count} replication slots of the server that was copied: this server keeps WAL for them until they are dropped, \
         which can fill its disk; drop those that nobody uses here (`pg_drop_replication_slot`)"
    ));
    Ok(())
}

fn restored_origins(server: &Server<'_>, origins: u64, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    let name = match server.replica.major {
        18.. => "max_active_replication_origins",
        _ => "max_replication_slots",
    };
    let most = server.number(name)?;
    // With 0 the server does not read the file.
    if most > 0 && i64::try_from(origins).unwrap_or(i64::MAX) > most {
        verdicts.missing(format!(
            "`{ORIGINS}` has {origins} replication origins, and `{name}` is {most} ({}): PostgreSQL does not start with fewer than it has. \
             Set `{name}` to at least {origins} {}",
            server.place(name),
            server.remedy(name)
        ))?;
    }
    Ok(())
}

impl Slots {
    /// Reads the slots in a directory. A missing directory has no slots.
    ///
    /// # Errors
    /// Fails if the directory or the file of a slot cannot be read, or if there are more slots than any server can have.
    fn read(directory: &Path) -> io::Result<Self> {
        let mut slots = Self::default();
        let entries = match directory.read_dir() {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(slots),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            // The server removes directories whose names end in `.tmp`, and ignores files.
            if entry.file_name().as_encoded_bytes().ends_with(b".tmp") || !entry.file_type()?.is_dir() {
                continue;
            }
            let name = entry.file_name().to_string_lossy().into_owned();
            let state = regular_file::beginning(&entry.path().join("state"), PERSISTENCY.end as u64);
            let added = state.and_then(|state| slots.add(&name, &state));
            added.map_err(|error| {
                io::Error::other(format!("`state` of the slot `{}`: {error}", shown(name.as_bytes())))
            })?;
            if slots.count > MOST {
                return Err(io::Error::other(format!("it has more than {MOST} slots")));
            }
        }
        Ok(slots)
    }

    /// Adds a slot, unless it is temporary: the server removes temporary slots at its start.
    ///
    /// # Errors
    /// Fails if the state ends too early.
    fn add(&mut self, name: &str, state: &[u8]) -> io::Result<()> {
        let number = |range: Range<usize>| {
            let bytes = state.get(range).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_ne_bytes).ok_or_else(|| io::Error::from(ErrorKind::UnexpectedEof))
        };
        let (database, persistency) = (number(DATABASE)?, number(PERSISTENCY)?);
        if persistency == 0 {
            self.count += 1;
            let kind = if database == 0 { &mut self.physical } else { &mut self.logical };
            kind.get_or_insert_with(|| name.to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn slot(directory: &Path, name: &str, database: u32, persistency: u32) {
        let mut state = vec![0; 200];
        state[DATABASE].copy_from_slice(&database.to_ne_bytes());
        state[PERSISTENCY].copy_from_slice(&persistency.to_ne_bytes());
        fs::create_dir_all(directory.join(name)).unwrap();
        fs::write(directory.join(name).join("state"), state).unwrap();
    }

    #[test]
    fn slots_are_counted_as_the_server_restores_them() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join(DIRECTORY);
        assert_eq!(Slots::read(&directory).unwrap(), Slots::default());
        slot(&directory, "physical", 0, 0);
        slot(&directory, "logical", 5, 0);
        slot(&directory, "temporary", 5, 2);
        slot(&directory, "unfinished.tmp", 5, 0);
        fs::write(directory.join("file"), "").unwrap();
        let expected =
            Slots { count: 2, logical: Some("logical".to_owned()), physical: Some("physical".to_owned()) };
        assert_eq!(Slots::read(&directory).unwrap(), expected);
        let cut = directory.join("cut");
        fs::create_dir(&cut).unwrap();
        for state in [None, Some([0; 80])] {
            if let Some(state) = state {
                fs::write(cut.join("state"), state).unwrap();
            }
            let error = Slots::read(&directory).unwrap_err().to_string();
            assert!(error.starts_with("`state` of the slot `cut`: "), "{error}");
        }
    }
}
