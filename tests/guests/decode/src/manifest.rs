//! What a backup's manifest says about its files, and whether what is restored is that.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pgdata::checksum::{Algorithm, Digesting, Summing};
use pgdata::manifest::{Index, ManifestError, Summary};
use understudy::{AtPath, DataFile, Failure, UntilCancelled};

/// How much is moved at once, in bytes.
const BUFFER: usize = 256 << 10;

/// What pg_verifybackup leaves out as well (`ignore_list` in pg_verifybackup.c): WAL, of which a manifest lists at most the
/// `archive_status` of `-X fetch`, and what pg_basebackup itself changes after the manifest was made (`-R`).
fn is_not_compared(name: &str) -> bool {
    name.starts_with("pg_wal/")
        || matches!(name, "postgresql.auto.conf" | "standby.signal" | "recovery.signal")
}

/// Reads the manifest `path` for what it says in sum.
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

/// Compares files with the manifest as they are written.
pub(crate) struct Check {
    /// Absent where the backup has no manifest: then nothing can be compared.
    manifest: Option<(PathBuf, Index)>,
    buffer: Vec<u8>,
}

/// What a file must turn out to be.
pub(crate) struct Expected {
    checksum: Option<(Algorithm, Vec<u8>)>,
}

impl Check {
    /// Reads the manifest, where there is one.
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

    /// What the file `name` of `size` bytes must be.
    ///
    /// # Errors
    /// Where the manifest does not list it, or with another size.
    pub(crate) fn expect(&mut self, name: &str, size: u64) -> Result<Expected, Failure> {
        let nothing = Expected { checksum: None };
        let Some((path, index)) = &mut self.manifest else { return Ok(nothing) };
        let path = path.display();
        if is_not_compared(name) {
            // Listed or not, both is fine.
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

    /// Moves all of `from` into `to`, nowhere where that is none, and compares its checksum.
    ///
    /// # Errors
    /// Where reading or writing fails, or the checksum is another.
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

    /// At the end: whether every file came.
    ///
    /// # Errors
    /// Where files of the manifest did not come; names the first few.
    pub(crate) fn all_came(&self) -> Result<(), Failure> {
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

/// Where a file's contents go.
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

/// Which side of a copy failed.
pub(crate) enum CopyError {
    Read(io::Error),
    Other(Failure),
}

impl From<Failure> for CopyError {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}
