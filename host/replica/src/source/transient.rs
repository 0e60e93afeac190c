//! Distinguishes transient errors of the source from permanent ones, and finds out why libpq ignores a passfile.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Conninfo, PassFile, Source};
use crate::regular_file;

/// Messages about transient errors: the server does not answer, is starting or stopping, or has no connection left. They come from libpq,
/// from the system library (both in the C locale), and from a server with English messages (`src/interfaces/libpq/fe-connect.c`,
/// `src/backend/postmaster/postmaster.c`, `src/backend/utils/init/postinit.c`, `src/backend/storage/lmgr/proc.c`).
const TRANSIENT_MESSAGES: [&str; 22] = [
    "Connection refused",
    "Connection reset by peer",
    "Connection timed out",
    "No route to host",
    "Network is unreachable",
    "Host is down",
    // No server listens on a Unix socket.
    "failed: No such file or directory",
    "timeout expired",
    "Temporary failure in name resolution",
    "server closed the connection unexpectedly",
    "SSL SYSCALL error",
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is in recovery mode",
    "the database system is not accepting connections",
    "the database system is not yet accepting connections",
    "terminating connection",
    "sorry, too many clients already",
    "remaining connection slots are reserved",
    "too many connections for",
    "number of requested standby connections exceeds",
    "out of memory",
];

/// Returns whether the error output of psql contains a transient error. If there are several hosts, the error of one is enough.
pub(super) fn is_transient(said: &str) -> bool {
    TRANSIENT_MESSAGES.iter().any(|text| said.contains(text))
}

/// Returns why libpq does not read a passfile; `None` if it does. libpq ignores a missing passfile silently, and other unusable passfiles
/// with a warning (`passwordFromFile` in `fe-connect.c`).
pub fn unusable_passfile(path: &Path) -> Option<String> {
    let metadata = match regular_file::open(path).and_then(|file| file.metadata()) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Some("it does not exist".to_owned());
        }
        Err(error) => return Some(format!("it cannot be read: {error}")),
        Ok(metadata) => metadata,
    };
    let mode = metadata.mode() & 0o7777;
    (mode & 0o077 != 0)
        .then(|| format!("others may read or change it (mode {mode:04o}): `chmod 0600 {}`", path.display()))
}

/// Returns the path of a file that the operator named for a secret, for a message. Does not show the path if there is no such file, because
/// the operator may have written the secret itself.
pub fn shown_if_there(path: &Path) -> String {
    match path.symlink_metadata() {
        Ok(_) => path.display().to_string(),
        Err(_) => "a file that does not exist or cannot be examined".to_owned(),
    }
}

/// Returns what is wrong with the passfile that libpq would have read, to be appended to its error; empty if nothing is.
pub(super) fn passfile_hint(source: &Source, conninfo: &Conninfo) -> String {
    let named =
        conninfo.get("passfile").map(|path| (PathBuf::from(path), "`passfile` of the connection string"));
    let given = match &source.passfile {
        Some(PassFile::Given(path)) => Some((path.clone(), "`passfile`, or PGPASSFILE")),
        Some(PassFile::Made(_)) | None => None,
    };
    match named.or(given).and_then(|(path, who)| Some((unusable_passfile(&path)?, path, who))) {
        Some((why, path, who)) => {
            format!("; no password was read from {} ({who}): {why}", shown_if_there(&path))
        }
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_error_that_a_person_must_correct_is_not_transient() {
        let failed =
            |why: &str| format!("psql: error: connection to server at \"h\", port 5432 failed: {why}");
        for lasts in [
            "FATAL:  password authentication failed for user \"r\"",
            "fe_sendauth: no password supplied",
            "FATAL:  no pg_hba.conf entry for replication connection from host \"::1\", user \"r\", no encryption",
            "FATAL:  role \"r\" does not exist",
            "FATAL:  database \"d\" does not exist",
            "FATAL:  must be superuser or replication role to start walsender",
            "server does not support SSL, but SSL was required",
            "SSL error: certificate verify failed",
            "root certificate file \"/x\" does not exist",
            "Permission denied",
        ] {
            assert!(!is_transient(&failed(lasts)), "{lasts}");
        }
        for passes in [
            "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
            "FATAL:  the database system is starting up",
            "FATAL:  sorry, too many clients already",
            "timeout expired",
        ] {
            assert!(is_transient(&failed(passes)), "{passes}");
        }
    }

    #[test]
    fn a_passfile_that_libpq_ignores_is_reported_with_what_to_do() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("pgpass");
        assert_eq!(unusable_passfile(&path).as_deref(), Some("it does not exist"));
        fs::write(&path, "*:*:*:*:x\n").unwrap();
        for (mode, usable) in [(0o600, true), (0o400, true), (0o640, false), (0o644, false), (0o606, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let why = unusable_passfile(&path);
            assert_eq!(why.is_none(), usable, "{mode:o}: {why:?}");
            assert!(why.is_none_or(|why| why.contains("chmod 0600")));
        }
        let fifo = place.path().join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
        for path in [place.path(), &fifo] {
            let why = unusable_passfile(path);
            assert_eq!(why.as_deref(), Some("it cannot be read: it is not a regular file"));
        }
    }
}
