//! `wasi:sockets`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use replica::Bytes;
use replica::usage::Amount;
use sandbox::ServerGrant;
use tests::scripted_server::ScriptedServer;

use super::{Lies, caller, named, private, tcp_server};
use crate::stage::{Stage, text};

/// A server that sends back what it gets.
fn echo() -> ScriptedServer {
    tcp_server(|stream| {
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes)?;
        stream.write_all(&bytes)
    })
}

/// A server that sends for ever. Counts how many bytes it could send.
fn endless() -> (ScriptedServer, Arc<AtomicU64>) {
    let sent: Arc<AtomicU64> = Arc::default();
    let count = Arc::clone(&sent);
    let server = tcp_server(move |stream| {
        loop {
            stream.write_all(&[b'x'; 4096])?;
            count.fetch_add(4096, Ordering::Relaxed);
        }
    });
    (server, sent)
}

fn hello(address: impl ToString) -> Stage {
    caller("tcp", &address.to_string()).option("say", text("hello"))
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_granted_address_is_reached_and_every_other_is_denied_with_the_line_that_allows_it() {
    let (granted, other) = (echo(), echo());
    let stage = hello(granted.address()).plain_server(granted.address());
    assert!(stage.gets().await.contains(r#"answered: "hello""#));
    assert_eq!(stage.denials(), []);

    let stage = hello(other.address()).plain_server(granted.address());
    let mut servers = [granted.address().to_string(), other.address().to_string()];
    servers.sort();
    let line = format!("[method.hostile.grants] network = [\"{}\", \"{}\"]", servers[0], servers[1]);
    assert_eq!(stage.is_denied().await, (other.address().to_string(), Some(line)));
    assert!(other.heads().is_empty(), "nothing may reach the other server");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_name_leads_to_a_private_address_only_if_the_operator_says_so() {
    let server = echo();
    let name = named(server.address());
    let lies = || Lies::new(&["127.0.0.1"]);
    let stage = hello(&name).plain_server(&name).resolving(lies());
    let (what, remedy) = stage.is_denied().await;
    assert_eq!(what, format!("{name}, whose name leads to 127.0.0.1, a private address"));
    let line = format!("[method.hostile.grants] network = {{ \"{name}\" = {{ private = true }} }}");
    assert_eq!(remedy, Some(line));
    assert!(server.heads().is_empty());

    let stage = hello(&name).server(&name, private()).resolving(lies());
    assert!(stage.gets().await.contains(r#"answered: "hello""#));
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_name_never_leads_to_a_metadata_service() {
    for address in ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "64:ff9b::169.254.169.254"] {
        let stage = hello("catalogue.test:80").server("catalogue.test:80", private());
        let (what, remedy) = stage.resolving(Lies::new(&[address])).is_denied().await;
        assert!(what.ends_with("a link-local address or one of a cloud's metadata service"), "{what}");
        assert_eq!(remedy, None, "{address}");
    }
    // A connection to the address itself is also denied, without a remedy.
    let (what, remedy) = hello("169.254.169.254:80").is_denied().await;
    assert_eq!((what.starts_with("169.254.169.254:80, a link-local"), remedy), (true, None), "{what}");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_name_that_leads_elsewhere_the_second_time_makes_no_difference() {
    let server = echo();
    let name = named(server.address());
    // Nothing listens on the second address, and the third one would be denied.
    let lies = Lies::new(&["127.0.0.1", "127.0.0.2", "169.254.169.254"]);
    let stage = hello(&name).server(&name, private()).resolving(lies.clone()).option("when", text("both"));
    let message = stage.gets().await;
    assert_eq!(message.matches(r#"answered: "hello""#).count(), 2, "{message}");
    assert_eq!((lies.asked(), server.heads().len()), (1, 2));
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn another_port_of_a_granted_name_is_denied_by_its_name() {
    let (granted, other) = (echo(), echo());
    let lies = Lies::new(&["127.0.0.1"]);
    let stage = hello(named(other.address())).server(named(granted.address()), private()).resolving(lies);
    let (what, remedy) = stage.is_denied().await;
    assert_eq!(what, format!("{} (127.0.0.1)", named(other.address())));
    // Its port is known to need `private = true`, too.
    assert!(remedy.unwrap().contains(&format!("\"{}\" = {{ private = true }}", named(other.address()))));
    assert!(other.heads().is_empty());
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn only_granted_names_are_resolved() {
    let lies = Lies::new(&["192.0.2.7"]);
    let stage = caller("lookup", "catalogue.test").server("catalogue.test:443", private()).resolving(lies);
    let message = stage.gets().await;
    assert!(message.contains("answered: [IpAddress::Ipv4((192, 0, 2, 7))]"), "{message}");
    let lies = Lies::new(&["192.0.2.7"]);
    let stage = caller("lookup", "Other.test").plain_server("catalogue.test:443").resolving(lies.clone());
    let line = r#"[method.hostile.grants] network = ["catalogue.test:443", "other.test:PORT"]"#;
    assert_eq!(stage.is_denied().await, ("the address of Other.test".to_owned(), Some(line.to_owned())));
    assert_eq!(lies.asked(), 0);
    // A text in the form of an address is not a name.
    let message = caller("lookup", "127.0.0.1").gets().await;
    assert!(message.contains("answered: [IpAddress::Ipv4((127, 0, 0, 1))]"), "{message}");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn the_number_of_sockets_at_once_is_bounded() {
    let stage = caller("tcp-at-once", "x").option("times", sandbox::OptionValue::Integer(16));
    assert!(stage.gets().await.contains("answered: 16 sockets"));
    let stage = caller("tcp-at-once", "x").option("times", sandbox::OptionValue::Integer(17));
    let message = stage.gets().await;
    assert!(message.contains("refused: socket 16: ") && message.contains("new-socket-limit"), "{message}");
    stage.logged("the method has 16 connections");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_server_that_sends_for_ever_reaches_the_bound_of_bytes() {
    for (bytes, total, setting) in [
        (None, 300 << 10, "300.0 KiB (`network_bytes`)"),
        (Some(Bytes(200 << 10)), 1 << 30, "200.0 KiB (`bytes` of "),
    ] {
        let (server, sent) = endless();
        let stage = caller("tcp", &server.address().to_string())
            .server(server.address(), ServerGrant { bytes, ..ServerGrant::default() })
            .grant(|grants| grants.network_bytes = Bytes(total));
        let message = stage.gets().await;
        let says = format!("more than {setting}");
        assert!(message.contains("refused: read: ") && message.contains(&says), "{message}");
        stage.logged(&says);
        // The rest is what the system's buffers took.
        assert!(sent.load(Ordering::Relaxed) < 64 << 20);
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn one_connection_reaches_its_bound_of_bytes_in_each_direction() {
    let one = |address: SocketAddr| {
        let stage = caller("tcp", &address.to_string()).plain_server(address);
        stage.grant(|grants| grants.connection_bytes = Some(Bytes(10 << 10)))
    };
    let says = "more than 10.0 KiB (`connection_bytes` of one connection)";
    let (endless, _) = endless();
    let silent = tcp_server(|stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).map(drop)
    });
    let receives = one(endless.address());
    let sends = one(silent.address()).option("say", text(&"x".repeat(20 << 10)));
    for (stage, during) in [(receives, "refused: read: "), (sends, "refused: write: ")] {
        let message = stage.gets().await;
        assert!(message.contains(during) && message.contains(says), "{message}");
        stage.logged(says);
        let used = stage.used();
        assert_eq!(used.connection_bytes, Amount::of(10 << 10, 10 << 10));
        assert!(used.network_bytes.used >= 10 << 10, "{used:?}");
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_connection_does_not_use_up_the_bytes_of_the_next_one() {
    let server = echo();
    let stage = hello(server.address())
        .plain_server(server.address())
        .option("when", text("both"))
        .grant(|grants| grants.connection_bytes = Some(Bytes(15)));
    let message = stage.gets().await;
    assert!(message.contains(r#"answered: "hello""#) && !message.contains("refused: "), "{message}");
    let used = stage.used();
    assert_eq!((used.connection_bytes, used.network_bytes.used), (Amount::of(10, 15), 20));
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_second_connect_of_a_socket_does_not_change_whose_bytes_count() {
    let (bounded, _) = endless();
    let free = echo();
    let limit = ServerGrant { bytes: Some(Bytes(200 << 10)), ..ServerGrant::default() };
    let stage = caller("tcp-twice", &bounded.address().to_string())
        .option("other", text(&free.address().to_string()))
        .server(bounded.address(), limit)
        .plain_server(free.address());
    let message = stage.gets().await;
    assert!(
        message.contains("refused: read: ") && message.contains("more than 200.0 KiB (`bytes` of "),
        "{message}"
    );
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn the_bytes_of_a_connection_count_for_every_granted_server_at_its_address() {
    let (server, _) = endless();
    let named = |name: &str| format!("{name}.test:{}", server.address().port());
    // In the order of the names, and against it.
    for (by, other) in [("a", "b"), ("b", "a")] {
        let limit = ServerGrant { bytes: Some(Bytes(200 << 10)), ..private() };
        let stage = caller("tcp", &named(by))
            .server(named(by), private())
            .server(named(other), limit)
            .resolving(Lies::new(&["127.0.0.1"]))
            .option("lookup", text(&format!("{other}.test")));
        let message = stage.gets().await;
        assert!(message.contains("more than 200.0 KiB (`bytes` of "), "{message}");
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn what_a_method_sends_counts_too() {
    let server = tcp_server(|stream| {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).map(drop)
    });
    let stage = caller("tcp", &server.address().to_string())
        .plain_server(server.address())
        .option("say", text(&"x".repeat(20 << 10)))
        .grant(|grants| grants.network_bytes = Bytes(10 << 10));
    let message = stage.gets().await;
    assert!(message.contains("refused: write: ") && message.contains("more than 10.0 KiB"), "{message}");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn the_bound_of_bytes_is_that_of_the_run_and_not_of_a_step() {
    let server = echo();
    let stage = hello(server.address())
        .plain_server(server.address())
        .option("when", text("both"))
        .grant(|grants| grants.network_bytes = Bytes(15));
    let message = stage.gets().await;
    assert!(message.contains(r#"answered: "hello""#) && message.contains("; refused: "), "{message}");
}
