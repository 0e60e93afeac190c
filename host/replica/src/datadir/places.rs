//! The operator's directories: each must be usable, and none may lie in another. Loop rules 23 and 24.

use std::fmt;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use foundation::rooted::{Directory, RelativePath};
use rustix::fs::{Access, AtFlags, CWD, FlockOperation};

use super::contents::{AllowedContents, LOST_AND_FOUND};
use super::enclosing_cluster;
use crate::mounts::{Location, Mounts, links_and_end};
use crate::state::{DirectoryIdentity, PlaceIdentity};
use crate::{Directories, Refusal, Rule, TablespaceKey};

/// The purpose of one of the operator's directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    DataDirectory,
    Wal,
    Tablespace(TablespaceKey),
}

impl Role {
    /// Returns the line of configuration that names another directory.
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

    fn allowed_contents(&self) -> Option<AllowedContents> {
        match self {
            Self::DataDirectory => None,
            Self::Wal => Some(AllowedContents::Wal),
            Self::Tablespace(_) => Some(AllowedContents::TablespaceFolders),
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

/// One of the operator's directories, which exists or can be created.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) role: Role,
    written: PathBuf,
    /// The path with its links resolved.
    pub(super) real: PathBuf,
    pub(super) exists: bool,
}

impl Place {
    /// Resolves the path of a directory as the operator wrote it.
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
            Err(error) => return refuse(format!("cannot be examined: {error}")),
        };
        match kind {
            Some(kind) => match written.canonicalize().and_then(|real| Ok((real.metadata()?.is_dir(), real)))
            {
                Ok((_, real)) if real.parent().is_none() => {
                    refuse("is the root of the file system".to_owned())
                }
                Ok((true, real)) => Ok(Self { role, written: written.to_owned(), real, exists: true }),
                Ok((false, _)) if kind.is_symlink() => {
                    refuse("is a link to something that is not a directory".to_owned())
                }
                Ok((false, _)) => refuse("is not a directory; move it away or name another".to_owned()),
                Err(error) if kind.is_symlink() && error.kind() == io::ErrorKind::NotFound => {
                    refuse("is a link to nothing; create what it points to, or remove the link".to_owned())
                }
                Err(error) => refuse(format!("cannot be examined: {error}")),
            },
            None => {
                let (Some(parent), Some(name)) = (written.parent(), written.file_name()) else {
                    return refuse("does not exist and ends in `..`".to_owned());
                };
                let parent = match parent.canonicalize() {
                    Ok(parent) => parent,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return refuse(format!(
                            "does not exist, nor does {}; create that directory, or mount its file system",
                            parent.display()
                        ));
                    }
                    Err(error) => return refuse(format!("cannot be examined: {error}")),
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

    /// Returns a refusal about the directory, with the line to change.
    pub(super) fn refuse(&self, what: impl fmt::Display) -> Refusal {
        let message = format!("{}, {}, {what}", self.role, self.written.display());
        Refusal::new(self.role.rule(), message).remedy(self.role.line())
    }

    /// Creates the directory (0700) if it is missing, adds it to `made`, and syncs its parent.
    pub(super) fn create(&self, made: &mut CreatedDirectories) -> Result<(), Refusal> {
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

    /// Refuses a locked directory that is no longer at its path: the run that held the lock before may have created the directory, and
    /// removed it after a refusal.
    pub(super) fn refuse_removed(&self, inode: (u64, u64)) -> Result<(), Refusal> {
        let there = Directory::open(&self.real).and_then(|directory| directory.own_metadata());
        if there.is_ok_and(|metadata| metadata.identity() == inode) {
            return Ok(());
        }
        let message = format!(
            "{}, {}, was removed while this run waited for its lock; try again",
            self.role,
            self.real.display()
        );
        Err(Refusal::new(Rule::InUse, message))
    }

    /// Opens the directory and checks that it belongs to this user and is not the root of a file system with `lost+found` in it, which
    /// pg_basebackup would refuse (rule 22).
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

/// Directories that this run created. Those that are still empty are removed when this value is dropped.
#[derive(Debug, Default)]
pub(super) struct CreatedDirectories(Vec<PathBuf>);

impl CreatedDirectories {
    /// Keeps all of them.
    pub(super) fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for CreatedDirectories {
    fn drop(&mut self) {
        for path in &self.0 {
            // A directory that is not empty, or cannot be removed, stays and does no harm.
            let _ = std::fs::remove_dir(path);
        }
    }
}

/// Resolves every directory that the operator named, the data directory first, and checks that they do not overlap each other or the state
/// directory. Several entries of the map with the same target count as one place: only a plan shows whether the backup has a tablespace for
/// more than one of these entries.
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
                let how =
                    if one.real == other.real { "are one directory" } else { "lie one inside the other" };
                return Err(one.refuse(format_args!(
                    "and {}, {}, {how}; each needs a directory of its own",
                    other.role,
                    other.written.display()
                )));
            }
        }
        // A method must not be able to write state files, and emptying must not remove them.
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

/// Refuses directories of the operator and a state directory that lie inside a cluster, even if they are empty: they would be removed with
/// that cluster, and a backup of it would contain them.
pub(super) fn refuse_inside_cluster(directories: &Directories, state_dir: &Path) -> Result<(), Refusal> {
    let own = [(Role::DataDirectory, directories.datadir.as_path())];
    let wal = directories.wal.iter().map(|wal| (Role::Wal, wal.as_path()));
    let tablespaces =
        directories.tablespaces.entries().map(|(key, target)| (Role::Tablespace(key.clone()), target));
    for (role, path) in own.into_iter().chain(wal).chain(tablespaces) {
        if let Some(around) = enclosing_cluster::cluster_enclosing(path) {
            let message = format!("{role}, {}, lies {around}", path.display());
            return Err(Refusal::new(role.rule(), message).remedy(role.line()));
        }
    }
    match enclosing_cluster::cluster_of(state_dir) {
        None => Ok(()),
        Some(around) => {
            let message = format!("the directory for state files, {}, lies {around}", state_dir.display());
            Err(Refusal::new(Rule::StateDirectory, message).remedy("[replica] state_dir = \"<directory>\""))
        }
    }
}

/// Returns whether `inner` is `outer` or lies in it, even if links or mounts give it another path.
pub(super) fn lies_in(inner: &Path, outer: &Path) -> bool {
    let mounts = Mounts::of_this_process();
    Location::of(inner, &mounts).lies_in(&Location::of(outer, &mounts))
}

/// Returns whether a path leads nowhere once `outer` is emptied, because its end or a symbolic link on the way lies in `outer`.
pub(super) fn goes_with(path: &Path, outer: &Path) -> bool {
    let mut links = links_and_end(path);
    links.pop().is_some_and(|end| lies_in(&end, outer))
        || links.iter().filter_map(|link| link.parent()).any(|directory| lies_in(directory, outer))
}

/// A directory outside the data directory that the operator mapped, opened and locked by the run.
#[derive(Debug)]
pub struct MappedPlace {
    place: Place,
    directory: Directory,
    directory_identity: DirectoryIdentity,
    allowed_contents: AllowedContents,
    own_work: AtomicBool,
}

impl MappedPlace {
    /// Opens the directory, checks what it holds, and locks it, so that no run on another data directory uses it too.
    ///
    /// `unfinished` lists the directories that hold unfinished work of this program according to the state file.
    pub(super) fn take(
        place: Place,
        allowed_contents: AllowedContents,
        unfinished: &[PlaceIdentity],
    ) -> Result<Self, Refusal> {
        let mapped = Self::inspect(place, allowed_contents, unfinished)?;
        match rustix::fs::flock(&mapped.directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => mapped.place.refuse_removed(mapped.inode()).map(|()| mapped),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(mapped.place.refuse("is locked by a run on another data directory; each needs its own"))
            }
            Err(errno) => {
                Err(mapped.place.refuse(format_args!("cannot be locked: {}", io::Error::from(errno))))
            }
        }
    }

    /// Does the same as [`MappedPlace::take`], but does not lock the directory.
    pub(super) fn inspect(
        place: Place,
        allowed_contents: AllowedContents,
        unfinished: &[PlaceIdentity],
    ) -> Result<Self, Refusal> {
        let directory = place.open()?;
        let directory_identity = DirectoryIdentity::of(&directory)
            .map_err(|error| place.refuse(format_args!("cannot be used: {error}")))?;
        let identity = PlaceIdentity::new(&place.real, &directory_identity);
        let own_work = AtomicBool::new(unfinished.iter().any(|known| known.is_same(&identity)));
        let mapped = Self { place, directory, directory_identity, allowed_contents, own_work };
        mapped.refuse_foreign()?;
        Ok(mapped)
    }

    /// Refuses content that is not PostgreSQL's (rule 24), unless a method of this program wrote it.
    pub(super) fn refuse_foreign(&self) -> Result<(), Refusal> {
        if self.is_own_work() {
            return Ok(());
        }
        match self.allowed_contents.foreign(&self.directory) {
            Ok(None) => Ok(()),
            Ok(Some(foreign)) => Err(self.place.refuse(format_args!(
                "holds {foreign}, which is not part of a replica and would be in its way; empty the directory by hand or \
                 name another one"
            ))),
            Err(error) => Err(self.place.refuse(format_args!("cannot be read: {error}"))),
        }
    }

    /// Returns whether all its content is unfinished work of this program: the directory held nothing foreign before the first method
    /// wrote, and no replica has been finished since.
    pub(super) fn is_own_work(&self) -> bool {
        self.own_work.load(Ordering::Acquire)
    }

    pub(super) fn mark_own_work(&self) {
        self.own_work.store(true, Ordering::Release);
    }

    /// Returns whether emptying removes the entry of this name.
    pub(super) fn emptying_removes(&self, name: &std::ffi::OsStr) -> bool {
        self.is_own_work() || self.allowed_contents.allows_name(name)
    }

    pub(super) fn refuse(&self, what: impl fmt::Display) -> Refusal {
        self.place.refuse(what)
    }

    pub(super) fn identity(&self) -> PlaceIdentity {
        PlaceIdentity::new(&self.place.real, &self.directory_identity)
    }

    pub(super) fn inode(&self) -> (u64, u64) {
        self.directory_identity.inode()
    }

    /// Returns what the directory may hold.
    pub(super) fn allowed_contents(&self) -> AllowedContents {
        self.allowed_contents
    }

    /// Returns whether it is the WAL directory; otherwise it is the directory of a tablespace.
    pub fn is_wal(&self) -> bool {
        self.allowed_contents == AllowedContents::Wal
    }

    /// Returns its path as the operator wrote it.
    pub fn path(&self) -> &Path {
        &self.place.written
    }

    /// Returns its real path (links resolved).
    pub fn real_path(&self) -> &Path {
        &self.place.real
    }

    /// Returns the opened directory.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }
}

/// Returns the mapped directories among these, with what each may hold.
pub(super) fn mapped(places: Vec<Place>) -> impl Iterator<Item = (Place, AllowedContents)> {
    places
        .into_iter()
        .filter_map(|place| place.role.allowed_contents().map(|allowed_contents| (place, allowed_contents)))
}
