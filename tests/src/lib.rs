//! Helpers for the tests that span several crates, and for the demo: real servers, real backups, and runs of the program.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod barman;
pub mod certificates;
pub mod cluster;
pub mod control_file;
pub mod debian;
pub mod faults;
pub mod files;
pub mod gpg;
pub mod guest;
pub mod node;
pub mod patroni;
pub mod patroni_cluster;
pub mod pgbackrest;
pub mod primary;
pub mod program;
pub mod python;
pub mod releases;
pub mod remedies;
pub mod replica_folder;
pub mod scripted;
pub mod scripted_server;
pub mod server;
pub mod stored;
pub mod stores;
pub mod tree;
pub mod user;
