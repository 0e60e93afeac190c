//! Readers for PostgreSQL's files that only methods need: `backup_manifest` with its checksums, and WAL records. The readers that the host
//! needs too are in `postgres-formats`. This crate depends neither on the contract nor on where the bytes come from.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod checksum;
pub mod manifest;
pub mod wal;
