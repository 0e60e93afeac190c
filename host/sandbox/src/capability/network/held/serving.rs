//! The functions of `wasi:http` for a component that is called with a request. No component is ever called with one.

use wasmtime::component::Resource;
use wasmtime_wasi_http::FieldMap;
use wasmtime_wasi_http::p2::HttpResult;
use wasmtime_wasi_http::p2::bindings::http::types::{self, Method, Scheme};
use wasmtime_wasi_http::p2::body::{HostIncomingBody, HostOutgoingBody};
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostOutgoingResponse, HostResponseOutparam};

use super::{HELD_BY_REQUEST, HttpView};

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
