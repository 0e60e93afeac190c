//! The method `barman`, end to end: backups that the real Barman takes, on its own server and in a store, become replicas that stream.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cloud;
mod server;
