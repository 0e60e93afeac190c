//! What a component can do to the machine, to the log and to the run: tried with components that do it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod cancelling;
mod data_plane;
mod denials;
mod endings;
mod files;
mod kept;
mod refusals;
mod resources;
mod secrets;
mod stage;
