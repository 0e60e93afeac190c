//! Runs one suite against every kind of store with a real server, and tests how each kind handles failures of its server.

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
