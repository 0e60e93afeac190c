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

/// The sticky bit of a directory.
const STICKY: u32 = 0o1000;

/// A file longer than this is not read to see whether it is a report.
const LONGEST: u64 = 256 << 20;

/// What every report of this program has.
#[derive(Deserialize)]
#[expect(dead_code, reason = "that the keys are there and of these types is what is asked")]
struct Earlier {
    exit_code: u8,
    result: String,
    version: String,
    configuration: String,
}

/// Where the report goes: a file that is missing, empty, or holds an earlier report. Nothing else is ever replaced.
#[derive(Clone, Debug)]
pub struct ReportFile {
    directory: PathBuf,
    path: PathBuf,
}

impl ReportFile {
    /// A report in `path`.
    ///
    /// # Errors
    /// Where the current directory is gone that a relative path is relative to, the path does not end in the name of a file, or it is the
    /// `-` by which other programs mean their standard output.
    pub fn new(path: &Path) -> io::Result<Self> {
        if path == Path::new("-") {
            let message = "the report is not written to standard output, as `-` would mean: name a file";
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

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that it is in.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether the report can be written, asked before anything is done that it is to tell of.
    ///
    /// # Errors
    /// Why not.
    pub fn probe(&self) -> io::Result<()> {
        self.replaces_a_report()?;
        self.temporary().and_then(NamedTempFile::close)
    }

    /// Writes it whole or not at all, readable by this user alone.
    ///
    /// # Errors
    /// What is there is no report, or what the file system says.
    pub fn write(&self, report: &Written<'_>) -> io::Result<()> {
        // The configuration may not have been accepted that names the data directory.
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

    /// Whether an earlier report or an empty file is there; `false` if nothing is.
    fn replaces_a_report(&self) -> io::Result<bool> {
        let other = |what: &str| {
            let message = format!(
                "{what} is there already, and only an earlier report or an empty file is replaced: name another file"
            );
            io::Error::new(io::ErrorKind::AlreadyExists, message)
        };
        match self.path.symlink_metadata() {
            Ok(found) if found.is_symlink() => return Err(other("a symbolic link")),
            Ok(found) if !found.is_file() => return Err(other("something that is no file")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.path, flags, Mode::empty()).map(File::from).map_err(|errno| {
            let error = io::Error::from(errno);
            io::Error::new(error.kind(), format!("what is there already cannot be read: {error}"))
        })?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(other("something that is no file"));
        }
        self.refuse_anothers(&found)?;
        // As `mktemp` makes it.
        if found.len() == 0 {
            return Ok(true);
        }
        let earlier: Result<Earlier, _> = serde_json::from_reader(BufReader::new(file.take(LONGEST)));
        earlier.map(|_| true).map_err(|_| other("a file that is no report of this program"))
    }

    /// In a directory with the sticky bit, such as `/tmp`, nobody but root replaces a file unless it or the directory is his (rename(2)).
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

    #[test]
    fn a_report_replaces_the_old_one_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report.json");
        let file = ReportFile::new(&path).unwrap();
        let problems = [Problem::in_file(Path::new("/u.toml"), Place { line: 3, column: 7 }, "no")];
        let about = About::of(Path::new("/u.toml"));
        let written = Written::NotRun {
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
    fn a_report_that_cannot_be_written_is_known_before_the_run() {
        let directory = tempfile::tempdir().unwrap();
        assert!(ReportFile::new(&directory.path().join("missing/report.json")).unwrap().probe().is_err());
        assert!(ReportFile::new(directory.path()).unwrap().probe().is_err());
    }

    #[test]
    fn nothing_but_a_report_is_ever_replaced() {
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
        let written =
            Written::NotRun { exit_code: 2, about: &about, result: "usage", message: "", problems: &[] };
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
    fn no_report_goes_into_a_cluster() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("PG_VERSION"), "15\n").unwrap();
        let file = ReportFile::new(&directory.path().join("report.json")).unwrap();
        let about = About::of(Path::new("/u.toml"));
        let written =
            Written::NotRun { exit_code: 2, about: &about, result: "usage", message: "", problems: &[] };
        assert!(file.write(&written).unwrap_err().to_string().contains("inside another cluster"));
        assert!(!file.path().exists());
    }
}
