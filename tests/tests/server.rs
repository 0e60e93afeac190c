//! Tests for the servers that other tests use.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use tests::server::{Playground, PostgresServer};

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_server_answers_on_its_own_port_and_stops_when_dropped() {
    let playground = Playground::new("server").unwrap();
    let server = PostgresServer::init(&playground, "primary").unwrap();
    assert_eq!(server.psql("SELECT 1 + 1").unwrap(), "2");
    let pid = server.datadir().join("postmaster.pid");
    assert!(pid.exists());
    drop(server);
    assert!(!pid.exists());
}
