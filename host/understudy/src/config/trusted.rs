//! Checks who may write or replace the configuration file. The file determines which programs run as the server's user. If root starts the program,
//! the file also determines which user that is.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use foundation::way::{Changeable, ChangeableBy, changeable_by_others};
use nix::unistd::User;
use rustix::process::geteuid;

use crate::root::DEFAULT_USER;

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
    /// Refuses a file that its group or everybody may write, or may replace in a directory on its path. Trusts members of root's group.
    pub(super) fn refuse_if_others_may_change(&self) -> Result<(), String> {
        let shown = self.path.display();
        let mode = self.metadata.mode() & 0o7777;
        let by_group = mode & 0o020 != 0 && self.metadata.gid() != 0;
        if by_group || mode & 0o002 != 0 {
            return Err(format!(
                "the configuration file {shown} may be written by others (mode {mode:04o}), who would decide what runs: \
                 `chmod go-w {shown}`"
            ));
        }
        let by_mode = self.changeable(None)?.into_iter().find_map(|changeable| match changeable.by {
            ChangeableBy::Mode(mode) => Some((changeable.path, mode)),
            ChangeableBy::Owner(_) => None,
        });
        let Some((place, mode)) = by_mode else { return Ok(()) };
        let place = place.display();
        Err(format!(
            "the configuration file {shown} may be replaced by others: the directory {place} on its path has mode {mode:04o}; \
             `chmod go-w {place}`, or put the file elsewhere"
        ))
    }

    /// Refuses a file, and a directory on its path, whose owner is neither root, the current user, nor the user that root becomes. That last
    /// user gains nothing by owning the file, because the program runs as that user anyway.
    pub(super) fn refuse_another_owner(&self, user: Option<&str>) -> Result<(), String> {
        let (owner, own) = (self.metadata.uid(), geteuid());
        let becomes = own.is_root().then(|| User::from_name(user.unwrap_or(DEFAULT_USER)).ok().flatten());
        let becomes = becomes.flatten().map(|user| user.uid.as_raw());
        let shown = self.path.display();
        if owner != 0 && owner != own.as_raw() && becomes != Some(owner) {
            return Err(format!(
                "the configuration file {shown} belongs to user {owner}, who would decide what runs: `chown` it to root or to the \
                 user that this program runs as"
            ));
        }
        let of_another = self.changeable(becomes)?.into_iter().find_map(|changeable| match changeable.by {
            ChangeableBy::Owner(owner) => Some((changeable.path, owner)),
            ChangeableBy::Mode(_) => None,
        });
        let Some((place, owner)) = of_another else { return Ok(()) };
        let place = place.display();
        Err(format!(
            "the configuration file {shown} may be replaced by user {owner}, to whom {place} on its path belongs: `chown` that to root or to \
             the user that this program runs as, or put the file elsewhere"
        ))
    }

    /// Finds the places on the path of the file through which others may change the file.
    fn changeable(&self, becomes: Option<u32>) -> Result<Vec<Changeable>, String> {
        // A pipe, such as a shell's `<(...)`, and a deleted file, such as a shell's `<<END`, are in no directory.
        if !self.metadata.is_file() || self.metadata.nlink() == 0 {
            return Ok(Vec::new());
        }
        changeable_by_others(&self.path, becomes).map_err(|error| {
            format!(
                "the configuration file {} is refused, because it is unknown who may replace it: {error}",
                self.path.display()
            )
        })
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
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    /// A configuration file in two directories, which belong to no group that is trusted.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new(file: u32, directory: u32, above: u32) -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            fs::create_dir(place.directory()).unwrap();
            fs::write(place.file(), "").unwrap();
            for (path, mode) in [(place.file(), file), (place.directory(), directory), (place.above(), above)]
            {
                if geteuid().is_root() {
                    chown(&path, None, Some(65_534)).unwrap();
                }
                fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            }
            place
        }

        fn above(&self) -> PathBuf {
            self.0.path().canonicalize().unwrap()
        }

        fn directory(&self) -> PathBuf {
            self.above().join("etc")
        }

        fn file(&self) -> PathBuf {
            self.directory().join("u.toml")
        }

        fn judged(&self) -> Judged {
            read(&self.file(), 10).unwrap().1
        }
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
        for (file, directory, above, says) in [
            (0o660, 0o700, 0o700, "written by others"),
            (0o602, 0o700, 0o700, "written by others"),
            (0o666, 0o1777, 0o700, "written by others"),
            (0o644, 0o777, 0o755, "etc on its path has mode 0777"),
            (0o600, 0o770, 0o700, "replaced by others"),
            (0o644, 0o755, 0o777, "replaced by others"),
            (0o644, 0o755, 0o775, "replaced by others"),
        ] {
            let why = Place::new(file, directory, above).judged().refuse_if_others_may_change().unwrap_err();
            assert!(why.contains(says) && why.contains("chmod go-w"), "{file:o} {directory:o}: {why}");
        }
        for (file, directory, above) in
            [(0o600, 0o700, 0o700), (0o644, 0o755, 0o755), (0o640, 0o1777, 0o755), (0o640, 0o755, 0o1777)]
        {
            let place = Place::new(file, directory, above);
            place.judged().refuse_if_others_may_change().unwrap();
            place.judged().refuse_another_owner(None).unwrap();
        }
    }

    #[test]
    fn a_file_that_is_in_no_directory_any_more_is_accepted() {
        let place = Place::new(0o600, 0o700, 0o700);
        let file = File::open(place.file()).unwrap();
        fs::remove_file(place.file()).unwrap();
        let path = PathBuf::from(format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
        let (_, judged) = read(&path, 10).unwrap();
        judged.refuse_if_others_may_change().unwrap();
        judged.refuse_another_owner(None).unwrap();
    }

    #[test]
    fn a_file_or_a_directory_of_another_user_is_refused() {
        if !geteuid().is_root() {
            return;
        }
        let nobody = User::from_name("nobody").unwrap().unwrap().uid.as_raw();
        type Named = fn(&Place) -> PathBuf;
        let places: [(Named, &str); 3] = [
            (Place::file, "belongs to user"),
            (Place::directory, "replaced by user"),
            (Place::above, "replaced by user"),
        ];
        for (path, says) in places {
            let place = Place::new(0o600, 0o700, 0o700);
            chown(path(&place), Some(nobody), None).unwrap();
            let judged = place.judged();
            judged.refuse_if_others_may_change().unwrap();
            assert!(judged.refuse_another_owner(None).unwrap_err().contains(says), "{says}");
            judged.refuse_another_owner(Some("nobody")).unwrap();
        }
    }

    #[test]
    fn a_directory_that_everybody_may_write_is_refused_whoever_owns_it() {
        if !geteuid().is_root() {
            return;
        }
        let nobody = User::from_name("nobody").unwrap().unwrap().uid.as_raw();
        for (directory, above) in [(0o777, 0o755), (0o770, 0o755), (0o755, 0o777)] {
            let place = Place::new(0o600, directory, above);
            for path in [place.file(), place.directory(), place.above()] {
                chown(path, Some(nobody), None).unwrap();
            }
            let why = place.judged().refuse_if_others_may_change().unwrap_err();
            assert!(why.contains("replaced by others"), "{directory:o} {above:o}: {why}");
        }
    }
}
