//! The rules for a file that the operator names and the program writes: the report and the audit. Only the owner can read such a file. It
//! may replace only an earlier file of the same kind or an empty file.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use replica::datadir::cluster_of;
use rustix::fs::{Mode, OFlags};
use tempfile::{Builder, NamedTempFile};

/// The sticky bit of a directory.
const STICKY: u32 = 0o1000;

/// A kind of file that the program writes.
#[derive(Debug)]
pub struct FileKind {
    /// The name in messages, such as `report`.
    pub name: &'static str,
    /// Returns whether an existing file is an earlier file of this kind. Reads the file from its beginning.
    pub is_earlier: fn(File) -> bool,
}

/// A file that the program writes. The file may be missing, empty, or an earlier file of the same kind. Any other file is not replaced.
#[derive(Clone, Debug)]
pub struct OutputFile {
    kind: &'static FileKind,
    directory: PathBuf,
    path: PathBuf,
}

impl OutputFile {
    /// Creates the value for a file at `path`.
    ///
    /// # Errors
    /// Fails if `path` is relative and the current directory is gone, if `path` does not end in the name of a file, or if `path` is `-`,
    /// which means standard output in other programs.
    pub fn new(kind: &'static FileKind, path: &Path) -> io::Result<Self> {
        let name = kind.name;
        if path == Path::new("-") {
            let message = format!("the {name} cannot be written to standard output (`-`): name a file");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let absolute = std::path::absolute(path)?;
        let (Some(directory), Some(last)) = (absolute.parent(), absolute.file_name()) else {
            let message =
                format!("the path of the {name}, {}, does not end in the name of a file", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        Ok(Self { kind, directory: directory.to_owned(), path: directory.join(last) })
    }

    /// Returns the name of the file in messages.
    pub fn name(&self) -> &'static str {
        self.kind.name
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory of the file.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Checks before the run that the file can be written.
    ///
    /// # Errors
    /// Fails if [`OutputFile::create`] and [`OutputFile::put`] would fail now.
    pub fn probe(&self) -> io::Result<()> {
        self.replaces_earlier_file()?;
        self.temporary().and_then(NamedTempFile::close)
    }

    /// Creates a temporary file in the same directory, which only this user may read.
    ///
    /// # Errors
    /// Fails if the path is inside a cluster, if anything but an earlier file is at the path, or if the file system reports an error.
    pub fn create(&self) -> io::Result<NamedTempFile> {
        // `AcceptedConfig::check_output` checked this only if the configuration was accepted.
        if let Some(around) = cluster_of(&self.path) {
            return Err(io::Error::other(format!("it would lie {around}")));
        }
        self.replaces_earlier_file()?;
        self.temporary()
    }

    /// Atomically renames a file that [`OutputFile::create`] returned to the path.
    ///
    /// # Errors
    /// Fails if anything but an earlier file is at the path, or if the file system reports an error.
    pub fn put(&self, file: NamedTempFile) -> io::Result<File> {
        let put = if self.replaces_earlier_file()? {
            file.persist(&self.path)
        } else {
            file.persist_noclobber(&self.path)
        };
        Ok(put?)
    }

    /// Returns whether the path has an earlier file of this kind or an empty file; `false` if nothing is there. Fails for anything else.
    fn replaces_earlier_file(&self) -> io::Result<bool> {
        let name = self.kind.name;
        let other = |what: &str| {
            let message = format!(
                "{what} is there already, and only an earlier {name} or an empty file is replaced: name another file"
            );
            io::Error::new(io::ErrorKind::AlreadyExists, message)
        };
        match self.path.symlink_metadata() {
            Ok(found) if found.is_symlink() => return Err(other("a symbolic link")),
            Ok(found) if !found.is_file() => return Err(other("something that is not a file")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::open(&self.path, flags, Mode::empty()).map(File::from).map_err(|errno| {
            let error = io::Error::from(errno);
            io::Error::new(error.kind(), format!("the existing file cannot be read: {error}"))
        })?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(other("something that is not a file"));
        }
        self.refuse_file_of_another_user(&found)?;
        // `mktemp` creates an empty file.
        if found.len() == 0 || (self.kind.is_earlier)(file) {
            return Ok(true);
        }
        Err(other(&format!("a file that this program did not write as its {name}")))
    }

    /// Refuses a file that this user may not replace. In a directory with the sticky bit, such as `/tmp`, only root and the owners of the
    /// file and of the directory may replace a file (rename(2)).
    fn refuse_file_of_another_user(&self, found: &Metadata) -> io::Result<()> {
        let directory = self.directory.metadata()?;
        let user = rustix::process::geteuid();
        let is_own = [found.uid(), directory.uid()].contains(&user.as_raw());
        if directory.mode() & STICKY == 0 || is_own || user.is_root() {
            return Ok(());
        }
        let message = "another user's file is there already, and in this directory, which has the sticky bit, only that user or root may \
                       replace it: name another file, or have it removed";
        Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
    }

    fn temporary(&self) -> io::Result<NamedTempFile> {
        Builder::new()
            .prefix(&format!(".understudy-{}-", self.kind.name))
            .permissions(Permissions::from_mode(0o600))
            .tempfile_in(&self.directory)
    }
}
