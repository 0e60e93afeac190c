//! What PostgreSQL writes into backups and data directories, read back: `backup_label`, `tablespace_map`,
//! `backup_manifest`, `pg_control`, WAL. Knows neither the contract nor where the bytes come from.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod backup_label;
pub mod checksum;
pub mod control;
pub mod history;
mod lsn;
pub mod manifest;
pub mod tablespace_map;
mod version;
pub mod wal;

pub use lsn::Lsn;
pub use version::major_version;
