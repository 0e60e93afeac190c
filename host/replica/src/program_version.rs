//! The PostgreSQL version of a program.

use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take to print its version.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// The pause between two polls of the program.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// The longest answer that is read, in bytes.
const LONGEST_ANSWER: u64 = 4096;

/// The most characters of an answer that an error repeats.
const SHOWN: usize = 200;

/// Why the version of a program is not known. The message does not name the program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct VersionError(String);

impl From<std::io::Error> for VersionError {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// Returns the major version that `<program> --version` prints, such as 15. Blocking.
///
/// # Errors
/// Fails if the program does not run, does not end within `timeout`, or prints something else.
pub(crate) fn major_version(program: &Path, timeout: Duration) -> Result<u32, VersionError> {
    // The output goes to a file: a program that fills a pipe would wait.
    let mut answer = tempfile::tempfile()?;
    let mut child = Command::new(program)
        .arg("--version")
        .env_clear()
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(answer.try_clone()?)
        .stderr(Stdio::null())
        .spawn()?;
    let began = Instant::now();
    let status = loop {
        match child.try_wait()? {
            Some(status) => break status,
            None if began.elapsed() < timeout => std::thread::sleep(POLL_INTERVAL),
            None => {
                // The program may have ended just now; in either case it is gone after this.
                let _ = child.kill();
                let _ = child.wait();
                return Err(VersionError(format!("it did not answer within {timeout:?}")));
            }
        }
    };
    if !status.success() {
        return Err(VersionError(format!("it ended with {status}")));
    }
    let mut text = Vec::new();
    answer.rewind()?;
    answer.take(LONGEST_ANSWER).read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text);
    major_of(&text).ok_or_else(|| {
        let shown: String = text.trim().chars().take(SHOWN).collect();
        VersionError(format!("its --version answers `{}`", shown.escape_debug()))
    })
}

/// Parses the output: `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` is 15; so are `15rc1` and `15devel`.
fn major_of(answer: &str) -> Option<u32> {
    let version = answer.split_once("(PostgreSQL) ")?.1;
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A directory with a `postgres` that runs this shell script.
    pub(crate) fn programs(script: &str) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        let program = place.path().join("postgres");
        // Another process writes the file. If this process wrote it, a child that was just forked could still have it open for writing, and
        // the file would be busy.
        let write = "printf '#!/bin/sh\\n%s\\n' \"$2\" > \"$1\" && chmod 755 \"$1\"";
        let status =
            Command::new("/bin/sh").args(["-c", write, "sh"]).arg(&program).arg(script).status().unwrap();
        assert!(status.success());
        place
    }

    fn version(script: &str, timeout: Duration) -> Result<u32, String> {
        let programs = programs(script);
        major_version(&programs.path().join("postgres"), timeout).map_err(|error| error.to_string())
    }

    #[test]
    fn the_major_version_is_read_from_every_kind_of_release() {
        for (answer, major) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some(15)),
            ("pg_basebackup (PostgreSQL) 16beta1\n", Some(16)),
            ("postgres (PostgreSQL) 17devel\n", Some(17)),
            ("postgres (PostgreSQL) 9.6.24\n", Some(9)),
            ("postgres (PostgreSQL) \n", None),
            ("something else 15\n", None),
            ("", None),
        ] {
            assert_eq!(major_of(answer), major, "{answer}");
        }
        assert_eq!(major_version(Path::new("/usr/lib/postgresql/15/bin/postgres"), TIMEOUT), Ok(15));
    }

    #[test]
    fn a_program_that_prints_no_version_is_distinguished_from_one_that_does_not_run() {
        assert!(major_version(Path::new("/nowhere/postgres"), TIMEOUT).is_err());
        assert!(version("exit 3", TIMEOUT).unwrap_err().contains("exit status: 3"));
        assert!(version("echo hello", TIMEOUT).unwrap_err().contains("`hello`"));
    }

    #[test]
    fn only_the_beginning_of_an_answer_is_read() {
        assert_eq!(version("yes 'postgres (PostgreSQL) 15.1' | head -n 100000", TIMEOUT), Ok(15));
    }

    #[test]
    fn a_program_that_does_not_answer_is_ended() {
        let began = Instant::now();
        let error = version("exec sleep 600", Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("did not answer within 50ms"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
