//! The resources of the data plane, from the contract.

pub(crate) use crate::raw::understudy::method::digests::Hasher;
pub(crate) use crate::raw::understudy::method::keys::Key;
pub(crate) use crate::raw::understudy::method::store::{Bucket, Pipeline};
pub(crate) use crate::raw::understudy::method::transfer::{Chain, Job, Listing};

use crate::raw::understudy::method::store::{Object, Range};
use crate::raw::understudy::method::types::Error;
use crate::raw::wasi::io::streams::{InputStream, StreamError};

/// A stream that reads the bytes of an object.
pub(crate) struct Stream(InputStream);

impl Stream {
    /// Opens the object `key`.
    pub(crate) fn open(
        bucket: &Bucket,
        key: &str,
        range: Option<Range>,
        via: Option<&Pipeline>,
    ) -> Result<Self, Error> {
        bucket.read(key, range, via).map(Self)
    }

    /// Reads the next bytes, at most `at_most`; `None` at the end.
    pub(crate) fn next(&mut self, at_most: u64) -> Result<Option<Vec<u8>>, String> {
        match self.0.blocking_read(at_most) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StreamError::Closed) => Ok(None),
            Err(StreamError::LastOperationFailed(error)) => Err(error.to_debug_string()),
        }
    }
}

/// Requests one page of a listing.
pub(crate) fn scan(
    bucket: &Bucket,
    prefix: &str,
    after: Option<&str>,
) -> Result<(Vec<Object>, Option<String>), Error> {
    let page = bucket.scan(prefix, after)?;
    Ok((page.objects, page.next))
}
