//! The file system as one run sees it: the directories that it was given, each under its own absolute path, and a
//! root that denies everything else by name.
//!
//! WASI's own implementation does the work below the opened directories. Around it, here: what is told as a denial,
//! what is charged, and what is not opened at all.

mod descriptor;
mod path;
mod quota;
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
pub(crate) use watched::Watched;

use crate::DiskBudget;
use crate::capability::{Capability, Datadir, Read, Remedies};
use crate::reporter::Reporter;
use crate::state::State;

/// Files and directories that may be open at once; below the number of things that a store may hold, so that a
/// component hears of it and is not trapped.
const OPEN_DESCRIPTORS: usize = 512;
/// Directory streams that may be open at once: WASI's implementation holds all entries of each.
const OPEN_LISTINGS: usize = 64;
/// What those may hold in memory together; some 440,000 names of WAL segments.
const LISTED_BYTES: usize = 64 << 20;
/// Linux's bound on a path; each open descriptor remembers one.
const PATH_MAX: usize = 4096;

/// What a run may do below a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing: the root.
    Nothing,
    /// Read it.
    Read,
    /// Change it.
    Write,
}

/// Which call a run is made for: in `plan` nothing may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Looks.
    Plan,
    /// Fills.
    Create,
}

/// A directory that a run is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// As the operator wrote it.
    pub(crate) path: PathBuf,
    /// What may be done below it.
    pub(crate) access: Access,
}

/// A directory that a run was given, opened.
struct Preopen {
    guest: GuestPath,
    access: Access,
    /// None where it does not exist: what is below it is not found, which is no denial.
    directory: Option<Dir>,
}

/// What is known of a descriptor that the guest holds.
struct Opened {
    path: GuestPath,
    access: Access,
    /// For the file; none for a directory that was given, which is open in any case.
    _charge: Option<Charge>,
}

/// What is held where nothing else is said, as for `describe`: nothing that would need more can be reached then.
const HELD_BYTES: u64 = 16 << 20;

/// A directory that cannot be given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("{0} is not valid UTF-8, and a component's paths are text: rename it")]
    NotText(PathBuf),
    #[error("cannot set up the file system of the sandbox")]
    Root(#[source] std::io::Error),
}

/// The file system of one run.
pub(crate) struct Files {
    step: Step,
    preopens: Vec<Preopen>,
    root: Dir,
    opened: HashMap<u32, Opened>,
    /// What each open directory stream holds in memory.
    listings: HashMap<u32, (usize, Charge)>,
    /// What is held for the run.
    pub(crate) bounds: Bounds,
    /// Whether the log has a name that is no text, of which only the first is told.
    told_no_text: bool,
    pub(crate) quota: Quota,
    remedies: Remedies,
}

impl Files {
    /// A file system in which nothing can be reached.
    pub(crate) fn none(remedies: Remedies) -> Result<Self, PlaceError> {
        Self::open(Step::Plan, &[], None, remedies)
    }

    /// Opens `places`. Each appears under the path that the operator wrote and, where that leads through symbolic
    /// links, under its real one too.
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
                let guest = GuestPath::of(&name).ok_or(PlaceError::NotText(name))?;
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
            bounds: Bounds {
                memory: Budget::memory(HELD_BYTES),
                files: Budget::files(OPEN_DESCRIPTORS as u64),
            },
            told_no_text: false,
            quota: Quota::new(budget),
            remedies,
        })
    }

    /// The same, with these bounds of what is held for the run.
    pub(crate) fn within(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// Directories of `places` that do not exist.
    pub(crate) fn missing(&self) -> impl Iterator<Item = &GuestPath> {
        self.preopens.iter().filter(|preopen| preopen.directory.is_none()).map(|preopen| &preopen.guest)
    }

    /// Whether `path` leads to a directory that was given, so that the guest may know that it exists.
    fn leads_to_a_place(&self, path: &GuestPath) -> bool {
        self.preopens.iter().any(|preopen| preopen.directory.is_some() && preopen.guest.is_below(path))
    }

    /// Whether `path` is in a directory that was given but does not exist.
    fn is_in_a_missing_place(&self, path: &GuestPath) -> bool {
        self.missing().any(|place| path.is_below(place))
    }

    /// Whether `path` is, by its name, in a directory that was given.
    fn is_in_a_place(&self, path: &GuestPath) -> bool {
        self.preopens.iter().any(|preopen| path.is_below(&preopen.guest))
    }
}

/// Opens a directory; none where there is none.
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

/// The descriptor behind the root: a file in memory. Were a name ever looked up in it, the kernel would say that it
/// is no directory.
fn deny_everything() -> Result<Dir, PlaceError> {
    let file = rustix::fs::memfd_create("nothing", MemfdFlags::CLOEXEC);
    Ok(give(file.map_err(|errno| PlaceError::Root(errno.into()))?.into(), Access::Nothing))
}

/// The file system for the length of one call: WASI's own, and what is checked around it.
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
    /// The view of one store.
    pub(crate) fn of(state: &mut State) -> FilesView<'_> {
        // Whoever asks for a file looks, reads or writes.
        state.reporter.activity().mark();
        FilesView {
            inner: WasiFilesystemCtxView { ctx: state.wasi.filesystem(), table: &mut state.table },
            files: &mut state.files,
            reporter: &state.reporter,
        }
    }

    /// Tells the operator the name that the guest cannot see: WASI's names are text.
    fn tell_of_a_name_that_is_no_text(&mut self, directory: &GuestPath, name: &str) {
        if !std::mem::replace(&mut self.files.told_no_text, true) {
            let message = format!(
                "{directory} holds a name that is not UTF-8, `{name}`, which a component cannot see: rename it"
            );
            self.reporter.host(Level::Warn, &message);
        }
    }

    fn deny(&self, capability: &dyn Capability, what: String) {
        self.reporter.denied(capability.denies(what, None));
    }

    /// Reading `path`, which no grant covers.
    fn deny_read(&self, path: &GuestPath) {
        if self.files.is_in_a_place(path) {
            return self.deny(&Read, path.to_string());
        }
        self.reporter.denied(Read::denies_path(path, &self.files.remedies));
    }

    /// Writing `path`, which nothing would allow.
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

/// The file of a descriptor that is one.
fn file_of<'a>(
    table: &'a ResourceTable,
    descriptor: &Resource<Descriptor>,
) -> Result<&'a Arc<File>, wasmtime_wasi::p2::FsError> {
    match table.get(descriptor)? {
        Descriptor::File(file) => Ok(&file.file),
        Descriptor::Dir(_) => Err(types::ErrorCode::BadDescriptor.into()),
    }
}
