//! Types that every other crate of the host uses. This crate knows neither PostgreSQL nor stores nor WebAssembly.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod causes;
pub mod descriptors;
pub mod landlock;
pub mod logins;
pub mod lookalike;
pub mod nearest;
pub mod printable;
pub mod redact;
pub mod regular_file;
pub mod rooted;
pub mod secret;
pub mod shell;
pub mod units;
pub mod way;
