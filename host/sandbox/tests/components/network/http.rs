//! `wasi:http`.

use std::sync::{Arc, Barrier};

use replica::Bytes;
use replica::usage::Amount;
use sandbox::{OptionValue, ServerGrant};
use tests::certificates::{self, Authority};
use tests::scripted_server::{ScriptedServer, respond};

use super::{Lies, caller, http_server, https_server, named, private, tcp_server};
use crate::stage::{Stage, text};

pub(super) fn get(address: &str) -> Stage {
    caller("http", address)
}

/// An authority in a folder that lives as long as the value.
pub(super) fn authority() -> (tempfile::TempDir, Authority, String) {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path()).unwrap();
    let certificate = std::fs::read_to_string(authority.certificate()).unwrap();
    (folder, authority, certificate)
}

pub(super) fn trusting(authorities: &str) -> ServerGrant {
    ServerGrant { authorities: Some(authorities.to_owned()), ..ServerGrant::default() }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_granted_server_answers_and_every_other_is_denied_with_the_line_that_allows_it() {
    let server = http_server(|stream, _| respond(stream, "200 OK", "", "monday"));
    let address = format!("http://{}/backups?x=1", server.address());
    let stage = get(&address).plain_server(server.address());
    let message = stage.gets().await;
    assert!(message.contains(r#"answered: 200 "monday""#), "{message}");
    let head = server.heads().pop().unwrap();
    assert!(head.starts_with("GET /backups?x=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains(&format!("host: {}\r\n", server.address())), "{head}");

    let (what, remedy) = get(&address).is_denied().await;
    assert_eq!(what, format!("{} (http)", server.address()));
    assert_eq!(remedy, Some(format!("[method.hostile.grants] network = [\"{}\"]", server.address())));
    assert_eq!(server.heads().len(), 1);
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_body_is_sent() {
    let server = http_server(|stream, _| {
        let mut body = [0; 12];
        stream.read_exact(&mut body)?;
        respond(stream, "201 Created", "", &String::from_utf8_lossy(&body))
    });
    let stage = get(&format!("http://{}/", server.address())).plain_server(server.address());
    let stage = stage.option("method", text("POST")).option("say", text("hello"));
    let message = stage.gets().await;
    // One chunk of five bytes.
    assert!(message.contains(r#"answered: 201 "5\r\nhello\r\n0"#), "{message}");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_name_is_resolved_by_the_host_and_pinned() {
    let server = http_server(|stream, _| respond(stream, "200 OK", "", "monday"));
    let name = named(server.address());
    let lies = Lies::new(&["127.0.0.1", "169.254.169.254"]);
    let stage = get(&format!("http://{name}/")).server(&name, private()).option("when", text("both"));
    let message = stage.resolving(lies.clone()).gets().await;
    assert_eq!(message.matches(r#"answered: 200 "monday""#).count(), 2, "{message}");
    assert_eq!(lies.asked(), 1);

    let stage = get(&format!("http://{name}/")).plain_server(&name).resolving(Lies::new(&["127.0.0.1"]));
    let (what, remedy) = stage.is_denied().await;
    assert!(what.ends_with("leads to 127.0.0.1, a private address"), "{what}");
    assert!(remedy.unwrap().contains("private = true"));
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_certificate_must_come_from_the_authority_of_the_grant_and_have_the_name_of_the_server() {
    let (_folder, authority, trusted) = authority();
    let (_other_folder, _, foreign) = self::authority();
    for (certificate, grant, ok) in [
        (certificates::ServerCertificate::Right, trusting(&trusted), true),
        (certificates::ServerCertificate::Right, trusting(&foreign), false),
        (certificates::ServerCertificate::Right, ServerGrant::default(), false),
        (certificates::ServerCertificate::Elsewhere, trusting(&trusted), false),
        (certificates::ServerCertificate::Expired, trusting(&trusted), false),
    ] {
        let server =
            https_server(&authority, certificate, |stream, _| respond(stream, "200 OK", "", "monday"));
        let stage = get(&format!("https://{}/", server.address())).server(server.address(), grant);
        let message = stage.gets().await;
        if ok {
            assert!(message.contains(r#"answered: 200 "monday""#), "{message}");
        } else {
            assert!(
                message.contains("refused: ErrorCode::TlsCertificateError"),
                "{certificate:?}: {message}"
            );
            stage.logged("the server's certificate is refused");
            assert!(server.heads().is_empty());
        }
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_redirect_is_a_new_request_with_a_new_check() {
    let redirecting = |to: String| {
        http_server(move |stream, _| respond(stream, "302 Found", &format!("Location: {to}\r\n"), ""))
    };
    let follow = |server: &ScriptedServer| caller("http-following", &format!("http://{}/", server.address()));
    let metadata = redirecting("http://169.254.169.254/latest/meta-data/".to_owned());
    let stage = follow(&metadata).plain_server(metadata.address());
    let (what, remedy) = stage.is_denied().await;
    assert!(what.starts_with("169.254.169.254:80 (http), a link-local address"), "{what}");
    assert_eq!(remedy, None);

    let target = http_server(|stream, _| respond(stream, "200 OK", "", "there"));
    let server = redirecting(format!("http://{}/", target.address()));
    let stage = follow(&server).plain_server(server.address());
    assert_eq!(stage.is_denied().await.0, format!("{} (http)", target.address()));
    assert!(target.heads().is_empty());
    let stage = follow(&server).plain_server(server.address()).plain_server(target.address());
    let message = stage.gets().await;
    assert!(message.contains(r#"answered: 200 "there""#), "{message}");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_head_that_never_ends_is_not_read_to_its_end() {
    let many_lines = http_server(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        loop {
            stream.write_all(b"X-More: and more\r\n")?;
        }
    });
    let long_line = http_server(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nX-Long: ")?;
        // Sends a gigabyte, if the client reads all of it.
        for _ in 0..1 << 14 {
            stream.write_all(&[b'x'; 64 << 10])?;
        }
        respond(stream, "200 OK", "", "")
    });
    let many_heads = http_server(|stream, _| {
        loop {
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")?;
        }
    });
    let head = "the head of its response is longer than 65536 bytes or has more than 128 lines";
    for (server, says) in [
        (many_lines, head),
        (long_line, head),
        (many_heads, "it sends more than 256 KiB before its response"),
    ] {
        let stage = get(&format!("http://{}/", server.address())).plain_server(server.address());
        let message = stage.gets().await;
        assert!(message.contains("refused: ErrorCode::HttpResponseHeaderSectionSize"), "{message}");
        stage.logged(says);
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_response_of_no_possible_length_is_refused() {
    for (lines, code, says) in [
        (
            "Content-Length: 18446744073709551615",
            "HttpResponseHeaderSectionSize",
            "its Content-Length is too large",
        ),
        (
            "Content-Length: 2\r\nTransfer-Encoding: chunked",
            "HttpProtocolError",
            "a Content-Length and a Transfer-Encoding",
        ),
        ("Content-Length: 2\r\nContent-Length: 3", "HttpProtocolError", "content-length"),
    ] {
        let server = http_server(move |stream, _| {
            stream.write_all(format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n1\r\nx\r\n0\r\n\r\n").as_bytes())
        });
        let stage = get(&format!("http://{}/", server.address())).plain_server(server.address());
        let message = stage.gets().await;
        assert!(message.contains(&format!("refused: ErrorCode::{code}")), "{message}");
        stage.logged(says);
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_body_that_never_ends_reaches_the_bound_of_bytes() {
    let server = http_server(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            stream.write_all(&[b'x'; 4096])?;
        }
    });
    let stage = get(&format!("http://{}/", server.address()))
        .plain_server(server.address())
        .grant(|grants| grants.network_bytes = Bytes(300 << 10));
    let message = stage.gets().await;
    assert!(message.contains("refused: 200, then ") && message.contains("more than 300.0 KiB"), "{message}");
    stage.logged("more than 300.0 KiB (`network_bytes`)");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn one_request_reaches_its_bound_of_bytes_with_its_body_and_with_the_response() {
    let says = "more than 10.0 KiB (`connection_bytes` of one connection)";
    let long = http_server(|stream, _| respond(stream, "200 OK", "", &"x".repeat(20 << 10)));
    let receives = get(&format!("http://{}/", long.address())).plain_server(long.address());
    let short = http_server(|stream, _| {
        let _ = stream.read_to_end(&mut Vec::new());
        Ok(())
    });
    let sends = get(&format!("http://{}/", short.address()))
        .plain_server(short.address())
        .option("method", text("POST"))
        .option("say", text(&"x".repeat(20 << 10)));
    for stage in [receives, sends] {
        let stage = stage.grant(|grants| grants.connection_bytes = Some(Bytes(10 << 10)));
        let message = stage.gets().await;
        assert!(message.contains("refused: "), "{message}");
        stage.logged(says);
        assert_eq!(stage.used().connection_bytes, Amount::of(10 << 10, 10 << 10));
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn the_number_of_requests_at_once_is_bounded() {
    let all = Arc::new(Barrier::new(16));
    let server = http_server(move |stream, _| {
        all.wait();
        respond(stream, "200 OK", "", "monday")
    });
    let stage = caller("http-at-once", &format!("http://{}/", server.address()))
        .plain_server(server.address())
        .option("times", OptionValue::Integer(20));
    let message = stage.gets().await;
    assert!(message.contains(r#"answered: 16 of 20; ["ErrorCode::ConnectionLimitReached"]"#), "{message}");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn many_refused_requests_do_not_hide_the_reason_of_another() {
    let (_folder, authority, trusted) = authority();
    let server = https_server(&authority, certificates::ServerCertificate::Expired, |stream, _| {
        respond(stream, "200 OK", "", "monday")
    });
    let stage = caller("http-at-once", &format!("https://{}/", server.address()))
        .server(server.address(), trusting(&trusted))
        .option("times", OptionValue::Integer(40));
    let message = stage.gets().await;
    assert!(message.contains("answered: 0 of 40"), "{message}");
    for says in ["the method has 16 connections", "the server's certificate is refused"] {
        stage.logged(says);
        let lines = stage.lines();
        assert_eq!(lines.iter().filter(|(_, _, line)| line.contains(says)).count(), 1, "{says}: {lines:#?}");
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn what_could_lead_to_another_server_is_refused() {
    let server = http_server(|stream, _| respond(stream, "200 OK", "", "monday"));
    let stage = get(&format!("http://{}/", server.address())).plain_server(server.address());
    let message = stage.option("method", text("CONNECT")).gets().await;
    assert!(message.contains("refused: ErrorCode::HttpRequestMethodInvalid"), "{message}");
    // No message contains the password.
    let stage = get(&format!("http://user:swordfish@{}/", server.address())).plain_server(server.address());
    let (what, remedy) = stage.is_denied().await;
    let says = format!("a request to {} as a user, whom no address may name", server.address());
    assert_eq!((what, remedy), (says, None));
    assert!(!format!("{:?}", stage.lines()).contains("swordfish"));
    assert!(server.heads().is_empty());
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_server_that_is_not_there_is_told_in_the_log() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let stage = get(&format!("http://{address}/")).plain_server(address);
    let message = stage.gets().await;
    assert!(message.contains("refused: ErrorCode::ConnectionRefused"), "{message}");
    stage.logged(&format!("{address}: cannot connect: Connection refused"));
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_server_that_answers_nothing_or_stops_in_the_middle_is_not_waited_for() {
    let silent = http_server(|stream, _| stream.read_to_end(&mut Vec::new()).map(drop));
    let stopping = http_server(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nmon")?;
        stream.read_to_end(&mut Vec::new()).map(drop)
    });
    for (server, says) in
        [(silent, "refused: ErrorCode::ConnectionReadTimeout"), (stopping, "refused: 200, then ")]
    {
        let stage = get(&format!("http://{}/", server.address())).plain_server(server.address());
        let stage = stage.option("patience", OptionValue::Integer(100));
        let message = stage.gets().await;
        assert!(message.contains(says), "{message}");
        stage.logged("no byte of its response came for 100ms");
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn an_upload_may_take_longer_than_the_wait_for_a_response() {
    let server = http_server(|stream, _| {
        let mut body = Vec::new();
        while !body.ends_with(b"0\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            body.push(byte[0]);
        }
        respond(stream, "200 OK", "", "monday")
    });
    // Ten pauses take longer than the guest's patience, which begins after them.
    let stage = get(&format!("http://{}/", server.address())).plain_server(server.address());
    let stage = stage.option("method", text("POST")).option("say", text(&"x".repeat(40 << 10)));
    let stage =
        stage.option("pause", OptionValue::Integer(100)).option("patience", OptionValue::Integer(500));
    let message = stage.gets().await;
    assert!(message.contains(r#"answered: 200 "monday""#), "{message}");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn the_log_has_the_reason_of_each_failure() {
    // A server that does not speak TLS.
    let server = http_server(|stream, _| respond(stream, "200 OK", "", "monday"));
    let plain = tcp_server(|stream| respond(stream, "200 OK", "", "monday"));
    let stage = get(&format!("https://{}/", plain.address())).plain_server(plain.address());
    let message = stage.gets().await;
    assert!(message.contains("refused: ErrorCode::TlsProtocolError"), "{message}");
    stage.logged(&format!("{}: TLS failed: ", plain.address()));
    // A name that no certificate has.
    let name = format!("a_.b-:{}", server.address().port());
    let stage =
        get(&format!("https://{name}/")).server(&name, private()).resolving(Lies::new(&["127.0.0.1"]));
    let message = stage.gets().await;
    assert!(message.contains("refused: ErrorCode::TlsCertificateError"), "{message}");
    stage.logged("no certificate can have the name of this server");
    // A chunk with an invalid size. The message contains the cause.
    let damaged = http_server(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n")
    });
    let stage = get(&format!("http://{}/", damaged.address())).plain_server(damaged.address());
    let message = stage.gets().await;
    assert!(message.contains("refused: 200, then "), "{message}");
    stage.logged("error reading a body from connection: ");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_truncated_response_fails() {
    let server =
        http_server(|stream, _| stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nmon"));
    let stage = get(&format!("http://{}/", server.address())).plain_server(server.address());
    let message = stage.gets().await;
    assert!(message.contains("refused: 200, then ") && message.contains("after \"mon\""), "{message}");
}
