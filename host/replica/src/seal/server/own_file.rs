//! Checks the operator's own configuration file before anything is emptied: makes every check of the seal that uses the server's
//! programs and needs no restored file.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use postgres_formats::configuration::{Line, lines, parse_line};
use tokio_util::sync::CancellationToken;

use super::super::EndState;
use super::super::configuration::{Configuration, LONGEST};
use super::super::places::{Places, is_at};
use super::super::problem::{Findings, Problem};
use super::ask::{self, Server};
use super::{CHECK, ConfigurationFile, Replica, Verdicts, listen, machine, needs, tls, writes};
use crate::Directories;
use crate::datadir::place_around;

/// How deep includes are followed: PostgreSQL's `CONF_FILE_MAX_DEPTH`.
const DEPTH: usize = 10;

/// The most included files that are read.
const MOST_FILES: usize = 200;

/// What is known about a replica before it is restored.
pub(in crate::seal) struct FutureReplica<'a> {
    pub(in crate::seal) directories: &'a Directories,
    pub(in crate::seal) bin_dir: &'a Path,
    pub(in crate::seal) major: u32,
    pub(in crate::seal) end: &'a EndState,
    pub(in crate::seal) cancel: &'a CancellationToken,
}

/// Checks `config_file`. Does nothing if it is not set, or if that file or one that it includes will only be restored.
///
/// # Errors
/// Fails with what the server refuses. With `configure_standby`, also fails with what a starting server would miss.
pub(in crate::seal) fn check(future: &FutureReplica<'_>, findings: &mut Findings) -> Result<(), Problem> {
    let Some(file) = &future.end.config_file else { return Ok(()) };
    let directories = future.directories;
    if reads(file, &|path| place_around(directories, &directories.datadir, path).is_some()) {
        return Ok(());
    }
    let scratch = match tempfile::Builder::new().prefix("understudy-").tempdir() {
        Ok(scratch) => scratch,
        Err(error) => {
            let place = std::env::temp_dir();
            findings.add(
                CHECK,
                format!(
                    "`config_file` is not checked before the restore, because no scratch directory can be created in {}: {error}",
                    place.display()
                ),
            );
            return Ok(());
        }
    };
    let replica = Replica {
        places: &Places::of_scratch(scratch.path(), future.directories)?,
        bin_dir: future.bin_dir,
        major: future.major,
        configuration: &Configuration::default(),
        control_file: &[],
        end: future.end,
        slot: None,
        to_fill: Some(future.directories),
        cancel: future.cancel,
    };
    let server = Server { replica: &replica, file: ConfigurationFile::At(file.clone()) };
    let mut verdicts = Verdicts { findings, completes_directory: future.end.configure_standby.is_some() };
    data_directory(&server, future.directories)?;
    needs::check(&server, &mut verdicts)?;
    listen::check(&server, &mut verdicts)?;
    writes::check(&server, &mut verdicts)?;
    machine::check(&server, &mut verdicts)?;
    tls::check(&server, &mut verdicts)?;
    let hba_file = PathBuf::from(server.setting("hba_file")?);
    if replica.is_restored_later(&hba_file) {
        return Ok(());
    }
    super::access::check_exists(&hba_file, &mut verdicts).map(drop)
}

/// Checks that the file does not make the server run on another data directory.
fn data_directory(server: &Server<'_>, directories: &Directories) -> Result<(), Problem> {
    let Some(named) = ask::own_data_directory(server)? else { return Ok(()) };
    let path = Path::new(&named);
    if path == server.replica.places.path
        || path == directories.datadir
        || is_at(path, &crate::mounts::real_path(&directories.datadir))
    {
        return Ok(());
    }
    Err(super::another_directory(&named))
}

/// Returns whether `is_restored` is true of a configuration file or of one that it includes. Also returns true if it includes so many files, or
/// so deeply, that not all of them are known.
pub(in crate::seal) fn reads(file: &Path, is_restored: &dyn Fn(&Path) -> bool) -> bool {
    Includes { is_restored, read: Vec::new() }.lead_to_restored(file, 0)
}

/// The search for a restored file among the files that a configuration file includes.
struct Includes<'a> {
    is_restored: &'a dyn Fn(&Path) -> bool,
    /// The files that were read.
    read: Vec<PathBuf>,
}

impl Includes<'_> {
    fn lead_to_restored(&mut self, file: &Path, depth: usize) -> bool {
        if (self.is_restored)(file) {
            return true;
        }
        if self.read.iter().any(|read| read == file) {
            return false;
        }
        if depth > DEPTH || self.read.len() >= MOST_FILES {
            return true;
        }
        self.read.push(file.to_owned());
        let Ok(bytes) = crate::regular_file::beginning(file, LONGEST) else { return false };
        let mut includes = lines(&bytes).filter_map(|(_, line)| match parse_line(line) {
            Line::Setting { name, value } if name.starts_with("include") => Some((name, value)),
            _ => None,
        });
        let from = file.parent().unwrap_or(Path::new("/"));
        includes.any(|(name, value)| {
            let path = from.join(value);
            match name.as_str() {
                "include" | "include_if_exists" => self.lead_to_restored(&path, depth + 1),
                "include_dir" => {
                    (self.is_restored)(&path)
                        || files_of(&path).iter().any(|file| self.lead_to_restored(file, depth + 1))
                }
                _ => false,
            }
        })
    }
}

/// Returns the files of an included directory that the server reads (`ParseConfigDirectory` in guc-file.l), at most `MOST_FILES + 1`.
fn files_of(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let is_read = |name: &OsStr| {
        let name = name.as_encoded_bytes();
        !name.starts_with(b".") && name.ends_with(b".conf")
    };
    let entries = entries.flatten().filter(|entry| is_read(&entry.file_name()));
    entries.map(|entry| entry.path()).take(MOST_FILES + 1).collect()
}

impl Replica<'_> {
    /// Returns whether a path lies in a directory that is still to be filled, so that nothing can be checked there yet.
    pub(super) fn is_restored_later(&self, path: &Path) -> bool {
        self.to_fill.is_some_and(|directories| {
            path.starts_with(&self.places.path)
                || place_around(directories, &directories.datadir, path).is_some()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_includes_restored_ones_is_recognised() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        fs::create_dir_all(path("conf.d")).unwrap();
        fs::create_dir_all(path("unread")).unwrap();
        fs::write(path("unread/old.conf.bak"), "include '../data/x.conf'\n").unwrap();
        let directories = Directories {
            datadir: path("data"),
            wal: Some(path("wal")),
            tablespaces: crate::TablespaceMap::default(),
        };
        let is_restored = |file: &Path| place_around(&directories, &directories.datadir, file).is_some();
        let datadir = directories.datadir.display();
        for (text, included, restored) in [
            ("port = 1\n".to_owned(), String::new(), false),
            (format!("include '{datadir}/postgresql.conf'\n"), String::new(), true),
            ("include_if_exists 'data/x.conf'\n".to_owned(), String::new(), true),
            ("include_dir 'data'\n".to_owned(), String::new(), true),
            ("include_dir 'conf.d'\n".to_owned(), "port = 2\n".to_owned(), false),
            ("include_dir 'conf.d'\n".to_owned(), "include '../data/x.conf'\n".to_owned(), true),
            ("include 'own.conf'\n".to_owned(), String::new(), false),
            ("include_dir 'unread'\n".to_owned(), String::new(), false),
            (format!("# include '{datadir}/x.conf'\n"), String::new(), false),
        ] {
            fs::write(path("own.conf"), &text).unwrap();
            fs::write(path("conf.d/1.conf"), &included).unwrap();
            assert_eq!(reads(&path("own.conf"), &is_restored), restored, "{text}{included}");
        }
        assert!(reads(&path("data/postgresql.conf"), &is_restored));
    }
}
