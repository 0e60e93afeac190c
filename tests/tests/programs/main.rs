//! Native programs that a component runs: what is granted works, and nothing else does, whoever runs it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod confined;
mod endings;
mod grants;
mod intruder;
mod killed;
mod stage;
mod without_landlock;
