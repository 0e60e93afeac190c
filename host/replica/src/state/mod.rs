//! The state file: who runs on a data directory, since when, with which processes, and whether its work is whole. Semantics rule 26.
//! It lives under `state_dir`, neither beside nor inside the data directory, for pg_basebackup refuses a directory that holds even a dotfile.
//!
//! It is JSON, replaced as a whole (written beside, synced, renamed), so that a run that is killed at any moment
//! leaves either what it said before or what it says now.

mod file;
pub(crate) mod left_over;
pub(crate) mod process;
mod record;

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foundation::rooted::{Directory, RelativePath};

use crate::{Refusal, Rule, RunResult};
pub use process::ProcessStamp;
pub use record::{DirectoryStamp, HostStamp, PlaceStamp, Record};

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
    /// Takes the state file over for this run; the caller holds the lock. `previous` is what the file said, and what
    /// it says of unfinished work stays where it is about the same directory and the same mapped places.
    pub(crate) fn begin(
        directory: Directory,
        real_path: &Path,
        stamp: &DirectoryStamp,
        previous: Option<Record>,
    ) -> io::Result<Self> {
        let mut record = Record::of_this_process(real_path, stamp)?;
        if let Some(previous) = previous
            && previous.is_surely_about(stamp)
        {
            record.unfinished = previous.unfinished;
            record.places = previous.places;
            record.last_result = previous.last_result;
        }
        let state = Self { directory, name: file::name(real_path), record: Mutex::new(record) };
        state.change(|_| Ok(()))?;
        Ok(state)
    }

    /// The run has come to this method, which may find the directory as it was.
    ///
    /// # Errors
    /// Where it cannot be put on disk.
    pub fn comes_to(&self, method: &str) -> io::Result<()> {
        self.change(|record| {
            record.method = Some(method.to_owned());
            Ok(())
        })
    }

    /// From here until [`State::finished`] what is in the directory is unfinished work.
    ///
    /// # Errors
    /// Where it cannot be put on disk: nothing may be removed then.
    pub fn unfinished(&self, method: &str) -> io::Result<()> {
        self.change(|record| {
            record.unfinished = true;
            record.method = Some(method.to_owned());
            Ok(())
        })
    }

    /// The run ended. `created` clears the unfinished mark; anything else keeps what was said of the directory, unless nothing is left in it.
    ///
    /// # Errors
    /// Where it cannot be put on disk: the next run then finds what the file said before, and is the more careful for it.
    pub fn finished(&self, result: RunResult, directory_empty: bool) -> io::Result<()> {
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

    /// A native program was started for this run; said before it may write.
    ///
    /// # Errors
    /// Where it cannot be put on disk: the program must then not go on.
    pub fn process_started(&self, process: ProcessStamp) -> io::Result<()> {
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

    /// It ended, with everything it started.
    ///
    /// # Errors
    /// Where it cannot be put on disk.
    pub fn process_ended(&self, process: ProcessStamp) -> io::Result<()> {
        self.change(|record| {
            record.processes.retain(|running| *running != process);
            Ok(())
        })
    }

    /// What the file says now.
    pub fn record(&self) -> Record {
        self.locked().clone()
    }

    /// Whether what is in the directory is unfinished work.
    pub fn is_unfinished(&self) -> bool {
        self.locked().unfinished
    }

    /// From here on what is in these mapped places is this program's own work too.
    pub(crate) fn own_places(&self, places: Vec<PlaceStamp>) -> io::Result<()> {
        if self.locked().places == places {
            return Ok(());
        }
        self.change(|record| {
            record.places = places;
            Ok(())
        })
    }

    /// Changes the record on disk, and in memory only where that succeeded.
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

/// What the state file of the data directory with this real path says; none where there is no file.
///
/// A file that cannot be read as one is refused rather than passed by: it may name processes that still write.
pub(crate) fn read(directory: &Directory, real_path: &Path) -> Result<Option<Record>, Refusal> {
    let name = file::name(real_path);
    let shown = directory.path().join(name.as_path());
    let refuse = |why: String| {
        let message = format!(
            "the state file {} {why}; it says which processes of an earlier run may still write to {}: see that \
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
