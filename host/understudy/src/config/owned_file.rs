//! Files that the configuration names and whose content decides whom this program believes, or is secret.

use std::fs::{File, Metadata};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file that is this user's or root's. Who else may read or change it is left to the caller, by the metadata.
///
/// # Errors
/// Why it is not opened, fit to stand behind its name: what the file system says, that it is no file, or that it is
/// somebody else's.
pub(super) fn open(path: &Path) -> Result<(File, Metadata), String> {
    open_with(path, OFlags::empty())
}

/// Opens a file as [`open`] does, and refuses a path whose last part is a symbolic link. Links on the way are followed, as those
/// of the directory `..data` in which Kubernetes keeps the files of a volume.
///
/// # Errors
/// Those of [`open`], and that it is a symbolic link.
pub(super) fn open_without_link(path: &Path) -> Result<(File, Metadata), String> {
    open_with(path, OFlags::NOFOLLOW)
}

fn open_with(path: &Path, flags: OFlags) -> Result<(File, Metadata), String> {
    // Without NONBLOCK a FIFO would hold the program up for ever.
    let flags = (flags | OFlags::NONBLOCK).bits() as i32;
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(|error| {
        match error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
            true => "it is a symbolic link: name the file that it leads to (`..data/NAME` in a volume of Kubernetes)"
                .to_owned(),
            false => error.to_string(),
        }
    })?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a file".to_owned());
    }
    if ![0, rustix::process::geteuid().as_raw()].contains(&metadata.uid()) {
        return Err(
            "it belongs to somebody else: `chown` it to the user that this program runs as, or to root"
                .to_owned(),
        );
    }
    Ok((file, metadata))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_fifo_is_no_file_and_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("ca.pem");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
        let (done, waits) = channel();
        std::thread::spawn(move || done.send(open(&fifo).map(drop)));
        let why = waits.recv_timeout(Duration::from_secs(20)).unwrap().unwrap_err();
        assert_eq!(why, "it is not a file");
    }
}
