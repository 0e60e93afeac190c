//! Responses of servers.

use wasmtime::component::Resource;
use wasmtime_wasi::p2::{DynInputStream, DynPollable};
use wasmtime_wasi_http::FieldMap;
use wasmtime_wasi_http::p2::bindings::http::types;
use wasmtime_wasi_http::p2::body::{HostFutureTrailers, HostIncomingBody};
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostIncomingResponse};

use super::{HELD_BY_RESPONSE, HttpView};

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
            // The request needs no more memory, except for chunks of its body that are still being sent.
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

/// The stream of a body has no share of its own, because the body cannot be dropped before its stream.
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
