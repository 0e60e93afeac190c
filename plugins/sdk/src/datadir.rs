//! Writes to the data directory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::names::{CONTROL_FILE, PG_TBLSPC, PG_VERSION, PG_WAL, UNFINISHED_CONTROL_FILE, tablespace_oid};
use crate::{AtPath, Error, Failure, Request, cancellation, host, progress};

/// How many bytes are written between two checks for cancellation and between two reports of progress.
const STEP: usize = 1 << 20;
/// How many bytes [`Datadir::write`] moves at a time.
const BUFFER: usize = 256 << 10;

/// The data directory, with pg_wal and the tablespaces in the directories that the operator configured.
///
/// Files have the names that they have in a backup: relative to the data directory, separated by `/`, such as `base/5/1259`. A name is
/// refused if it is absolute or empty, or has an empty, `.` or `..` component.
///
/// ```
/// use understudy::{Datadir, Failure, Request};
///
/// fn write_first_files(request: &Request, label: &[u8]) -> Result<(), Failure> {
///     let datadir = Datadir::of(request)?;
///     datadir.write_version(15)?;
///     datadir.write("backup_label", &mut &label[..])?;
///     datadir.create_dir("pg_notify")
/// }
/// ```
#[derive(Debug)]
pub struct Datadir {
    path: PathBuf,
    wal: PathBuf,
    tablespaces: RefCell<HashMap<u32, PathBuf>>,
    buffer: RefCell<Vec<u8>>,
}

impl Datadir {
    /// Returns the data directory of `request`.
    ///
    /// # Errors
    /// Fails if the operator set `no_params`: the request then has no data directory.
    pub fn of(request: &Request) -> Result<Self, Failure> {
        Ok(Self::at(request.datadir()?.to_owned()))
    }

    pub(crate) fn at(path: PathBuf) -> Self {
        Self {
            path,
            wal: PathBuf::from(host::wal_directory()),
            tablespaces: RefCell::default(),
            buffer: RefCell::default(),
        }
    }

    /// Returns the absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory for WAL: `pg_wal`, or the directory that the operator configured.
    pub fn wal_directory(&self) -> &Path {
        &self.wal
    }

    /// Returns the directory for the tablespace with this OID.
    ///
    /// # Errors
    /// Fails if the plan has no such tablespace or the operator's map does not name the tablespace.
    pub fn tablespace(&self, oid: u32) -> Result<PathBuf, Failure> {
        if let Some(known) = self.tablespaces.borrow().get(&oid) {
            return Ok(known.clone());
        }
        let path = PathBuf::from(host::tablespace(oid)?);
        self.tablespaces.borrow_mut().insert(oid, path.clone());
        Ok(path)
    }

    /// Returns the path to which `name` is written. Names below `pg_wal` map to [`Datadir::wal_directory`], below `pg_tblspc/<oid>` to
    /// [`Datadir::tablespace`], and `global/pg_control` to [`UNFINISHED_CONTROL_FILE`].
    ///
    /// # Errors
    /// Fails if the name is refused, or if it is below `pg_tblspc` but not below a tablespace of the plan.
    pub fn place(&self, name: &str) -> Result<PathBuf, Failure> {
        if name.contains('\0') || name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(Failure::failed(format!(
                "`{}` is not a name below a data directory",
                name.escape_debug()
            )));
        }
        if name == UNFINISHED_CONTROL_FILE {
            return Err(Failure::failed(format!(
                "`{name}` is the host's own name: write {CONTROL_FILE} instead"
            )));
        }
        if name == CONTROL_FILE {
            return Ok(self.path.join(UNFINISHED_CONTROL_FILE));
        }
        let mut parts = name.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(PG_WAL), None, None) => Ok(self.wal.clone()),
            (Some(PG_WAL), Some(_), _) => Ok(self.wal.join(&name[PG_WAL.len() + 1..])),
            (Some(PG_TBLSPC), Some(oid), rest) => {
                let root = match tablespace_oid(oid) {
                    Some(oid) => self.tablespace(oid)?,
                    None => return Err(Failure::failed(format!("`{name}` is not below a tablespace's oid"))),
                };
                Ok(rest.map_or_else(|| root.clone(), |rest| root.join(rest)))
            }
            _ => Ok(self.path.join(name)),
        }
    }

    /// Creates the directory `name` and its parents. Leaves an existing directory unchanged.
    ///
    /// # Errors
    /// Fails if the name is refused, or if the name exists and is not a directory.
    pub fn create_dir(&self, name: &str) -> Result<(), Failure> {
        let path = self.place(name)?;
        fs::create_dir_all(&path).at(path)
    }

    /// Creates the file `name`. Its directory must exist.
    ///
    /// # Errors
    /// Fails if the name is refused or exists already.
    pub fn create_file(&self, name: &str) -> Result<DataFile, Failure> {
        let path = self.place(name)?;
        match File::options().write(true).create_new(true).open(&path) {
            Ok(file) => Ok(DataFile { file, path, written: 0, reported: Cell::new(0) }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(Failure::failed(format!("{} exists already: `{name}` comes twice", path.display())))
            }
            Err(error) => Err(error).at(path),
        }
    }

    /// Writes `PG_VERSION`. Call this before writing any other file: a Patroni that starts during the run reads `PG_VERSION` only once.
    ///
    /// # Errors
    /// The errors of [`Datadir::create_file`].
    pub fn write_version(&self, major: u32) -> Result<(), Failure> {
        self.write(PG_VERSION, &mut format!("{major}\n").as_bytes()).map(drop)
    }

    /// Creates the file `name` with all bytes that `from` returns, and returns the number of bytes.
    ///
    /// # Errors
    /// The errors of [`Datadir::create_file`]. Also fails if reading or writing fails; [`Failure::Cancelled`] if the run is cancelled. An
    /// error from `from` is returned without a path, unless the error itself contains one.
    pub fn write(&self, name: &str, from: &mut dyn Read) -> Result<u64, Failure> {
        let mut file = self.create_file(name)?;
        let mut buffer = self.buffer.borrow_mut();
        buffer.resize(BUFFER, 0);
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return file.finish(),
                Ok(read) => file.write_bytes(&buffer[..read])?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A new file in the data directory. Reports the written bytes as progress, and checks for cancellation at least once every MiB.
#[derive(Debug)]
pub struct DataFile {
    file: File,
    path: PathBuf,
    written: u64,
    reported: Cell<u64>,
}

impl DataFile {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// Fails if writing fails; [`Failure::Cancelled`] if the run is cancelled.
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        for part in bytes.chunks(STEP) {
            self.file.write_all(part).at(&self.path)?;
            self.written += part.len() as u64;
            if self.written - self.reported.get() >= STEP as u64 {
                self.report(0);
                cancellation::cancelled()?;
            }
        }
        Ok(())
    }

    /// Reports the file as done and returns its size in bytes. The host syncs the file to the disk at the seal.
    ///
    /// # Errors
    /// [`Failure::Cancelled`] if the run is cancelled.
    pub fn finish(self) -> Result<u64, Failure> {
        self.report(1);
        cancellation::cancelled()?;
        Ok(self.written)
    }

    fn report(&self, files: u64) {
        let bytes = self.written - self.reported.replace(self.written);
        if bytes > 0 || files > 0 {
            progress::done(bytes, files);
        }
    }
}

impl Write for DataFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_bytes(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A signal file, which determines how PostgreSQL starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `standby.signal`
    Standby,
    /// `recovery.signal`
    Recovery,
}

/// Requests a setting in postgresql.auto.conf. The host quotes the value and writes the setting at the seal.
///
/// # Errors
/// [`Error::Denied`] if a method may not set this setting (`wit/method.wit` lists those that it may set), [`Error::Invalid`] if PostgreSQL
/// does not accept the value.
pub fn recovery_setting(name: &str, value: &str) -> Result<(), Error> {
    host::recovery_setting(name, value)
}

/// Requests a signal file, which the host writes at the seal.
///
/// # Errors
/// [`Error::Denied`] if the host does not allow this file.
pub fn signal_file(signal: Signal) -> Result<(), Error> {
    host::signal_file(signal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::Host;

    fn request(path: &Path) -> Request {
        Request::default().for_datadir(path.to_str().unwrap())
    }

    #[test]
    fn the_control_file_gets_the_unfinished_name() {
        let dir = tempfile::tempdir().unwrap();
        let (result, record) = Host::new(dir.path()).run(|| {
            let datadir = Datadir::of(&request(dir.path()))?;
            datadir.create_dir("global")?;
            datadir.write("global/pg_control", &mut &b"control"[..])
        });
        assert_eq!(result, Ok(7));
        assert!(!dir.path().join("global/pg_control").exists());
        assert_eq!(fs::read(dir.path().join(UNFINISHED_CONTROL_FILE)).unwrap(), b"control");
        assert_eq!((record.bytes, record.files), (7, 1));
    }

    #[test]
    fn wal_and_tablespaces_are_written_to_the_configured_directories() {
        let host = Host::new("/data").wal_directory("/wal").tablespace(16384, "/fast");
        let (places, _) = host.run(|| {
            let datadir = Datadir::of(&request(Path::new("/data")))?;
            [
                "base/5/1259",
                "pg_wal",
                "pg_wal/archive_status/0.done",
                "pg_tblspc",
                "pg_tblspc/16384",
                "pg_tblspc/16384/a/b",
            ]
            .map(|name| datadir.place(name).map(|path| path.to_str().unwrap().to_owned()))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
        });
        assert_eq!(
            places.unwrap(),
            [
                "/data/base/5/1259",
                "/wal",
                "/wal/archive_status/0.done",
                "/data/pg_tblspc",
                "/fast",
                "/fast/a/b"
            ]
        );
    }

    #[test]
    fn a_name_that_leaves_the_directory_is_refused() {
        let (_, _) = Host::new("/data").run(|| {
            let datadir = Datadir::of(&request(Path::new("/data"))).unwrap();
            for name in [
                "",
                "/",
                "/etc/passwd",
                "..",
                "../x",
                "base/../../x",
                "base//x",
                "./x",
                "base/",
                "a\0b",
                UNFINISHED_CONTROL_FILE,
                "pg_tblspc/16384",
                "pg_tblspc/016384/x",
                "pg_tblspc/x/y",
                "pg_wal/../x",
            ] {
                assert!(matches!(datadir.place(name), Err(Failure::Failed(_))), "{name:?}");
            }
        });
    }

    #[test]
    fn a_file_is_not_written_twice() {
        let dir = tempfile::tempdir().unwrap();
        let (failure, _) = Host::new(dir.path()).run(|| {
            let datadir = Datadir::of(&request(dir.path())).unwrap();
            datadir.write("PG_VERSION", &mut &b"15\n"[..]).unwrap();
            datadir.write("PG_VERSION", &mut &b"16\n"[..]).unwrap_err()
        });
        assert!(failure.to_string().contains("`PG_VERSION` comes twice"), "{failure}");
        assert_eq!(fs::read(dir.path().join("PG_VERSION")).unwrap(), b"15\n");
    }

    #[test]
    fn a_long_file_is_left_within_a_mebibyte_of_the_cancellation() {
        let dir = tempfile::tempdir().unwrap();
        let (result, record) = Host::new(dir.path())
            .cancel_after(3)
            .run(|| Datadir::of(&request(dir.path()))?.write("endless", &mut io::repeat(1)));
        assert_eq!(result, Err(Failure::Cancelled));
        assert!(record.bytes <= 4 << 20, "{}", record.bytes);
    }
}
