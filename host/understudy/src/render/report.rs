//! The report in JSON, written to `--report FILE`.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use replica::Report;
use replica::datadir::cluster_of;
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use tempfile::{Builder, NamedTempFile};

use super::about::About;
use crate::config::Problem;

/// The content of the file: the report of a run, or why the run did not begin.
#[derive(Serialize)]
#[serde(untagged)]
pub enum ReportContent<'a> {
    /// The run ended.
    Run {
        /// The program's exit code.
        exit_code: u8,
        /// Where the report comes from.
        #[serde(flatten)]
        about: &'a About,
        /// The report of the run.
        #[serde(flatten)]
        report: &'a Report,
    },
    /// The run did not begin.
    NotStarted {
        /// The program's exit code.
        exit_code: u8,
        /// Where the report comes from.
        #[serde(flatten)]
        about: &'a About,
        /// `usage`, `refused` or `failed`.
        result: &'static str,
        /// The reason, for a person.
        message: &'a str,
        /// All problems of the configuration; empty if the reason is not the configuration.
        problems: &'a [Problem],
    },
}

/// The sticky bit of a directory.
const STICKY: u32 = 0o1000;

/// The number of bytes that are read of an existing file to see whether it is a report.
const READ_LIMIT: u64 = 256 << 20;

/// The keys that every report of this program has.
#[derive(Deserialize)]
#[expect(dead_code, reason = "a file is an earlier report if these keys can be deserialized")]
struct EarlierReport {
    exit_code: u8,
    result: String,
    version: String,
    configuration: String,
}

/// The file of the report. It is missing, empty, or holds an earlier report; no other file is ever replaced.
#[derive(Clone, Debug)]
pub struct ReportFile {
    directory: PathBuf,
    path: PathBuf,
}

impl ReportFile {
    /// Creates the value for a report at `path`.
    ///
    /// # Errors
    /// Fails if `path` is relative and the current directory is gone, if `path` does not end in the name of a file, or if `path` is `-`,
    /// which means standard output in other programs.
    pub fn new(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            let message = "the report cannot be written to standard output (`-`): name a file";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let absolute = std::path::absolute(path)?;
        let (Some(directory), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            let message =
                format!("the path of the report, {}, does not end in the name of a file", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        Ok(Self { directory: directory.to_owned(), path: directory.join(name) })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory of the file.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Checks before the run that the report can be written.
    ///
    /// # Errors
    /// Fails if [`ReportFile::write`] would fail now.
    pub fn probe(&self) -> io::Result<()> {
        self.replaces_a_report()?;
        self.temporary().and_then(NamedTempFile::close)
    }

    /// Writes the report atomically, readable by this user only.
    ///
    /// # Errors
    /// Fails if the path is inside a cluster, if anything but an earlier report is at the path, or if the file system reports an error.
    pub fn write(&self, report: &ReportContent<'_>) -> io::Result<()> {
        // `AcceptedConfig::check_report` checked this only if the configuration was accepted.
        if let Some(around) = cluster_of(&self.path) {
            return Err(io::Error::other(format!("it would lie {around}")));
        }
        let replaces = self.replaces_a_report()?;
        let mut file = self.temporary()?;
        serde_json::to_writer_pretty(&mut file, report)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        if replaces {
            file.persist(&self.path)?;
        } else {
            file.persist_noclobber(&self.path)?;
        }
        Ok(())
    }

    /// Returns whether an earlier report or an empty file is at the path; `false` if nothing is. Fails if anything else is.
    fn replaces_a_report(&self) -> io::Result<bool> {
        let other = |what: &str| {
            let message = format!(
                "{what} is there already, and only an earlier report or an empty file is replaced: name another file"
            );
            io::Error::new(io::ErrorKind::AlreadyExists, message)
        };
        match self.path.symlink_metadata() {
            Ok(found) if found.is_symlink() => return Err(other("a symbolic link")),
            Ok(found) if !found.is_file() => return Err(other("something that is not a file")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.path, flags, Mode::empty()).map(File::from).map_err(|errno| {
            let error = io::Error::from(errno);
            io::Error::new(error.kind(), format!("the existing file cannot be read: {error}"))
        })?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(other("something that is not a file"));
        }
        self.refuse_anothers(&found)?;
        // `mktemp` creates an empty file.
        if found.len() == 0 {
            return Ok(true);
        }
        let earlier: Result<EarlierReport, _> =
            serde_json::from_reader(BufReader::new(file.take(READ_LIMIT)));
        earlier.map(|_| true).map_err(|_| other("a file that is no report of this program"))
    }

    /// Refuses a file that this user may not replace: in a directory with the sticky bit, such as `/tmp`, only root and the owners of the
    /// file and of the directory may do that (rename(2)).
    fn refuse_anothers(&self, found: &Metadata) -> io::Result<()> {
        let directory = self.directory.metadata()?;
        let user = rustix::process::geteuid();
        let is_own = [found.uid(), directory.uid()].contains(&user.as_raw());
        if directory.mode() & STICKY == 0 || is_own || user.is_root() {
            return Ok(());
        }
        let message = "another user's file is there already, and in this directory, which has the sticky bit, only that user or root may \
                       replace it: name another file, or have it removed";
        Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
    }

    fn temporary(&self) -> io::Result<NamedTempFile> {
        Builder::new()
            .prefix(".understudy-report-")
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.directory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;

    fn not_started(about: &About) -> ReportContent<'_> {
        ReportContent::NotStarted { exit_code: 2, about, result: "usage", message: "", problems: &[] }
    }

    #[test]
    fn a_report_replaces_an_earlier_one_and_only_its_owner_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        let file = ReportFile::new(&path).unwrap();
        let problems = [Problem::in_file(Path::new("/u.toml"), Place { line: 3, column: 7 }, "no")];
        let about = About::of(Path::new("/u.toml"));
        let written = ReportContent::NotStarted {
            exit_code: 2,
            about: &about,
            result: "usage",
            message: "why",
            problems: &problems,
        };
        // The second replaces the first.
        for _ in 0..2 {
            file.probe().unwrap();
            file.write(&written).unwrap();
        }
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
    fn probe_fails_if_the_report_cannot_be_written() {
        let directory = tempfile::tempdir().unwrap();
        assert!(ReportFile::new(&directory.path().join("missing/report.json")).unwrap().probe().is_err());
        assert!(ReportFile::new(directory.path()).unwrap().probe().is_err());
    }

    #[test]
    fn no_file_but_an_earlier_report_is_ever_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let report =
            "{\"exit_code\": 0, \"result\": \"created\", \"version\": \"1\", \"configuration\": \"/u.toml\"}";
        std::fs::write(path("report"), report).unwrap();
        std::fs::write(path("text"), "root:x:0:0:root:/root:/bin/bash\n").unwrap();
        std::fs::write(path("empty"), "").unwrap();
        std::fs::write(path("json"), "{\"exit_code\": 0}").unwrap();
        std::fs::write(path("more"), format!("{report} and more")).unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        for (link, to) in [("link", "report"), ("dangling", "absent")] {
            std::os::unix::fs::symlink(path(to), path(link)).unwrap();
        }
        rustix::fs::mknodat(
            rustix::fs::CWD,
            path("fifo"),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let about = About::of(Path::new("/u.toml"));
        let written = not_started(&about);
        for name in ["text", "json", "more", "directory", "directory/", "link", "dangling", "fifo"] {
            let file = ReportFile::new(&path(name)).unwrap();
            for tried in [file.probe(), file.write(&written)] {
                let said = tried.unwrap_err().to_string();
                assert!(
                    said.contains("only an earlier report or an empty file is replaced"),
                    "{name}: {said}"
                );
            }
        }
        assert!(std::fs::read_to_string(path("text")).unwrap().starts_with("root:"));
        assert_eq!(std::fs::read_to_string(path("report")).unwrap(), report);
        assert!(!path("absent").exists());
        for name in ["report", "empty"] {
            let file = ReportFile::new(&path(name)).unwrap();
            file.probe().unwrap();
            file.write(&written).unwrap();
            assert!(std::fs::read_to_string(path(name)).unwrap().contains("exit_code"), "{name}");
        }
        assert!(ReportFile::new(Path::new("-")).unwrap_err().to_string().contains("name a file"));
        assert!(ReportFile::new(Path::new("/")).is_err() && ReportFile::new(Path::new("/x/..")).is_err());
    }

    #[test]
    fn a_report_is_not_written_into_a_cluster() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("PG_VERSION"), "15\n").unwrap();
        let file = ReportFile::new(&directory.path().join("report.json")).unwrap();
        let about = About::of(Path::new("/u.toml"));
        let written = not_started(&about);
        assert!(file.write(&written).unwrap_err().to_string().contains("inside another cluster"));
        assert!(!file.path().exists());
    }
}
