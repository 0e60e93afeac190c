//! Opens regular files only. A path from outside may name a FIFO, whose opening waits for a writer, or a device without an end.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file to read it, without waiting for a writer.
///
/// # Errors
/// Fails if the file cannot be opened, or is no regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

/// Reads the first bytes of a file, at most `most`.
///
/// # Errors
/// Fails if the file cannot be read, or is no regular file.
pub(crate) fn beginning(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_is_opened() {
        let place = tempfile::tempdir().unwrap();
        let fifo = place.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        for path in [&fifo, place.path(), Path::new("/dev/zero"), Path::new("/nonexistent")] {
            assert!(open(path).is_err(), "{}", path.display());
        }
        std::fs::write(place.path().join("file"), "").unwrap();
        assert!(open(&place.path().join("file")).is_ok());
    }
}
