//! A stand-in for the host, for tests of a method on the machine that builds the method. The stand-in's stores are directories. It
//! decodes gzip, zlib, lz4 and zstd; it neither decrypts objects nor unpacks archives. It runs programs as ordinary child processes, which it
//! does not confine.
//!
//! ```
//! use understudy::native::Host;
//! use understudy::{Datadir, Request};
//!
//! let datadir = std::env::temp_dir().join(format!("understudy-doc-{}", std::process::id()));
//! std::fs::create_dir_all(&datadir)?;
//! let request = Request::default().for_datadir(datadir.to_string_lossy());
//! let (result, record) = Host::new(&datadir).run(|| Datadir::of(&request)?.write("PG_VERSION", &mut &b"15\n"[..]));
//! assert_eq!(result, Ok(3));
//! assert_eq!((record.bytes, record.files), (3, 1));
//! # std::fs::remove_dir_all(&datadir)?;
//! # Ok::<(), std::io::Error>(())
//! ```

pub(crate) mod data;

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::log::Level;
use crate::program::{Completed, Ending};
use crate::source::{Ancestor, Position};
use crate::{Error, Signal};

/// A host for tests: the answers that it gives, and a record of what the method reported.
#[derive(Clone, Debug)]
pub struct Host {
    datadir: PathBuf,
    stores: HashMap<String, PathBuf>,
    programs: HashMap<String, PathBuf>,
    wal_directory: PathBuf,
    tablespaces: HashMap<u32, PathBuf>,
    looks_left: Option<u32>,
    granted: Option<Vec<PathBuf>>,
    source: Option<Source>,
    record: Record,
}

/// The facts of a source server.
#[derive(Clone, Debug)]
pub struct Source {
    /// The server's `server_version_num`.
    pub server_version: u32,
    /// Its system identifier.
    pub system_identifier: u64,
    /// Its WAL position.
    pub position: Position,
    /// The ancestors of the server's timeline, oldest first.
    pub history: Vec<Ancestor>,
}

/// What a method reported to the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Lines of the log.
    pub log: Vec<(Level, String)>,
    /// Phases, in order.
    pub phases: Vec<String>,
    /// The last expectation: bytes and files.
    pub expected: (Option<u64>, Option<u64>),
    /// Bytes reported as done.
    pub bytes: u64,
    /// Files reported as done.
    pub files: u64,
    /// Settings for postgresql.auto.conf.
    pub recovery_settings: Vec<(String, String)>,
    /// Signal files.
    pub signals: Vec<Signal>,
    /// Programs that were run, each by its name and with its arguments.
    pub programs: Vec<(String, Vec<String>)>,
}

thread_local! {
    static HOST: RefCell<Option<Host>> = const { RefCell::new(None) };
}

impl Host {
    /// Makes a host with this data directory and its `pg_wal`, without tablespaces and without a source.
    pub fn new(datadir: impl Into<PathBuf>) -> Self {
        let datadir = datadir.into();
        Self {
            wal_directory: datadir.join("pg_wal"),
            datadir,
            stores: HashMap::new(),
            programs: HashMap::new(),
            tablespaces: HashMap::new(),
            looks_left: None,
            granted: None,
            source: None,
            record: Record::default(),
        }
    }

    /// Sets the source server.
    #[must_use]
    pub fn source(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    /// Sets the directory for WAL.
    #[must_use]
    pub fn wal_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.wal_directory = path.into();
        self
    }

    /// Sets the directory for a tablespace.
    #[must_use]
    pub fn tablespace(mut self, oid: u32, path: impl Into<PathBuf>) -> Self {
        self.tablespaces.insert(oid, path.into());
        self
    }

    /// Grants the directory `path` as the store `name`.
    #[must_use]
    pub fn store(mut self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.stores.insert(name.into(), path.into());
        self
    }

    /// Grants the program at `path` as `name`, with any arguments. The stand-in runs it as an ordinary child process.
    #[must_use]
    pub fn program(mut self, name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.programs.insert(name.into(), path.into());
        self
    }

    /// Cancels the run once the method has checked for cancellation `checks` times.
    #[must_use]
    pub fn cancel_after(mut self, checks: u32) -> Self {
        self.looks_left = Some(checks);
        self
    }

    /// Sets the directories that [`crate::granted_directories`] returns; the default is `/`. The stand-in does not enforce them for files.
    #[must_use]
    pub fn granted(mut self, directories: impl IntoIterator<Item = PathBuf>) -> Self {
        self.granted = Some(directories.into_iter().collect());
        self
    }

    /// Runs `method` on this thread with this host. Returns its result and what it reported to the host.
    pub fn run<T>(self, method: impl FnOnce() -> T) -> (T, Record) {
        /// Removes the host on drop, even if the method panics.
        struct RemoveHost;
        impl Drop for RemoveHost {
            fn drop(&mut self) {
                HOST.with_borrow_mut(|host| *host = None);
            }
        }
        HOST.with_borrow_mut(|host| *host = Some(self));
        let remove_host = RemoveHost;
        let result = method();
        let record = with(|host| std::mem::take(&mut host.record)).unwrap_or_default();
        drop(remove_host);
        (result, record)
    }
}

fn with<T>(f: impl FnOnce(&mut Host) -> T) -> Option<T> {
    HOST.with_borrow_mut(|host| host.as_mut().map(f))
}

pub(crate) fn log(level: Level, message: &str, fields: &[(&str, &str)]) {
    let fields: String = fields.iter().map(|(name, value)| format!(" {name}={value}")).collect();
    let line = format!("{message}{fields}");
    if with(|host| host.record.log.push((level, line.clone()))).is_none() {
        eprintln!("{level:?}: {line}");
    }
}

pub(crate) fn phase(name: &str) {
    with(|host| host.record.phases.push(name.to_owned()));
}

pub(crate) fn expect(bytes: Option<u64>, files: Option<u64>) {
    with(|host| host.record.expected = (bytes, files));
}

pub(crate) fn done(bytes: u64, files: u64) {
    with(|host| {
        host.record.bytes += bytes;
        host.record.files += files;
    });
}

pub(crate) fn cancel_requested() -> bool {
    with(|host| match &mut host.looks_left {
        None => false,
        Some(0) => true,
        Some(left) => {
            *left -= 1;
            false
        }
    })
    .unwrap_or(false)
}

fn of_source<T>(fact: impl FnOnce(&Source) -> T) -> Option<T> {
    with(|host| host.source.as_ref().map(fact)).flatten()
}

pub(crate) fn server_version() -> Option<u32> {
    of_source(|source| source.server_version)
}

pub(crate) fn system_identifier() -> Option<u64> {
    of_source(|source| source.system_identifier)
}

pub(crate) fn wal_position() -> Option<Position> {
    of_source(|source| source.position)
}

pub(crate) fn timeline_history() -> Option<Vec<Ancestor>> {
    of_source(|source| source.history.clone())
}

pub(crate) fn wal_directory() -> String {
    with(|host| host.wal_directory.to_string_lossy().into_owned()).unwrap_or_default()
}

pub(crate) fn tablespace(oid: u32) -> Result<String, Error> {
    with(|host| host.tablespaces.get(&oid).map(|path| path.to_string_lossy().into_owned()))
        .flatten()
        .ok_or_else(|| Error::NotFound(format!("the plan has no tablespace {oid}")))
}

pub(crate) fn recovery_setting(name: &str, value: &str) -> Result<(), Error> {
    with(|host| host.record.recovery_settings.push((name.to_owned(), value.to_owned())));
    Ok(())
}

pub(crate) fn signal_file(signal: Signal) -> Result<(), Error> {
    with(|host| host.record.signals.push(signal));
    Ok(())
}

/// How many bytes of a program's output are returned, as the contract says.
const TAIL: usize = 64 << 10;

pub(crate) fn run_program(name: &str, arguments: &[String]) -> Result<Completed, Error> {
    if cancel_requested() {
        return Err(Error::Cancelled);
    }
    let path = granted_program(name)?;
    with(|host| host.record.programs.push((name.to_owned(), arguments.to_vec())));
    let output = Command::new(&path).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| Error::Failed(format!("{}: {error}", path.display())))?;
    let ending = match (output.status.code(), output.status.signal()) {
        (Some(code), _) => Ending::Code(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, signal) => Ending::Signal(signal.and_then(|signal| signal.try_into().ok()).unwrap_or(u8::MAX)),
    };
    let mut tail = output.stdout;
    tail.extend(output.stderr);
    tail.drain(..tail.len().saturating_sub(TAIL));
    Ok(Completed { ending, tail })
}

pub(crate) fn check_program(name: &str, _arguments: &[String]) -> Result<(), Error> {
    granted_program(name).map(drop)
}

fn granted_program(name: &str) -> Result<PathBuf, Error> {
    with(|host| host.programs.get(name).cloned())
        .flatten()
        .ok_or_else(|| Error::Denied(format!("no grant covers the program {name}")))
}

pub(crate) fn granted_directories() -> Vec<PathBuf> {
    with(|host| host.granted.clone()).flatten().unwrap_or_else(|| vec![PathBuf::from("/")])
}
