//! Opens regular files only. A path from outside may name a FIFO, which blocks the reader until a writer opens it, or a device without an
//! end.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file to read it, without waiting for a writer.
///
/// # Errors
/// Fails if the file cannot be opened, or is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// Reads at most the first `most` bytes of a file.
///
/// # Errors
/// Fails if the file cannot be read, or is not a regular file.
pub fn beginning(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use rustix::fs::{CWD, RenameFlags, mkfifoat, renameat_with};

    use super::*;

    /// It is not enough to check a path before opening it: another process may replace a file with a FIFO in between.
    #[test]
    fn a_file_that_becomes_a_fifo_is_not_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let (path, other) = (place.path().join("file"), place.path().join("fifo"));
        std::fs::write(&path, "").unwrap();
        mkfifoat(CWD, &other, 0o600.into()).unwrap();
        let stop = AtomicBool::new(false);
        let (done, waits) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    renameat_with(CWD, &path, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                }
            });
            let path = path.clone();
            // This thread is not part of the scope, because the scope would not end if the thread waited for a writer.
            std::thread::spawn(move || {
                let opened = (0..20_000).filter(|_| open(&path).is_ok()).count();
                done.send(opened)
            });
            let opened = waits.recv_timeout(Duration::from_secs(60));
            stop.store(true, Ordering::Relaxed);
            assert!((1..20_000).contains(&opened.unwrap()), "the file was never a FIFO, or always");
        });
    }

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
