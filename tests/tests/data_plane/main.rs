//! The data plane, end to end: replicas out of real stores, and what becomes of a run when a store fails, an object changes, a
//! byte is flipped or a disk fills. Whatever fails names the object, leaves nothing that starts and nothing outside.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod archive;
mod bytes;
mod disk;
mod fails;
mod log;
mod manifest;
mod pace;
mod refusals;
mod releases;
mod scene;
mod stores;
