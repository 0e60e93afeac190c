//! Opens files that the configuration names and that other users must not control: files with secrets or certificate authorities.

use std::fs::{File, Metadata};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file that belongs to this user or to root. Does not check whether others may read or change the file: the caller checks that
/// with the returned metadata.
///
/// # Errors
/// The reason, worded to follow the file's name and a colon: an error of the file system, a path that is not a regular file, or a file of
/// another user.
pub(super) fn open(path: &Path) -> Result<(File, Metadata), String> {
    open_with(path, OFlags::empty())
}

/// Opens a file as [`open`] does, but refuses a path whose last part is a symbolic link. Links to directories earlier in the path are
/// followed, such as `..data`, in which Kubernetes keeps the files of a volume.
///
/// # Errors
/// The errors of [`open`], and an error for a path whose last part is a symbolic link.
pub(super) fn open_without_link(path: &Path) -> Result<(File, Metadata), String> {
    open_with(path, OFlags::NOFOLLOW)
}

fn open_with(path: &Path, flags: OFlags) -> Result<(File, Metadata), String> {
    // Without NONBLOCK, opening a FIFO would block until somebody writes to it.
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
            "it belongs to another user: `chown` it to the user that this program runs as, or to root"
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
    fn a_fifo_is_refused_without_waiting_for_a_writer() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("ca.pem");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
        let (done, waits) = channel();
        std::thread::spawn(move || done.send(open(&fifo).map(drop)));
        let why = waits.recv_timeout(Duration::from_secs(20)).unwrap().unwrap_err();
        assert_eq!(why, "it is not a file");
    }
}
