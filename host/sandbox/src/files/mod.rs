//! The file system that a component sees in one run: the directories given to the run, each at its absolute path, and a root that
//! denies every other path.
//!
//! WASI's own implementation does the work below the opened directories. This module reports denials, charges the quota, and refuses to
//! open what must not be opened.

mod descriptor;
mod path;
mod quota;
mod recorded;
mod streams;
mod watched;

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use replica::Level;
use rustix::fs::{MemfdFlags, Mode, OFlags};
use transfer::budget::{Budget, Charge};
use transfer::job::Bounds;
use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::filesystem::{Descriptor, Dir, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi::{FsPerms, OpenMode};

pub(crate) use path::GuestPath;
pub(crate) use quota::Quota;
pub(crate) use recorded::{Counted, Recorded, RecordedData};
pub(crate) use watched::Watched;

use crate::DiskBudget;
use crate::calls::Record;
use crate::capability::{Capability, Datadir, Read, Remedies};
use crate::reporter::Reporter;
use crate::state::State;

/// How many files and directories may be open at once. This is less than the number of resources that a wasmtime store may hold, so
/// that the component gets an error and not a trap.
const OPEN_DESCRIPTORS: usize = 512;
/// How many directory streams may be open at once. WASI's implementation holds all entries of each stream in memory.
const OPEN_LISTINGS: usize = 64;
/// How many bytes of memory all directory streams may hold: about 440,000 names of WAL segments.
const LISTED_BYTES: usize = 64 << 20;
/// Linux's limit for the length of a path. Each open descriptor stores a path.
const PATH_MAX: usize = 4096;

/// What a run may do below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing. The root has this access.
    Nothing,
    /// Read files and directories.
    Read,
    /// Read and change files and directories.
    Write,
}

/// The function of the component that a run calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `plan`, which may change nothing.
    Plan,
    /// `create-replica`, which fills the data directory.
    Create,
}

impl Step {
    /// Returns the step of the attempt that makes this call.
    pub(crate) fn of_an_attempt(self) -> replica::event::Step {
        match self {
            Self::Plan => replica::event::Step::Plan,
            Self::Create => replica::event::Step::Create,
        }
    }
}

/// A directory that the host gives to a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The path, as the operator wrote it.
    pub(crate) path: PathBuf,
    /// What the run may do below the directory.
    pub(crate) access: Access,
}

/// An opened directory of a run.
struct Preopen {
    guest: GuestPath,
    access: Access,
    /// `None` if the directory does not exist. A path below it is then reported as not found, not as denied.
    directory: Option<Dir>,
}

/// What the host knows about a descriptor that the component holds.
struct Opened {
    path: GuestPath,
    access: Access,
    /// The charge for the open file; `None` for a directory that the host gave to the run.
    _charge: Option<Charge>,
}

/// How many bytes of memory the host may use for a run for which [`Files::within`] is not called. Only `describe` does not call it, because
/// a component can open nothing there.
const HELD_BYTES: u64 = 16 << 20;

/// The reason that the host cannot give a directory to a run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("the path {0} is not valid UTF-8, and components can only use UTF-8 paths: rename it")]
    NotUtf8(PathBuf),
    #[error("cannot set up the file system of the sandbox")]
    Root(#[source] std::io::Error),
}

/// The file system of one run.
pub(crate) struct Files {
    step: Step,
    preopens: Vec<Preopen>,
    root: Dir,
    opened: HashMap<u32, Opened>,
    /// The memory that each open directory stream holds.
    listings: HashMap<u32, (usize, Charge)>,
    /// The record of each file and directory that the component opened, if calls are recorded.
    records: HashMap<u32, Arc<Record>>,
    /// Bounds the memory that the host uses and the files that it opens for the run.
    pub(crate) bounds: Bounds,
    /// Whether a name that is not UTF-8 was reported. Only the first such name is reported.
    reported_non_utf8: bool,
    pub(crate) quota: Quota,
    remedies: Remedies,
}

impl Files {
    /// Makes a file system in which nothing can be reached.
    pub(crate) fn none(remedies: Remedies) -> Result<Self, PlaceError> {
        Self::open(Step::Plan, &[], None, remedies)
    }

    /// Opens `places`. The component sees each place at the path that the operator wrote and, if that path has symbolic links, also at its
    /// real path.
    pub(crate) fn open(
        step: Step,
        places: &[Place],
        budget: Option<DiskBudget>,
        remedies: Remedies,
    ) -> Result<Self, PlaceError> {
        let mut preopens: Vec<Preopen> = Vec::new();
        for place in places {
            let directory = open_directory(&place.path)?.map(|file| give(file, place.access));
            let mut names = vec![place.path.clone()];
            if directory.is_some() {
                let real = place.path.canonicalize();
                names.push(real.map_err(|source| PlaceError::Open { path: place.path.clone(), source })?);
            }
            for name in names {
                let guest = GuestPath::of(&name).ok_or(PlaceError::NotUtf8(name))?;
                if !preopens.iter().any(|other| other.guest == guest) {
                    preopens.push(Preopen { guest, access: place.access, directory: directory.clone() });
                }
            }
        }
        Ok(Self {
            step,
            preopens,
            root: deny_everything()?,
            opened: HashMap::new(),
            listings: HashMap::new(),
            records: HashMap::new(),
            bounds: Bounds {
                memory: Budget::memory(HELD_BYTES),
                files: Budget::files(OPEN_DESCRIPTORS as u64),
            },
            reported_non_utf8: false,
            quota: Quota::new(budget),
            remedies,
        })
    }

    /// Sets the bounds of the memory and open files that the host may use for the run.
    pub(crate) fn within(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// Returns the directories that were given to the run and do not exist.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &GuestPath> {
        self.preopens.iter().filter(|preopen| preopen.directory.is_none()).map(|preopen| &preopen.guest)
    }

    /// Returns whether `path` is an existing directory that was given to the run, or a parent of one. The component may learn that `path`
    /// exists.
    fn leads_to_a_place(&self, path: &GuestPath) -> bool {
        self.preopens.iter().any(|preopen| preopen.directory.is_some() && preopen.guest.is_below(path))
    }

    /// Returns whether `path` is in a directory that was given to the run and does not exist.
    fn is_in_a_missing_place(&self, path: &GuestPath) -> bool {
        self.missing().any(|place| path.is_below(place))
    }

    /// Returns whether `path`, compared as text, is in a directory that was given to the run.
    fn is_in_a_place(&self, path: &GuestPath) -> bool {
        self.preopens.iter().any(|preopen| path.is_below(&preopen.guest))
    }
}

/// Opens a directory; `None` if it does not exist.
fn open_directory(path: &Path) -> Result<Option<File>, PlaceError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(descriptor) => Ok(Some(descriptor.into())),
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(errno) => Err(PlaceError::Open { path: path.to_owned(), source: errno.into() }),
    }
}

fn give(file: File, access: Access) -> Dir {
    match access {
        Access::Write => Dir::new(file, FsPerms::ReadWrite, OpenMode::READ | OpenMode::WRITE, true),
        Access::Read | Access::Nothing => Dir::new(file, FsPerms::ReadOnly, OpenMode::READ, true),
    }
}

/// Returns the descriptor of the root: a file in memory. If a name were ever looked up in it, the kernel would fail with ENOTDIR.
fn deny_everything() -> Result<Dir, PlaceError> {
    let file = rustix::fs::memfd_create("nothing", MemfdFlags::CLOEXEC);
    Ok(give(file.map_err(|errno| PlaceError::Root(errno.into()))?.into(), Access::Nothing))
}

/// The file system during one call: WASI's own, with the checks of this module.
pub(crate) struct FilesView<'a> {
    inner: WasiFilesystemCtxView<'a>,
    files: &'a mut Files,
    reporter: &'a Reporter,
}

/// Marks [`FilesView`] for the linker.
pub(crate) struct FilesData;

impl HasData for FilesData {
    type Data<'a> = FilesView<'a>;
}

impl FilesView<'_> {
    /// Returns the view of a component's state.
    pub(crate) fn of(state: &mut State) -> FilesView<'_> {
        // Every caller reads, writes or looks something up, and each of these counts as activity.
        state.reporter.activity().mark();
        FilesView {
            inner: WasiFilesystemCtxView { ctx: state.wasi.filesystem(), table: &mut state.table },
            files: &mut state.files,
            reporter: &state.reporter,
        }
    }

    /// Warns the operator about a file name that the component cannot see, because WASI's names are UTF-8.
    fn report_non_utf8_name(&mut self, directory: &GuestPath, name: &str) {
        if !std::mem::replace(&mut self.files.reported_non_utf8, true) {
            let message = format!(
                "{directory} holds a name that is not UTF-8, `{name}`, which a component cannot see: rename it"
            );
            self.reporter.host(Level::Warn, &message);
        }
    }

    fn deny(&self, capability: &dyn Capability, what: String) {
        self.reporter.denied(capability.denies(what, None));
    }

    /// Reports the denial of a read of `path`.
    fn deny_read(&self, path: &GuestPath) {
        if self.files.is_in_a_place(path) {
            return self.deny(&Read, path.to_string());
        }
        self.reporter.denied(Read::denies_path(path, &self.files.remedies));
    }

    /// Reports the denial of a write to `path`, which no grant would allow.
    fn deny_write(&self, path: &GuestPath) {
        self.reporter.denied(Datadir::denies_path(path, self.files.step));
    }
}

impl preopens::Host for FilesView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let root = GuestPath::root();
        let root_is_granted = self.files.preopens.iter().any(|preopen| preopen.guest == root);
        let denied = (!root_is_granted).then(|| Preopen {
            guest: root,
            access: Access::Nothing,
            directory: Some(self.files.root.clone()),
        });
        let mut given = Vec::with_capacity(self.files.preopens.len() + 1);
        for preopen in self.files.preopens.iter().chain(&denied) {
            let Some(directory) = &preopen.directory else { continue };
            let descriptor = push(self.inner.table, Descriptor::Dir(directory.clone()))?;
            let opened = Opened { path: preopen.guest.clone(), access: preopen.access, _charge: None };
            self.files.opened.insert(descriptor.rep(), opened);
            given.push((descriptor, preopen.guest.to_string()));
        }
        Ok(given)
    }
}

fn push(table: &mut ResourceTable, descriptor: Descriptor) -> wasmtime::Result<Resource<Descriptor>> {
    Ok(table.push(descriptor)?)
}

/// Returns the file of a descriptor.
///
/// # Errors
/// `BadDescriptor` if the descriptor is a directory.
fn file_of<'a>(
    table: &'a ResourceTable,
    descriptor: &Resource<Descriptor>,
) -> Result<&'a Arc<File>, wasmtime_wasi::p2::FsError> {
    match table.get(descriptor)? {
        Descriptor::File(file) => Ok(&file.file),
        Descriptor::Dir(_) => Err(types::ErrorCode::BadDescriptor.into()),
    }
}
