//! Lists of headers, and the errors of `wasi:http`.

use wasmtime::component::Resource;
use wasmtime_wasi_http::FieldMap;
use wasmtime_wasi_http::p2::bindings::http::types;
use wasmtime_wasi_http::p2::{HeaderError, HeaderResult, HttpError};

use super::super::http::HEADERS;
use super::{HELD_BY_FIELDS, HttpView, TooMuch};

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
