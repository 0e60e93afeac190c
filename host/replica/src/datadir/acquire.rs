//! Locks a data directory for a run, or inspects it for `check`. Loop rules 22 to 26.

use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use foundation::rooted::Directory;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::places::{self, CreatedDirectories, MappedPlace, Place};
use super::{Contents, DataDirectory, FoundCluster, cluster, contents, server};
use crate::state::{self, DirectoryIdentity, PlaceIdentity, Record, RunProcess, State};
use crate::{Directories, Refusal, Rule};

/// How long to wait for the lock if no live run is known to hold it: a run that ends, or a process that is killed, releases it a moment
/// after the state file or `/proc` shows its end.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The time between two attempts to take the lock.
const INTERVAL: Duration = Duration::from_millis(20);

/// What a data directory holds, inspected without the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The kind of its content.
    pub contents: Contents,
    /// The cluster, if it holds one.
    pub cluster: Option<FoundCluster>,
}

impl DataDirectory {
    /// Checks that a run may touch the directory (rules 22 to 26), ends the leftover processes of a dead run, takes the lock and opens
    /// the state file. Creates the data directory and the mapped directories (0700) if they are missing and their parents exist. Removes
    /// the created directories after a refusal, and when the value is dropped, unless a method has worked in them. Blocking, for up to
    /// about 15 s if leftover processes are slow to die.
    ///
    /// The user must own the directories and may be root; the program has dropped root by then.
    ///
    /// # Errors
    /// Fails with the rule that refuses: `data directory` (the path is not a usable data directory, or the run may not touch it),
    /// `mapped place`, `state directory`, `state file`, `running server` or `in use` (by another run).
    pub fn acquire(directories: &Directories, state_dir: &Path, force: bool) -> Result<Self, Refusal> {
        let mut places = places::resolve(directories, state_dir)?;
        let place = places.remove(0);
        let state_files = state::open_directory(state_dir, true)?.ok_or_else(|| {
            Refusal::new(Rule::StateDirectory, format!("{} cannot be opened", state_dir.display()))
        })?;
        let mut made = CreatedDirectories::default();
        place.create(&mut made)?;
        let (directory, identity) = open(&place)?;
        let mut mapped = Vec::new();
        // Declared after `directory` and `mapped`, so that it is dropped while they still hold their locks: no other run can lock a
        // directory that is being removed.
        let mut made = made;
        let previous = take_lock(&place, &directory, identity.inode(), &state_files)?;
        place.refuse_removed(identity.inode())?;
        let judged = Judged::of(&place, &directory, &identity, previous, force)?;

        for (place, allowed_contents) in places::mapped(places) {
            place.create(&mut made)?;
            mapped.push(MappedPlace::take(place, allowed_contents, judged.own_places(&identity))?);
        }
        server::refuse_used(identity.inode(), &mapped)?;
        cluster::refuse_unlinked(&place.real, &mapped, force)?;
        let Judged { previous, was_unfinished, contents: _, cluster } = judged;
        let state = State::begin(state_files, &place.real, &identity, previous).map_err(|error| {
            Refusal::new(Rule::StateFile, format!("cannot write the run to the state file: {error}"))
        })?;
        Ok(Self {
            directory,
            real_path: place.real,
            inode: identity.inode(),
            mapped,
            state,
            cluster,
            was_unfinished,
            made: Mutex::new(made),
            emptied: AtomicBool::new(false),
        })
    }

    /// Does the same checks for `check`, without the lock and without creating, ending or changing anything.
    ///
    /// # Errors
    /// The errors of [`DataDirectory::acquire`], except for those that need the lock. Another run is recognized only by the state file.
    pub fn inspect(directories: &Directories, state_dir: &Path, force: bool) -> Result<Inspected, Refusal> {
        let mut places = places::resolve(directories, state_dir)?;
        let place = places.remove(0);
        let previous = match state::open_directory(state_dir, false)? {
            Some(files) => state::read(&files, &place.real)?,
            None => None,
        };
        if let Some(previous) = &previous {
            refuse_live_run(&place, previous)?;
        }
        let left = previous.as_ref().filter(|record| record.unfinished);
        let left = left.map(|record| record.places.clone()).unwrap_or_default();
        let opened = if place.exists { Some(open(&place)?) } else { None };
        let judged = match &opened {
            Some((directory, identity)) => Some(Judged::of(&place, directory, identity, previous, force)?),
            None => None,
        };
        let own_places = match (&opened, &judged) {
            (Some((_, identity)), Some(judged)) => judged.own_places(identity),
            _ => &left,
        };
        let mut mapped = Vec::new();
        for (place, allowed_contents) in places::mapped(places).filter(|(place, _)| place.exists) {
            mapped.push(MappedPlace::inspect(place, allowed_contents, own_places)?);
        }
        // (0, 0) stands for a directory that does not exist. No directory has inode 0, so no process is found in it.
        server::refuse_used(opened.map_or((0, 0), |(_, identity)| identity.inode()), &mapped)?;
        cluster::refuse_unlinked(&place.real, &mapped, force)?;
        Ok(judged.map_or(Inspected { contents: Contents::Nothing, cluster: None }, |judged| Inspected {
            contents: judged.contents,
            cluster: judged.cluster,
        }))
    }
}

fn open(place: &Place) -> Result<(Directory, DirectoryIdentity), Refusal> {
    let directory = place.open()?;
    let identity = DirectoryIdentity::of(&directory)
        .map_err(|error| place.refuse(format_args!("cannot be examined: {error}")))?;
    Ok((directory, identity))
}

/// What is known about a data directory that the run may touch.
struct Judged {
    /// The content of the state file, without the mark of unfinished work if the directory now holds a whole cluster.
    previous: Option<Record>,
    /// Whether the state file marks the directory as unfinished, even if the directory now holds a whole cluster.
    was_unfinished: bool,
    contents: Contents,
    cluster: Option<FoundCluster>,
}

impl Judged {
    /// Refuses a directory with a running server, or with content that is neither a cluster nor this program's (rule 25).
    fn of(
        place: &Place,
        directory: &Directory,
        identity: &DirectoryIdentity,
        mut previous: Option<Record>,
        force: bool,
    ) -> Result<Self, Refusal> {
        let failed = |error: io::Error| place.refuse(format_args!("cannot be examined: {error}"));
        let was_unfinished = previous.as_ref().is_some_and(|record| record.is_unfinished(identity));
        if let Some(record) = &mut previous
            && record.unfinished
            && !record.is_surely_about(identity)
            && directory.is_empty().map_err(failed)?
        {
            // Patroni removes an unfinished data directory, but not the mapped directories to which no link leads yet. The unfinished
            // content of these still counts as this program's, because each mapped directory is recognised by its own identity.
            record.set_directory(identity);
        }
        if let Some(record) = &mut previous
            && contents::is_whole(directory).map_err(failed)?
        {
            record.unfinished = false;
            record.places.clear();
        }
        let unfinished = previous.as_ref().is_some_and(|record| record.is_unfinished(identity));
        let contents = contents::of(directory, unfinished).map_err(failed)?;
        server::refuse_running(directory, was_unfinished)?;
        let cluster = match contents {
            Contents::Nothing | Contents::Unfinished => None,
            Contents::Cluster => Some(FoundCluster::read(directory)),
            Contents::Foreign if force => None,
            Contents::Foreign => return Err(foreign(place, identity, previous.as_ref())),
        };
        if let Some(cluster) = &cluster
            && !was_unfinished
        {
            cluster.refuse_unknown(directory, force)?;
        }
        if let Some(cluster) = &cluster {
            cluster.refuse_inner(directory, force)?;
        }
        Ok(Self { previous, was_unfinished, contents, cluster })
    }

    /// Returns the mapped directories that hold unfinished work on this data directory.
    fn own_places(&self, identity: &DirectoryIdentity) -> &[PlaceIdentity] {
        match &self.previous {
            Some(record) if record.is_unfinished(identity) => &record.places,
            Some(_) | None => &[],
        }
    }
}

/// Returns the refusal of content that is neither a cluster nor known to be this program's.
fn foreign(place: &Place, identity: &DirectoryIdentity, previous: Option<&Record>) -> Refusal {
    let unsure = previous.is_some_and(|record| record.unfinished && record.is_about(identity.inode()));
    let why = match (unsure, identity.can_be_recognised()) {
        (false, _) => "",
        (true, true) => " (the state file marks an older directory at this path as unfinished)",
        (true, false) => {
            " (its file system does not record when a directory was created, so that unfinished work in it cannot be distinguished \
             from other files)"
        }
    };
    place
        .refuse(format_args!(
            "holds files that are neither a PostgreSQL data directory (PG_VERSION, base, global) nor unfinished work of this \
             program{why}"
        ))
        .remedy("--force, if all of it may be removed")
}

/// Takes the lock of the directory, ends the processes that a dead run left running, and returns the content of the state file.
fn take_lock(
    place: &Place,
    directory: &Directory,
    inode: (u64, u64),
    state_files: &Directory,
) -> Result<Option<Record>, Refusal> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // Only the holder of the lock writes the file, so it cannot change any more.
                let record = state::read(state_files, &place.real)?;
                if let Some(record) = &record {
                    if !(record.is_of_this_process() && record.is_about(inode)) {
                        refuse_live_run(place, record)?;
                    }
                    end_leftover_processes(place, record)?;
                }
                return Ok(record);
            }
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => {
                let record = state::read(state_files, &place.real)?;
                if let Some(record) = &record {
                    refuse_live_run(place, record)?;
                    end_leftover_processes(place, record)?;
                }
                if Instant::now() >= deadline {
                    return Err(held_by_unknown(place, record.as_ref()));
                }
                std::thread::sleep(INTERVAL);
            }
            Err(errno) => {
                let error = io::Error::from(errno);
                return Err(place.refuse(format_args!(
                    "cannot be locked: {error}; its file system must support flock(2) on directories"
                )));
            }
        }
    }
}

fn end_leftover_processes(place: &Place, record: &Record) -> Result<(), Refusal> {
    let ended = record.end_leftover_processes().map_err(|error| {
        Refusal::new(Rule::InUse, format!("{} cannot be taken over: {error}", place.real.display()))
    })?;
    if ended > 0 {
        tracing::warn!(
            datadir = %place.real.display(),
            method = record.method.as_deref().unwrap_or_default(),
            processes = ended,
            "ended processes that a dead run had left running"
        );
    }
    Ok(())
}

/// Fails if the run that wrote the record still lives.
fn refuse_live_run(place: &Place, record: &Record) -> Result<(), Refusal> {
    let Some(host) = &record.host else { return Ok(()) };
    let living = record
        .is_of_this_namespace()
        .and_then(|ours| Ok(ours && host.process.is_running()?))
        .map_err(|error| {
            Refusal::new(Rule::InUse, format!("cannot check whether another run is at work: {error}"))
        })?;
    if !living {
        return Ok(());
    }
    Err(in_use(place, host, record.method.as_deref(), "end it or wait for it"))
}

fn in_use(place: &Place, host: &RunProcess, method: Option<&str>, advice: &str) -> Refusal {
    let doing =
        method.map_or("with no method yet".to_owned(), |method| format!("with the method `{method}`"));
    let message = format!(
        "another run, process {}, has been at work on {} since {:.0}, {doing}; {advice}",
        host.process.pid,
        place.real.display(),
        host.since
    );
    Refusal::new(Rule::InUse, message)
}

/// Returns the refusal of a directory whose lock is held by a process that cannot be identified from here.
fn held_by_unknown(place: &Place, record: Option<&Record>) -> Refusal {
    let shown = place.real.display();
    if let Some(record) = record
        && let Some(host) = &record.host
        && record.is_of_another_container().unwrap_or(false)
    {
        let advice = "the PID belongs to another container; end the run there";
        return in_use(place, host, record.method.as_deref(), advice);
    }
    let message = format!(
        "{shown} is locked by a process that the state file does not name, such as a program of an earlier run or a run with \
         another state_dir; `fuser -v {shown}` shows which"
    );
    Refusal::new(Rule::InUse, message)
}
