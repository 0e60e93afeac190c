//! Reads a `backup_manifest` from a directory or store, and turns its checksums into digests that the host compares.

use std::io;

use pgdata::checksum::{Algorithm as Listed, Digesting};
use pgdata::manifest::{File, LIMIT, ManifestError, Summary};
use understudy::digests::{Algorithm, Digest, Hasher};
use understudy::store::Object;
use understudy::{Failure, UntilCancelled};

use crate::folder::Folder;

/// Reads the manifest `object` of `folder`, and calls `each` with every file that it lists.
///
/// # Errors
/// Fails, with the name of the object, if the manifest is too large, cannot be read or is damaged; the failures of `each`.
pub fn read(
    folder: &Folder,
    object: &Object,
    each: &mut dyn FnMut(File) -> Result<(), Failure>,
) -> Result<Summary, Failure> {
    let refused =
        |error: &dyn std::fmt::Display| Failure::failed(format!("{} {error}", folder.shown(&object.key)));
    if object.size > LIMIT {
        return Err(refused(&ManifestError::TooLarge));
    }
    let stream = UntilCancelled::new(folder.bucket.read(&object.key, None, None)?);
    let sha256 = HostHasher(Hasher::new(Algorithm::Sha256));
    pgdata::manifest::read(stream, sha256, |file| Ok(each(file)?)).map_err(|error| match error {
        ManifestError::Io(error) => match error.downcast::<Failure>() {
            Ok(failure) => failure,
            Err(error) => {
                refused(&format_args!("cannot be read: {}", Failure::from(io::Error::from(error.kind()))))
            }
        },
        error => refused(&error),
    })
}

/// Returns a checksum of a manifest as a digest that the host compares.
pub fn digest((algorithm, value): (Listed, Vec<u8>)) -> Digest {
    let algorithm = match algorithm {
        Listed::Crc32c => Algorithm::Crc32c,
        Listed::Sha224 => Algorithm::Sha224,
        Listed::Sha256 => Algorithm::Sha256,
        Listed::Sha384 => Algorithm::Sha384,
        Listed::Sha512 => Algorithm::Sha512,
    };
    Digest { algorithm, value }
}

/// A hasher in the host, which is many times as fast as a hasher in the component.
struct HostHasher(Hasher);

impl Digesting for HostHasher {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self) -> Vec<u8> {
        self.0.finish()
    }
}
