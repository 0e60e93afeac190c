//! Bounds the memory that the host needs for `wasi:http`. A component needs no grant to make lists of headers, requests and responses, and
//! none of them is in the component's own memory. So the host bounds each part of a request, and what all of them may need together:
//! [`HELD`], in `describe` as well as in a run.
//!
//! Each list of headers, request and response reserves the most that it may need. Handles that lead to the same memory share one
//! reservation: the headers and the body of a response use the reservation of the response. A request that was sent has its reservation
//! until its response has come or its task has ended, even if the component drops every handle before. If a server answers before it has
//! read the whole body of a request, two chunks of the body are not counted. There are at most as many such requests as connections.

mod fields;
mod requests;
mod responses;
mod serving;

use std::collections::HashMap;
use std::sync::Arc;

use replica::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi_http::p2::{HeaderError, HeaderResult};
use wasmtime_wasi_http::{FieldMap, WasiHttpCtxView};

use super::http::{CHUNK, FIELDS, HEAD, HEADERS, Http};
use crate::state::State;

/// How many bytes the HTTP method of a request may have.
const METHOD: usize = 64;
/// How many bytes the scheme of a request may have.
const SCHEME: usize = 16;
/// How many bytes the authority of a request may have.
const AUTHORITY: usize = 300;
/// How many bytes the path and query of a request may have.
const PATH: usize = 8 << 10;

/// How much memory all lists of headers, requests and responses may need together.
const HELD: Bytes = Bytes(16 << 20);
/// How much a list of headers may need: its bytes, and at most 384 bytes of records for each line.
const HELD_BY_FIELDS: Bytes = Bytes((FIELDS + HEADERS * 384) as u64);
/// How much a request may need: headers, trailers, the other parts, and the two chunks of its body that wait to be sent.
const HELD_BY_REQUEST: Bytes =
    Bytes(2 * HELD_BY_FIELDS.0 + (METHOD + SCHEME + AUTHORITY + PATH + 2 * CHUNK) as u64);
/// How much a response may need: the buffers with its head and with the next bytes of its body, and the records of its headers and
/// trailers.
const HELD_BY_RESPONSE: Bytes = Bytes(2 * HEAD as u64 + 2 * HELD_BY_FIELDS.0);

/// How much memory one permit of the semaphore stands for.
const PERMIT: Bytes = Bytes(1 << 10);

/// Why the host ends a component that uses `wasi:http`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooMuch {
    /// Too much is open at once.
    #[error(
        "so many headers, requests and responses of wasi:http are open that they may need more than {} MiB of the host's memory",
        HELD.0 >> 20
    )]
    Held,
    /// A list of headers has too many lines.
    #[error("a list of headers of wasi:http may have no more than {HEADERS} lines")]
    Lines,
}

/// Returns how many permits a size takes.
fn permits(size: Bytes) -> u32 {
    u32::try_from(size.0.div_ceil(PERMIT.0)).unwrap_or(u32::MAX)
}

/// Memory that is reserved while at least one clone exists.
pub(super) type Share = Arc<OwnedSemaphorePermit>;

/// The memory that is reserved for the handles of a component. One permit of the semaphore is [`PERMIT`].
pub(super) struct Held {
    left: Arc<Semaphore>,
    shares: HashMap<u32, Share>,
}

impl Default for Held {
    fn default() -> Self {
        Self { left: Arc::new(Semaphore::new(permits(HELD) as usize)), shares: HashMap::new() }
    }
}

impl Held {
    /// Reserves memory.
    ///
    /// # Errors
    /// [`TooMuch::Held`] if too much is reserved already.
    fn reserve(&self, most: Bytes) -> Result<Share, TooMuch> {
        let permit =
            Arc::clone(&self.left).try_acquire_many_owned(permits(most)).map_err(|_| TooMuch::Held)?;
        Ok(Arc::new(permit))
    }

    /// Gives the share to a handle.
    fn keep(&mut self, handle: u32, share: Share) {
        self.shares.insert(handle, share);
    }

    /// Takes the share of a handle that is gone.
    fn take(&mut self, handle: u32) -> Option<Share> {
        self.shares.remove(&handle)
    }

    /// Gives the share of `handle` to the handle `other` too.
    fn share(&mut self, handle: u32, other: u32) {
        if let Some(share) = self.shares.get(&handle).cloned() {
            self.shares.insert(other, share);
        }
    }
}

/// `wasi:http` during one call.
pub(super) struct HttpView<'a> {
    http: &'a mut Http,
    table: &'a mut ResourceTable,
}

/// Marks [`HttpView`] for the linker.
pub(super) struct HttpData;

impl HasData for HttpData {
    type Data<'a> = HttpView<'a>;
}

impl HttpView<'_> {
    /// Returns the view of one store.
    pub(super) fn of(state: &mut State) -> HttpView<'_> {
        HttpView { http: &mut state.http, table: &mut state.table }
    }

    /// Returns WASI's own view.
    fn wasi(&mut self) -> WasiHttpCtxView<'_> {
        self.http.view(self.table)
    }

    /// Drops the share of a handle that is gone.
    fn gone(&mut self, handle: u32) {
        drop(self.http.held.take(handle));
    }

    /// Checks that a list of headers may have `more` lines in place of those with this name, if there is a name.
    fn check_lines(
        &self,
        fields: &Resource<FieldMap>,
        replaced: Option<&str>,
        more: usize,
    ) -> HeaderResult<()> {
        let fields = self.table.get(fields)?;
        let replaced = replaced.map_or(0, |name| fields.get_all(name).iter().count());
        if (fields.len() - replaced).saturating_add(more) > HEADERS {
            return Err(HeaderError::trap(TooMuch::Lines));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
