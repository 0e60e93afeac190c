//! `wasi:filesystem/types`: checks each call, charges it to the budgets, and reports denials. WASI's own implementation does the rest.

use std::fs::File;
use std::sync::Arc;

use transfer::budget::Charge;
use transfer::reserved;
use wasmtime::component::Resource;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream,
    ErrorCode, Filesize, HostDescriptor, HostDirectoryEntryStream, MetadataHashValue, NewTimestamp,
    OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::path::final_name;
use super::recorded::changes;
use super::streams::{At, Reader, Writer, write_charged};
use super::watched::Watched;
use super::{
    Access, Datadir, FilesView, GuestPath, LISTED_BYTES, OPEN_DESCRIPTORS, OPEN_LISTINGS, Opened, PATH_MAX,
    Read, file_of,
};

type Fd = Resource<Descriptor>;

impl FilesView<'_> {
    fn opened(&self, fd: &Fd) -> FsResult<&Opened> {
        let unknown = || FsError::trap(wasmtime::format_err!("a descriptor that was never given"));
        self.files.opened.get(&fd.rep()).ok_or_else(unknown)
    }

    /// Returns the path of `name`, which is relative to `fd`. Fails if the path is longer than the kernel allows. The length must be
    /// bounded because each descriptor stores its path.
    fn path(&self, fd: &Fd, name: &str) -> FsResult<GuestPath> {
        let opened = self.opened(fd)?;
        let path = (name.len() < PATH_MAX).then(|| opened.path.join(name));
        path.filter(|path| path.len() < PATH_MAX).ok_or(ErrorCode::NameTooLong.into())
    }

    /// Checks that `name` may be looked up. If `fd` is the root's descriptor, denies every name. Only for a name in a directory that was
    /// given to the run and does not exist, fails with `NoEntry` and reports no denial.
    fn may_look(&self, fd: &Fd, name: &str) -> FsResult<GuestPath> {
        let path = self.path(fd, name)?;
        match self.opened(fd)?.access {
            Access::Read | Access::Write => Ok(path),
            Access::Nothing if self.files.is_in_a_missing_place(&path) => Err(ErrorCode::NoEntry.into()),
            Access::Nothing => {
                self.deny_read(&path);
                Err(ErrorCode::Access.into())
            }
        }
    }

    /// Checks that `name` may be changed.
    fn may_change(&self, fd: &Fd, name: &str) -> FsResult<GuestPath> {
        let path = self.path(fd, name)?;
        match self.opened(fd)?.access {
            Access::Write => Ok(path),
            Access::Read | Access::Nothing => {
                self.deny_write(&path);
                Err(ErrorCode::NotPermitted.into())
            }
        }
    }

    /// Checks that an entry may be created. The control file is denied: until the seal, the data directory has none
    /// ([`transfer::reserved`]).
    fn may_make(&self, fd: &Fd, name: &str) -> FsResult<GuestPath> {
        let path = self.may_change(fd, name)?;
        if reserved::is_control_file(final_name(name).as_bytes()) {
            self.deny_control_file(&path);
            return Err(ErrorCode::NotPermitted.into());
        }
        Ok(path)
    }

    /// Checks that a rename, a symbolic link or a hard link may create an entry. Denies the control file, and also the name `global`: a
    /// renamed or linked directory with that name could already contain a control file.
    fn may_bring(&self, fd: &Fd, name: &str) -> FsResult<GuestPath> {
        let path = self.may_make(fd, name)?;
        if reserved::is_global(final_name(name).as_bytes()) {
            let what = format!(
                "{path} (create a directory of this name and fill it: nothing may be renamed or linked to the name `global`)"
            );
            self.deny(&Datadir, what);
            return Err(ErrorCode::NotPermitted.into());
        }
        Ok(path)
    }

    fn deny_control_file(&self, path: &GuestPath) {
        self.reporter.denied(Datadir::denies_control_file(path));
    }

    /// Charges the disk budget for an entry that is created in `fd`.
    fn charge_entry(&self, fd: &Fd) -> FsResult<()> {
        let place = match self.inner.table.get(fd)? {
            Descriptor::Dir(directory) => &directory.dir,
            Descriptor::File(_) => return Err(ErrorCode::NotDirectory.into()),
        };
        Ok(self.files.quota.make(place)?)
    }

    /// Reports a denial if WASI's implementation returned `NotPermitted`, as it does for a name that leads out of the opened directory.
    /// If WASI's implementation returned `InsufficientSpace`, records that the disk is full.
    fn noted<T>(&self, path: &GuestPath, result: FsResult<T>) -> FsResult<T> {
        self.note(path, &result, |view| view.deny_read(path));
        result
    }

    /// Does the same as `noted`, for a call that changes something.
    fn noted_change<T>(&self, path: &GuestPath, result: FsResult<T>) -> FsResult<T> {
        self.note(path, &result, |view| view.deny_write(path));
        result
    }

    fn note<T>(&self, path: &GuestPath, result: &FsResult<T>, deny: impl Fn(&Self)) {
        match result.as_ref().err().and_then(FsError::downcast_ref) {
            Some(ErrorCode::NotPermitted) if self.files.is_in_a_place(path) => {
                let what = format!("{path} (it leads out of the directory that was granted)");
                self.deny(&Read, what);
            }
            Some(ErrorCode::NotPermitted) => deny(self),
            Some(ErrorCode::InsufficientSpace) => self.files.quota.disk_is_full(),
            _ => {}
        }
    }

    /// Returns the type of the entry at `name`; `None` if it cannot be read.
    async fn type_at(&mut self, fd: &Fd, flags: PathFlags, name: &str) -> Option<DescriptorType> {
        let stat = self.inner.stat_at(borrow(fd), flags, name.to_owned()).await;
        stat.ok().map(|stat| stat.type_)
    }

    /// Charges one of the files that the run may have open. A stream is charged too, because it keeps its file open after the descriptor is
    /// dropped.
    fn charge_file(&self, what: &str) -> FsResult<Charge> {
        self.files.bounds.files.charge(1, what).map_err(|_| ErrorCode::InsufficientMemory.into())
    }

    fn file(&self, fd: &Fd) -> FsResult<Arc<File>> {
        file_of(self.inner.table, fd).cloned()
    }

    fn file_to_change(&self, fd: &Fd) -> FsResult<Arc<File>> {
        self.may_change(fd, "")?;
        self.file(fd)
    }
}

/// Returns a second handle to a descriptor, because WASI's implementation takes its handle by value.
fn borrow(fd: &Fd) -> Fd {
    Resource::new_borrow(fd.rep())
}

/// Returns how many bytes of memory the entries of a directory will take, and the first name that is not UTF-8, escaped. Call this before
/// the entries are read into memory.
///
/// # Errors
/// `InsufficientMemory` if they take more than `room`.
fn listing_bytes(directory: &File, room: usize) -> FsResult<(usize, Option<String>)> {
    let entries = rustix::fs::Dir::read_from(directory).map_err(std::io::Error::from)?;
    let (mut bytes, mut non_utf8) = (0, None);
    for entry in entries {
        let entry = entry.map_err(std::io::Error::from)?;
        let name = entry.file_name();
        if non_utf8.is_none() && name.to_str().is_err() {
            non_utf8 = Some(name.to_bytes().escape_ascii().to_string());
        }
        bytes += ENTRY_BYTES + name.to_bytes().len();
        if bytes > room {
            return Err(ErrorCode::InsufficientMemory.into());
        }
    }
    Ok((bytes, non_utf8))
}

/// How many bytes an entry of a listing takes in addition to its name: its slots in a vector that doubles when it grows, and the
/// allocator's overhead.
const ENTRY_BYTES: usize = 128;

/// Returns the metadata for a directory about which the guest may learn only that it exists.
fn metadata_of_a_directory() -> DescriptorStat {
    DescriptorStat {
        type_: DescriptorType::Directory,
        link_count: 1,
        size: 0,
        data_access_timestamp: None,
        data_modification_timestamp: None,
        status_change_timestamp: None,
    }
}

impl types::Host for FilesView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        self.inner.convert_error_code(error)
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.inner.filesystem_error_code(error)
    }
}

#[deny(clippy::missing_trait_methods)]
impl HostDescriptor for FilesView<'_> {
    fn read_via_stream(&mut self, fd: Fd, offset: Filesize) -> FsResult<Resource<DynInputStream>> {
        let file = match self.inner.table.get(&fd)? {
            Descriptor::File(file) => Arc::clone(&file.file),
            Descriptor::Dir(_) => return Err(ErrorCode::IsDirectory.into()),
        };
        let stream: DynInputStream = Box::new(Watched::new(
            Reader::new(file, offset).charged(self.charge_file("a stream")?),
            self.reporter.activity(),
        ));
        Ok(self.inner.table.push(stream)?)
    }

    fn write_via_stream(&mut self, fd: Fd, offset: Filesize) -> FsResult<Resource<DynOutputStream>> {
        let writer = Writer::new(self.file_to_change(&fd)?, At::Position(offset), self.files.quota.clone());
        let writer = writer.charged(self.charge_file("a stream")?);
        let stream: DynOutputStream = Box::new(Watched::new(writer, self.reporter.activity()));
        Ok(self.inner.table.push(stream)?)
    }

    fn append_via_stream(&mut self, fd: Fd) -> FsResult<Resource<DynOutputStream>> {
        let writer = Writer::new(self.file_to_change(&fd)?, At::End, self.files.quota.clone());
        let writer = writer.charged(self.charge_file("a stream")?);
        let stream: DynOutputStream = Box::new(Watched::new(writer, self.reporter.activity()));
        Ok(self.inner.table.push(stream)?)
    }

    async fn advise(&mut self, fd: Fd, offset: Filesize, length: Filesize, advice: Advice) -> FsResult<()> {
        self.inner.advise(fd, offset, length, advice).await
    }

    /// Does nothing, because the host syncs everything at the seal.
    async fn sync_data(&mut self, fd: Fd) -> FsResult<()> {
        self.opened(&fd).map(|_| ())
    }

    async fn get_flags(&mut self, fd: Fd) -> FsResult<DescriptorFlags> {
        self.inner.get_flags(fd).await
    }

    async fn get_type(&mut self, fd: Fd) -> FsResult<DescriptorType> {
        self.inner.get_type(fd).await
    }

    async fn set_size(&mut self, fd: Fd, size: Filesize) -> FsResult<()> {
        let file = self.file_to_change(&fd)?;
        self.files.quota.grow(&file, size)?;
        self.inner.set_size(fd, size).await
    }

    async fn set_times(&mut self, fd: Fd, access: NewTimestamp, modification: NewTimestamp) -> FsResult<()> {
        self.may_change(&fd, "")?;
        self.inner.set_times(fd, access, modification).await
    }

    async fn read(&mut self, fd: Fd, length: Filesize, offset: Filesize) -> FsResult<(Vec<u8>, bool)> {
        self.inner.read(fd, length, offset).await
    }

    async fn write(&mut self, fd: Fd, buffer: Vec<u8>, offset: Filesize) -> FsResult<Filesize> {
        let file = self.file_to_change(&fd)?;
        write_charged(&file, &buffer, offset, &self.files.quota)?;
        Ok(buffer.len() as Filesize)
    }

    async fn read_directory(&mut self, fd: Fd) -> FsResult<Resource<DirectoryEntryStream>> {
        let path = self.path(&fd, "")?;
        if self.opened(&fd)?.access == Access::Nothing {
            self.deny_read(&path);
            return Err(ErrorCode::Access.into());
        }
        if self.files.listings.len() >= OPEN_LISTINGS {
            return Err(ErrorCode::InsufficientMemory.into());
        }
        let held = self.files.listings.values().map(|(bytes, _)| bytes).sum::<usize>();
        let (bytes, non_utf8) = match self.inner.table.get(&fd)? {
            Descriptor::Dir(directory) => listing_bytes(&directory.dir, LISTED_BYTES.saturating_sub(held))?,
            Descriptor::File(_) => (0, None),
        };
        let charge = self.files.bounds.memory.charge(bytes as u64, "the entries of a directory");
        let charge = charge.map_err(|_| ErrorCode::InsufficientMemory)?;
        if let Some(name) = non_utf8 {
            self.report_non_utf8_name(&path, &name);
        }
        let stream = self.inner.read_directory(fd).await?;
        self.files.listings.insert(stream.rep(), (bytes, charge));
        Ok(stream)
    }

    /// Does nothing, because the host syncs everything at the seal.
    async fn sync(&mut self, fd: Fd) -> FsResult<()> {
        self.opened(&fd).map(|_| ())
    }

    async fn create_directory_at(&mut self, fd: Fd, name: String) -> FsResult<()> {
        // Programs often create directories that exist already. Such a call is neither denied nor charged in two cases: the parent
        // directory is writable, or the directory was given to the run or is a parent of one that was.
        let root = self.opened(&fd)?.access == Access::Nothing;
        if root && self.files.leads_to_a_place(&self.path(&fd, &name)?) {
            return Err(ErrorCode::Exist.into());
        }
        let path = self.may_make(&fd, &name)?;
        if self.type_at(&fd, PathFlags::empty(), &name).await.is_some() {
            return Err(ErrorCode::Exist.into());
        }
        self.charge_entry(&fd)?;
        let made = self.inner.create_directory_at(fd, name).await;
        self.noted_change(&path, made)
    }

    async fn stat(&mut self, fd: Fd) -> FsResult<DescriptorStat> {
        match self.opened(&fd)?.access {
            Access::Nothing => Ok(metadata_of_a_directory()),
            Access::Read | Access::Write => self.inner.stat(fd).await,
        }
    }

    async fn stat_at(&mut self, fd: Fd, flags: PathFlags, name: String) -> FsResult<DescriptorStat> {
        let root = self.opened(&fd)?.access == Access::Nothing;
        if root && self.files.leads_to_a_place(&self.path(&fd, &name)?) {
            return Ok(metadata_of_a_directory());
        }
        let path = self.may_look(&fd, &name)?;
        let stat = self.inner.stat_at(fd, flags, name).await;
        self.noted(&path, stat)
    }

    async fn set_times_at(
        &mut self,
        fd: Fd,
        flags: PathFlags,
        name: String,
        access: NewTimestamp,
        modification: NewTimestamp,
    ) -> FsResult<()> {
        let path = self.may_change(&fd, &name)?;
        let set = self.inner.set_times_at(fd, flags, name, access, modification).await;
        self.noted_change(&path, set)
    }

    async fn link_at(
        &mut self,
        fd: Fd,
        flags: PathFlags,
        name: String,
        new_fd: Fd,
        new_name: String,
    ) -> FsResult<()> {
        self.may_change(&fd, &name)?;
        let path = self.may_bring(&new_fd, &new_name)?;
        self.charge_entry(&new_fd)?;
        let linked = self.inner.link_at(fd, flags, name, new_fd, new_name).await;
        self.noted_change(&path, linked)
    }

    async fn open_at(
        &mut self,
        fd: Fd,
        path_flags: PathFlags,
        name: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        let makes = open_flags.contains(OpenFlags::CREATE);
        let changes = changes(open_flags, flags);
        let path = if changes {
            self.may_make(&fd, &name)?
        } else if open_flags.contains(OpenFlags::DIRECTORY) {
            self.may_list(&fd, &name)?
        } else {
            self.may_look(&fd, &name)?
        };
        // Opening a FIFO that has no writer would block this thread forever, and opening a device may have any effect.
        match self.type_at(&fd, path_flags, &name).await {
            Some(DescriptorType::RegularFile | DescriptorType::Directory | DescriptorType::SymbolicLink) => {}
            None if makes => self.charge_entry(&fd)?,
            None => {}
            Some(_) => {
                self.deny(&Read, format!("{path} (neither a file nor a directory)"));
                return Err(ErrorCode::Access.into());
            }
        }
        if self.files.opened.len() >= OPEN_DESCRIPTORS {
            return Err(ErrorCode::InsufficientMemory.into());
        }
        let charge = self.charge_file("a file")?;
        let access = self.opened(&fd)?.access;
        let opened = self.inner.open_at(fd, path_flags, name, open_flags, flags).await;
        let descriptor = if changes { self.noted_change(&path, opened) } else { self.noted(&path, opened) }?;
        self.files.opened.insert(descriptor.rep(), Opened { path, access, _charge: Some(charge) });
        Ok(descriptor)
    }

    async fn readlink_at(&mut self, fd: Fd, name: String) -> FsResult<String> {
        let root = self.opened(&fd)?.access == Access::Nothing;
        if root && self.files.leads_to_a_place(&self.path(&fd, &name)?) {
            return Err(ErrorCode::Invalid.into());
        }
        let path = self.may_look(&fd, &name)?;
        let target = self.inner.readlink_at(fd, name).await;
        self.noted(&path, target)
    }

    async fn remove_directory_at(&mut self, fd: Fd, name: String) -> FsResult<()> {
        let path = self.may_change(&fd, &name)?;
        let removed = self.inner.remove_directory_at(fd, name).await;
        self.noted_change(&path, removed)
    }

    async fn rename_at(&mut self, fd: Fd, name: String, new_fd: Fd, new_name: String) -> FsResult<()> {
        self.may_change(&fd, &name)?;
        let path = self.may_bring(&new_fd, &new_name)?;
        let renamed = self.inner.rename_at(fd, name, new_fd, new_name).await;
        self.noted_change(&path, renamed)
    }

    async fn symlink_at(&mut self, fd: Fd, target: String, name: String) -> FsResult<()> {
        let path = self.may_bring(&fd, &name)?;
        // A link to a missing `pg_control` is denied too: opening the link for writing would create the file.
        if reserved::is_control_file(final_name(&target).as_bytes()) {
            self.deny_control_file(&path.parent().join(&target));
            return Err(ErrorCode::NotPermitted.into());
        }
        self.charge_entry(&fd)?;
        let made = self.inner.symlink_at(fd, target, name).await;
        self.noted_change(&path, made)
    }

    async fn unlink_file_at(&mut self, fd: Fd, name: String) -> FsResult<()> {
        let path = self.may_change(&fd, &name)?;
        let removed = self.inner.unlink_file_at(fd, name).await;
        self.noted_change(&path, removed)
    }

    async fn is_same_object(&mut self, fd: Fd, other: Fd) -> wasmtime::Result<bool> {
        self.inner.is_same_object(fd, other).await
    }

    async fn metadata_hash(&mut self, fd: Fd) -> FsResult<MetadataHashValue> {
        self.inner.metadata_hash(fd).await
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Fd,
        flags: PathFlags,
        name: String,
    ) -> FsResult<MetadataHashValue> {
        let root = self.opened(&fd)?.access == Access::Nothing;
        if root && self.files.leads_to_a_place(&self.path(&fd, &name)?) {
            return self.inner.metadata_hash(fd).await;
        }
        let path = self.may_look(&fd, &name)?;
        let hash = self.inner.metadata_hash_at(fd, flags, name).await;
        self.noted(&path, hash)
    }

    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        self.files.opened.remove(&fd.rep());
        HostDescriptor::drop(&mut self.inner, fd)
    }
}

impl FilesView<'_> {
    /// Checks that the directory `name` may be opened. Denies directories below the root that were not given to the run, including the
    /// parents of directories that were. The denial names the directory that would have to be granted.
    fn may_list(&self, fd: &Fd, name: &str) -> FsResult<GuestPath> {
        let path = self.path(fd, name)?;
        if self.opened(fd)?.access == Access::Nothing && !self.files.is_in_a_missing_place(&path) {
            self.deny_read(&path);
            return Err(ErrorCode::Access.into());
        }
        self.may_look(fd, name)
    }
}

impl HostDirectoryEntryStream for FilesView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        self.inner.read_directory_entry(stream).await
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        self.files.listings.remove(&stream.rep());
        HostDirectoryEntryStream::drop(&mut self.inner, stream)
    }
}
