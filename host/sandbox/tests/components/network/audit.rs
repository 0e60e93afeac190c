//! The records of connections, requests and look-ups.

use replica::event::HostCall;
use replica::{Bytes, CapabilityKind};
use sandbox::ServerGrant;
use tests::scripted_server::respond;

use super::{Lies, caller, http_server, named, private, tcp_server};
use crate::stage::{Stage, text};

/// Runs the component and returns the records of the network: function, object and answer.
async fn records(stage: &Stage) -> Vec<(String, String, String)> {
    stage.create().await.unwrap_err();
    let of_network = |call: &HostCall| call.capability == Some(CapabilityKind::Network);
    let calls = stage.calls().into_iter().filter(of_network);
    calls.map(|call| (call.function.to_owned(), call.object, call.answer.to_owned())).collect()
}

fn record(function: &str, object: impl ToString, answer: &str) -> (String, String, String) {
    (function.to_owned(), object.to_string(), answer.to_owned())
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn each_denied_call_has_one_record() {
    let server = tcp_server(|stream| stream.write_all(b"monday"));
    let address = server.address();
    let look_up = |name: &str, answer| record("ip-name-lookup.resolve-addresses", name, answer);
    let stage = caller("tcp", &address.to_string()).audited();
    let denied = record("tcp.start-connect", address, "denied");
    assert_eq!(records(&stage).await, [look_up("127.0.0.1", "ok"), denied]);
    let stage = caller("lookup", "catalogue.test").audited();
    assert_eq!(records(&stage).await, [look_up("catalogue.test", "denied")]);
    let stage = caller("http", &format!("http://{address}/x")).audited();
    let denied = record("outgoing-handler.handle", format!("GET http://{address}/x"), "denied");
    assert_eq!(records(&stage).await, [denied]);
    // The look-up is also denied if the name resolves to an address that the grant does not cover.
    let name = named(address);
    let stage = caller("tcp", &name).plain_server(&name).resolving(Lies::new(&["127.0.0.1"])).audited();
    assert_eq!(records(&stage).await, [look_up(name.split(':').next().unwrap(), "denied")]);
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_connection_to_a_name_is_recorded_with_the_address_and_its_bytes() {
    let server = tcp_server(|stream| {
        stream.read_exact(&mut [0; 5])?;
        stream.write_all(b"monday")
    });
    let name = named(server.address());
    let stage = caller("tcp", &name).server(&name, private()).option("say", text("hello"));
    let stage = stage.resolving(Lies::new(&["127.0.0.1"])).audited();
    let records = records(&stage).await;
    assert_eq!(records[1], record("tcp.start-connect", format!("{name} (127.0.0.1)"), "ok"));
    let calls = stage.calls();
    let call = calls.iter().find(|call| call.function == "tcp.start-connect").unwrap();
    assert_eq!((call.calls, call.bytes_read, call.bytes_written), (1, 6, 5));
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_connection_that_fails_later_is_recorded_with_the_failure() {
    let endless = tcp_server(|stream| {
        loop {
            stream.write_all(&[b'x'; 4096])?;
        }
    });
    let bounded = ServerGrant { bytes: Some(Bytes(100 << 10)), ..ServerGrant::default() };
    let stage = caller("tcp", &endless.address().to_string()).server(endless.address(), bounded).audited();
    let limit = record("tcp.start-connect", endless.address(), "limit");
    assert_eq!(records(&stage).await.pop(), Some(limit));
    let read: u64 = stage.calls().iter().map(|call| call.bytes_read).sum();
    assert!((1..=100 << 10).contains(&read), "{read}");

    let truncated =
        http_server(|stream, _| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nmon"));
    let url = format!("http://{}/", truncated.address());
    let stage = caller("http", &url).plain_server(truncated.address()).audited();
    let incomplete = record("outgoing-handler.handle", format!("GET {url}"), "http-response-incomplete");
    assert_eq!(records(&stage).await, [incomplete]);

    // A response with an error status also counts as an answer.
    let refusing = http_server(|stream, _| respond(stream, "404 Not Found", "", ""));
    let url = format!("http://{}/", refusing.address());
    let stage = caller("http", &url).plain_server(refusing.address()).audited();
    assert_eq!(records(&stage).await, [record("outgoing-handler.handle", format!("GET {url}"), "ok")]);
}
