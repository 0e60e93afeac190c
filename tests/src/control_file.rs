//! `global/pg_control` of a replica that was made from a backup, of which the seal makes the checkpoint one that is nowhere.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use replica::Lsn;

/// The checkpoint of a replica that starts from its backup_label: pgBackRest's `PG_CONTROL_CHECKPOINT_INVALID`.
pub const NO_CHECKPOINT: Lsn = Lsn(0xDEAD);

/// Where the checkpoint is in the file (`ControlFileData`).
const CHECKPOINT: std::ops::Range<usize> = 32..40;

/// Where the checksum is, by `pg_control_version`.
const CRC: [(u32, usize); 3] = [(1300, 288), (1700, 288), (1800, 292)];

/// The place of the latest checkpoint.
///
/// # Errors
/// Where the bytes are no pg_control with a checksum that fits.
pub fn checkpoint(control_file: &[u8]) -> Result<Lsn> {
    crc_at(control_file)?;
    Ok(Lsn(u64::from_ne_bytes(control_file[CHECKPOINT].try_into()?)))
}

/// The same file with this checkpoint and a checksum that fits: every other byte stays as it is.
///
/// # Errors
/// Where the bytes are no pg_control with a checksum that fits.
pub fn with_checkpoint(control_file: &[u8], checkpoint: Lsn) -> Result<Vec<u8>> {
    let crc_at = crc_at(control_file)?;
    let mut changed = control_file.to_vec();
    changed[CHECKPOINT].copy_from_slice(&checkpoint.0.to_ne_bytes());
    let crc = crc32c::crc32c(&changed[..crc_at]);
    changed[crc_at..crc_at + 4].copy_from_slice(&crc.to_ne_bytes());
    Ok(changed)
}

fn crc_at(control_file: &[u8]) -> Result<usize> {
    ensure!(control_file.len() == 8192, "pg_control has {} bytes", control_file.len());
    let version = u32::from_ne_bytes(control_file[8..12].try_into()?);
    let (_, at) =
        CRC.iter().find(|(known, _)| *known == version).context("pg_control is of an unknown format")?;
    let told = u32::from_ne_bytes(control_file[*at..*at + 4].try_into()?);
    ensure!(crc32c::crc32c(&control_file[..*at]) == told, "the checksum of pg_control does not fit");
    Ok(*at)
}

/// Looks at a replica that was not started yet while its pg_control is as the backup had it, so that the rest of the file is
/// compared too: with the checkpoint that its backup_label names, of which the backup's pg_control is. Where there is no backup_label
/// the seal changed nothing.
///
/// # Errors
/// Where the checkpoint is not [`NO_CHECKPOINT`] although there is a backup_label; what `look` says.
pub fn as_in_the_backup<T>(datadir: &Path, look: impl FnOnce() -> Result<T>) -> Result<T> {
    let Ok(label) = fs::read(datadir.join("backup_label")) else { return look() };
    let label = String::from_utf8_lossy(&label).into_owned();
    let at = label.lines().find_map(|line| line.strip_prefix("CHECKPOINT LOCATION: "));
    let at: Lsn = at.and_then(|at| at.parse().ok()).context("backup_label names no checkpoint")?;
    let path = datadir.join("global/pg_control");
    let sealed = fs::read(&path)?;
    ensure!(checkpoint(&sealed)? == NO_CHECKPOINT, "the checkpoint is {}", checkpoint(&sealed)?);
    fs::write(&path, with_checkpoint(&sealed, at)?)?;
    let looked = look();
    fs::write(&path, sealed)?;
    looked
}
