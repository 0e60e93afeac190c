//! Bounds the memory that the host needs for `wasi:http`. A component needs no grant to make lists of headers, requests and responses, and
//! none of them is in the component's own memory. So the host bounds each part of a request, and what all of them may need together:
//! [`HELD`], in `describe` as well as in a run.
//!
//! Each list of headers, request and response reserves the most that it may need. Handles that lead to the same memory share one
//! reservation: the headers and the body of a response have that of the response. A request that was sent has its reservation until its
//! response has come or its task has ended, even if the component drops every handle before. A server may answer before it has read the
//! whole body: two chunks of each such request, of which there are as many as connections, are not counted then.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable};
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler;
use wasmtime_wasi_http::p2::bindings::http::types::{self, Method, Scheme};
use wasmtime_wasi_http::p2::body::{HostFutureTrailers, HostIncomingBody, HostOutgoingBody};
use wasmtime_wasi_http::p2::types::{
    HostFutureIncomingResponse, HostIncomingRequest, HostIncomingResponse, HostOutgoingRequest,
    HostOutgoingResponse, HostResponseOutparam,
};
use wasmtime_wasi_http::p2::{HeaderError, HeaderResult, HttpError, HttpResult};
use wasmtime_wasi_http::{FieldMap, RequestOptions, WasiHttpCtxView};

use super::http::{CHUNK, FIELDS, HEAD, HEADERS, Http};
use crate::state::State;

/// How many bytes the method of a request may have.
const METHOD: usize = 64;
/// How many bytes the scheme of a request may have.
const SCHEME: usize = 16;
/// How many bytes the authority of a request may have.
const AUTHORITY: usize = 300;
/// How many bytes the path and query of a request may have.
const PATH: usize = 8 << 10;

/// How many KiB all lists of headers, requests and responses may need together.
const HELD: usize = 16 << 10;
/// How many KiB a list of headers may need: its bytes, and at most 384 bytes of records for each line.
const HELD_BY_FIELDS: usize = (FIELDS + HEADERS * 384) >> 10;
/// How many KiB a request may need: headers, trailers, the other parts, and the two chunks of its body that wait to be sent.
const HELD_BY_REQUEST: usize =
    2 * HELD_BY_FIELDS + ((METHOD + SCHEME + AUTHORITY + PATH + 2 * CHUNK) >> 10) + 1;
/// How many KiB a response may need: the buffers with its head and with the next bytes of its body, and the records of its headers and
/// trailers.
const HELD_BY_RESPONSE: usize = 2 * (HEAD >> 10) + 2 * HELD_BY_FIELDS;

/// Why the host ends a component that uses `wasi:http`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooMuch {
    /// Too much is open at once.
    #[error(
        "so many headers, requests and responses of wasi:http are open that they may need more than {} MiB of the host's memory",
        HELD >> 10
    )]
    Held,
    /// A list of headers has too many lines.
    #[error("a list of headers of wasi:http may have no more than {HEADERS} lines")]
    Lines,
}

/// Memory that is reserved while at least one clone exists.
pub(super) type Share = Arc<OwnedSemaphorePermit>;

/// The memory that is reserved for the handles of a component. One permit of the semaphore is one KiB.
pub(super) struct Held {
    left: Arc<Semaphore>,
    shares: HashMap<u32, Share>,
}

impl Default for Held {
    fn default() -> Self {
        Self { left: Arc::new(Semaphore::new(HELD)), shares: HashMap::new() }
    }
}

impl Held {
    /// Reserves memory.
    ///
    /// # Errors
    /// [`TooMuch::Held`] if too much is reserved already.
    fn reserve(&self, kib: usize) -> Result<Share, TooMuch> {
        let kib = u32::try_from(kib).map_err(|_| TooMuch::Held)?;
        let permit = Arc::clone(&self.left).try_acquire_many_owned(kib).map_err(|_| TooMuch::Held)?;
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

    /// Lets the handle `other` have the share of `handle` too.
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

impl outgoing_handler::Host for HttpView<'_> {
    fn handle(
        &mut self,
        request: Resource<HostOutgoingRequest>,
        options: Option<Resource<RequestOptions>>,
    ) -> HttpResult<Resource<HostFutureIncomingResponse>> {
        let share = self.http.held.take(request.rep());
        // WASI copies the options, and would leave them in the table for ever.
        let copied = options.as_ref().map(|options| Resource::<RequestOptions>::new_own(options.rep()));
        self.http.set_share(share.clone());
        let sent = outgoing_handler::Host::handle(&mut self.wasi(), request, options);
        self.http.set_share(None);
        if let Some(copied) = copied {
            self.table.delete(copied)?;
        }
        let future = sent?;
        if let Some(share) = share {
            self.http.held.keep(future.rep(), share);
        }
        Ok(future)
    }
}

impl types::Host for HttpView<'_> {
    fn convert_error_code(&mut self, error: HttpError) -> wasmtime::Result<types::ErrorCode> {
        error.downcast()
    }

    fn convert_header_error(&mut self, error: HeaderError) -> wasmtime::Result<types::HeaderError> {
        error.downcast()
    }

    fn http_error_code(
        &mut self,
        error: Resource<types::IoError>,
    ) -> wasmtime::Result<Option<types::ErrorCode>> {
        types::Host::http_error_code(&mut self.wasi(), error)
    }
}

impl types::HostFields for HttpView<'_> {
    fn new(&mut self) -> wasmtime::Result<Resource<FieldMap>> {
        let share = self.http.held.reserve(HELD_BY_FIELDS)?;
        let fields = types::HostFields::new(&mut self.wasi())?;
        self.http.held.keep(fields.rep(), share);
        Ok(fields)
    }

    fn from_list(&mut self, entries: Vec<(String, Vec<u8>)>) -> HeaderResult<Resource<FieldMap>> {
        if entries.len() > HEADERS {
            return Err(HeaderError::trap(TooMuch::Lines));
        }
        let share = self.http.held.reserve(HELD_BY_FIELDS).map_err(HeaderError::trap)?;
        let fields = types::HostFields::from_list(&mut self.wasi(), entries)?;
        self.http.held.keep(fields.rep(), share);
        Ok(fields)
    }

    fn drop(&mut self, fields: Resource<FieldMap>) -> wasmtime::Result<()> {
        let handle = fields.rep();
        types::HostFields::drop(&mut self.wasi(), fields)?;
        self.gone(handle);
        Ok(())
    }

    fn get(&mut self, fields: Resource<FieldMap>, name: String) -> wasmtime::Result<Vec<Vec<u8>>> {
        types::HostFields::get(&mut self.wasi(), fields, name)
    }

    fn has(&mut self, fields: Resource<FieldMap>, name: String) -> wasmtime::Result<bool> {
        types::HostFields::has(&mut self.wasi(), fields, name)
    }

    fn set(&mut self, fields: Resource<FieldMap>, name: String, values: Vec<Vec<u8>>) -> HeaderResult<()> {
        self.check_lines(&fields, Some(&name), values.len())?;
        types::HostFields::set(&mut self.wasi(), fields, name, values)
    }

    fn delete(&mut self, fields: Resource<FieldMap>, name: String) -> HeaderResult<()> {
        types::HostFields::delete(&mut self.wasi(), fields, name)
    }

    fn append(&mut self, fields: Resource<FieldMap>, name: String, value: Vec<u8>) -> HeaderResult<()> {
        self.check_lines(&fields, None, 1)?;
        types::HostFields::append(&mut self.wasi(), fields, name, value)
    }

    fn entries(&mut self, fields: Resource<FieldMap>) -> wasmtime::Result<Vec<(String, Vec<u8>)>> {
        types::HostFields::entries(&mut self.wasi(), fields)
    }

    fn clone(&mut self, fields: Resource<FieldMap>) -> wasmtime::Result<Resource<FieldMap>> {
        let share = self.http.held.reserve(HELD_BY_FIELDS)?;
        let copy = types::HostFields::clone(&mut self.wasi(), fields)?;
        self.http.held.keep(copy.rep(), share);
        Ok(copy)
    }
}

impl types::HostOutgoingRequest for HttpView<'_> {
    fn new(&mut self, headers: Resource<FieldMap>) -> wasmtime::Result<Resource<HostOutgoingRequest>> {
        // The request may get the handle that the headers had.
        self.gone(headers.rep());
        let share = self.http.held.reserve(HELD_BY_REQUEST)?;
        let request = types::HostOutgoingRequest::new(&mut self.wasi(), headers)?;
        self.http.held.keep(request.rep(), share);
        Ok(request)
    }

    fn body(
        &mut self,
        request: Resource<HostOutgoingRequest>,
    ) -> wasmtime::Result<Result<Resource<HostOutgoingBody>, ()>> {
        types::HostOutgoingRequest::body(&mut self.wasi(), request)
    }

    fn drop(&mut self, request: Resource<HostOutgoingRequest>) -> wasmtime::Result<()> {
        let handle = request.rep();
        types::HostOutgoingRequest::drop(&mut self.wasi(), request)?;
        self.gone(handle);
        Ok(())
    }

    fn method(&mut self, request: Resource<HostOutgoingRequest>) -> wasmtime::Result<Method> {
        types::HostOutgoingRequest::method(&mut self.wasi(), request)
    }

    fn set_method(
        &mut self,
        request: Resource<HostOutgoingRequest>,
        method: Method,
    ) -> wasmtime::Result<Result<(), ()>> {
        if matches!(&method, Method::Other(other) if other.len() > METHOD) {
            return Ok(Err(()));
        }
        types::HostOutgoingRequest::set_method(&mut self.wasi(), request, method)
    }

    fn path_with_query(
        &mut self,
        request: Resource<HostOutgoingRequest>,
    ) -> wasmtime::Result<Option<String>> {
        types::HostOutgoingRequest::path_with_query(&mut self.wasi(), request)
    }

    fn set_path_with_query(
        &mut self,
        request: Resource<HostOutgoingRequest>,
        path: Option<String>,
    ) -> wasmtime::Result<Result<(), ()>> {
        if path.as_ref().is_some_and(|path| path.len() > PATH) {
            return Ok(Err(()));
        }
        types::HostOutgoingRequest::set_path_with_query(&mut self.wasi(), request, path)
    }

    fn scheme(&mut self, request: Resource<HostOutgoingRequest>) -> wasmtime::Result<Option<Scheme>> {
        types::HostOutgoingRequest::scheme(&mut self.wasi(), request)
    }

    fn set_scheme(
        &mut self,
        request: Resource<HostOutgoingRequest>,
        scheme: Option<Scheme>,
    ) -> wasmtime::Result<Result<(), ()>> {
        if matches!(&scheme, Some(Scheme::Other(other)) if other.len() > SCHEME) {
            return Ok(Err(()));
        }
        types::HostOutgoingRequest::set_scheme(&mut self.wasi(), request, scheme)
    }

    fn authority(&mut self, request: Resource<HostOutgoingRequest>) -> wasmtime::Result<Option<String>> {
        types::HostOutgoingRequest::authority(&mut self.wasi(), request)
    }

    fn set_authority(
        &mut self,
        request: Resource<HostOutgoingRequest>,
        authority: Option<String>,
    ) -> wasmtime::Result<Result<(), ()>> {
        if authority.as_ref().is_some_and(|authority| authority.len() > AUTHORITY) {
            return Ok(Err(()));
        }
        types::HostOutgoingRequest::set_authority(&mut self.wasi(), request, authority)
    }

    fn headers(&mut self, request: Resource<HostOutgoingRequest>) -> wasmtime::Result<Resource<FieldMap>> {
        let handle = request.rep();
        let headers = types::HostOutgoingRequest::headers(&mut self.wasi(), request)?;
        self.http.held.share(handle, headers.rep());
        Ok(headers)
    }
}

impl types::HostRequestOptions for HttpView<'_> {
    fn new(&mut self) -> wasmtime::Result<Resource<RequestOptions>> {
        types::HostRequestOptions::new(&mut self.wasi())
    }

    fn connect_timeout(
        &mut self,
        options: Resource<RequestOptions>,
    ) -> wasmtime::Result<Option<types::Duration>> {
        types::HostRequestOptions::connect_timeout(&mut self.wasi(), options)
    }

    fn set_connect_timeout(
        &mut self,
        options: Resource<RequestOptions>,
        duration: Option<types::Duration>,
    ) -> wasmtime::Result<Result<(), ()>> {
        types::HostRequestOptions::set_connect_timeout(&mut self.wasi(), options, duration)
    }

    fn first_byte_timeout(
        &mut self,
        options: Resource<RequestOptions>,
    ) -> wasmtime::Result<Option<types::Duration>> {
        types::HostRequestOptions::first_byte_timeout(&mut self.wasi(), options)
    }

    fn set_first_byte_timeout(
        &mut self,
        options: Resource<RequestOptions>,
        duration: Option<types::Duration>,
    ) -> wasmtime::Result<Result<(), ()>> {
        types::HostRequestOptions::set_first_byte_timeout(&mut self.wasi(), options, duration)
    }

    fn between_bytes_timeout(
        &mut self,
        options: Resource<RequestOptions>,
    ) -> wasmtime::Result<Option<types::Duration>> {
        types::HostRequestOptions::between_bytes_timeout(&mut self.wasi(), options)
    }

    fn set_between_bytes_timeout(
        &mut self,
        options: Resource<RequestOptions>,
        duration: Option<types::Duration>,
    ) -> wasmtime::Result<Result<(), ()>> {
        types::HostRequestOptions::set_between_bytes_timeout(&mut self.wasi(), options, duration)
    }

    fn drop(&mut self, options: Resource<RequestOptions>) -> wasmtime::Result<()> {
        types::HostRequestOptions::drop(&mut self.wasi(), options)
    }
}

/// The body has no share of its own: its chunks and trailers are in the request, or gone with it.
impl types::HostOutgoingBody for HttpView<'_> {
    fn write(
        &mut self,
        body: Resource<HostOutgoingBody>,
    ) -> wasmtime::Result<Result<Resource<DynOutputStream>, ()>> {
        types::HostOutgoingBody::write(&mut self.wasi(), body)
    }

    fn finish(
        &mut self,
        body: Resource<HostOutgoingBody>,
        trailers: Option<Resource<FieldMap>>,
    ) -> HttpResult<()> {
        if let Some(trailers) = &trailers {
            self.gone(trailers.rep());
        }
        types::HostOutgoingBody::finish(&mut self.wasi(), body, trailers)
    }

    fn drop(&mut self, body: Resource<HostOutgoingBody>) -> wasmtime::Result<()> {
        types::HostOutgoingBody::drop(&mut self.wasi(), body)
    }
}

impl types::HostFutureIncomingResponse for HttpView<'_> {
    fn drop(&mut self, future: Resource<HostFutureIncomingResponse>) -> wasmtime::Result<()> {
        let handle = future.rep();
        types::HostFutureIncomingResponse::drop(&mut self.wasi(), future)?;
        self.gone(handle);
        Ok(())
    }

    fn get(
        &mut self,
        future: Resource<HostFutureIncomingResponse>,
    ) -> wasmtime::Result<Option<Result<Result<Resource<HostIncomingResponse>, types::ErrorCode>, ()>>> {
        let handle = future.rep();
        let got = types::HostFutureIncomingResponse::get(&mut self.wasi(), future)?;
        if let Some(Ok(response)) = &got {
            // Nothing more is needed of the request, but for chunks of its body that are still being sent.
            self.gone(handle);
            if let Ok(response) = response {
                let share = self.http.held.reserve(HELD_BY_RESPONSE)?;
                self.http.held.keep(response.rep(), share);
            }
        }
        Ok(got)
    }

    fn subscribe(
        &mut self,
        future: Resource<HostFutureIncomingResponse>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        types::HostFutureIncomingResponse::subscribe(&mut self.wasi(), future)
    }
}

impl types::HostIncomingResponse for HttpView<'_> {
    fn drop(&mut self, response: Resource<HostIncomingResponse>) -> wasmtime::Result<()> {
        let handle = response.rep();
        types::HostIncomingResponse::drop(&mut self.wasi(), response)?;
        self.gone(handle);
        Ok(())
    }

    fn status(&mut self, response: Resource<HostIncomingResponse>) -> wasmtime::Result<types::StatusCode> {
        types::HostIncomingResponse::status(&mut self.wasi(), response)
    }

    fn headers(&mut self, response: Resource<HostIncomingResponse>) -> wasmtime::Result<Resource<FieldMap>> {
        let handle = response.rep();
        let headers = types::HostIncomingResponse::headers(&mut self.wasi(), response)?;
        self.http.held.share(handle, headers.rep());
        Ok(headers)
    }

    fn consume(
        &mut self,
        response: Resource<HostIncomingResponse>,
    ) -> wasmtime::Result<Result<Resource<HostIncomingBody>, ()>> {
        let handle = response.rep();
        let body = types::HostIncomingResponse::consume(&mut self.wasi(), response)?;
        if let Ok(body) = &body {
            self.http.held.share(handle, body.rep());
        }
        Ok(body)
    }
}

/// The stream of a body has no share of its own, because the body cannot be dropped before it.
impl types::HostIncomingBody for HttpView<'_> {
    fn stream(
        &mut self,
        body: Resource<HostIncomingBody>,
    ) -> wasmtime::Result<Result<Resource<DynInputStream>, ()>> {
        types::HostIncomingBody::stream(&mut self.wasi(), body)
    }

    fn finish(&mut self, body: Resource<HostIncomingBody>) -> wasmtime::Result<Resource<HostFutureTrailers>> {
        let share = self.http.held.take(body.rep());
        let trailers = types::HostIncomingBody::finish(&mut self.wasi(), body)?;
        if let Some(share) = share {
            self.http.held.keep(trailers.rep(), share);
        }
        Ok(trailers)
    }

    fn drop(&mut self, body: Resource<HostIncomingBody>) -> wasmtime::Result<()> {
        let handle = body.rep();
        types::HostIncomingBody::drop(&mut self.wasi(), body)?;
        self.gone(handle);
        Ok(())
    }
}

impl types::HostFutureTrailers for HttpView<'_> {
    fn drop(&mut self, future: Resource<HostFutureTrailers>) -> wasmtime::Result<()> {
        let handle = future.rep();
        types::HostFutureTrailers::drop(&mut self.wasi(), future)?;
        self.gone(handle);
        Ok(())
    }

    fn subscribe(&mut self, future: Resource<HostFutureTrailers>) -> wasmtime::Result<Resource<DynPollable>> {
        types::HostFutureTrailers::subscribe(&mut self.wasi(), future)
    }

    fn get(
        &mut self,
        future: Resource<HostFutureTrailers>,
    ) -> wasmtime::Result<Option<Result<Result<Option<Resource<FieldMap>>, types::ErrorCode>, ()>>> {
        let handle = future.rep();
        let got = types::HostFutureTrailers::get(&mut self.wasi(), future)?;
        if let Some(Ok(Ok(Some(trailers)))) = &got {
            self.http.held.share(handle, trailers.rep());
        }
        Ok(got)
    }
}

/// A component can make a response, but has nobody to send it to.
impl types::HostOutgoingResponse for HttpView<'_> {
    fn new(&mut self, headers: Resource<FieldMap>) -> wasmtime::Result<Resource<HostOutgoingResponse>> {
        self.gone(headers.rep());
        let share = self.http.held.reserve(HELD_BY_REQUEST)?;
        let response = types::HostOutgoingResponse::new(&mut self.wasi(), headers)?;
        self.http.held.keep(response.rep(), share);
        Ok(response)
    }

    fn body(
        &mut self,
        response: Resource<HostOutgoingResponse>,
    ) -> wasmtime::Result<Result<Resource<HostOutgoingBody>, ()>> {
        types::HostOutgoingResponse::body(&mut self.wasi(), response)
    }

    fn status_code(
        &mut self,
        response: Resource<HostOutgoingResponse>,
    ) -> wasmtime::Result<types::StatusCode> {
        types::HostOutgoingResponse::status_code(&mut self.wasi(), response)
    }

    fn set_status_code(
        &mut self,
        response: Resource<HostOutgoingResponse>,
        status: types::StatusCode,
    ) -> wasmtime::Result<Result<(), ()>> {
        types::HostOutgoingResponse::set_status_code(&mut self.wasi(), response, status)
    }

    fn headers(&mut self, response: Resource<HostOutgoingResponse>) -> wasmtime::Result<Resource<FieldMap>> {
        let handle = response.rep();
        let headers = types::HostOutgoingResponse::headers(&mut self.wasi(), response)?;
        self.http.held.share(handle, headers.rep());
        Ok(headers)
    }

    fn drop(&mut self, response: Resource<HostOutgoingResponse>) -> wasmtime::Result<()> {
        let handle = response.rep();
        types::HostOutgoingResponse::drop(&mut self.wasi(), response)?;
        self.gone(handle);
        Ok(())
    }
}

/// No component is ever called with a request, so none has this resource.
impl types::HostResponseOutparam for HttpView<'_> {
    fn drop(&mut self, outparam: Resource<HostResponseOutparam>) -> wasmtime::Result<()> {
        types::HostResponseOutparam::drop(&mut self.wasi(), outparam)
    }

    fn set(
        &mut self,
        outparam: Resource<HostResponseOutparam>,
        response: Result<Resource<HostOutgoingResponse>, types::ErrorCode>,
    ) -> wasmtime::Result<()> {
        types::HostResponseOutparam::set(&mut self.wasi(), outparam, response)
    }

    fn send_informational(
        &mut self,
        outparam: Resource<HostResponseOutparam>,
        status: u16,
        headers: Resource<FieldMap>,
    ) -> HttpResult<()> {
        types::HostResponseOutparam::send_informational(&mut self.wasi(), outparam, status, headers)
    }
}

/// No component is ever called with a request, so none has this resource.
impl types::HostIncomingRequest for HttpView<'_> {
    fn method(&mut self, request: Resource<HostIncomingRequest>) -> wasmtime::Result<Method> {
        types::HostIncomingRequest::method(&mut self.wasi(), request)
    }

    fn path_with_query(
        &mut self,
        request: Resource<HostIncomingRequest>,
    ) -> wasmtime::Result<Option<String>> {
        types::HostIncomingRequest::path_with_query(&mut self.wasi(), request)
    }

    fn scheme(&mut self, request: Resource<HostIncomingRequest>) -> wasmtime::Result<Option<Scheme>> {
        types::HostIncomingRequest::scheme(&mut self.wasi(), request)
    }

    fn authority(&mut self, request: Resource<HostIncomingRequest>) -> wasmtime::Result<Option<String>> {
        types::HostIncomingRequest::authority(&mut self.wasi(), request)
    }

    fn headers(&mut self, request: Resource<HostIncomingRequest>) -> wasmtime::Result<Resource<FieldMap>> {
        types::HostIncomingRequest::headers(&mut self.wasi(), request)
    }

    fn consume(
        &mut self,
        request: Resource<HostIncomingRequest>,
    ) -> wasmtime::Result<Result<Resource<HostIncomingBody>, ()>> {
        types::HostIncomingRequest::consume(&mut self.wasi(), request)
    }

    fn drop(&mut self, request: Resource<HostIncomingRequest>) -> wasmtime::Result<()> {
        types::HostIncomingRequest::drop(&mut self.wasi(), request)
    }
}

#[cfg(test)]
mod tests;
