//! Readers of PostgreSQL's files that only methods need: `backup_manifest` with its checksums, and the records of the write-ahead log. The
//! readers that the host needs too are in `postgres-formats`. This crate knows neither the contract nor the source of the bytes.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod checksum;
pub mod manifest;
pub mod wal;
