//! The data plane: moves bytes from stores into a data directory, checked on the way, many files at once. This crate
//! knows neither WebAssembly nor plugins nor PostgreSQL's loop.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod beneath;
pub mod digest;
pub mod error;
pub mod secret;
pub mod target;
pub mod units;
