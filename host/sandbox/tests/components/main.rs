//! What a component can do to the machine, the log and the run. The tests run components that try it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod audit;
mod cancelling;
mod data_plane;
mod denials;
mod endings;
mod files;
mod image_cache;
mod network;
mod refusals;
mod resources;
mod secrets;
mod stage;
mod usage;
