//! Tests only the seal, on real backups of a real server. A backup that passes the seal starts and streams. Each danger that rule 30
//! lists fails a check, and then PostgreSQL cannot start because pg_control is missing.
//!
//! The seal must run as the server's user. If the tests run as root, each of them runs itself again as `postgres`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dangers;
mod killed;
mod passes;
mod scene;
