//! Begins the chain of backups that the host combines.

use postgres_formats::control_file::RelationFiles;
use understudy::Error;
use understudy::transfer::{Chain, IncrementFormat};

/// The size of a page of PostgreSQL in bytes, also of WAL-G's increments (`BlockSize` in WAL-G's internal/walparser). A method refuses a
/// cluster with another when it reads the control file.
const PAGE: u32 = RelationFiles::DEFAULT.page_size;

/// Makes an empty chain of backups whose increments have the format `format`.
///
/// # Errors
/// The error of the host.
pub fn begin(format: IncrementFormat) -> Result<Chain, Error> {
    Chain::new(format, PAGE)
}
