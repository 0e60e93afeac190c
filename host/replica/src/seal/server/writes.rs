//! Checks the directories to which the server must be able to write at its start: the directory of its log (`SysLogger_Start` in
//! `syslogger.c`), and before version 15 the directory of the statistics, which recovery empties (`pgstat_reset_all` in `pgstat.c`).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::super::judged_settings::is_place_for_logs;
use super::super::problem::{Problem, shown};
use super::Verdicts;
use super::ask::Server;

/// Directories that the service in PostgreSQL's packages creates when it starts the server (tmpfiles.d, `RuntimeDirectory`,
/// `pg_ctlcluster`).
const MADE_AT_THE_START: [&str; 2] = ["/run/postgresql", "/var/run/postgresql"];

/// Checks the directories of the log and of the statistics.
pub(super) fn check(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    log(server, verdicts)?;
    if server.replica.major < 15 {
        statistics(server, &server.setting("stats_temp_directory")?, verdicts)?;
    }
    Ok(())
}

/// Returns whether a missing directory is, or lies in, a directory that is created before the server starts.
pub(super) fn is_made_at_the_start(path: &Path) -> bool {
    MADE_AT_THE_START.iter().any(|made| path.starts_with(made)) && !path.exists()
}

/// Returns why the server, which runs as the same user as this program, cannot create files in a directory; `None` if it can.
pub(super) fn directory_fault(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Some("which does not exist".to_owned()),
        Err(error) => Some(format!("which cannot be examined ({error})")),
        Ok(metadata) if !metadata.is_dir() => Some("which is not a directory".to_owned()),
        Ok(_) => accessat(CWD, path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
            .err()
            .map(|error| format!("in which the server's user may not create files ({error})")),
    }
}

fn log(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    const NAME: &str = "log_directory";
    if server.setting("logging_collector")? != "on" {
        return Ok(());
    }
    let value = server.setting(NAME)?;
    // In restored files such a directory was overridden: the operator's own file sets it.
    if !is_place_for_logs(server.replica.places, &value) {
        verdicts.report(format!(
            "`{NAME}` is `{}` ({}): the server creates a directory of that name among the files of the cluster, where a name such as \
             `promote` ends a standby's recovery; set `{NAME} = 'log'`, or a directory outside the data directory, {}",
            shown(value.as_bytes()),
            server.place(NAME),
            server.remedy(NAME)
        ));
    }
    let directory = server.replica.places.path.join(&value);
    if server.replica.is_restored_later(&directory) {
        return Ok(());
    }
    let pattern = server.setting("log_filename")?;
    let destinations = server.setting("log_destination")?.to_ascii_lowercase();
    let Some((path, fault)) =
        log_names(&pattern, &destinations).iter().find_map(|name| log_fault(&directory, name))
    else {
        return Ok(());
    };
    let message = format!(
        "`logging_collector` is on, and `{NAME}` is `{}` ({}): the log cannot be written at `{}`, {}; PostgreSQL does not start. {}, or \
         set `{NAME} = 'log'` and `log_filename` {}",
        shown(value.as_bytes()),
        server.place(NAME),
        shown(path.as_os_str().as_encoded_bytes()),
        fault.why,
        fault.remedy,
        server.remedy(NAME)
    );
    // A directory whose name contains a date may exist by the time the server starts.
    if pattern.rsplit_once('/').is_some_and(|(directory, _)| directory.contains('%')) {
        verdicts.report(message);
        return Ok(());
    }
    verdicts.missing(message)
}

/// Returns the patterns of the names of the log files that the server opens at its start: always one for `stderr`, and one for each other
/// format in `log_destination` (`logfile_getname` in `syslogger.c`).
fn log_names(pattern: &str, destinations: &str) -> Vec<String> {
    let mut names = vec![pattern.to_owned()];
    for (destination, suffix) in [("csvlog", ".csv"), ("jsonlog", ".json")] {
        if destinations.split(',').any(|listed| listed.trim_matches([' ', '"']) == destination) {
            names.push(format!("{}{suffix}", pattern.strip_suffix(".log").unwrap_or(pattern)));
        }
    }
    names
}

/// Why a log cannot be written, and what to do.
#[derive(Debug, PartialEq, Eq)]
struct LogFault {
    why: String,
    remedy: &'static str,
}

impl LogFault {
    fn of_directory(path: &Path, why: String) -> Self {
        let remedy = match path.is_dir() {
            true => "Give that directory to the server's user (chown, chmod)",
            false => "Create that directory",
        };
        Self { why, remedy }
    }
}

/// Returns where the log cannot be written, and why; `None` if it can be written. The server creates the last component of
/// `log_directory`, but no directory that `log_filename` names, and then opens the first file.
fn log_fault(directory: &Path, file: &str) -> Option<(PathBuf, LogFault)> {
    let file = directory.join(file);
    let parent = file.parent()?;
    let is_missing =
        |path: &Path| matches!(fs::symlink_metadata(path), Err(error) if error.kind() == ErrorKind::NotFound);
    let needed = if parent == directory && is_missing(directory) { directory.parent()? } else { parent };
    if let Some(why) = directory_fault(needed) {
        return Some((needed.into(), LogFault::of_directory(needed, why)));
    }
    // A file without a date in its name may exist already.
    let why = match fs::metadata(&file) {
        Ok(metadata) if metadata.is_dir() => "which is a directory".to_owned(),
        Ok(_) => {
            let error = accessat(CWD, &file, Access::WRITE_OK, AtFlags::EACCESS).err()?;
            format!("which the server's user may not write ({error})")
        }
        Err(_) => return None,
    };
    let remedy = "Give that file to the server's user (chown, chmod), or remove it";
    Some((file, LogFault { why, remedy }))
}

fn statistics(server: &Server<'_>, value: &str, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    const NAME: &str = "stats_temp_directory";
    let path = server.replica.places.path.join(value);
    if server.replica.is_restored_later(&path) {
        return Ok(());
    }
    let Some(fault) = directory_fault(&path) else { return Ok(()) };
    let what = format!("`{NAME}` is `{}` ({}), {fault}", shown(value.as_bytes()), server.place(NAME));
    if is_made_at_the_start(&path) {
        verdicts
            .report(format!("{what}: PostgreSQL recovers only if its service creates the directory first"));
        return Ok(());
    }
    verdicts.missing(format!(
        "{what}: PostgreSQL {} does not recover without it. Create it, or remove the setting on the server that is backed up",
        server.replica.major
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_needs_a_directory_whose_last_part_may_be_missing() {
        let place = tempfile::tempdir().unwrap();
        let fault = |directory: &str, file: &str| {
            log_fault(&place.path().join(directory), file).map(|(path, fault)| (path, fault.why))
        };
        assert_eq!(fault("log", "x-%d.log"), None);
        fs::create_dir(place.path().join("log")).unwrap();
        assert_eq!(fault("log", "x-%d.log"), None);
        assert_eq!(fault("a/b", "x").unwrap(), (place.path().join("a"), "which does not exist".to_owned()));
        // Only the directory of the log itself is created.
        assert_eq!(fault("other", "sub/x.log").unwrap().0, place.path().join("other/sub"));
        assert_eq!(fault("log", "sub/x.log").unwrap().0, place.path().join("log/sub"));
        fs::create_dir(place.path().join("log/sub")).unwrap();
        assert_eq!(fault("log", "sub/x.log"), None);
        fs::write(place.path().join("file"), "").unwrap();
        assert!(fault("file", "x").unwrap().1.contains("not a directory"));
        assert!(fault("file/b", "x").is_some());
        fs::create_dir(place.path().join("log/postgresql.log")).unwrap();
        assert!(fault("log", "postgresql.log").unwrap().1.contains("is a directory"));
        std::os::unix::fs::symlink("/nonexistent/x", place.path().join("link")).unwrap();
        assert!(fault("link", "x").unwrap().1.contains("not exist"));
    }

    #[test]
    fn each_format_of_the_log_has_a_file() {
        for (pattern, destinations, names) in [
            ("x.log", "stderr", &["x.log"][..]),
            ("x.log", "csvlog", &["x.log", "x.csv"]),
            ("x-%d", "stderr, jsonlog,csvlog", &["x-%d", "x-%d.csv", "x-%d.json"]),
        ] {
            assert_eq!(log_names(pattern, destinations), names, "{pattern} {destinations}");
        }
    }

    #[test]
    fn only_the_directories_of_packages_are_made_at_the_start() {
        for (path, made) in [
            ("/run/postgresql/no-such-13.pg_stat_tmp", true),
            ("/var/run/postgresql/no-such", true),
            ("/run/no-such", false),
            ("/run/postgresql-other", false),
            ("/nonexistent", false),
        ] {
            assert_eq!(is_made_at_the_start(Path::new(path)), made, "{path}");
        }
    }
}
