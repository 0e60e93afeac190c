//! The seal itself, on real backups of a real server: what passes starts and streams, each of rule 30's dangers fails a check,
//! leaves pg_control absent, and is not started by PostgreSQL.
//!
//! The seal has to run as the server's user. Where the tests run as root each of them runs itself again as `postgres`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod dangers;
mod killed;
mod passes;
mod scene;
