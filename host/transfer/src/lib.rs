//! The data plane: moves bytes from stores into a data directory, checked on the way, many files at once. This crate
//! knows neither WebAssembly nor plugins nor PostgreSQL's loop.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod budget;
pub mod cipher;
pub mod codec;
pub mod derive;
pub mod digest;
pub mod error;
pub mod job;
mod key_texts;
pub mod keys;
pub mod listing;
pub mod pipeline;
pub mod plane;
pub mod rate;
pub mod reserved;
pub mod sink;
pub mod store;
pub mod target;
