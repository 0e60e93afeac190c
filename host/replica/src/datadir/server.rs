//! Refuses directories that a running server uses. Loop rule 25.
//!
//! A server in another container, or on another machine that shares the disk, is not visible from here.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use foundation::rooted::{Directory, Kind, RelativePath};
use postgres_formats::names;
use rustix::io::Errno;
use rustix::process::Pid;

use super::lock_file;
use super::places::MappedPlace;
use crate::Refusal;
use crate::Rule;
use crate::state::process;

const POSTMASTER_PID: RelativePath = RelativePath::literal(names::POSTMASTER_PID);

/// The longest postmaster.pid in bytes; PostgreSQL writes eight lines, two of them paths.
const LONGEST: u64 = 16 << 10;

/// How many tablespaces of another server are examined.
const MOST_TABLESPACES: usize = 10_000;

/// How many directories above a server's directory are examined.
const MOST_LEVELS: usize = 1024;

/// The working directory of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WorkingDirectory {
    DataDirectory,
    Elsewhere,
    ProcessGone,
    Unknown,
}

/// Refuses a directory that a server runs on.
///
/// In a directory that the state file marks as `unfinished`, a method may have written anything into postmaster.pid. There the named
/// process counts only if its working directory is seen to be the data directory. A server's working directory can be seen, because
/// PostgreSQL runs only as the owner of the directory, and so does this program.
pub(super) fn refuse_running(directory: &Directory, unfinished: bool) -> Result<(), Refusal> {
    let shown = directory.path().display();
    let refuse =
        |what: String| Refusal::new(Rule::RunningServer, format!("the data directory {shown} {what}"));
    let failed = |error: io::Error| refuse(format!("cannot be examined: {error}"));
    let Some(found) = directory.find(&POSTMASTER_PID).map_err(failed)? else { return Ok(()) };
    // No server creates a directory there: this program does, to keep PostgreSQL from starting an unfinished base backup.
    if lock_file::is_occupied(directory).map_err(failed)? {
        return Ok(());
    }
    let pid = match found.kind {
        Kind::File => directory.read(&POSTMASTER_PID, LONGEST).map(|text| pid_of(&text)),
        _ => Ok(None),
    };
    let pid = match pid {
        Ok(Some(pid)) => pid,
        Ok(None) | Err(_) if unfinished => return Ok(()),
        Ok(None) => {
            return Err(refuse(
                "has a postmaster.pid that names no process; make sure that no server runs on it, then remove that file".to_owned(),
            ));
        }
        Err(error) => return Err(failed(error)),
    };
    let inode = directory.own_metadata().map_err(failed)?.identity();
    match working_directory(pid, inode).map_err(failed)? {
        WorkingDirectory::DataDirectory => Err(refuse(format!(
            "has a server running on it, process {pid}; stop it with `pg_ctl stop -D {shown}`"
        ))),
        WorkingDirectory::Unknown if !unfinished => Err(refuse(format!(
            "has a postmaster.pid that names process {pid}, which cannot be examined from here; make sure that no server \
             runs on it, then remove that file"
        ))),
        WorkingDirectory::Unknown | WorkingDirectory::Elsewhere | WorkingDirectory::ProcessGone => Ok(()),
    }
}

/// Returns the PID in the first line of postmaster.pid, which is negative for a single-user server (src/backend/utils/init/miscinit.c).
fn pid_of(text: &[u8]) -> Option<u32> {
    let line = text.split(|byte| *byte == b'\n').next()?;
    let number: i32 = std::str::from_utf8(line).ok()?.trim().parse().ok()?;
    (number != 0 && number != i32::MIN).then(|| number.unsigned_abs())
}

/// Returns whether the working directory of a process is the directory with this device and inode. The working directory of a server is
/// always its data directory.
fn working_directory(pid: u32, inode: (u64, u64)) -> io::Result<WorkingDirectory> {
    // The PID of a server that has ended may now belong to this program, or to one of its threads.
    if pid == std::process::id() || Path::new(&format!("/proc/self/task/{pid}")).exists() {
        return Ok(WorkingDirectory::Elsewhere);
    }
    match fs::metadata(format!("/proc/{pid}/cwd")) {
        Ok(metadata) if (metadata.dev(), metadata.ino()) == inode => {
            return Ok(WorkingDirectory::DataDirectory);
        }
        Ok(_) => return Ok(WorkingDirectory::Elsewhere),
        Err(_) => {}
    }
    // /proc may hide the processes of other users (hidepid), or deny access to them.
    match process::stat(pid) {
        Ok(Some(process)) if process.is_dead() => Ok(WorkingDirectory::ProcessGone),
        Ok(Some(_)) => Ok(WorkingDirectory::Unknown),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(WorkingDirectory::Unknown),
        Err(error) => Err(error),
        Ok(None) => {
            match i32::try_from(pid).ok().and_then(Pid::from_raw).map(rustix::process::test_kill_process) {
                Some(Ok(()) | Err(Errno::PERM)) => Ok(WorkingDirectory::Unknown),
                Some(Err(_)) | None => Ok(WorkingDirectory::ProcessGone),
            }
        }
    }
}

/// Refuses directories that a server on this machine uses: a data directory that is the working directory of a server's process, whatever
/// postmaster.pid says; a mapped directory that is the WAL directory or a tablespace of a running server; and any of them in which a
/// running server has its data directory, its WAL directory or a tablespace. Processes of other users are not visible.
pub(super) fn refuse_used(inode: (u64, u64), mapped: &[MappedPlace]) -> Result<(), Refusal> {
    let mut seen = HashSet::new();
    let mut found = None;
    let looked = process::each(&mut |process| {
        if found.is_some() || process.is_dead() || process.pid == std::process::id() {
            return Ok(());
        }
        let cwd = format!("/proc/{}/cwd", process.pid);
        let Ok(metadata) = fs::metadata(&cwd) else { return Ok(()) };
        let stands_in = (metadata.dev(), metadata.ino());
        let server = matches!(process.name.as_slice(), b"postgres" | b"postmaster");
        if server && stands_in == inode {
            found = Some(Refusal::new(
                Rule::RunningServer,
                format!("a server's process, {}, works in the data directory; stop the server", process.pid),
            ));
        } else if (server || Path::new(&cwd).join(names::POSTMASTER_PID).symlink_metadata().is_ok())
            && seen.insert(stands_in)
        {
            found = used_by(process.pid, Path::new(&cwd), inode, mapped);
        }
        Ok(())
    });
    match (found, looked) {
        (Some(refusal), _) => Err(refusal),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(Refusal::new(
            Rule::RunningServer,
            format!("cannot check which servers run on this machine: {error}"),
        )),
    }
}

/// Returns a refusal if the server with the data directory `data` uses one of the directories, or a directory in one of them.
fn used_by(pid: u32, data: &Path, inode: (u64, u64), mapped: &[MappedPlace]) -> Option<Refusal> {
    let own = directories_above(data).first() == Some(&inode);
    let refuse = |used: &Path, what: &str| {
        let around = directories_above(used);
        if let Some(place) = mapped.iter().find(|place| around.first() == Some(&place.inode())) {
            return Some(place.refuse(format_args!("is {what} of a running server, process {pid}")));
        }
        let holds = format!("holds {what} of a running server, process {pid}");
        if let Some(place) = mapped.iter().find(|place| around.contains(&place.inode())) {
            return Some(place.refuse(holds));
        }
        let message = format!(
            "the data directory {holds}; stop the server and move it away, or name another `datadir`"
        );
        // A process whose working directory is the data directory itself, such as a shell, does not use a directory below it.
        let below = around.contains(&inode) && !own;
        below.then(|| Refusal::new(Rule::RunningServer, message))
    };
    refuse(data, "the data directory")
        .or_else(|| refuse(&data.join(names::PG_WAL), "the WAL directory"))
        .or_else(|| {
            let tablespaces = fs::read_dir(data.join(names::PG_TBLSPC)).ok()?;
            tablespaces
                .take(MOST_TABLESPACES)
                .filter_map(Result::ok)
                .find_map(|tablespace| refuse(&tablespace.path(), "a tablespace's directory"))
        })
}

/// Returns the device and inode of a directory and of each one above it. The path leads through `/proc`, so it shows the directories as
/// the other process sees them.
fn directories_above(directory: &Path) -> Vec<(u64, u64)> {
    let mut above = Vec::new();
    let mut path = directory.to_owned();
    while above.len() < MOST_LEVELS {
        let Ok(metadata) = fs::metadata(&path) else { break };
        let found = (metadata.dev(), metadata.ino());
        // The parent of the root is the root itself.
        if above.last() == Some(&found) {
            break;
        }
        above.push(found);
        path.push("..");
    }
    above
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_25_the_first_line_of_postmaster_pid_names_the_process() {
        for (text, pid) in [
            ("123\n/data\n", Some(123)),
            ("-123\n", Some(123)),
            (" 123", Some(123)),
            ("", None),
            ("\n123", None),
            ("0\n", None),
            ("-2147483648", None),
            ("99999999999", None),
            ("12x\n", None),
        ] {
            assert_eq!(pid_of(text.as_bytes()), pid, "{text:?}");
        }
    }
}
