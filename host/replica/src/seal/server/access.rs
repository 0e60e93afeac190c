//! Who may connect: `pg_hba.conf` and `pg_ident.conf`. No option of the server reads them alone, and their rules differ from
//! version to version: so the server itself reads them, when it starts in a scratch directory that holds nothing but a copy of
//! pg_control. It reads both files before it looks for the write-ahead log, and ends when it finds none.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use super::super::problem::{Problem, shown_within};
use super::ask::{Server, not_said, spoken};
use super::{CHECK, Replica, Verdicts};
use crate::process::Briefly;

/// How long it may take. It takes some 100 ms.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many characters of what the server says are told.
const SHOWN: usize = 2000;

/// The last that it says where it read both files and may start.
const READ: &str = "required WAL directory \"pg_wal\" does not exist";

/// What it says where it may not start from `pg_hba.conf`: followed by that name, from 16 on by the file's path.
const REFUSED: &str = "could not load ";

/// What it says of an `include_if_exists` that does not exist.
const SKIPPED: &str = "skipping missing authentication file ";

/// The directories that it wants before it reads them, or about whose absence it complains.
const DIRECTORIES: [&str; 9] = [
    "base",
    "global",
    "pg_dynshmem",
    "pg_logical",
    "pg_notify",
    "pg_replslot",
    "pg_stat",
    "pg_stat_tmp",
    "pg_tblspc",
];

/// The data directory in the scratch directory.
const DATA: &str = "data";

/// As little of a server as there is.
const SETTINGS: [&str; 15] = [
    "config_file=/dev/null",
    "listen_addresses=",
    "port=1",
    "shared_buffers=128kB",
    "max_connections=2",
    "superuser_reserved_connections=0",
    "max_wal_senders=0",
    "max_worker_processes=2",
    "autovacuum_max_workers=1",
    "dynamic_shared_memory_type=mmap",
    "huge_pages=off",
    "logging_collector=off",
    "log_destination=stderr",
    "log_line_prefix=",
    "lc_messages=C",
];

/// Has the server read both files. It starts without `pg_ident.conf`, so that what is wrong with that is only told.
pub(super) fn check(
    server: &Server<'_>,
    hba_file: &Path,
    ident_file: &Path,
    verdicts: &mut Verdicts<'_>,
) -> Result<(), Problem> {
    let shown_hba = shown_within(hba_file.as_os_str().as_encoded_bytes(), SHOWN);
    if fs::metadata(hba_file).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return verdicts.missing(format!(
            "there is no `{shown_hba}` (`hba_file`): PostgreSQL does not start without it. Where the original's is a link, or lies \
             elsewhere, the backup lacks it: put one there"
        ));
    }
    if rustix::process::geteuid().is_root() {
        verdicts.told(format!("`{shown_hba}` was not checked: PostgreSQL does not run as root"));
        return Ok(());
    }
    let scratch = match scratch(server.replica) {
        Ok(scratch) => scratch,
        Err(error) => {
            verdicts.told(format!(
                "`{shown_hba}` was not checked, for no scratch directory can be made in {}: {error}",
                std::env::temp_dir().display()
            ));
            return Ok(());
        }
    };
    let said = start(server, scratch.path(), hba_file, ident_file)?;
    let lines: Vec<&str> = said.lines().collect();
    let complaints = complaints(&lines);
    let told = |complaints: &[String]| shown_within(complaints.join("; ").as_bytes(), SHOWN);
    if said.contains(READ) {
        if !complaints.is_empty() {
            verdicts.told(format!(
                "PostgreSQL starts, but not all of its rules of who may connect count: {}",
                told(&complaints)
            ));
        }
        return Ok(());
    }
    if lines.iter().filter_map(|line| spoken(line)).any(|words| words.starts_with(REFUSED)) {
        let message = format!(
            "PostgreSQL would not start with `{shown_hba}`, which says who may connect: {}. Correct it where the backup is taken, \
             or bring the file that is missing",
            told(&complaints)
        );
        return Err(Problem::new(CHECK, message));
    }
    verdicts.told(format!(
        "`{shown_hba}` could not be checked, for a server does not start in a scratch directory: {}",
        shown_within(said.trim().as_bytes(), SHOWN)
    ));
    Ok(())
}

/// A directory, removed when it is dropped, with a data directory in it from which a server starts as far as it must.
fn scratch(replica: &Replica<'_>) -> std::io::Result<tempfile::TempDir> {
    let scratch = tempfile::Builder::new().prefix("understudy-").tempdir()?;
    let directory = scratch.path().join(DATA);
    let make = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
    make(&directory)?;
    for name in DIRECTORIES {
        make(&directory.join(name))?;
    }
    fs::write(directory.join("PG_VERSION"), format!("{}\n", replica.major))?;
    fs::write(directory.join("global/pg_control"), replica.control_file)?;
    fs::write(directory.join("postgresql.auto.conf"), "")?;
    Ok(scratch)
}

/// Starts the server in the scratch directory; gives what it said until it ended.
fn start(server: &Server<'_>, scratch: &Path, hba_file: &Path, ident_file: &Path) -> Result<String, Problem> {
    let replica = server.replica;
    let named = |name: &str, path: &Path| {
        let mut setting = OsString::from(name);
        setting.push("=");
        setting.push(path);
        setting
    };
    let mut settings: Vec<OsString> = SETTINGS.iter().map(OsString::from).collect();
    settings.push(named("unix_socket_directories", scratch));
    settings.push(named("hba_file", hba_file));
    settings.push(named("ident_file", ident_file));
    // Settings on which it depends what a line of pg_hba.conf may say.
    let depends = match replica.major {
        ..=16 => Some("db_user_namespace"),
        17 => None,
        18.. => Some("oauth_validator_libraries"),
    };
    if let Some(name) = depends {
        settings.push(format!("{name}={}", server.setting(name)?).into());
    }
    let mut arguments: Vec<OsString> = vec!["-D".into(), scratch.join(DATA).into()];
    arguments.extend(settings.into_iter().flat_map(|setting| ["-c".into(), setting]));
    let program = replica.bin_dir.join("postgres");
    let briefly = Briefly {
        program: &program,
        arguments,
        writable: Some(scratch),
        patience: PATIENCE,
        cancel: replica.cancel,
    };
    let said = briefly.run().map_err(not_said)?;
    Ok(String::from_utf8_lossy(&said.error).into_owned())
}

/// What the server has to say about the two files, each with its line: what it says when it has begun to listen, and before it
/// goes on or gives up.
fn complaints(lines: &[&str]) -> Vec<String> {
    let mut complaints: Vec<String> = Vec::new();
    let (mut listening, mut complete) = (false, true);
    for line in lines {
        if let Some(words) = spoken(line) {
            if words.starts_with("listening on ") {
                listening = true;
                continue;
            }
            if words.starts_with("database system ") || words.starts_with(REFUSED) {
                break;
            }
            if words.starts_with(SKIPPED) {
                // `include_if_exists` of what does not: it has just said that it could not open that.
                complaints.pop();
                complete = true;
            } else if listening {
                complaints.push(words.to_owned());
                complete = false;
            }
        } else if let (false, Some(context), Some(last)) =
            (complete, line.strip_prefix("CONTEXT:"), complaints.last_mut())
        {
            last.push_str(&format!(" ({})", context.trim()));
            complete = true;
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_about_the_two_files_is_a_complaint() {
        let said = "LOG:  starting PostgreSQL 15.18\nLOG:  listening on Unix socket \"/tmp/x/.s.PGSQL.1\"\n\
            LOG:  invalid authentication method \"nonsense\"\nCONTEXT:  line 2 of configuration file \"/x/pg_hba.conf\"\n\
            LOG:  configuration file \"/x/pg_hba.conf\" contains no entries\nFATAL:  could not load pg_hba.conf\n\
            LOG:  database system is shut down\n";
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(
            complaints(&lines),
            [
                "invalid authentication method \"nonsense\" (line 2 of configuration file \"/x/pg_hba.conf\")",
                "configuration file \"/x/pg_hba.conf\" contains no entries",
            ]
        );
        let said = "LOG:  listening on Unix socket \"/tmp/x\"\nLOG:  could not open file \"/x\": No such file\n\
            CONTEXT:  line 1\nLOG:  skipping missing authentication file \"/x\"\nCONTEXT:  line 1\n\
            LOG:  database system was interrupted\n\
            FATAL:  required WAL directory \"pg_wal\" does not exist\n";
        assert!(complaints(&said.lines().collect::<Vec<_>>()).is_empty());
    }
}
