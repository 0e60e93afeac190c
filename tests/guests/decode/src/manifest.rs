//! Reads a backup's manifest, and compares the restored files with the manifest.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pgdata::checksum::{Algorithm, Digesting, Summing};
use pgdata::manifest::{Index, ManifestError, Summary};
use understudy::{AtPath, DataFile, Failure, UntilCancelled};

/// How many bytes are copied at once.
const BUFFER: usize = 256 << 10;

/// Files that are not checked, as in pg_verifybackup (`ignore_list` in pg_verifybackup.c): WAL, because a manifest lists no WAL file but
/// may list `archive_status` with `-X fetch`, and files that pg_basebackup changes after the manifest was made (`-R`).
fn is_not_compared(name: &str) -> bool {
    name.starts_with("pg_wal/")
        || matches!(name, "postgresql.auto.conf" | "standby.signal" | "recovery.signal")
}

/// Reads the manifest `path` and returns its summary.
pub(crate) fn summary(path: &Path) -> Result<Summary, Failure> {
    read(path, |_| Ok(()))
}

fn read(path: &Path, each: impl FnMut(pgdata::manifest::File) -> io::Result<()>) -> Result<Summary, Failure> {
    if !fs::metadata(path).at(path)?.is_file() {
        return Err(Failure::failed(format!("{} is not a plain file", path.display())));
    }
    let file = UntilCancelled::new(File::open(path).at(path)?);
    match pgdata::manifest::read(file, Summing::new(Algorithm::Sha256), each) {
        Ok(summary) => Ok(summary),
        Err(ManifestError::Io(error)) => Err(error).at(path),
        Err(error) => Err(Failure::failed(format!("{} {error}", path.display()))),
    }
}

/// Compares files with the manifest while they are written.
pub(crate) struct Check {
    /// The manifest; `None` if the backup has no manifest, so that files cannot be compared.
    manifest: Option<(PathBuf, Index)>,
    buffer: Vec<u8>,
}

/// The checksum that a file must have.
pub(crate) struct Expected {
    checksum: Option<(Algorithm, Vec<u8>)>,
}

impl Check {
    /// Reads the manifest, if it exists.
    pub(crate) fn new(manifest: Option<&Path>) -> Result<Self, Failure> {
        let manifest = match manifest {
            None => None,
            Some(path) => {
                let mut index = Index::default();
                read(path, |file| index.add(&file).map_err(io::Error::other))?;
                index.sort().map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
                Some((path.to_owned(), index))
            }
        };
        Ok(Self { manifest, buffer: vec![0; BUFFER] })
    }

    /// Returns the checksum that the file `name` of `size` bytes must have.
    ///
    /// # Errors
    /// Fails if the manifest does not list the file, or lists it with another size.
    pub(crate) fn expect(&mut self, name: &str, size: u64) -> Result<Expected, Failure> {
        let nothing = Expected { checksum: None };
        let Some((path, index)) = &mut self.manifest else { return Ok(nothing) };
        let path = path.display();
        if is_not_compared(name) {
            // The manifest may list the file or not.
            let _ = index.see(name);
            return Ok(nothing);
        }
        let entry = index.see(name).map_err(|error| Failure::failed(format!("{path}: {error}")))?;
        if entry.size != size {
            let listed = entry.size;
            return Err(Failure::failed(format!(
                "{path}: `{name}` has {size} bytes and is listed with {listed}"
            )));
        }
        Ok(Expected { checksum: entry.checksum.map(|(algorithm, value)| (algorithm, value.to_vec())) })
    }

    /// Copies all of `from` to `to`, and compares the checksum with the expected checksum, if there is one.
    ///
    /// # Errors
    /// Fails if reading or writing fails, or if the checksum differs.
    pub(crate) fn copy(
        &mut self,
        name: &str,
        expected: Expected,
        from: &mut dyn Read,
        to: &mut dyn Sink,
    ) -> Result<(), CopyError> {
        let mut sum = expected.checksum.as_ref().map(|(algorithm, _)| Summing::new(*algorithm));
        loop {
            let read = match from.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => &self.buffer[..read],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(CopyError::Read(error)),
            };
            if let Some(sum) = &mut sum {
                sum.update(read);
            }
            to.take(read)?;
        }
        if let (Some(sum), Some((algorithm, value))) = (sum, expected.checksum)
            && sum.finish() != value
        {
            let path = self.manifest.as_ref().map(|(path, _)| path.display().to_string()).unwrap_or_default();
            return Err(CopyError::Other(Failure::failed(format!(
                "{path}: `{name}` does not have the {algorithm} checksum that is listed"
            ))));
        }
        Ok(())
    }

    /// Checks after unpacking that every listed file was in the archives.
    ///
    /// # Errors
    /// Fails if files are missing. The failure names the first few of them.
    pub(crate) fn check_complete(&self) -> Result<(), Failure> {
        let Some((path, index)) = &self.manifest else { return Ok(()) };
        let mut missing = index.unseen().filter(|name| !is_not_compared(name));
        let first: Vec<_> = missing.by_ref().take(3).collect();
        if first.is_empty() {
            return Ok(());
        }
        let more = missing.count();
        let and = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(Failure::failed(format!(
            "{}: in the archives `{}`{and} is missing",
            path.display(),
            first.join("`, `")
        )))
    }
}

/// A destination for the content of a file.
pub(crate) trait Sink {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure>;
}

impl Sink for DataFile {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.write_bytes(bytes)
    }
}

impl Sink for Vec<u8> {
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// The error of a failed copy, by the side that failed.
pub(crate) enum CopyError {
    Read(io::Error),
    Other(Failure),
}

impl From<Failure> for CopyError {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}
