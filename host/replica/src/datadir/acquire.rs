//! Taking a data directory for a run. Semantics rules 22 to 26.

use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use foundation::rooted::Directory;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::places::{self, Made, MappedPlace, Place};
use super::{Contents, DataDirectory, FoundCluster, cluster, contents, server};
use crate::state::{self, DirectoryStamp, HostStamp, PlaceStamp, Record, State};
use crate::{Directories, Refusal, Rule};

/// How long the lock is waited for where no live run is known to hold it: a run that ends lets go of it a moment after it
/// said so, a process that is killed a moment after it is dead.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often it is tried meanwhile.
const INTERVAL: Duration = Duration::from_millis(20);

/// What a data directory holds, seen without taking it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The kind of it.
    pub contents: Contents,
    /// The cluster, where it is one.
    pub cluster: Option<FoundCluster>,
}

impl DataDirectory {
    /// Checks that the directory may be touched (rules 22 to 26), ends left-over processes of a dead run, takes the
    /// lock, opens the state file. Creates the directory and the mapped ones (0700) where they are missing and their parents
    /// exist; they go again with this, or where it is refused, unless a method has worked in them. Blocking, for up to some 15 s where
    /// left-over processes are slow to die.
    ///
    /// Works as any user, root too, that owns the directories; the program has dropped root by then.
    ///
    /// # Errors
    /// The rule that says no: `data directory` (not one, or not ours to touch), `mapped place`, `state directory`, `state file`,
    /// `running server`, `in use` (another run).
    pub fn acquire(directories: &Directories, state_dir: &Path, force: bool) -> Result<Self, Refusal> {
        let mut places = places::resolve(directories, state_dir)?;
        let place = places.remove(0);
        let state_files = state::open_directory(state_dir, true)?.ok_or_else(|| {
            Refusal::new(Rule::StateDirectory, format!("{} cannot be opened", state_dir.display()))
        })?;
        let mut made = Made::default();
        place.create(&mut made)?;
        let (directory, stamp) = open(&place)?;
        let mut mapped = Vec::new();
        // Dropped before the locks are let go of, so that nobody takes a directory that is just being removed.
        let mut made = made;
        let previous = take_lock(&place, &directory, stamp.identity(), &state_files)?;
        place.refuse_removed(stamp.identity())?;
        let judged = Judged::of(&place, &directory, &stamp, previous, force)?;

        for (place, may_hold) in places::mapped(places) {
            place.create(&mut made)?;
            mapped.push(MappedPlace::take(place, may_hold, judged.own_places(&stamp))?);
        }
        server::refuse_used(stamp.identity(), &mapped)?;
        cluster::refuse_strangers(&place.real, &mapped, force)?;
        let Judged { previous, marked, contents: _, cluster } = judged;
        let state = State::begin(state_files, &place.real, &stamp, previous).map_err(|error| {
            Refusal::new(Rule::StateFile, format!("the run cannot be written down: {error}"))
        })?;
        Ok(Self {
            directory,
            real_path: place.real,
            identity: stamp.identity(),
            mapped,
            state,
            cluster,
            marked,
            made: Mutex::new(made),
            worked_in: AtomicBool::new(false),
        })
    }

    /// The same checks without the lock and without creating, ending or changing anything, for `check`.
    ///
    /// # Errors
    /// As [`DataDirectory::acquire`], as far as can be told without the lock: another run by what the state file says of it.
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
            Some((directory, stamp)) => Some(Judged::of(&place, directory, stamp, previous, force)?),
            None => None,
        };
        let own_places = match (&opened, &judged) {
            (Some((_, stamp)), Some(judged)) => judged.own_places(stamp),
            _ => &left,
        };
        let mut mapped = Vec::new();
        for (place, may_hold) in places::mapped(places).filter(|(place, _)| place.exists) {
            mapped.push(MappedPlace::look(place, may_hold, own_places)?);
        }
        // No directory has inode 0, so that nothing stands in one that is not there.
        server::refuse_used(opened.map_or((0, 0), |(_, stamp)| stamp.identity()), &mapped)?;
        cluster::refuse_strangers(&place.real, &mapped, force)?;
        Ok(judged.map_or(Inspected { contents: Contents::Nothing, cluster: None }, |judged| Inspected {
            contents: judged.contents,
            cluster: judged.cluster,
        }))
    }
}

fn open(place: &Place) -> Result<(Directory, DirectoryStamp), Refusal> {
    let directory = place.open()?;
    let stamp = DirectoryStamp::of(&directory)
        .map_err(|error| place.refuse(format_args!("cannot be looked at: {error}")))?;
    Ok((directory, stamp))
}

/// A data directory that may be touched, and what is known of it.
struct Judged {
    /// What the state file said, without what it said of unfinished work where a whole cluster is there by now.
    previous: Option<Record>,
    /// Whether it said so of unfinished work, whatever is there by now.
    marked: bool,
    contents: Contents,
    cluster: Option<FoundCluster>,
}

impl Judged {
    /// Rule 25: no server, and nothing in it that is neither a cluster nor this program's.
    fn of(
        place: &Place,
        directory: &Directory,
        stamp: &DirectoryStamp,
        mut previous: Option<Record>,
        force: bool,
    ) -> Result<Self, Refusal> {
        let failed = |error: io::Error| place.refuse(format_args!("cannot be looked at: {error}"));
        let marked = previous.as_ref().is_some_and(|record| record.is_unfinished(stamp));
        if let Some(record) = &mut previous
            && record.unfinished
            && !record.is_surely_about(stamp)
            && directory.is_empty().map_err(failed)?
        {
            // Patroni removes a data directory that was not finished, and knows nothing of mapped places to which no link leads yet:
            // what is unfinished there stays this program's, for each place is recognised by itself.
            record.is_now_about(stamp);
        }
        if let Some(record) = &mut previous
            && contents::is_whole(directory).map_err(failed)?
        {
            record.unfinished = false;
            record.places.clear();
        }
        let unfinished = previous.as_ref().is_some_and(|record| record.is_unfinished(stamp));
        let contents = contents::of(directory, unfinished).map_err(failed)?;
        server::refuse_running(directory, marked)?;
        let cluster = match contents {
            Contents::Nothing | Contents::Unfinished => None,
            Contents::Cluster => Some(FoundCluster::look(directory)),
            Contents::Foreign if force => None,
            Contents::Foreign => return Err(foreign(place, stamp, previous.as_ref())),
        };
        if let Some(cluster) = &cluster
            && !marked
        {
            cluster.refuse_unknown(directory, force)?;
        }
        if let Some(cluster) = &cluster {
            cluster.refuse_inner(directory, force)?;
        }
        Ok(Self { previous, marked, contents, cluster })
    }

    /// The mapped places whose contents are unfinished work on this data directory.
    fn own_places(&self, stamp: &DirectoryStamp) -> &[PlaceStamp] {
        match &self.previous {
            Some(record) if record.is_unfinished(stamp) => &record.places,
            Some(_) | None => &[],
        }
    }
}

/// The refusal of what is neither a cluster nor known to be this program's.
fn foreign(place: &Place, stamp: &DirectoryStamp, previous: Option<&Record>) -> Refusal {
    let unsure = previous.is_some_and(|record| record.unfinished && record.is_about(stamp.identity()));
    let why = match (unsure, stamp.can_be_recognised()) {
        (false, _) => "",
        (true, true) => " (the state file's unfinished work was in a directory that was made earlier)",
        (true, false) => {
            " (its file system does not say when a directory was made, so that unfinished work in it cannot be told from what \
             another has put there)"
        }
    };
    place
        .refuse(format_args!(
            "holds something that is no PostgreSQL data directory (PG_VERSION, base, global) and that this program did not \
             leave{why}"
        ))
        .remedy("--force, if all of it may be removed")
}

/// Takes the lock of the directory, after ending what a dead run left running, and gives what the state file says then.
fn take_lock(
    place: &Place,
    directory: &Directory,
    identity: (u64, u64),
    state_files: &Directory,
) -> Result<Option<Record>, Refusal> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match rustix::fs::flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // Only who holds the lock writes the file, so that it stays as it is read now.
                let record = state::read(state_files, &place.real)?;
                if let Some(record) = &record {
                    if !(record.is_of_this_process() && record.is_about(identity)) {
                        refuse_live_run(place, record)?;
                    }
                    end_left_over(place, record)?;
                }
                return Ok(record);
            }
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) => {
                let record = state::read(state_files, &place.real)?;
                if let Some(record) = &record {
                    refuse_live_run(place, record)?;
                    end_left_over(place, record)?;
                }
                if Instant::now() >= deadline {
                    return Err(held_by_unknown(place, record.as_ref()));
                }
                std::thread::sleep(INTERVAL);
            }
            Err(errno) => {
                let error = io::Error::from(errno);
                return Err(place.refuse(format_args!(
                    "cannot be locked: {error}; its file system must know flock(2) on directories"
                )));
            }
        }
    }
}

fn end_left_over(place: &Place, record: &Record) -> Result<(), Refusal> {
    let ended = record.end_left_over_processes().map_err(|error| {
        Refusal::new(Rule::InUse, format!("{} cannot be taken over: {error}", place.real.display()))
    })?;
    if ended > 0 {
        tracing::warn!(
            datadir = %place.real.display(),
            method = record.method.as_deref().unwrap_or_default(),
            processes = ended,
            "ended what a dead run had left running"
        );
    }
    Ok(())
}

/// Refuses where the run that wrote the record still lives.
fn refuse_live_run(place: &Place, record: &Record) -> Result<(), Refusal> {
    let Some(host) = &record.host else { return Ok(()) };
    let living =
        record.is_of_these_processes().and_then(|ours| Ok(ours && host.process.is_running()?)).map_err(
            |error| Refusal::new(Rule::InUse, format!("cannot see whether another run is at work: {error}")),
        )?;
    if !living {
        return Ok(());
    }
    Err(in_use(place, host, record.method.as_deref(), "end it or wait for it"))
}

fn in_use(place: &Place, host: &HostStamp, method: Option<&str>, advice: &str) -> Refusal {
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

/// The refusal where the lock is held and no run that can be seen here holds it.
fn held_by_unknown(place: &Place, record: Option<&Record>) -> Refusal {
    let shown = place.real.display();
    if let Some(record) = record
        && let Some(host) = &record.host
        && record.is_of_another_container().unwrap_or(false)
    {
        let advice = "its process is numbered in another container, where it must be ended";
        return in_use(place, host, record.method.as_deref(), advice);
    }
    let message = format!(
        "{shown} is locked by a process that no state file names: perhaps a program of an earlier run, perhaps a run \
         with another state_dir; `fuser -v {shown}` shows which"
    );
    Refusal::new(Rule::InUse, message)
}
