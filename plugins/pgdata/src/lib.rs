//! What PostgreSQL writes into a backup and only methods read back: `backup_manifest`, with its checksums, and the records of the
//! write-ahead log. What the host reads too is in `postgres-formats`. Knows neither the contract nor where the bytes come from.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod checksum;
pub mod manifest;
pub mod wal;
