//! What the author of a method gets: the contract as a package, the crate `understudy-sdk`, and the project that `understudy new` writes.
//! Everything is built outside this project, as he does.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
mod project;
mod sdk;
