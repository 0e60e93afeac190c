//! The directory and the names of state files.

use std::fmt::Write;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use foundation::rooted::{Directory, RelativePath};
use sha2::{Digest, Sha256};

use crate::Refusal;
use crate::Rule;

/// The longest escaped path, in bytes, that is used unshortened; the kernel's NAME_MAX is 255.
const WHOLE: usize = 200;

/// How many bytes of a longer escaped path precede its digest.
const BEGINNING: usize = 100;

/// Returns the name of the state file of the data directory with this real path: `/var/lib/postgresql/15/main` is
/// `var-lib-postgresql-15-main.json`. `-` stands for the slash, so a `-` in the path, and everything but letters, digits, `_` and `.`,
/// is written as `%` and two hexadecimal digits. No two paths have the same name: a path that would be too long is cut and gets
/// `~`, which no other name contains, and its SHA-256.
pub(super) fn name(real_path: &Path) -> RelativePath {
    let bytes = real_path.as_os_str().as_bytes();
    let mut name = String::with_capacity(bytes.len());
    for (index, byte) in bytes.strip_prefix(b"/").unwrap_or(bytes).iter().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if index == 0 => name.push_str("%2E"),
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' => name.push(char::from(*byte)),
            // Writing to a String does not fail.
            byte => {
                let _ = write!(name, "%{byte:02X}");
            }
        }
    }
    if name.len() > WHOLE {
        name.truncate(BEGINNING);
        name.push('~');
        for byte in Sha256::digest(bytes) {
            let _ = write!(name, "{byte:02x}");
        }
    }
    name.push_str(".json");
    match RelativePath::new(&name) {
        Ok(name) => name,
        // This is not reached, because the name contains neither slash nor NUL and is not empty.
        Err(_) => RelativePath::literal("state.json"),
    }
}

/// Opens the directory for state files. If it is missing, creates it (0700) with `create`, and otherwise returns `None`.
pub(crate) fn open_directory(path: &Path, create: bool) -> Result<Option<Directory>, Refusal> {
    let shown = path.display();
    let refuse = |message: String| {
        Refusal::new(Rule::StateDirectory, message)
            .remedy("[replica] state_dir = \"<a directory of the server's user>\"")
    };
    if !path.is_absolute() {
        return Err(refuse(format!("`state_dir` must be an absolute path, not {shown}")));
    }
    if create {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| {
            refuse(format!("cannot create the directory for state files, {shown}: {error}"))
        })?;
    }
    let directory = match Directory::open(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !create => return Ok(None),
        Err(error) => return Err(refuse(error.to_string())),
    };
    let metadata = directory.own_metadata().map_err(|error| refuse(error.to_string()))?;
    let user = rustix::process::geteuid().as_raw();
    if metadata.user != user {
        return Err(refuse(format!(
            "the directory for state files, {shown}, belongs to user {}, and this program runs as user {user}: \
             its owner chooses which processes a run ends; name a directory of user {user}",
            metadata.user
        )));
    }
    if metadata.mode & 0o022 != 0 {
        return Err(refuse(format!(
            "others may write to the directory for state files, {shown} (mode {:04o}), and so choose which \
             processes a run ends: `chmod 0700 {shown}`",
            metadata.mode
        )));
    }
    Ok(Some(directory))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn rule_26_the_name_of_a_state_file_is_readable() {
        let name = name(Path::new("/var/lib/postgresql/15/main"));
        assert_eq!(name.as_os_str(), "var-lib-postgresql-15-main.json");
    }

    #[test]
    fn rule_26_no_two_data_directories_share_a_state_file() {
        let long = "/x".repeat(1000);
        let paths: [&[u8]; 12] = [
            b"/a/b",
            b"/a-b",
            b"/a%2Db",
            b"/a%b",
            b"/a/b/c",
            b"/.a",
            b"/%2Ea",
            b"/\xff",
            b"/\xfe",
            b"/A/B",
            long.as_bytes(),
            &[long.as_bytes(), b"y"].concat(),
        ];
        let names: BTreeSet<_> = paths.iter().map(|path| name(Path::new(OsStr::from_bytes(path)))).collect();
        assert_eq!(names.len(), paths.len(), "{names:?}");
        assert!(names.iter().all(|name| name.as_os_str().len() <= 220 && name.parent().is_none()));
    }
}
