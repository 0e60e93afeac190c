//! What the list of a backup's files says: which files it takes from an older backup, which archives it has, and which pages were damaged.

use std::collections::BTreeSet;

use understudy::{Error, Failure, log};

use crate::document::{self, Contents, FileState};
use crate::place::Place;
use crate::sentinel::Backup;

/// The list of the files in the folder of a backup (`FilesMetadataName` in WAL-G's internal/databases/postgres/backup.go).
pub(crate) const FILES_METADATA: &str = "files_metadata.json";

/// The largest permitted number of archives in a backup. WAL-G begins a new archive after 1 GiB.
pub(crate) const MOST_ARCHIVES: usize = 100_000;

/// How many damaged files are named in the log.
const MOST_NAMED: u64 = 20;

/// The longest path in a data directory, in bytes: the longest path that Linux accepts, without its NUL (`PATH_MAX`).
const LONGEST_PATH: usize = 4095;

/// What is kept of a list.
pub(crate) struct Listed<'a> {
    /// Receives each file that is taken from an older backup, as a whole or in part.
    wanted: &'a mut dyn FnMut(String) -> Result<(), Failure>,
    /// The archives that the list names.
    pub(crate) archives: BTreeSet<String>,
    /// How many files are taken from an older backup, as a whole or in part.
    pub(crate) from_older: u64,
    /// The first files that had damaged pages, and the number of these pages.
    damaged: Vec<(String, u64)>,
    damaged_files: u64,
}

impl<'a> Listed<'a> {
    /// Makes an empty list.
    pub(crate) fn new(wanted: &'a mut dyn FnMut(String) -> Result<(), Failure>) -> Self {
        Self { wanted, archives: BTreeSet::new(), from_older: 0, damaged: Vec::new(), damaged_files: 0 }
    }

    /// Logs which files had damaged pages.
    pub(crate) fn warn(&self, backup: &Backup) {
        for (name, pages) in &self.damaged {
            log::warn!(
                "{name} had {pages} pages with wrong checksums when the backup {} was taken, and is restored as it was",
                backup.name
            );
        }
        if self.damaged_files > MOST_NAMED {
            log::warn!("{} more files had pages with wrong checksums", self.damaged_files - MOST_NAMED);
        }
    }
}

impl Contents for Listed<'_> {
    fn file(&mut self, name: &str, state: FileState) -> Result<(), Failure> {
        if let Some(damage) = state.corrupt_blocks.filter(|damage| damage.corrupt_blocks_count > 0) {
            self.damaged_files += 1;
            if self.damaged_files <= MOST_NAMED {
                let name = name.escape_debug().take(200).collect();
                self.damaged.push((name, damage.corrupt_blocks_count));
            }
        }
        match (state.is_skipped, state.is_incremented) {
            (false, false) => Ok(()),
            (true, true) => Err(Failure::failed(format!(
                "the list of the backup's files says of `{}` both that it has changed pages and that it has not changed",
                name.escape_debug().take(200).collect::<String>()
            ))),
            (true, false) | (false, true) => {
                self.from_older += 1;
                (self.wanted)(path_of(name)?)
            }
        }
    }

    fn archive(&mut self, name: String) -> Result<(), Failure> {
        // A backup without files has an entry with an empty name for the archive that it does not have (`uploadLabelFiles`).
        if !name.is_empty() {
            self.archives.insert(name);
        }
        if self.archives.len() > MOST_ARCHIVES {
            return Err(Failure::failed(format!(
                "the list of the backup's files names more than {MOST_ARCHIVES} archives"
            )));
        }
        Ok(())
    }
}

/// Returns the path in the data directory of a file that WAL-G calls `name`. Before the path there
/// is a `/` (`GetFileRelPath` in internal/bundle.go), and none in a remote backup (streaming_base_backup.go).
fn path_of(name: &str) -> Result<String, Failure> {
    let path = name.strip_prefix('/').unwrap_or(name);
    let is_path = path.len() <= LONGEST_PATH
        && !path.contains('\0')
        && !path.split('/').any(|part| matches!(part, "" | "." | ".."));
    if is_path {
        return Ok(path.to_owned());
    }
    Err(Failure::failed(format!(
        "the list of the backup's files names `{}`, which is not a file of a data directory",
        name.escape_debug().take(200).collect::<String>()
    )))
}

/// Reads the list of the files of `backup`, unless the sentinel had it. Returns whether there is a list with
/// files.
///
/// # Errors
/// Fails if the list cannot be read, or if it is missing and WAL-G wrote one.
pub(crate) fn read(place: &Place, backup: &Backup, listed: &mut Listed<'_>) -> Result<bool, Failure> {
    let sentinel = &backup.sentinel;
    if sentinel.has_files {
        return Ok(true);
    }
    if sentinel.is_without_files {
        return Ok(false);
    }
    let key = place.backups(&format!("{}/{FILES_METADATA}", backup.name));
    let shown = place.shown(&key);
    let stream = match place.at.bucket.read(&key, None, None) {
        // WAL-G wrote no list before the sentinel had a version (`GetSentinelAndFilesMetadata`).
        Err(Error::NotFound(_)) if sentinel.version < 2 => return Ok(false),
        Err(Error::NotFound(_)) => {
            return Err(Failure::failed(format!(
                "{shown} is missing: the backup {} was removed in part or not copied whole",
                backup.name
            )));
        }
        stream => stream?,
    };
    let fields = document::read(&shown, stream, listed)?;
    if fields.start.is_some() || fields.pg_version.is_some() {
        return Err(Failure::failed(format!("{shown} is a sentinel and not a list of files")));
    }
    Ok(fields.has_files)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn list(text: impl Read) -> (Result<bool, String>, Vec<String>, BTreeSet<String>, u64) {
        let mut skipped = Vec::new();
        let mut take = |name| {
            skipped.push(name);
            Ok(())
        };
        let mut listed = Listed::new(&mut take);
        let read = document::read("doc", text, &mut listed);
        let read = read.map(|fields| fields.has_files).map_err(|failure| failure.to_string());
        let (archives, from_older) = (std::mem::take(&mut listed.archives), listed.from_older);
        (read, skipped, archives, from_older)
    }

    #[test]
    fn the_list_says_which_files_come_from_an_older_backup() {
        let text = r#"{"Files":{
            "/":{"IsIncremented":false,"IsSkipped":false,"MTime":"2026-11-26T04:30:00.5Z","UpdatesCount":0},
            "/base/5/1259":{"IsIncremented":true,"IsSkipped":false,"MTime":"2026-11-26T04:30:00Z","UpdatesCount":7},
            "/base/5/2619":{"IsIncremented":false,"IsSkipped":true,"MTime":"2026-11-26T04:30:00Z","UpdatesCount":18446744073709551615},
            "pg_tblspc/16384/PG_15_202209061/5/1":{"IsSkipped":true,"CorruptBlocks":{"CorruptBlocksCount":3,"SomeCorruptBlocks":[1,2,3]}}
            },"TarFileSets":{"part_001.tar.lz4":["/base/5/1259"],"backup_label.tar.lz4":["tablespace_map"],"":null},
            "DatabasesByNames":{"postgres":{"oid":5,"tables":{"a":[1,{"x":null}]}}}}"#;
        let (read, skipped, archives, from_older) = list(text.as_bytes());
        assert_eq!(read, Ok(true));
        assert_eq!(skipped, ["base/5/1259", "base/5/2619", "pg_tblspc/16384/PG_15_202209061/5/1"]);
        assert_eq!(archives.into_iter().collect::<Vec<_>>(), ["backup_label.tar.lz4", "part_001.tar.lz4"]);
        assert_eq!(from_older, 3);
        assert_eq!(list(&b"{}"[..]).0, Ok(false));
        assert_eq!(list(&br#"{"Files":{}}"#[..]).0, Ok(false));
        assert_eq!(list(&br#"{"Files":null,"TarFileSets":null}"#[..]).0, Ok(false));
    }

    #[test]
    fn a_list_that_is_damaged_or_contradicts_itself_is_refused() {
        let skipped = |name: &str| format!(r#"{{"Files":{{"{name}":{{"IsSkipped":true}}}}}}"#);
        for (text, what) in [
            (skipped("../base/5/1"), "not a file of a data directory"),
            (skipped("/base/../../1"), "not a file of a data directory"),
            (skipped("//etc/passwd"), "not a file of a data directory"),
            (skipped("/"), "not a file of a data directory"),
            (skipped("a\\u0000b"), "not a file of a data directory"),
            (skipped(&"d/".repeat(2048)), "not a file of a data directory"),
            (r#"{"Files":{"/a":{"IsSkipped":true,"IsIncremented":true}}}"#.to_owned(), "both"),
            (r#"{"Files":{"/a":{}}}"#.to_owned(), "an entry of a file without"),
            (r#"{"Files":{"/a":{"isSkipped":true}}}"#.to_owned(), "an entry of a file without"),
            (r#"{"Files":{"/a":{"IsSkipped":1}}}"#.to_owned(), "not what WAL-G writes"),
            (r#"{"Files":[]}"#.to_owned(), "the list of the files"),
            (r#"{"TarFileSets":[]}"#.to_owned(), "the files of each archive"),
            (r#"{"Files":{},"Files":{}}"#.to_owned(), "Files twice"),
            (r#"{"TarFileSets":{},"TarFileSets":{}}"#.to_owned(), "TarFileSets twice"),
            (r#"{"Files":{"#.to_owned(), "not what WAL-G writes"),
            (r#"{"Files":{}} x"#.to_owned(), "not what WAL-G writes"),
            ("[]".to_owned(), "not what WAL-G writes"),
            (String::new(), "not what WAL-G writes"),
            (format!("{{\"x\":{}", "[".repeat(1000)), "not what WAL-G writes"),
        ] {
            let refusal = list(text.as_bytes()).0.unwrap_err();
            assert!(refusal.contains(what), "{text}: {refusal}");
        }
    }

    /// Makes the text of a list with many files while it is read.
    struct Endless {
        next: u64,
        most: u64,
        line: Vec<u8>,
    }

    impl Read for Endless {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            if self.line.is_empty() && self.next <= self.most {
                let line = match self.next {
                    0 => "{\"Files\":{\"/first\":{\"MTime\":null}".to_owned(),
                    last if last == self.most => "}}".to_owned(),
                    number => format!(
                        ",\"/base/5/{number}\":{{\"IsIncremented\":false,\"IsSkipped\":false,\"MTime\":\"2026-11-26T04:30:00Z\"}}"
                    ),
                };
                (self.next, self.line) = (self.next + 1, line.into_bytes());
            }
            let count = into.len().min(self.line.len());
            into[..count].copy_from_slice(&self.line[..count]);
            self.line.drain(..count);
            Ok(count)
        }
    }

    /// Counts the files and keeps nothing.
    struct Counting(u64);

    impl Contents for Counting {
        fn file(&mut self, _name: &str, _state: FileState) -> Result<(), Failure> {
            self.0 += 1;
            Ok(())
        }

        fn archive(&mut self, _name: String) -> Result<(), Failure> {
            Ok(())
        }
    }

    #[test]
    fn a_list_is_passed_on_file_by_file() {
        let mut counting = Counting(0);
        document::read("doc", Endless { next: 0, most: 100_000, line: Vec::new() }, &mut counting).unwrap();
        assert_eq!(counting.0, 100_000);
        // The first refusal ends the reading, although the text never ends.
        struct Refusing(u64);
        impl Contents for Refusing {
            fn file(&mut self, _name: &str, _state: FileState) -> Result<(), Failure> {
                self.0 += 1;
                if self.0 < 10 { Ok(()) } else { Err(Failure::retry_later("full")) }
            }
            fn archive(&mut self, _name: String) -> Result<(), Failure> {
                Ok(())
            }
        }
        let read =
            document::read("doc", Endless { next: 0, most: u64::MAX, line: Vec::new() }, &mut Refusing(0));
        assert_eq!(read.map(drop), Err(Failure::retry_later("full")));
    }

    #[test]
    fn a_backup_has_a_bounded_number_of_archives() {
        let list_of = |count: usize| {
            let sets: Vec<_> = (0..count).map(|number| format!("\"part_{number}.tar\":[]")).collect();
            format!("{{\"TarFileSets\":{{{}}}}}", sets.join(","))
        };
        assert_eq!(list(list_of(MOST_ARCHIVES).as_bytes()).2.len(), MOST_ARCHIVES);
        let refusal = list(list_of(MOST_ARCHIVES + 1).as_bytes()).0.unwrap_err();
        assert!(refusal.contains("more than 100000 archives"), "{refusal}");
    }
}
