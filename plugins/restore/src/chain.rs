//! Begins the chain of backups that the host combines.

use postgres_formats::control_file::RelationFiles;
use understudy::Error;
use understudy::transfer::{Chain, IncrementFormat};

/// The usual size of a page in bytes. WAL-G's increments support no other size (`BlockSize` in WAL-G's internal/walparser). When a method
/// reads the control file, it refuses a cluster with another page size.
const PAGE: u32 = RelationFiles::DEFAULT.page_size;

/// Makes an empty chain of backups whose increments have the format `format`.
///
/// # Errors
/// The error of the host.
pub fn begin(format: IncrementFormat) -> Result<Chain, Error> {
    Chain::new(format, PAGE)
}
