//! Checks who may write the configuration file. The file determines which programs run as the server's user. If root starts the program,
//! the file also determines which user that is.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::User;
use rustix::process::geteuid;

use crate::root::DEFAULT_USER;

/// The sticky bit: in a directory that has it, users cannot replace the files of other users.
const STICKY: u32 = 0o1000;

/// A file that was read, with its metadata from that time.
pub(super) struct Judged {
    path: PathBuf,
    metadata: Metadata,
}

/// Reads the text of a file of at most `limit` bytes.
///
/// # Errors
/// An error of the file system, a file that is larger than `limit`, or a file that is not UTF-8.
pub(super) fn read(path: &Path, limit: u64) -> io::Result<(String, Judged)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        let why = format!("it is larger than {limit} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| not_utf8(error.as_bytes(), error.utf8_error().valid_up_to()))?;
    Ok((text, Judged { path: path.to_owned(), metadata }))
}

/// Returns an error with the line in which a file is not UTF-8, and the encoding that the file may have.
fn not_utf8(bytes: &[u8], valid_up_to: usize) -> io::Error {
    let line = 1 + bytes[..valid_up_to].iter().filter(|byte| **byte == b'\n').count();
    let looks_like = match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => " (it looks like UTF-16)",
        _ if bytes.contains(&0) => " (it looks like a binary file)",
        _ => " (it may be Latin-1)",
    };
    let why = format!("line {line} is not UTF-8{looks_like}: save the file as UTF-8");
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl Judged {
    /// Refuses a file that its group or everybody may write, or may replace in its directory.
    pub(super) fn refuse_if_others_may_change(&self) -> Result<(), String> {
        let shown = self.path.display();
        let mode = self.metadata.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(format!(
                "the configuration file {shown} may be written by others (mode {mode:04o}), who would decide what runs: \
                 `chmod go-w {shown}`"
            ));
        }
        // A pipe, such as a shell's `<(...)`, is in no directory.
        if !self.metadata.is_file() {
            return Ok(());
        }
        let Some(directory) = self.path.canonicalize().ok().and_then(|real| Some(real.parent()?.to_owned()))
        else {
            return Ok(());
        };
        let Ok(metadata) = directory.metadata() else { return Ok(()) };
        let (mode, place) = (metadata.mode() & 0o7777, directory.display());
        if mode & 0o022 != 0 && mode & STICKY == 0 {
            return Err(format!(
                "the configuration file {shown} may be replaced by others: its directory {place} has mode {mode:04o}; \
                 `chmod go-w {place}`, or put the file elsewhere"
            ));
        }
        Ok(())
    }

    /// Refuses a file whose owner is neither root, the current user, nor the user that root becomes. That last user gains nothing by owning
    /// the file, because the program runs as that user anyway.
    pub(super) fn refuse_another_owner(&self, user: Option<&str>) -> Result<(), String> {
        let (owner, own) = (self.metadata.uid(), geteuid());
        let becomes = || User::from_name(user.unwrap_or(DEFAULT_USER)).ok().flatten();
        if owner == 0
            || owner == own.as_raw()
            || (own.is_root() && becomes().is_some_and(|user| user.uid.as_raw() == owner))
        {
            return Ok(());
        }
        let shown = self.path.display();
        Err(format!(
            "the configuration file {shown} belongs to user {owner}, who would decide what runs: `chown` it to root or to the \
             user that this program runs as"
        ))
    }

    /// Returns a warning if others may read the file, which holds a secret. A group may read a file of root's without a warning.
    pub(super) fn warn_of_readers(&self) -> Option<String> {
        let mode = self.metadata.mode() & 0o7777;
        let others = if self.metadata.uid() == 0 { 0o004 } else { 0o044 };
        (mode & others != 0).then(|| {
            format!(
                "{} holds a password in a connection string, and others may read it (mode {mode:04o}): `chmod 0600` it, or \
                 keep the password apart: password = {{ file = \"/path\" }} or passfile = \"/path\"",
                self.path.display()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn judged(file: u32, directory: u32) -> Judged {
        let place = tempfile::tempdir().unwrap().keep();
        let path = place.join("u.toml");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(file)).unwrap();
        fs::set_permissions(&place, Permissions::from_mode(directory)).unwrap();
        read(&path, 10).unwrap().1
    }

    #[test]
    fn a_file_that_is_not_utf_8_is_refused_with_its_line() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("u.toml");
        for (bytes, says) in [
            (
                &b"a = 1\nb = \"\xe9\"\n"[..],
                "line 2 is not UTF-8 (it may be Latin-1): save the file as UTF-8",
            ),
            (b"\xff\xfea\0", "line 1 is not UTF-8 (it looks like UTF-16): save the file as UTF-8"),
            (b"\0\xff", "line 1 is not UTF-8 (it looks like a binary file): save the file as UTF-8"),
        ] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(read(&path, 100).map(|_| ()).unwrap_err().to_string(), says);
        }
    }

    #[test]
    fn a_file_that_a_group_or_everybody_may_write_or_replace_is_refused() {
        for (file, directory, says) in [
            (0o660, 0o700, "written by others"),
            (0o602, 0o700, "written by others"),
            (0o666, 0o1777, "written by others"),
            (0o644, 0o777, "replaced by others"),
            (0o600, 0o770, "replaced by others"),
        ] {
            let judged = judged(file, directory);
            let why = judged.refuse_if_others_may_change().unwrap_err();
            assert!(why.contains(says) && why.contains("chmod go-w"), "{file:o} {directory:o}: {why}");
            fs::remove_dir_all(judged.path.parent().unwrap()).unwrap();
        }
        for (file, directory) in [(0o600, 0o700), (0o644, 0o755), (0o640, 0o1777)] {
            let judged = judged(file, directory);
            judged.refuse_if_others_may_change().unwrap();
            judged.refuse_another_owner(None).unwrap();
            fs::remove_dir_all(judged.path.parent().unwrap()).unwrap();
        }
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        if !geteuid().is_root() {
            return;
        }
        let judged = judged(0o600, 0o700);
        let nobody = User::from_name("nobody").unwrap().unwrap();
        std::os::unix::fs::chown(&judged.path, Some(nobody.uid.as_raw()), None).unwrap();
        let judged = read(&judged.path, 10).unwrap().1;
        assert!(judged.refuse_another_owner(None).unwrap_err().contains("belongs to user"));
        judged.refuse_another_owner(Some("nobody")).unwrap();
        fs::remove_dir_all(judged.path.parent().unwrap()).unwrap();
    }
}
