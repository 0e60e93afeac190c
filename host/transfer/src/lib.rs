//! Moving bytes into a data directory. This crate knows neither WebAssembly nor plugins nor PostgreSQL's loop:
//! it has the units that sizes are given in and the walk below an opened directory that never follows a link.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod beneath;
pub mod units;
