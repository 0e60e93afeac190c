//! Judges where logs are written. The server creates the directory of its log. A name such as `promote` would then promote the standby, and a
//! file with another name could overwrite a file of the cluster.

use std::path::Path;

use foundation::rooted::RelativePath;

use super::super::destination::{Destination, destination};
use super::super::places::Places;

/// The defaults that replace an unsafe directory or name of the server's log.
pub(in crate::seal) const LOG_DIRECTORY: (&str, &str) = ("log_directory", "log");
pub(in crate::seal) const LOG_FILENAME: (&str, &str) = ("log_filename", "postgresql-%Y-%m-%d_%H%M%S.log");

/// The same for the log of the extension pgauditlogtofile.
pub(super) const AUDIT_DIRECTORY: (&str, &str) = ("pgaudit.log_directory", "log");
pub(super) const AUDIT_FILENAME: (&str, &str) = ("pgaudit.log_filename", "audit-%Y%m%d_%H%M.log");

/// The longest path of a log directory, in bytes. The server has 1024 bytes for this path and a file name together (`logfile_getname` in
/// `syslogger.c`), and truncates a longer path, which then names another file.
const LONGEST_DIRECTORY: usize = 512;

/// The directories below the data directory in which the server may write a log. PostgreSQL and programs that manage it give these names no
/// other meaning.
const PLACES: [&str; 3] = ["log", "logs", "pg_log"];

/// Files of a data directory to which PostgreSQL gives a meaning.
const FILES_OF_CLUSTERS: [&str; 16] = [
    "PG_VERSION",
    "backup_label",
    "backup_label.old",
    "backup_manifest",
    "current_logfiles",
    "fallback_promote",
    "logrotate",
    "pg_hba.conf",
    "pg_ident.conf",
    "postgresql.auto.conf",
    "postgresql.conf",
    "postmaster.opts",
    "postmaster.pid",
    "promote",
    "tablespace_map",
    "tablespace_map.old",
];

/// The end of the names of signal files.
const SIGNAL: &str = ".signal";

/// The conversions that are allowed after `%` in `log_filename` (`strftime.c`): all except dates with slashes (`%D`, `%x`), the name of the
/// time zone (`%Z`, `%+`), which `log_timezone` can set to anything (`</>0` is a time zone with the name `/`), and modifiers (`%E`, `%O`).
const IN_NAMES: &[u8] = b"ABCFGHIMRSTUVWXYabdeghjklmpruvwyz%";

/// The longest `log_filename`, in bytes. No conversion expands to more than six bytes for each byte of the pattern.
const LONGEST_NAME: usize = 64;

/// Returns whether a setting names the directory of a log.
pub(super) fn is_directory(setting: &str) -> bool {
    [LOG_DIRECTORY.0, AUDIT_DIRECTORY.0].contains(&setting)
}

/// Returns where a log directory leads; `None` if no log may be written there.
pub(super) fn destination_of_logs(places: &Places<'_>, directory: &str) -> Option<Destination> {
    if directory.len() > LONGEST_DIRECTORY {
        return None;
    }
    let destination = destination(places, None, Path::new(directory));
    let is_allowed = match &destination {
        Destination::Inside(Some(path)) => is_for_logs(path),
        Destination::Inside(None) | Destination::Mapped | Destination::Unclear => false,
        Destination::Outside => true,
    };
    is_allowed.then_some(destination)
}

/// Returns whether a log may be written to a directory: one outside the data directory and the mapped places, or one of the few below it
/// that are meant for logs.
pub(in crate::seal) fn is_place_for_logs(places: &Places<'_>, directory: &str) -> bool {
    destination_of_logs(places, directory).is_some()
}

fn is_for_logs(path: &RelativePath) -> bool {
    path.as_path().iter().next().is_some_and(|first| PLACES.iter().any(|place| first == *place))
}

/// Returns whether every file name that the pattern `log_filename` gives stays in the log directory, and is no name of a file to which
/// PostgreSQL gives a meaning. The conversions give no such name: they make digits and words with capitals.
pub(super) fn is_file_name(pattern: &str) -> bool {
    let mut bytes = pattern.bytes();
    while let Some(byte) = bytes.next() {
        let stays = match byte {
            b'%' => bytes.next().is_some_and(|conversion| IN_NAMES.contains(&conversion)),
            _ => !matches!(byte, b'/' | b'\\'),
        };
        if !stays {
            return false;
        }
    }
    (1..=LONGEST_NAME).contains(&pattern.len())
        && !matches!(pattern, "." | "..")
        && !FILES_OF_CLUSTERS.contains(&pattern)
        && !pattern.ends_with(SIGNAL)
}
