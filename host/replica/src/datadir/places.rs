//! The operator's directories: what may be one, that none lies in another. Semantics rules 23 and 24.

use std::fmt;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use foundation::rooted::{Directory, RelativePath};
use rustix::fs::{Access, AtFlags, CWD, FlockOperation};

use super::apart;
use super::contents::{LOST_AND_FOUND, MayHold};
use crate::mounts::real_path;
use crate::state::{DirectoryStamp, PlaceStamp};
use crate::{Directories, Refusal, Rule, TablespaceKey};

/// What a directory of the operator's is for, with the words that the configuration has for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    DataDirectory,
    Wal,
    Tablespace(TablespaceKey),
}

impl Role {
    /// The line of configuration that gives it another directory.
    fn line(&self) -> String {
        match self {
            Self::DataDirectory => "[replica] datadir = \"<directory>\"".to_owned(),
            Self::Wal => "[replica] wal_dir = \"<directory>\"".to_owned(),
            Self::Tablespace(key) => {
                let key = match key {
                    TablespaceKey::Location(path) => path.display().to_string(),
                    TablespaceKey::Oid(oid) => oid.to_string(),
                    TablespaceKey::Name(name) => name.clone(),
                };
                format!("[replica] tablespaces = {{ {key:?} = \"<directory>\" }}")
            }
        }
    }

    fn may_hold(&self) -> Option<MayHold> {
        match self {
            Self::DataDirectory => None,
            Self::Wal => Some(MayHold::Wal),
            Self::Tablespace(_) => Some(MayHold::TablespaceFolders),
        }
    }

    fn rule(&self) -> Rule {
        match self {
            Self::DataDirectory => Rule::DataDirectory,
            Self::Wal | Self::Tablespace(_) => Rule::MappedPlace,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataDirectory => f.write_str("the data directory"),
            Self::Wal => f.write_str("the WAL directory"),
            Self::Tablespace(TablespaceKey::Location(path)) => {
                write!(f, "the place of tablespace `{}`", path.display())
            }
            Self::Tablespace(TablespaceKey::Oid(oid)) => write!(f, "the place of tablespace {oid}"),
            Self::Tablespace(TablespaceKey::Name(name)) => write!(f, "the place of tablespace `{name}`"),
        }
    }
}

/// A directory of the operator's that is there or can be created.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) role: Role,
    written: PathBuf,
    /// Links resolved.
    pub(super) real: PathBuf,
    pub(super) exists: bool,
}

impl Place {
    /// Resolves a directory as the operator wrote it.
    fn resolve(role: Role, written: &Path) -> Result<Self, Refusal> {
        let shown = written.display();
        let refuse = |what: String| {
            Err(Refusal::new(role.rule(), format!("{role}, {shown}, {what}")).remedy(role.line()))
        };
        if !written.is_absolute() {
            return refuse("is not an absolute path".to_owned());
        }
        let kind = match written.symlink_metadata() {
            Ok(metadata) => Some(metadata.file_type()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return refuse(format!("cannot be looked at: {error}")),
        };
        match kind {
            Some(kind) => match written.canonicalize().and_then(|real| Ok((real.metadata()?.is_dir(), real)))
            {
                Ok((_, real)) if real.parent().is_none() => {
                    refuse("is the root of the file system".to_owned())
                }
                Ok((true, real)) => Ok(Self { role, written: written.to_owned(), real, exists: true }),
                Ok((false, _)) if kind.is_symlink() => {
                    refuse("is a link to something that is no directory".to_owned())
                }
                Ok((false, _)) => refuse("is not a directory; move it away or name another".to_owned()),
                Err(error) if kind.is_symlink() && error.kind() == io::ErrorKind::NotFound => {
                    refuse("is a link to nothing; create what it points to, or remove the link".to_owned())
                }
                Err(error) => refuse(format!("cannot be looked at: {error}")),
            },
            None => {
                let (Some(parent), Some(name)) = (written.parent(), written.file_name()) else {
                    return refuse("does not exist and ends in `..`".to_owned());
                };
                let parent = match parent.canonicalize() {
                    Ok(parent) => parent,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return refuse(format!(
                            "does not exist, nor does {}; create that, or mount what belongs there",
                            parent.display()
                        ));
                    }
                    Err(error) => return refuse(format!("cannot be looked at: {error}")),
                };
                if let Err(errno) =
                    rustix::fs::accessat(CWD, &parent, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
                {
                    return refuse(format!(
                        "does not exist and cannot be created in {}: {}",
                        parent.display(),
                        io::Error::from(errno)
                    ));
                }
                Ok(Self { role, written: written.to_owned(), real: parent.join(name), exists: false })
            }
        }
    }

    /// A refusal about it that ends with the line to change.
    pub(super) fn refuse(&self, what: impl fmt::Display) -> Refusal {
        let message = format!("{}, {}, {what}", self.role, self.written.display());
        Refusal::new(self.role.rule(), message).remedy(self.role.line())
    }

    /// Creates it (0700) where it is missing, which `made` takes down, and has its name on disk.
    pub(super) fn create(&self, made: &mut Made) -> Result<(), Refusal> {
        if self.exists {
            return Ok(());
        }
        let made_now = |()| made.0.push(self.real.clone());
        let created = std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.real)
            .map(made_now)
            .and_then(|()| self.real.parent().map_or(Ok(()), |parent| Directory::open(parent)?.sync()));
        created.map_err(|error| self.refuse(format_args!("cannot be created: {error}")))
    }

    /// Refuses a directory, locked by now, that is no longer at its path: who held the lock may have made it and, refused, removed it.
    pub(super) fn refuse_removed(&self, identity: (u64, u64)) -> Result<(), Refusal> {
        let there = Directory::open(&self.real).and_then(|directory| directory.own_metadata());
        if there.is_ok_and(|metadata| metadata.identity() == identity) {
            return Ok(());
        }
        let message = format!(
            "{}, {}, was removed while this run waited for its lock; try again",
            self.role,
            self.real.display()
        );
        Err(Refusal::new(Rule::InUse, message))
    }

    /// Opens it and checks what holds of every directory that is filled: it belongs to this user and is no file system's root with
    /// `lost+found` in it, which pg_basebackup would refuse (rule 22).
    pub(super) fn open(&self) -> Result<Directory, Refusal> {
        let failed = |error: io::Error| self.refuse(format_args!("cannot be used: {error}"));
        let directory = Directory::open(&self.real).map_err(failed)?;
        let metadata = directory.own_metadata().map_err(failed)?;
        let user = rustix::process::geteuid().as_raw();
        if metadata.user != user {
            return Err(self.refuse(format_args!(
                "belongs to user {}, and this program runs as user {user}, as the server will; `chown` it or run as its owner",
                metadata.user
            )));
        }
        if directory.find(&RelativePath::literal(LOST_AND_FOUND)).map_err(failed)?.is_some() {
            return Err(self.refuse(format_args!(
                "holds `{LOST_AND_FOUND}`: it is the root of a file system; use a sub-directory of it"
            )));
        }
        Ok(directory)
    }
}

/// Directories that this run made. Those that are still empty go when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Made(Vec<PathBuf>);

impl Made {
    /// They stay.
    pub(super) fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            // One that is not empty stays, and so does one that cannot be removed: it does no harm.
            let _ = std::fs::remove_dir(path);
        }
    }
}

/// Resolves every directory that the operator named and checks that none is, holds or lies in another or the state
/// directory. The data directory comes first. Entries of the map with one target are one place: whether a
/// backup has tablespaces for more than one of them only its plan tells.
pub(super) fn resolve(directories: &Directories, state_dir: &Path) -> Result<Vec<Place>, Refusal> {
    let mut places = vec![Place::resolve(Role::DataDirectory, &directories.datadir)?];
    if let Some(wal) = &directories.wal {
        places.push(Place::resolve(Role::Wal, wal)?);
    }
    for (key, target) in directories.tablespaces.entries() {
        let place = Place::resolve(Role::Tablespace(key.clone()), target)?;
        let known = |other: &Place| matches!(other.role, Role::Tablespace(_)) && other.real == place.real;
        if !places.iter().any(known) {
            places.push(place);
        }
    }
    for (index, one) in places.iter().enumerate() {
        for other in &places[..index] {
            if lies_in(&one.real, &other.real) || lies_in(&other.real, &one.real) {
                let how = if one.real == other.real { "are one directory" } else { "lie one in the other" };
                return Err(one.refuse(format_args!(
                    "and {}, {}, {how}; each needs a directory of its own",
                    other.role,
                    other.written.display()
                )));
            }
        }
        // What a method writes must not become this program's own state, nor the reverse.
        let (what, why) = if lies_in(state_dir, &one.real) {
            ("lies in", "which is emptied")
        } else if lies_in(&one.real, state_dir) {
            ("holds", "which methods write to")
        } else {
            continue;
        };
        let message = format!(
            "the directory for state files, {}, {what} {}, {}, {why}; it must lie elsewhere",
            state_dir.display(),
            one.role,
            one.written.display()
        );
        return Err(
            Refusal::new(Rule::StateDirectory, message).remedy("[replica] state_dir = \"<directory>\"")
        );
    }
    refuse_inside_cluster(directories, state_dir)?;
    Ok(places)
}

/// Refuses directories of the operator's and a state directory that lie inside a cluster, whatever is in them: the server there, or
/// whoever removes it, would remove them too, and a backup of it would have them in it.
pub(super) fn refuse_inside_cluster(directories: &Directories, state_dir: &Path) -> Result<(), Refusal> {
    let own = [(Role::DataDirectory, directories.datadir.as_path())];
    let wal = directories.wal.iter().map(|wal| (Role::Wal, wal.as_path()));
    let tablespaces =
        directories.tablespaces.entries().map(|(key, target)| (Role::Tablespace(key.clone()), target));
    for (role, path) in own.into_iter().chain(wal).chain(tablespaces) {
        if let Some(around) = apart::cluster_around(path) {
            let message = format!("{role}, {}, lies {around}", path.display());
            return Err(Refusal::new(role.rule(), message).remedy(role.line()));
        }
    }
    match apart::cluster_of(state_dir) {
        None => Ok(()),
        Some(around) => {
            let message = format!("the directory for state files, {}, lies {around}", state_dir.display());
            Err(Refusal::new(Rule::StateDirectory, message).remedy("[replica] state_dir = \"<directory>\""))
        }
    }
}

/// Whether `inner` is `outer` or lies in it, by name or, where one directory can be reached by several names (bind
/// mounts), by what is found on the way up.
pub(super) fn lies_in(inner: &Path, outer: &Path) -> bool {
    let inner = real_path(inner);
    if inner.starts_with(outer) {
        return true;
    }
    let Ok(outer) = outer.metadata() else { return false };
    inner
        .ancestors()
        .filter_map(|ancestor| ancestor.metadata().ok())
        .any(|ancestor| (ancestor.dev(), ancestor.ino()) == (outer.dev(), outer.ino()))
}

/// A directory outside the data directory that the operator mapped, opened and held by the run.
#[derive(Debug)]
pub struct MappedPlace {
    place: Place,
    directory: Directory,
    directory_stamp: DirectoryStamp,
    may_hold: MayHold,
    own_work: AtomicBool,
}

impl MappedPlace {
    /// Opens the place, takes its lock, so that no run on another data directory works in it too, and checks what it holds.
    ///
    /// `unfinished`: the places of which the state file says that what they hold is this program's own work.
    pub(super) fn take(place: Place, may_hold: MayHold, unfinished: &[PlaceStamp]) -> Result<Self, Refusal> {
        let mapped = Self::look(place, may_hold, unfinished)?;
        match rustix::fs::flock(&mapped.directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => mapped.place.refuse_removed(mapped.identity()).map(|()| mapped),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(mapped.place.refuse("is held by a run on another data directory; each needs its own"))
            }
            Err(errno) => {
                Err(mapped.place.refuse(format_args!("cannot be locked: {}", io::Error::from(errno))))
            }
        }
    }

    /// The same without the lock.
    pub(super) fn look(place: Place, may_hold: MayHold, unfinished: &[PlaceStamp]) -> Result<Self, Refusal> {
        let directory = place.open()?;
        let directory_stamp = DirectoryStamp::of(&directory)
            .map_err(|error| place.refuse(format_args!("cannot be used: {error}")))?;
        let stamp = PlaceStamp::new(&place.real, &directory_stamp);
        let own_work = AtomicBool::new(unfinished.iter().any(|known| known.is_same(&stamp)));
        let mapped = Self { place, directory, directory_stamp, may_hold, own_work };
        mapped.refuse_foreign()?;
        Ok(mapped)
    }

    /// Refuses what is not PostgreSQL's (rule 24), unless a method of this program wrote it.
    pub(super) fn refuse_foreign(&self) -> Result<(), Refusal> {
        if self.is_own_work() {
            return Ok(());
        }
        match self.may_hold.foreign(&self.directory) {
            Ok(None) => Ok(()),
            Ok(Some(foreign)) => Err(self.place.refuse(format_args!(
                "holds {foreign}, which no replica put there and which would stand in its way; empty it by hand or \
                 name another directory"
            ))),
            Err(error) => Err(self.place.refuse(format_args!("cannot be read: {error}"))),
        }
    }

    /// Whether all that it holds is this program's own unfinished work: it was seen to hold nothing foreign before the
    /// first method wrote, and no replica was finished since.
    pub(super) fn is_own_work(&self) -> bool {
        self.own_work.load(Ordering::Acquire)
    }

    pub(super) fn now_own_work(&self) {
        self.own_work.store(true, Ordering::Release);
    }

    /// Whether emptying removes the entry of this name.
    pub(super) fn is_emptied_of(&self, name: &std::ffi::OsStr) -> bool {
        self.is_own_work() || self.may_hold.allows_name(name)
    }

    pub(super) fn refuse(&self, what: impl fmt::Display) -> Refusal {
        self.place.refuse(what)
    }

    pub(super) fn stamp(&self) -> PlaceStamp {
        PlaceStamp::new(&self.place.real, &self.directory_stamp)
    }

    pub(super) fn identity(&self) -> (u64, u64) {
        self.directory_stamp.identity()
    }

    /// Whether it is the WAL directory; otherwise it is a tablespace's.
    pub fn is_wal(&self) -> bool {
        self.may_hold == MayHold::Wal
    }

    /// Its path as the operator wrote it.
    pub fn path(&self) -> &Path {
        &self.place.written
    }

    /// Its real path (links resolved).
    pub fn real_path(&self) -> &Path {
        &self.place.real
    }

    /// The opened directory.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }
}

/// Which places are mapped ones, with what each may hold.
pub(super) fn mapped(places: Vec<Place>) -> impl Iterator<Item = (Place, MayHold)> {
    places.into_iter().filter_map(|place| place.role.may_hold().map(|may_hold| (place, may_hold)))
}
