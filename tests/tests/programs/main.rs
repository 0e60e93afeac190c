//! Native programs that a component runs can do only what is granted, whether root or another user runs Understudy.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod confined;
mod cpu;
mod endings;
mod grants;
mod intruder;
mod killed;
mod output;
mod processes;
mod sessions;
mod stage;
mod trusted;
mod without_landlock;
