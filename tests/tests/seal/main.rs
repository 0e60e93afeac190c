//! Tests of the seal alone, on real backups of a real server. A backup that passes starts and streams. Each danger of rule 30 fails a
//! check, and PostgreSQL cannot start because pg_control is missing.
//!
//! The seal must run as the server's user. If the tests run as root, each of them runs itself again as `postgres`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dangers;
mod killed;
mod passes;
mod scene;
