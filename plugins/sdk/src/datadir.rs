//! Writing into the data directory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use postgres_formats::names::{CONTROL_FILE, PG_TBLSPC, PG_VERSION, PG_WAL, tablespace_oid};

use crate::{AtPath, Error, Failure, Request, cancellation, host, progress};

pub use postgres_formats::names::UNFINISHED_CONTROL_FILE;

/// How many bytes are written between two looks at the cancellation and two reports of progress.
const STEP: usize = 1 << 20;
/// How many bytes [`Datadir::write`] moves at a time.
const BUFFER: usize = 256 << 10;

/// The data directory, with pg_wal and the tablespaces where the operator wants them.
///
/// Names are those of a backup: relative to the data directory, `/`-separated, such as `base/5/1259`. A name that is
/// absolute, empty, or has an empty, `.` or `..` component is refused.
#[derive(Debug)]
pub struct Datadir {
    path: PathBuf,
    wal: PathBuf,
    tablespaces: RefCell<HashMap<u32, PathBuf>>,
    buffer: RefCell<Vec<u8>>,
}

impl Datadir {
    /// The data directory of `request`.
    ///
    /// # Errors
    /// Where the operator set `no_params`, so that the method is not told.
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

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where WAL goes: its `pg_wal`, or the operator's own place for it.
    pub fn wal_directory(&self) -> &Path {
        &self.wal
    }

    /// Where the tablespace with this oid goes.
    ///
    /// # Errors
    /// Where the plan has no such tablespace or the operator's map does not name it.
    pub fn tablespace(&self, oid: u32) -> Result<PathBuf, Failure> {
        if let Some(known) = self.tablespaces.borrow().get(&oid) {
            return Ok(known.clone());
        }
        let path = PathBuf::from(host::tablespace(oid)?);
        self.tablespaces.borrow_mut().insert(oid, path.clone());
        Ok(path)
    }

    /// Where `name` is written: below [`Datadir::wal_directory`] what is below `pg_wal`, below [`Datadir::tablespace`]
    /// what is below `pg_tblspc/<oid>`, under [`UNFINISHED_CONTROL_FILE`] what is `global/pg_control`.
    ///
    /// # Errors
    /// Where the name is refused, or is below `pg_tblspc` and not below a tablespace of the plan.
    pub fn place(&self, name: &str) -> Result<PathBuf, Failure> {
        if name.contains('\0') || name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(Failure::failed(format!(
                "`{}` is no name below a data directory",
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

    /// Makes the directory `name` and those above it. One that is there already is left as it is.
    ///
    /// # Errors
    /// Where the name is refused or something else has it.
    pub fn create_dir(&self, name: &str) -> Result<(), Failure> {
        let path = self.place(name)?;
        fs::create_dir_all(&path).at(path)
    }

    /// Makes the file `name`, which must not exist. The directory that it is in must.
    ///
    /// # Errors
    /// Where the name is refused or something has it.
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

    /// Makes `PG_VERSION`, before anything else: a Patroni that starts meanwhile reads it then and never again.
    ///
    /// # Errors
    /// As [`Datadir::create_file`].
    pub fn write_version(&self, major: u32) -> Result<(), Failure> {
        self.write(PG_VERSION, &mut format!("{major}\n").as_bytes()).map(drop)
    }

    /// Makes the file `name` from all that `from` gives, and returns how many bytes that was.
    ///
    /// # Errors
    /// As [`Datadir::create_file`], and where reading or writing fails; [`Failure::Cancelled`] when told to stop. An
    /// error of `from` itself comes without a path unless it carries one.
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

/// A new file of the data directory. It counts what is written towards the progress and looks at the cancellation at least
/// once every MiB.
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
    /// Where writing fails; [`Failure::Cancelled`] when told to stop.
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

    /// Counts the file as done and returns its size in bytes. The host writes it through to the disk when it seals.
    ///
    /// # Errors
    /// [`Failure::Cancelled`] when told to stop.
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

/// A file that tells PostgreSQL how to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `standby.signal`
    Standby,
    /// `recovery.signal`
    Recovery,
}

/// A line for postgresql.auto.conf; the host quotes the value and writes it when it seals.
///
/// # Errors
/// [`Error::Denied`] for a setting that a method may not set (`wit/method.wit` lists those that it may), [`Error::Invalid`] for a value
/// that PostgreSQL does not take.
pub fn recovery_setting(name: &str, value: &str) -> Result<(), Error> {
    host::recovery_setting(name, value)
}

/// Asks for a signal file when the host seals.
///
/// # Errors
/// [`Error::Denied`] where the host does not allow it.
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
    fn wal_and_tablespaces_go_where_the_operator_wants_them() {
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
