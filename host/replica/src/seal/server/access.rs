//! Checks `pg_hba.conf` and `pg_ident.conf`, which say who may connect. The server has no option that only reads these files, and their
//! rules differ from version to version. So the check starts a server in a scratch directory with little more than a copy of pg_control.
//! The server reads both files before it looks for the write-ahead log, and ends because there is none. Earlier in the same start it reads
//! the files of TLS and creates its socket, which are checked in this way too.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use super::super::hba_files::possible_secrets_from;
use super::super::problem::{Problem, shown_within};
use super::ask::{Server, message_of, problem_of};
use super::complaints::{REFUSED, complaints, messages_of_failed_start};
use super::{CHECK, Replica, Verdicts};
use crate::process::BoundedProgram;

/// How long the start may take. It usually takes about 100 ms.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The most characters of the server's messages that are reported.
const SHOWN: usize = 2000;

/// The server's last message after it has read both files without an error.
const READ: &str = "required WAL directory \"pg_wal\" does not exist";

/// The server's message about a line for TLS if TLS is off.
const WITHOUT_TLS: &str = "hostssl record cannot match because SSL is disabled";

/// The directories that the server needs before it reads the two files, or whose absence it reports.
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
pub(super) const DATA: &str = "data";

/// Settings for the smallest possible server.
const SETTINGS: [&str; 17] = [
    "config_file=/dev/null",
    "listen_addresses=",
    "port=1",
    "shared_buffers=128kB",
    "max_connections=2",
    "superuser_reserved_connections=0",
    "max_wal_senders=0",
    // These sizes are valid for every WAL segment size; pg_control has the replica's segment size.
    "min_wal_size=2GB",
    "max_wal_size=4GB",
    "max_worker_processes=2",
    "autovacuum_max_workers=1",
    "dynamic_shared_memory_type=mmap",
    "huge_pages=off",
    "logging_collector=off",
    "log_destination=stderr",
    "log_line_prefix=",
    "lc_messages=C",
];

/// The restored settings with which the server starts in the scratch directory, in addition to `hba_file` and `ident_file`.
#[derive(Debug, Default)]
pub(super) struct Trial {
    settings: Vec<OsString>,
    /// The names of these settings for a message.
    names: Vec<&'static str>,
    with_tls: bool,
}

/// The group of the sockets.
const GROUP: &str = "unix_socket_group";

impl Trial {
    /// Collects the settings of TLS in `tls`, and the group of the sockets.
    pub(super) fn of(server: &Server<'_>, tls: Vec<OsString>) -> Result<Self, Problem> {
        let mut trial = Self { with_tls: !tls.is_empty(), ..Self::default() };
        if !tls.is_empty() {
            trial.names.push("`ssl` and its files (`ssl_*`)");
            trial.settings.extend(tls);
        }
        let group = server.setting(GROUP)?;
        if !group.is_empty() && !server.setting("unix_socket_directories")?.trim().is_empty() {
            trial.names.push("`unix_socket_group`");
            trial.settings.push(format!("{GROUP}={group}").into());
        }
        Ok(trial)
    }
}

/// Returns whether the server read `pg_hba.conf` and `pg_ident.conf`, with or without errors. `said` is its error output. The server first
/// reads the files of TLS, then listens, then reads the two files.
fn has_read_both_files(said: &str) -> bool {
    let mut words =
        said.lines().filter_map(message_of).skip_while(|words| !words.starts_with("listening on "));
    said.contains(READ) || words.any(|words| words.starts_with(REFUSED))
}

/// Makes the server read both files. Errors in `pg_ident.conf` are only reported, because the server starts in spite of them.
pub(super) fn check(
    server: &Server<'_>,
    hba_file: &Path,
    ident_file: &Path,
    trial: &Trial,
    verdicts: &mut Verdicts<'_>,
) -> Result<(), Problem> {
    let shown_hba = shown_within(hba_file.as_os_str().as_encoded_bytes(), SHOWN);
    if !check_exists(hba_file, verdicts)? {
        return Ok(());
    }
    if rustix::process::geteuid().is_root() {
        verdicts.report(format!("`{shown_hba}` was not checked: PostgreSQL does not run as root"));
        return Ok(());
    }
    let scratch = match scratch(server.replica) {
        Ok(scratch) => scratch,
        Err(error) => {
            verdicts.report(format!(
                "`{shown_hba}` was not checked, because no scratch directory can be created in {}: {error}",
                std::env::temp_dir().display()
            ));
            return Ok(());
        }
    };
    let major = server.replica.major;
    let secrets: Vec<String> =
        [hba_file, ident_file].into_iter().flat_map(|file| possible_secrets_from(file, major)).collect();
    let mut said = start(server, scratch.path(), hba_file, ident_file, &trial.settings)?;
    if !has_read_both_files(&said) && !trial.settings.is_empty() {
        let without = start(server, scratch.path(), hba_file, ident_file, &[])?;
        if has_read_both_files(&without) {
            verdicts.missing(format!(
                "PostgreSQL does not start with {}: {}. Correct the setting {}",
                trial.names.join(" and "),
                shown_within(messages_of_failed_start(&said, &secrets).as_bytes(), SHOWN),
                server.remedy(if trial.with_tls { "ssl" } else { GROUP })
            ))?;
            said = without;
        }
    }
    let lines: Vec<&str> = said.lines().collect();
    let mut complaints = complaints(&lines, &secrets);
    if server.setting("ssl")? == "on" {
        // The scratch server may have been started without TLS, for example if the key has a passphrase.
        complaints.retain(|complaint| !complaint.starts_with(WITHOUT_TLS));
    }
    let joined = |complaints: &[String]| shown_within(complaints.join("; ").as_bytes(), SHOWN);
    if said.contains(READ) {
        if !complaints.is_empty() {
            verdicts.report(format!(
                "PostgreSQL starts, but ignores some of the rules about who may connect: {}",
                joined(&complaints)
            ));
        }
        return Ok(());
    }
    if has_read_both_files(&said) {
        let message = format!(
            "PostgreSQL would not start with `{shown_hba}`, which says who may connect: {}. Correct it {}, or add the file \
             that is missing",
            joined(&complaints),
            if hba_file.starts_with(&server.replica.places.path) {
                "on the server that is backed up"
            } else {
                "there"
            }
        );
        return Err(Problem::new(CHECK, message));
    }
    verdicts.report(format!(
        "`{shown_hba}` could not be checked, because a server does not start in a scratch directory: {}",
        shown_within(messages_of_failed_start(&said, &secrets).as_bytes(), SHOWN)
    ));
    Ok(())
}

/// Checks that `pg_hba.conf` exists. Returns whether it does.
pub(super) fn check_exists(hba_file: &Path, verdicts: &mut Verdicts<'_>) -> Result<bool, Problem> {
    if fs::metadata(hba_file).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        verdicts.missing(format!(
            "there is no `{}` (`hba_file`): PostgreSQL does not start without it. If the file on the original server is a link, or lies \
             elsewhere, the backup lacks it: put a file there",
            shown_within(hba_file.as_os_str().as_encoded_bytes(), SHOWN)
        ))?;
        return Ok(false);
    }
    Ok(true)
}

/// Creates a scratch directory, which is removed when the value is dropped. It contains a data directory from which a server starts far
/// enough for the checks.
pub(super) fn scratch(replica: &Replica<'_>) -> std::io::Result<tempfile::TempDir> {
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

/// Starts the server in the scratch directory. Returns its error output.
fn start(
    server: &Server<'_>,
    scratch: &Path,
    hba_file: &Path,
    ident_file: &Path,
    trial: &[OsString],
) -> Result<String, Problem> {
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
    // The setting that decides which lines of pg_hba.conf are valid.
    let depends = match replica.major {
        ..=16 => Some("db_user_namespace"),
        17 => None,
        18.. => Some("oauth_validator_libraries"),
    };
    if let Some(name) = depends {
        settings.push(format!("{name}={}", server.setting(name)?).into());
    }
    settings.extend_from_slice(trial);
    let mut arguments: Vec<OsString> = vec!["-D".into(), scratch.join(DATA).into()];
    arguments.extend(settings.into_iter().flat_map(|setting| ["-c".into(), setting]));
    let program = replica.bin_dir.join("postgres");
    let program_run = BoundedProgram {
        program: &program,
        arguments,
        writable: Some(scratch),
        timeout: TIMEOUT,
        cancel: replica.cancel,
    };
    let said = program_run.run().map_err(problem_of)?;
    Ok(String::from_utf8_lossy(&said.error).into_owned())
}
