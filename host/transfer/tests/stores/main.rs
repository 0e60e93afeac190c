//! One suite of functions against every kind of store that can be run for real, and what each does when its server fails.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cut;
mod faults;
mod implementations;
mod listings;
mod local;
mod outages;
mod provider_chain;
mod refusals;
mod responder;
mod suite;
mod tls;
