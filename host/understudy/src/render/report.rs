//! The report in JSON, written to `--report FILE`.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use replica::Report;
use serde::Serialize;
use tempfile::{Builder, NamedTempFile};

use super::about::About;
use crate::config::Problem;

/// What stands in the file: the report of a run, or why there was none.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Written<'a> {
    /// A run ended.
    Run {
        /// The program's exit code.
        exit_code: u8,
        /// Where it comes from.
        #[serde(flatten)]
        about: &'a About,
        /// The report itself.
        #[serde(flatten)]
        report: &'a Report,
    },
    /// Nothing was run.
    NotRun {
        /// The program's exit code.
        exit_code: u8,
        /// Where it comes from.
        #[serde(flatten)]
        about: &'a About,
        /// `usage`.
        result: &'static str,
        /// Why, for a person.
        message: &'a str,
        /// Everything that is wrong with the configuration.
        problems: &'a [Problem],
    },
}

/// Where the report goes.
#[derive(Clone, Debug)]
pub struct ReportFile(PathBuf);

impl ReportFile {
    /// A report in `path`.
    ///
    /// # Errors
    /// Where the current directory is gone that a relative path is relative to.
    pub fn new(path: &Path) -> io::Result<Self> {
        std::path::absolute(path).map(Self)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether the report can be written, asked before anything is done that it is to tell of.
    ///
    /// # Errors
    /// Why not.
    pub fn probe(&self) -> io::Result<()> {
        if self.0.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        self.temporary().and_then(NamedTempFile::close)
    }

    /// Writes it whole or not at all, readable by this user alone.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, report: &Written<'_>) -> io::Result<()> {
        let mut file = self.temporary()?;
        serde_json::to_writer_pretty(&mut file, report)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(&self.0)?;
        Ok(())
    }

    fn temporary(&self) -> io::Result<NamedTempFile> {
        let directory = self.0.parent().unwrap_or(Path::new("/"));
        Builder::new()
            .prefix(".understudy-report-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;

    #[test]
    fn a_report_replaces_the_old_one_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        std::fs::write(&path, "old").unwrap();
        let file = ReportFile::new(&path).unwrap();
        file.probe().unwrap();
        let problems = [Problem::in_file(Path::new("/u.toml"), Place { line: 3, column: 7 }, "no")];
        let about = About::of(Path::new("/u.toml"));
        let written = Written::NotRun {
            exit_code: 2,
            about: &about,
            result: "usage",
            message: "why",
            problems: &problems,
        };
        file.write(&written).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(report["exit_code"], 2);
        assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(report["configuration"], "/u.toml");
        assert!(report["host"]["kernel"].as_str().is_some_and(|kernel| !kernel.is_empty()));
        assert_eq!(report["problems"][0]["file"], "/u.toml");
        assert_eq!(report["problems"][0]["line"], 3);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_report_that_cannot_be_written_is_known_before_the_run() {
        let directory = tempfile::tempdir().unwrap();
        assert!(ReportFile::new(&directory.path().join("missing/report.json")).unwrap().probe().is_err());
        assert!(ReportFile::new(directory.path()).unwrap().probe().is_err());
    }
}
