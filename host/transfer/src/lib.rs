//! The data plane: copies many files at once from stores into a data directory, and checks them while it does. This crate knows
//! neither WebAssembly nor plugins nor the loop over methods.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod budget;
pub mod chain;
pub mod cipher;
pub mod codec;
pub mod derive;
pub mod digest;
pub mod error;
pub mod job;
mod key_texts;
pub mod keys;
pub mod listing;
pub mod meter;
pub mod pages;
pub mod pipeline;
pub mod plane;
pub mod rate;
pub mod reserved;
pub mod sink;
pub mod store;
pub mod target;
