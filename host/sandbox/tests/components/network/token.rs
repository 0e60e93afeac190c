//! The token that the host sends in requests by `wasi:http`.

use std::time::Duration;

use foundation::secret::Secret;
use sandbox::ServerGrant;
use tests::certificates;
use tests::scripted_server::{ScriptedServer, Stream, respond};

use super::http::{authority, get, trusting};
use super::{caller, http_server, https_server};
use crate::stage::{Stage, text};

const TOKEN: &str = "t0ken-of-the-catalogue";

fn with_token(authorities: &str) -> ServerGrant {
    ServerGrant { token: Some(Secret::new(TOKEN)), ..trusting(authorities) }
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

    // A component could set the header itself so that it is mistaken for the host's.
    let own = stage.option("authorization", text("Bearer of-the-component"));
    let (what, remedy) = own.is_denied_again().await;
    assert!(what.contains("`Authorization` of its own"), "{what}");
    assert_eq!((remedy, granted.heads().len()), (None, 1));

    // Without TLS, anyone on the network path could see the token.
    let plain = http_server(|stream, _| respond(stream, "200 OK", "", "monday"));
    let stage = get(&format!("http://{}/", plain.address())).server(plain.address(), with_token(&trusted));
    let (what, _) = stage.is_denied().await;
    assert!(what.starts_with("a request without TLS to "), "{what}");
    assert!(plain.heads().is_empty());

    for echoing in [
        server(|stream, head| respond(stream, "200 OK", "", head)),
        // These servers send the token as programs write it into JSON, HTML and addresses.
        server(|stream, _| respond(stream, "200 OK", "", &TOKEN.replace('-', "\\u002d"))),
        server(|stream, _| respond(stream, "200 OK", "", &TOKEN.replace('-', "&#x2D;"))),
        server(|stream, _| {
            let location = format!("Location: /login?token={}\r\n", TOKEN.replace('-', "%2d"));
            respond(stream, "302 Found", &location, "")
        }),
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

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_response_in_which_the_token_would_not_be_found_is_neither_requested_nor_accepted() {
    let (_folder, authority, trusted) = authority();
    let server = |answer: fn(&mut dyn Stream, &str) -> std::io::Result<()>| {
        https_server(&authority, certificates::ServerCertificate::Right, answer)
    };
    let address = |server: &ScriptedServer| format!("https://{}/", server.address());
    let plain = server(|stream, _| respond(stream, "200 OK", "", "monday"));
    for header in ["Range: bytes=0-4", "If-Range: \"x\"", "TE: gzip", "Accept-Encoding: gzip"] {
        let stage = get(&address(&plain)).server(plain.address(), with_token(&trusted));
        let message = stage.option("header", text(header)).gets().await;
        assert!(message.contains(r#"answered: 200 "monday""#), "{message}");
        let head = plain.heads().pop().unwrap().to_ascii_lowercase();
        let name = header.split(':').next().unwrap().to_ascii_lowercase();
        let lines: Vec<_> = head.lines().filter(|line| line.starts_with(&format!("{name}:"))).collect();
        let expected: &[&str] = if name == "accept-encoding" { &["accept-encoding: identity"] } else { &[] };
        assert_eq!(lines, expected, "{head}");
    }
    // If the server has no token, the host passes such headers on unchanged.
    let open = http_server(|stream, _| respond(stream, "206 Partial Content", "", "monda"));
    let stage = get(&format!("http://{}/", open.address())).plain_server(open.address());
    let message = stage.option("header", text("Range: bytes=0-4")).gets().await;
    assert!(message.contains(r#"answered: 206 "monda""#), "{message}");
    assert!(open.heads()[0].to_ascii_lowercase().contains("range: bytes=0-4\r\n"));

    for (part, code, says) in [
        (
            server(|stream, _| {
                respond(stream, "206 Partial Content", "Content-Range: bytes 0-4/99\r\n", "t0ken")
            }),
            "HttpProtocolError",
            "a part of a response (206)",
        ),
        (
            server(|stream, _| respond(stream, "200 OK", "Content-Encoding: gzip\r\n", "x")),
            "HttpResponseContentCoding",
            "(Content-Encoding: gzip)",
        ),
        (
            server(|stream, _| {
                stream.write_all(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
                )
            }),
            "HttpResponseTransferCoding",
            "(Transfer-Encoding: gzip, chunked)",
        ),
    ] {
        let stage = get(&address(&part)).server(part.address(), with_token(&trusted));
        let message = stage.gets().await;
        assert!(message.contains(&format!("refused: ErrorCode::{code}")), "{message}");
        stage.logged(says);
    }
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

impl Stage {
    /// Does the same as `is_denied` for a stage that has run before.
    async fn is_denied_again(&self) -> (String, Option<String>) {
        assert_eq!(self.create().await.unwrap_err().outcome, replica::Outcome::Denied);
        let last = self.denials().pop().unwrap();
        (last.what, last.remedy)
    }
}
