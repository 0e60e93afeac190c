//! Reads `global/pg_control` of a replica that was created from a backup. The seal replaces the checkpoint in the file with a
//! checkpoint that does not exist.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use postgres_formats::backup_label::BackupLabel;
use postgres_formats::control_file::ControlFile;
use postgres_formats::{Lsn, names};

pub use postgres_formats::control_file::{NO_CHECKPOINT, with_checkpoint};

/// Returns the WAL position of the latest checkpoint.
///
/// # Errors
/// Fails if the bytes are not a pg_control with a valid checksum.
pub fn checkpoint(control_file: &[u8]) -> Result<Lsn> {
    Ok(ControlFile::parse(control_file)?.checkpoint)
}

/// Calls `look` on a replica that was not started yet, and gives its pg_control the checkpoint from its backup_label for the
/// duration of the call. The backup's pg_control has that checkpoint too, so `look` can compare the rest of the file with the
/// backup. Without a backup_label the seal did not change pg_control, and neither does this function.
///
/// # Errors
/// Fails if the checkpoint is not [`NO_CHECKPOINT`] although there is a backup_label, or if `look` fails.
pub fn with_checkpoint_of_backup<T>(datadir: &Path, look: impl FnOnce() -> Result<T>) -> Result<T> {
    let Ok(label) = fs::read(datadir.join(names::BACKUP_LABEL)) else { return look() };
    let at = BackupLabel::parse(&label)?.checkpoint;
    let path = datadir.join(names::CONTROL_FILE);
    let sealed = fs::read(&path)?;
    ensure!(checkpoint(&sealed)? == NO_CHECKPOINT, "the checkpoint is {}", checkpoint(&sealed)?);
    fs::write(&path, with_checkpoint(&sealed, at)?)?;
    let looked = look();
    fs::write(&path, sealed)?;
    looked
}
