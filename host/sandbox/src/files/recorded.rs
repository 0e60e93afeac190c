//! The file system with a record of each call ([`crate::calls`]). [`FilesView`] does the work and reports denials.
//!
//! An open file or directory has one record, made when the component has dropped its descriptor and its streams. The record counts the
//! calls on the file or directory.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use replica::CapabilityKind;
use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream,
    ErrorCode, Filesize, HostDescriptor, HostDirectoryEntryStream, MetadataHashValue, NewTimestamp,
    OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, FsError, FsResult, InputStream, OutputStream, Pollable, StreamResult,
};

use super::{FilesView, PATH_MAX};
use crate::calls::{Call, Record};
use crate::state::State;

type Fd = Resource<Descriptor>;

/// The file system during one call, with records.
pub(crate) struct Recorded<'a>(FilesView<'a>);

/// Marks [`Recorded`] for the linker.
pub(crate) struct RecordedData;

impl HasData for RecordedData {
    type Data<'a> = Recorded<'a>;
}

impl Recorded<'_> {
    /// Returns the view of a component's state.
    pub(crate) fn of(state: &mut State) -> Recorded<'_> {
        Recorded(FilesView::of(state))
    }

    /// Begins the record of a call that reads the entry `name`.
    fn reads(&self, function: &'static str, fd: &Fd, name: &str) -> Call {
        self.0.reporter.call(CapabilityKind::Read, function, || self.0.shown(fd, name))
    }

    /// Begins the record of a call that changes the entry `name`.
    fn changes(&self, function: &'static str, fd: &Fd, name: &str) -> Call {
        self.0.reporter.call(CapabilityKind::Write, function, || self.0.shown(fd, name))
    }

    /// Begins the record of a call that renames or links `name` to `new_name`.
    fn moves(
        &self,
        function: &'static str,
        (fd, name): (&Fd, &str),
        (new_fd, new_name): (&Fd, &str),
    ) -> Call {
        let object = || format!("{} -> {}", self.0.shown(fd, name), self.0.shown(new_fd, new_name));
        self.0.reporter.call(CapabilityKind::Write, function, object)
    }

    /// Returns the record of an open file; `None` if calls are not recorded, and for a directory that the host gave to the run.
    fn record(&self, fd: &Fd) -> Option<Arc<Record>> {
        self.0.files.records.get(&fd.rep()).cloned()
    }

    /// Counts a call on an open file.
    fn uses(&self, fd: &Fd) {
        if let Some(record) = self.record(fd) {
            record.used();
        }
    }

    fn recorded_output(
        &mut self,
        record: Option<Arc<Record>>,
        stream: Resource<DynOutputStream>,
    ) -> FsResult<Resource<DynOutputStream>> {
        let Some(record) = record else { return Ok(stream) };
        let stream = self.0.inner.table.delete(stream)?;
        let counted: DynOutputStream = Box::new(Counted { stream, record });
        Ok(self.0.inner.table.push(counted)?)
    }
}

impl FilesView<'_> {
    /// Returns the path of `name`, which is relative to `fd`, for a record. Also accepts a name that the call will refuse.
    fn shown(&self, fd: &Fd, name: &str) -> String {
        match self.files.opened.get(&fd.rep()) {
            Some(opened) if name.is_empty() => opened.path.to_string(),
            Some(opened) if name.len() < PATH_MAX => opened.path.join(name).to_string(),
            Some(_) | None => name.to_owned(),
        }
    }
}

/// Returns whether these flags create or truncate a file, or open it for writing.
pub(super) fn changes(open_flags: OpenFlags, flags: DescriptorFlags) -> bool {
    open_flags.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE) || flags.contains(DescriptorFlags::WRITE)
}

impl types::Host for Recorded<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        types::Host::convert_error_code(&mut self.0, error)
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        types::Host::filesystem_error_code(&mut self.0, error)
    }
}

#[deny(clippy::missing_trait_methods)]
impl HostDescriptor for Recorded<'_> {
    fn read_via_stream(&mut self, fd: Fd, offset: Filesize) -> FsResult<Resource<DynInputStream>> {
        let record = self.record(&fd);
        let stream = self.0.read_via_stream(fd, offset)?;
        let Some(record) = record else { return Ok(stream) };
        let stream = self.0.inner.table.delete(stream)?;
        let counted: DynInputStream = Box::new(Counted { stream, record });
        Ok(self.0.inner.table.push(counted)?)
    }

    fn write_via_stream(&mut self, fd: Fd, offset: Filesize) -> FsResult<Resource<DynOutputStream>> {
        let record = self.record(&fd);
        let stream = self.0.write_via_stream(fd, offset)?;
        self.recorded_output(record, stream)
    }

    fn append_via_stream(&mut self, fd: Fd) -> FsResult<Resource<DynOutputStream>> {
        let record = self.record(&fd);
        let stream = self.0.append_via_stream(fd)?;
        self.recorded_output(record, stream)
    }

    async fn advise(&mut self, fd: Fd, offset: Filesize, length: Filesize, advice: Advice) -> FsResult<()> {
        self.uses(&fd);
        self.0.advise(fd, offset, length, advice).await
    }

    async fn sync_data(&mut self, fd: Fd) -> FsResult<()> {
        self.uses(&fd);
        self.0.sync_data(fd).await
    }

    async fn get_flags(&mut self, fd: Fd) -> FsResult<DescriptorFlags> {
        self.uses(&fd);
        self.0.get_flags(fd).await
    }

    async fn get_type(&mut self, fd: Fd) -> FsResult<DescriptorType> {
        self.uses(&fd);
        self.0.get_type(fd).await
    }

    async fn set_size(&mut self, fd: Fd, size: Filesize) -> FsResult<()> {
        let call = self.changes("filesystem.set-size", &fd, "");
        call.end(self.0.set_size(fd, size).await)
    }

    async fn set_times(&mut self, fd: Fd, access: NewTimestamp, modification: NewTimestamp) -> FsResult<()> {
        let call = self.changes("filesystem.set-times", &fd, "");
        call.end(self.0.set_times(fd, access, modification).await)
    }

    async fn read(&mut self, fd: Fd, length: Filesize, offset: Filesize) -> FsResult<(Vec<u8>, bool)> {
        let record = self.record(&fd);
        let read = self.0.read(fd, length, offset).await;
        if let (Some(record), Ok((bytes, _))) = (record, &read) {
            record.used();
            record.read(bytes.len() as u64);
        }
        read
    }

    async fn write(&mut self, fd: Fd, buffer: Vec<u8>, offset: Filesize) -> FsResult<Filesize> {
        let record = self.record(&fd);
        let written = self.0.write(fd, buffer, offset).await;
        if let (Some(record), Ok(bytes)) = (record, &written) {
            record.used();
            record.wrote(*bytes);
        }
        written
    }

    async fn read_directory(&mut self, fd: Fd) -> FsResult<Resource<DirectoryEntryStream>> {
        let call = self.reads("filesystem.read-directory", &fd, "");
        call.end(self.0.read_directory(fd).await)
    }

    async fn sync(&mut self, fd: Fd) -> FsResult<()> {
        self.uses(&fd);
        self.0.sync(fd).await
    }

    async fn create_directory_at(&mut self, fd: Fd, name: String) -> FsResult<()> {
        let call = self.changes("filesystem.create-directory-at", &fd, &name);
        call.end(self.0.create_directory_at(fd, name).await)
    }

    async fn stat(&mut self, fd: Fd) -> FsResult<DescriptorStat> {
        self.uses(&fd);
        self.0.stat(fd).await
    }

    async fn stat_at(&mut self, fd: Fd, flags: PathFlags, name: String) -> FsResult<DescriptorStat> {
        let call = self.reads("filesystem.stat-at", &fd, &name);
        call.end(self.0.stat_at(fd, flags, name).await)
    }

    async fn set_times_at(
        &mut self,
        fd: Fd,
        flags: PathFlags,
        name: String,
        access: NewTimestamp,
        modification: NewTimestamp,
    ) -> FsResult<()> {
        let call = self.changes("filesystem.set-times-at", &fd, &name);
        call.end(self.0.set_times_at(fd, flags, name, access, modification).await)
    }

    async fn link_at(
        &mut self,
        fd: Fd,
        flags: PathFlags,
        name: String,
        new_fd: Fd,
        new_name: String,
    ) -> FsResult<()> {
        let call = self.moves("filesystem.link-at", (&fd, &name), (&new_fd, &new_name));
        call.end(self.0.link_at(fd, flags, name, new_fd, new_name).await)
    }

    async fn open_at(
        &mut self,
        fd: Fd,
        path_flags: PathFlags,
        name: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        let function = "filesystem.open-at";
        let call = if changes(open_flags, flags) {
            self.changes(function, &fd, &name)
        } else {
            self.reads(function, &fd, &name)
        };
        let opened = match self.0.open_at(fd, path_flags, name, open_flags, flags).await {
            Ok(opened) => opened,
            refused => return call.end(refused),
        };
        if let Some(record) = call.stays_open() {
            self.0.files.records.insert(opened.rep(), record);
        }
        Ok(opened)
    }

    async fn readlink_at(&mut self, fd: Fd, name: String) -> FsResult<String> {
        let call = self.reads("filesystem.readlink-at", &fd, &name);
        call.end(self.0.readlink_at(fd, name).await)
    }

    async fn remove_directory_at(&mut self, fd: Fd, name: String) -> FsResult<()> {
        let call = self.changes("filesystem.remove-directory-at", &fd, &name);
        call.end(self.0.remove_directory_at(fd, name).await)
    }

    async fn rename_at(&mut self, fd: Fd, name: String, new_fd: Fd, new_name: String) -> FsResult<()> {
        let call = self.moves("filesystem.rename-at", (&fd, &name), (&new_fd, &new_name));
        call.end(self.0.rename_at(fd, name, new_fd, new_name).await)
    }

    async fn symlink_at(&mut self, fd: Fd, target: String, name: String) -> FsResult<()> {
        let object = || format!("{} -> {target}", self.0.shown(&fd, &name));
        let call = self.0.reporter.call(CapabilityKind::Write, "filesystem.symlink-at", object);
        call.end(self.0.symlink_at(fd, target, name).await)
    }

    async fn unlink_file_at(&mut self, fd: Fd, name: String) -> FsResult<()> {
        let call = self.changes("filesystem.unlink-file-at", &fd, &name);
        call.end(self.0.unlink_file_at(fd, name).await)
    }

    async fn is_same_object(&mut self, fd: Fd, other: Fd) -> wasmtime::Result<bool> {
        self.uses(&fd);
        self.0.is_same_object(fd, other).await
    }

    async fn metadata_hash(&mut self, fd: Fd) -> FsResult<MetadataHashValue> {
        self.uses(&fd);
        self.0.metadata_hash(fd).await
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Fd,
        flags: PathFlags,
        name: String,
    ) -> FsResult<MetadataHashValue> {
        let call = self.reads("filesystem.metadata-hash-at", &fd, &name);
        call.end(self.0.metadata_hash_at(fd, flags, name).await)
    }

    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        self.0.files.records.remove(&fd.rep());
        HostDescriptor::drop(&mut self.0, fd)
    }
}

impl HostDirectoryEntryStream for Recorded<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        self.0.read_directory_entry(stream).await
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        HostDirectoryEntryStream::drop(&mut self.0, stream)
    }
}

/// A stream that counts its calls and bytes in a record.
pub(crate) struct Counted<S: ?Sized> {
    record: Arc<Record>,
    stream: Box<S>,
}

impl<S: ?Sized> Counted<S> {
    /// Counts the bytes that `stream` moves in `record`.
    pub(crate) fn new(stream: Box<S>, record: Arc<Record>) -> Self {
        Self { record, stream }
    }
}

#[async_trait]
impl<S: Pollable + ?Sized> Pollable for Counted<S> {
    async fn ready(&mut self) {
        self.stream.ready().await;
    }
}

#[async_trait]
impl<S: InputStream + ?Sized> InputStream for Counted<S> {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.record.used();
        self.stream.read(size).inspect(|bytes| self.record.read(bytes.len() as u64))
    }
}

#[async_trait]
impl<S: OutputStream + ?Sized> OutputStream for Counted<S> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.record.used();
        let count = bytes.len() as u64;
        self.stream.write(bytes).inspect(|()| self.record.wrote(count))
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.stream.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.stream.check_write()
    }
}
