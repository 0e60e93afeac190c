//! Requests to servers.

use wasmtime::component::Resource;
use wasmtime_wasi::p2::DynOutputStream;
use wasmtime_wasi_http::p2::HttpResult;
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler;
use wasmtime_wasi_http::p2::bindings::http::types::{self, Method, Scheme};
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::{FieldMap, RequestOptions};

use super::{AUTHORITY, HELD_BY_REQUEST, HttpView, METHOD, PATH, SCHEME};

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

/// The body has no share of its own: the share of the request includes its chunks and trailers.
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
