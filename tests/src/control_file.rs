//! `global/pg_control` of a replica that was made from a backup, of which the seal makes the checkpoint one that is nowhere.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use postgres_formats::backup_label::BackupLabel;
use postgres_formats::control_file::ControlFile;
use postgres_formats::{Lsn, names};

pub use postgres_formats::control_file::{NO_CHECKPOINT, with_checkpoint};

/// The place of the latest checkpoint.
///
/// # Errors
/// Where the bytes are no pg_control with a checksum that fits.
pub fn checkpoint(control_file: &[u8]) -> Result<Lsn> {
    Ok(ControlFile::parse(control_file)?.checkpoint)
}

/// Looks at a replica that was not started yet while its pg_control is as the backup had it, so that the rest of the file is
/// compared too: with the checkpoint that its backup_label names, of which the backup's pg_control is. Where there is no backup_label
/// the seal changed nothing.
///
/// # Errors
/// Where the checkpoint is not [`NO_CHECKPOINT`] although there is a backup_label; what `look` says.
pub fn as_in_the_backup<T>(datadir: &Path, look: impl FnOnce() -> Result<T>) -> Result<T> {
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
