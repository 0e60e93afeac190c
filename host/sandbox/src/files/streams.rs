//! Streams that read and write a file. They work on the method's own thread, which may block, and charge writes to the quota.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use transfer::budget::Charge;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::quota::Quota;

/// How many bytes one call moves at most.
const CHUNK: usize = 64 << 10;

/// A stream that reads a file from a position.
pub(crate) struct Reader {
    file: Arc<File>,
    position: u64,
    /// Charged for the file, which the stream holds open.
    _charge: Option<Charge>,
}

impl Reader {
    pub(crate) fn new(file: Arc<File>, position: u64) -> Self {
        Self { file, position, _charge: None }
    }

    /// Makes the stream hold this charge until it is dropped.
    pub(crate) fn charged(self, charge: Charge) -> Self {
        Self { _charge: Some(charge), ..self }
    }
}

#[async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {}
}

#[async_trait]
impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        let mut buffer = BytesMut::zeroed(size.min(CHUNK));
        let read = loop {
            match self.file.read_at(&mut buffer, self.position) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(failed)?,
            }
        };
        if read == 0 {
            return Err(StreamError::Closed);
        }
        self.position += read as u64;
        buffer.truncate(read);
        Ok(buffer.freeze())
    }
}

/// Where a stream writes.
pub(crate) enum At {
    /// First at this position, and then after the bytes written before.
    Position(u64),
    /// At the end of the file at the time of each write.
    End,
}

/// A stream that writes a file and charges its growth.
pub(crate) struct Writer {
    file: Arc<File>,
    at: At,
    quota: Quota,
    closed: bool,
    /// Charged for the file, which the stream holds open.
    _charge: Option<Charge>,
}

impl Writer {
    pub(crate) fn new(file: Arc<File>, at: At, quota: Quota) -> Self {
        Self { file, at, quota, closed: false, _charge: None }
    }

    /// Makes the stream hold this charge until it is dropped.
    pub(crate) fn charged(self, charge: Charge) -> Self {
        Self { _charge: Some(charge), ..self }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let start = match self.at {
            At::Position(position) => position,
            At::End => self.file.metadata()?.len(),
        };
        write_charged(&self.file, bytes, start, &self.quota)?;
        if let At::Position(position) = &mut self.at {
            *position += bytes.len() as u64;
        }
        Ok(())
    }
}

/// Charges the growth of the file to the quota, and writes all of `bytes` at `start`.
pub(crate) fn write_charged(file: &File, bytes: &[u8], start: u64, quota: &Quota) -> io::Result<()> {
    quota.write(file, start, bytes.len() as u64)?;
    file.write_all_at(bytes, start).inspect_err(|error| {
        if is_full(error) {
            quota.disk_is_full();
        }
    })
}

/// Returns whether the error is that the disk is full or that the user's quota is used up.
pub(crate) fn is_full(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno == Some(Errno::NOSPC) || errno == Some(Errno::DQUOT)
}

fn failed(error: io::Error) -> StreamError {
    StreamError::LastOperationFailed(error.into())
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if self.closed {
            return Err(StreamError::Closed);
        }
        self.write_all(&bytes).map_err(|error| {
            self.closed = true;
            failed(error)
        })
    }

    fn flush(&mut self) -> StreamResult<()> {
        if self.closed { Err(StreamError::Closed) } else { Ok(()) }
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        if self.closed { Err(StreamError::Closed) } else { Ok(CHUNK) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_stream_reads_what_a_stream_wrote() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut writer = Writer::new(Arc::clone(&file), At::Position(2), Quota::new(None));
        writer.write(Bytes::from_static(b"cd")).unwrap();
        Writer::new(Arc::clone(&file), At::End, Quota::new(None)).write(Bytes::from_static(b"g")).unwrap();
        writer.write(Bytes::from_static(b"EF")).unwrap();
        let mut reader = Reader::new(Arc::clone(&file), 1);
        assert_eq!(reader.read(2).unwrap(), "\0c");
        assert_eq!(reader.read(usize::MAX).unwrap(), "dEF");
        assert!(matches!(reader.read(1), Err(StreamError::Closed)));
    }

    #[test]
    fn a_full_disk_is_an_error_for_the_component_and_is_recorded() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let quota = Quota::new(None);
        let mut writer = Writer::new(Arc::new(full), At::Position(0), quota.clone());
        let Err(StreamError::LastOperationFailed(error)) = writer.write(Bytes::from_static(b"x")) else {
            panic!()
        };
        assert!(is_full(error.downcast_ref().unwrap()));
        assert!(matches!(writer.check_write(), Err(StreamError::Closed)));
        assert_eq!(quota.full().as_deref(), Some("the disk is full"));
    }

    #[test]
    fn nothing_is_written_beyond_the_budget() {
        let mut file = tempfile::tempfile().unwrap();
        let budget = crate::DiskBudget { bytes: Some(replica::Bytes(3)), ..Default::default() };
        let mut writer =
            Writer::new(Arc::new(file.try_clone().unwrap()), At::Position(0), Quota::new(Some(budget)));
        writer.write(Bytes::from_static(b"abc")).unwrap();
        assert!(writer.write(Bytes::from_static(b"d")).is_err());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        // The descriptor's position is still 0, because streams write at explicit positions.
        assert_eq!(text, "abc");
    }
}
