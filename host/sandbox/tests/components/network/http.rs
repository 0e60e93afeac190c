//! `wasi:http`.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use foundation::secret::Secret;
use replica::Bytes;
use sandbox::{OptionValue, ServerGrant};
use tests::certificates::{self, Authority};
use tests::scripted_server::{ScriptedServer, Stream, respond};

use super::{Lies, caller, http_server, https_server, named, private};
use crate::stage::{Stage, text};

const TOKEN: &str = "t0ken-of-the-catalogue";

fn get(address: &str) -> Stage {
    caller("http", address)
}

/// An authority in a folder that lives as long as the value.
fn authority() -> (tempfile::TempDir, Authority, String) {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path()).unwrap();
    let certificate = std::fs::read_to_string(authority.certificate()).unwrap();
    (folder, authority, certificate)
}

fn trusting(authorities: &str) -> ServerGrant {
    ServerGrant { authorities: Some(authorities.to_owned()), ..ServerGrant::default() }
}

fn with_token(authorities: &str) -> ServerGrant {
    ServerGrant { token: Some(Secret::new(TOKEN)), ..trusting(authorities) }
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
async fn the_host_adds_the_token_and_the_component_never_sees_it() {
    let (_folder, authority, trusted) = authority();
    let server = |answer: fn(&mut dyn Stream, &str) -> std::io::Result<()>| {
        https_server(&authority, certificates::ServerCertificate::Right, answer)
    };
    let granted = server(|stream, _| respond(stream, "200 OK", "", "monday"));
    let stage =
        get(&format!("https://{}/", granted.address())).server(granted.address(), with_token(&trusted));
    let message = stage.gets().await;
    assert!(message.contains(r#"answered: 200 "monday""#), "{message}");
    let head = granted.heads().pop().unwrap();
    assert!(head.to_ascii_lowercase().contains(&format!("authorization: bearer {TOKEN}\r\n")), "{head}");

    // A header of the component's own could be meant to be taken for the host's.
    let own = stage.option("authorization", text("Bearer of-the-component"));
    let (what, remedy) = own.is_denied_again().await;
    assert!(what.contains("`Authorization` of its own"), "{what}");
    assert_eq!((remedy, granted.heads().len()), (None, 1));

    // Without TLS everybody on the way would see it.
    let plain = http_server(|stream, _| respond(stream, "200 OK", "", "monday"));
    let stage = get(&format!("http://{}/", plain.address())).server(plain.address(), with_token(&trusted));
    let (what, _) = stage.is_denied().await;
    assert!(what.starts_with("a request without TLS to "), "{what}");
    assert!(plain.heads().is_empty());

    for echoing in [
        server(|stream, head| respond(stream, "200 OK", "", head)),
        server(|stream, head| {
            let token =
                head.split("Bearer ").nth(1).and_then(|rest| rest.split('\r').next()).unwrap_or_default();
            respond(stream, "200 OK", &format!("X-Echo: {token}\r\n"), "monday")
        }),
        // In two parts.
        server(|stream, _| {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", TOKEN.len() + 2)?;
            for part in ["<", &TOKEN[..8], &TOKEN[8..], ">"] {
                stream.write_all(part.as_bytes())?;
                stream.flush()?;
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }),
    ] {
        let stage =
            get(&format!("https://{}/", echoing.address())).server(echoing.address(), with_token(&trusted));
        let message = stage.gets().await;
        assert!(message.contains("refused: ") && message.contains("sends back the `token`"), "{message}");
        assert!(!message.contains("t0ken"), "{message}");
        stage.logged("sends back the `token`");
    }
}

impl Stage {
    /// As `is_denied`, of a stage that has run before.
    async fn is_denied_again(&self) -> (String, Option<String>) {
        assert_eq!(self.create().await.unwrap_err().outcome, replica::Outcome::Denied);
        let last = self.denials().pop().unwrap();
        (last.what, last.remedy)
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
async fn a_redirect_to_another_granted_server_does_not_get_the_token() {
    let (_folder, authority, trusted) = authority();
    let target = https_server(&authority, certificates::ServerCertificate::Right, |stream, _| {
        respond(stream, "200 OK", "", "there")
    });
    let to = target.address();
    let server = https_server(&authority, certificates::ServerCertificate::Right, move |stream, _| {
        respond(stream, "302 Found", &format!("Location: https://{to}/\r\n"), "")
    });
    let stage = caller("http-following", &format!("https://{}/", server.address()))
        .server(server.address(), with_token(&trusted))
        .server(target.address(), trusting(&trusted));
    let message = stage.gets().await;
    assert!(message.contains(r#"answered: 200 "there""#), "{message}");
    assert!(server.heads()[0].contains(TOKEN) && !target.heads()[0].contains(TOKEN));
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
        // A gigabyte, if somebody reads it.
        for _ in 0..1 << 14 {
            stream.write_all(&[b'x'; 64 << 10])?;
        }
        respond(stream, "200 OK", "", "")
    });
    for server in [many_lines, long_line] {
        let stage = get(&format!("http://{}/", server.address())).plain_server(server.address());
        let message = stage.gets().await;
        assert!(message.contains("refused: ErrorCode::HttpResponseHeaderSectionSize"), "{message}");
        stage.logged("the head of its response is longer than 65536 bytes or has more than 128 lines");
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
async fn what_could_lead_to_another_server_is_refused() {
    let server = http_server(|stream, _| respond(stream, "200 OK", "", "monday"));
    let stage = get(&format!("http://{}/", server.address())).plain_server(server.address());
    let message = stage.option("method", text("CONNECT")).gets().await;
    assert!(message.contains("refused: ErrorCode::HttpRequestMethodInvalid"), "{message}");
    let (what, remedy) =
        get(&format!("http://user@{}/", server.address())).plain_server(server.address()).is_denied().await;
    assert_eq!((what, remedy), (format!("a request to user@{}", server.address()), None));
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
        let message = stage.option("patience", OptionValue::Integer(100)).gets().await;
        assert!(message.contains(says), "{message}");
    }
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
