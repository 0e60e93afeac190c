//! The report in JSON, written to `--report FILE`.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use replica::Report;
use serde::{Deserialize, Serialize};

use super::about::About;
use super::output_file::{FileKind, OutputFile};
use crate::config::Problem;

/// The content of the file: the report of a run, or the reason that the run did not begin.
#[derive(Serialize)]
#[serde(untagged)]
pub enum ReportContent<'a> {
    /// The run ended.
    Run {
        /// The program's exit code.
        exit_code: u8,
        /// The program, the machine, the configuration, the source and the components.
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
        /// The program, the machine, the configuration, the source and the components.
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

/// How many bytes of an existing file are read to determine whether it is a report.
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

/// The file for the report. The file may be missing, empty, or an earlier report. Any other file is not replaced.
#[derive(Clone, Debug)]
pub struct ReportFile(OutputFile);

/// The report as a kind of file.
static REPORT: FileKind = FileKind { name: "report", is_earlier };

fn is_earlier(file: File) -> bool {
    serde_json::from_reader::<_, EarlierReport>(BufReader::new(file.take(READ_LIMIT))).is_ok()
}

impl ReportFile {
    /// Creates the value for a report at `path`.
    ///
    /// # Errors
    /// The errors of [`OutputFile::new`].
    pub fn new(path: &Path) -> io::Result<Self> {
        OutputFile::new(&REPORT, path).map(Self)
    }

    /// Returns the underlying [`OutputFile`].
    pub fn file(&self) -> &OutputFile {
        &self.0
    }

    /// Writes the report atomically, readable by this user only.
    ///
    /// # Errors
    /// Fails if the path is inside a cluster, if anything but an earlier report is at the path, or if the file system reports an error.
    pub fn write(&self, report: &ReportContent<'_>) -> io::Result<()> {
        let mut file = self.0.create()?;
        serde_json::to_writer_pretty(&mut file, report)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        self.0.put(file).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rustix::fs::Mode;

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
        // The second report replaces the first.
        for _ in 0..2 {
            file.file().probe().unwrap();
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
        assert!(
            ReportFile::new(&directory.path().join("missing/report.json")).unwrap().file().probe().is_err()
        );
        assert!(ReportFile::new(directory.path()).unwrap().file().probe().is_err());
    }

    #[test]
    fn only_an_earlier_report_is_replaced() {
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
            for tried in [file.file().probe(), file.write(&written)] {
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
            file.file().probe().unwrap();
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
        assert!(!file.file().path().exists());
    }
}
