//! The data plane, end to end: replicas from real stores, and runs in which a store fails, an object changes, a byte is flipped or a
//! disk fills up. Every failure names the object, leaves no data directory that PostgreSQL can start from, and writes nothing outside
//! the data directory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archive;
mod bytes;
mod chains;
mod disk;
mod fails;
mod log;
mod manifest;
mod pace;
mod refusals;
mod releases;
mod scene;
mod stores;
