//! `types`: the error type of every capability.

use transfer::error::Kind;

use super::interfaces::types::{Error, Host};
use crate::answer::{CallError, HostError};
use crate::state::State;

impl Host for State {
    fn convert_error(&mut self, error: CallError) -> wasmtime::Result<Error> {
        error.answer().map(self::error)
    }
}

/// Converts the host's error type to the contract's.
pub(super) fn error(error: HostError) -> Error {
    match error.kind() {
        Kind::Denied => Error::Denied(error.into_text()),
        Kind::NotFound => Error::NotFound(error.into_text()),
        Kind::Invalid => Error::Invalid(error.into_text()),
        Kind::Transient => Error::Transient(error.into_text()),
        Kind::Corrupt => Error::Corrupt(error.into_text()),
        Kind::Limit => Error::Limit(error.into_text()),
        Kind::Failed => Error::Failed(error.into_text()),
        Kind::Cancelled => Error::Cancelled,
    }
}
