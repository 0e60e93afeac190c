//! The state file: which run works on a data directory, since when, with which processes, and whether its work is unfinished.
//! Loop rule 26. The file is in `state_dir` and not in the data directory, because pg_basebackup refuses a directory that holds even a
//! dotfile.
//!
//! The file is JSON and is replaced as a whole (written to another file, synced, renamed), so that a run that is killed at any moment
//! leaves either its old content or its new one.

mod file;
pub(crate) mod leftover_processes;
pub(crate) mod process;
mod record;

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foundation::rooted::{Directory, RelativePath};

use crate::{Refusal, Rule, RunResult};
pub use process::ProcessIdentity;
pub use record::{DirectoryIdentity, PlaceIdentity, Record, RunProcess};

pub(crate) use file::open_directory;

/// How many native processes a run may have at once.
const MOST_PROCESSES: usize = 1024;

/// The longest state file in bytes.
const LONGEST: u64 = 1 << 20;

/// The state file of one data directory, kept by the run that holds the lock.
#[derive(Debug)]
pub struct State {
    directory: Directory,
    name: RelativePath,
    record: Mutex<Record>,
}

impl State {
    /// Takes the state file over for this run; the caller holds the lock. `previous` is the old content of the file. The mark of unfinished
    /// work is kept if `previous` is about the same directory.
    pub(crate) fn begin(
        directory: Directory,
        real_path: &Path,
        identity: &DirectoryIdentity,
        previous: Option<Record>,
    ) -> io::Result<Self> {
        let mut record = Record::of_this_process(real_path, identity)?;
        if let Some(previous) = previous
            && previous.is_surely_about(identity)
        {
            record.unfinished = previous.unfinished;
            record.places = previous.places;
            record.last_result = previous.last_result;
        }
        let state = Self { directory, name: file::name(real_path), record: Mutex::new(record) };
        state.change(|_| Ok(()))?;
        Ok(state)
    }

    /// Records which method runs now. The directory may still be unchanged.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn set_method(&self, method: &str) -> io::Result<()> {
        self.change(|record| {
            record.method = Some(method.to_owned());
            Ok(())
        })
    }

    /// Marks the content of the directory as unfinished work, until [`State::run_ended`].
    ///
    /// # Errors
    /// Fails if the file cannot be written. Nothing may be removed from the directory then.
    pub fn mark_unfinished(&self, method: &str) -> io::Result<()> {
        self.change(|record| {
            record.unfinished = true;
            record.method = Some(method.to_owned());
            Ok(())
        })
    }

    /// Records how the run ended. The mark of unfinished work is removed if a replica was created or the directory is empty.
    ///
    /// # Errors
    /// Fails if the file cannot be written. The next run then finds the old content, which makes it more careful.
    pub fn run_ended(&self, result: RunResult, directory_empty: bool) -> io::Result<()> {
        self.change(|record| {
            if result == RunResult::Created || directory_empty {
                record.unfinished = false;
                record.places.clear();
            }
            record.host = None;
            record.method = None;
            record.last_result = serde_json::to_value(result)?.as_str().map(str::to_owned);
            Ok(())
        })
    }

    /// Records a native program that was started for this run. Call this before the program may write.
    ///
    /// # Errors
    /// Fails if the file cannot be written, or the run has too many programs. The program must not go on then.
    pub fn process_started(&self, process: ProcessIdentity) -> io::Result<()> {
        self.change(|record| {
            if record.processes.contains(&process) {
                return Ok(());
            }
            if record.processes.len() >= MOST_PROCESSES {
                let message =
                    format!("the run has {MOST_PROCESSES} native processes already, and may not have more");
                return Err(io::Error::new(io::ErrorKind::QuotaExceeded, message));
            }
            record.processes.push(process);
            Ok(())
        })
    }

    /// Records that a native program ended, with everything that it started.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn process_ended(&self, process: ProcessIdentity) -> io::Result<()> {
        self.change(|record| {
            record.processes.retain(|running| *running != process);
            Ok(())
        })
    }

    /// Returns the content of the file.
    pub fn record(&self) -> Record {
        self.locked().clone()
    }

    /// Returns whether the content of the directory is unfinished work.
    pub fn is_unfinished(&self) -> bool {
        self.locked().unfinished
    }

    /// Records that the content of these mapped directories is this program's own unfinished work too.
    pub(crate) fn set_own_places(&self, places: Vec<PlaceIdentity>) -> io::Result<()> {
        if self.locked().places == places {
            return Ok(());
        }
        self.change(|record| {
            record.places = places;
            Ok(())
        })
    }

    /// Changes the record on disk, and in memory only if that succeeded.
    fn change(&self, change: impl FnOnce(&mut Record) -> io::Result<()>) -> io::Result<()> {
        let mut record = self.locked();
        let mut changed = record.clone();
        change(&mut changed)?;
        let text = serde_json::to_vec_pretty(&changed)?;
        if text.len() as u64 > LONGEST {
            let message = format!("the state file {} would be longer than {LONGEST} bytes", self.name);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        self.directory.replace(&self.name, &text, 0o600)?;
        *record = changed;
        Ok(())
    }

    fn locked(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the state file of the data directory with this real path; `None` if there is no file.
///
/// A file that cannot be parsed is refused and not ignored: it may name processes that still write.
pub(crate) fn read(directory: &Directory, real_path: &Path) -> Result<Option<Record>, Refusal> {
    let name = file::name(real_path);
    let shown = directory.path().join(name.as_path());
    let refuse = |why: String| {
        let message = format!(
            "the state file {} {why}; it names the processes of an earlier run that may still write to {}: make sure that \
             none does, then remove the file",
            shown.display(),
            real_path.display()
        );
        Refusal::new(Rule::StateFile, message)
    };
    let bytes = match directory.read(&name, LONGEST) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refuse(format!("cannot be read: {error}"))),
    };
    let record: Record = serde_json::from_slice(&bytes)
        .map_err(|error| refuse(format!("is not what this program writes: {error}")))?;
    if record.version != record::VERSION {
        return Err(refuse(format!(
            "has version {}, and this program knows version {}",
            record.version,
            record::VERSION
        )));
    }
    if record.real_path != record::written(real_path.as_os_str().as_bytes()) {
        return Err(refuse(format!("is about {}", record.real_path)));
    }
    Ok(Some(record))
}

#[cfg(test)]
mod tests;
