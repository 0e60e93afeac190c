//! Checks the directories that the server must be able to write at its start: that of its log (`SysLogger_Start` in `syslogger.c`), and
//! before version 15 that of the statistics, which recovery removes (`pgstat_reset_all` in `pgstat.c`).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::super::problem::{Problem, shown};
use super::Verdicts;
use super::ask::Server;

/// Directories that the packages' service creates when it starts the server (tmpfiles.d, `RuntimeDirectory`, `pg_ctlcluster`).
const MADE_AT_THE_START: [&str; 2] = ["/run/postgresql", "/var/run/postgresql"];

/// Does these checks.
pub(super) fn check(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    log(server, verdicts)?;
    if server.replica.major < 15 {
        statistics(server, &server.setting("stats_temp_directory")?, verdicts)?;
    }
    Ok(())
}

/// Returns whether a missing directory, or one that it lies in, is created before the server starts.
pub(super) fn is_made_at_the_start(path: &Path) -> bool {
    MADE_AT_THE_START.iter().any(|made| path.starts_with(made)) && !path.exists()
}

/// Returns why the server, which runs as the same user as this program, cannot create files in a directory; `None` if it can.
pub(super) fn fault_of_directory(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Some("which does not exist".to_owned()),
        Err(error) => Some(format!("which cannot be examined ({error})")),
        Ok(metadata) if !metadata.is_dir() => Some("which is no directory".to_owned()),
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
    let directory = server.replica.places.path.join(&value);
    if server.replica.is_restored_later(&directory) {
        return Ok(());
    }
    let Some((path, fault)) = fault_of_log(&directory, &server.setting("log_filename")?) else {
        return Ok(());
    };
    verdicts.missing(format!(
        "`logging_collector` is on, and `{NAME}` is `{}` ({}): the log cannot be written at `{}`, {fault}; PostgreSQL does not start. \
         Create that directory, or set `{NAME} = 'log'` where the backup is taken or in a configuration file of this machine that \
         `[replica] config_file` names",
        shown(value.as_bytes()),
        server.place(NAME),
        shown(path.as_os_str().as_encoded_bytes())
    ))
}

/// Returns where the log cannot be written, and why; `None` if it can. The server creates the last directory of the path and opens the
/// first file.
fn fault_of_log(directory: &Path, file: &str) -> Option<(PathBuf, String)> {
    if matches!(fs::symlink_metadata(directory), Err(error) if error.kind() == ErrorKind::NotFound) {
        let parent = directory.parent()?;
        return fault_of_directory(parent).map(|fault| (parent.into(), fault));
    }
    if let Some(fault) = fault_of_directory(directory) {
        return Some((directory.into(), fault));
    }
    // A file whose name has no date in it may exist.
    let file = directory.join(file);
    let fault = match fs::metadata(&file) {
        Ok(metadata) if metadata.is_dir() => "which is a directory".to_owned(),
        Ok(_) => {
            let error = accessat(CWD, &file, Access::WRITE_OK, AtFlags::EACCESS).err()?;
            format!("which the server's user may not write ({error})")
        }
        Err(_) => return None,
    };
    Some((file, fault))
}

fn statistics(server: &Server<'_>, value: &str, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    const NAME: &str = "stats_temp_directory";
    let path = server.replica.places.path.join(value);
    if server.replica.is_restored_later(&path) {
        return Ok(());
    }
    let Some(fault) = fault_of_directory(&path) else { return Ok(()) };
    let what = format!("`{NAME}` is `{}` ({}), {fault}", shown(value.as_bytes()), server.place(NAME));
    if is_made_at_the_start(&path) {
        verdicts.report(format!("{what}: PostgreSQL recovers only if its service creates it before"));
        return Ok(());
    }
    verdicts.missing(format!(
        "{what}: PostgreSQL {} does not recover without it. Create it, or remove the setting where the backup is taken",
        server.replica.major
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_needs_a_directory_whose_last_part_may_be_missing() {
        let place = tempfile::tempdir().unwrap();
        let fault = |directory: &str, file: &str| fault_of_log(&place.path().join(directory), file);
        assert_eq!(fault("log", "x-%d.log"), None);
        fs::create_dir(place.path().join("log")).unwrap();
        assert_eq!(fault("log", "x-%d.log"), None);
        assert_eq!(fault("a/b", "x").unwrap(), (place.path().join("a"), "which does not exist".to_owned()));
        fs::write(place.path().join("file"), "").unwrap();
        assert!(fault("file", "x").unwrap().1.contains("no directory"));
        assert!(fault("file/b", "x").is_some());
        fs::create_dir(place.path().join("log/postgresql.log")).unwrap();
        assert!(fault("log", "postgresql.log").unwrap().1.contains("is a directory"));
        std::os::unix::fs::symlink("/nonexistent/x", place.path().join("link")).unwrap();
        assert!(fault("link", "x").unwrap().1.contains("not exist"));
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
