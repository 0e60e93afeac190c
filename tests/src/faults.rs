//! A proxy between the program and a real store. A test decides which faults the proxy injects: it can refuse a request, not
//! respond, or cut a response short. All other requests and responses pass unchanged.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The largest permitted size of a request's header in bytes.
const HEAD: usize = 64 << 10;

/// How long the proxy waits for a response from the store.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A request that the proxy received.
#[derive(Clone, Debug)]
pub struct ReceivedRequest {
    /// `GET`, `HEAD`, ...
    pub method: String,
    /// The path and the query string.
    pub target: String,
    /// Whether the request is for a range that does not begin at the first byte.
    pub is_continued: bool,
}

/// What the proxy does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Forwards the request to the store.
    Forward,
    /// Responds with this status.
    Status(u16),
    /// Responds with this status and body.
    Respond(u16, &'static str),
    /// Responds with the request's own header, including the credentials, as a debugging proxy does.
    Echo,
    /// Redirects the client to the same path on this port of 127.0.0.1.
    RedirectTo(u16),
    /// Responds to an S3 listing request as a server without continuation tokens that lists at most this number of keys: the
    /// response says that the listing is truncated, and has no token.
    ListWithoutToken(usize),
    /// Keeps the connection open and does not respond.
    Hang,
    /// Ends the store's response after this number of bytes, including the header.
    CutAfter(u64),
    /// Forwards the store's response in pieces of this number of bytes, at most twenty per second.
    Trickle(usize),
}

/// A response from the store that was forwarded.
#[derive(Clone, Debug)]
pub struct ForwardedResponse {
    /// The request.
    pub request: ReceivedRequest,
    /// The time when the request was received.
    pub started: Instant,
    /// The time just before the last bytes were forwarded. The client cannot have read the whole response before that time.
    pub ended: Instant,
}

type Decide = dyn FnMut(&ReceivedRequest) -> Action + Send;

/// Whether the proxy was dropped, and a way to wait until it is.
type Stop = Arc<(Mutex<bool>, Condvar)>;

/// A running proxy. Dropping it ends every connection.
pub struct FaultProxy {
    port: u16,
    stop: Stop,
    responses: Arc<Mutex<Vec<ForwardedResponse>>>,
}

impl FaultProxy {
    /// Starts a proxy on a port of 127.0.0.1 for the store on the port `upstream`. Calls `decide` for every request, one request
    /// at a time.
    ///
    /// # Errors
    /// Fails if no port is free.
    pub fn start(
        upstream: u16,
        decide: impl FnMut(&ReceivedRequest) -> Action + Send + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let stop: Stop = Arc::default();
        let decide: Arc<Mutex<Box<Decide>>> = Arc::new(Mutex::new(Box::new(decide)));
        let responses = Arc::default();
        let (stopped, forwarded) = (Arc::clone(&stop), Arc::clone(&responses));
        thread::Builder::new().name("faults".to_owned()).spawn(move || {
            for client in listener.incoming() {
                if *locked(&stopped.0) {
                    return;
                }
                let Ok(client) = client else { continue };
                let (decide, stopped, forwarded) =
                    (Arc::clone(&decide), Arc::clone(&stopped), Arc::clone(&forwarded));
                // Connection errors are ignored: a test may cause them on purpose, and the client sees them.
                thread::spawn(move || drop(serve(client, upstream, &decide, &stopped, &forwarded)));
            }
        })?;
        Ok(Self { port, stop, responses })
    }

    /// Returns the responses that were forwarded so far, in the order in which they began.
    pub fn responses(&self) -> Vec<ForwardedResponse> {
        locked(&self.responses).clone()
    }

    /// Returns the port that the program must connect to instead of the store's.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        *locked(&self.stop.0) = true;
        self.stop.1.notify_all();
        // This connection wakes the thread that accepts connections.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Handles a connection, which has exactly one request.
fn serve(
    mut client: TcpStream,
    upstream: u16,
    decide: &Mutex<Box<Decide>>,
    stop: &Stop,
    responses: &Mutex<Vec<ForwardedResponse>>,
) -> Result<()> {
    client.set_read_timeout(Some(TIMEOUT))?;
    let head = head(&mut client)?;
    let request = parse_request(&head).context("not a request")?;
    let started = Instant::now();
    let action = (locked(decide))(&request);
    let (at_most, piece) = match action {
        Action::Status(status) => {
            let text = format!("HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            client.write_all(text.as_bytes())?;
            return Ok(());
        }
        Action::Respond(status, body) => {
            client
                .write_all(response(status, if request.method == "HEAD" { "" } else { body }).as_bytes())?;
            return Ok(());
        }
        Action::Echo => {
            client.write_all(response(200, if request.method == "HEAD" { "" } else { &head }).as_bytes())?;
            return Ok(());
        }
        Action::RedirectTo(port) => {
            let text = format!(
                "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                request.target
            );
            client.write_all(text.as_bytes())?;
            return Ok(());
        }
        Action::ListWithoutToken(most) => {
            let body = without_tokens(upstream, &head, most)?;
            client.write_all(response(200, &body).as_bytes())?;
            return Ok(());
        }
        Action::Hang => {
            let mut ended = locked(&stop.0);
            while !*ended {
                ended = stop.1.wait(ended).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            return Ok(());
        }
        Action::Forward => (u64::MAX, None),
        Action::CutAfter(bytes) => (bytes, None),
        Action::Trickle(bytes) => (u64::MAX, Some(bytes)),
    };
    let index = {
        let mut responses = locked(responses);
        responses.push(ForwardedResponse { request, started, ended: started });
        responses.len() - 1
    };
    let note = || locked(responses)[index].ended = Instant::now();
    Ok(forward(client, upstream, &head, at_most, piece, stop, note)?)
}

fn response(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Response\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// Returns the store's listing, reduced to `most` keys and without the continuation token.
fn without_tokens(upstream: u16, head: &str, most: usize) -> Result<String> {
    let mut store = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, upstream)), TIMEOUT)?;
    store.set_read_timeout(Some(TIMEOUT))?;
    let (first, headers) = head.split_once("\r\n").context("not a request")?;
    let words: Vec<&str> = first.split(' ').collect();
    let [method, target, version] = words[..] else { anyhow::bail!("not a request") };
    let limited = |part: &str| match part.starts_with("max-keys=") {
        true => format!("max-keys={most}"),
        false => part.to_owned(),
    };
    let target: Vec<String> = target.split('&').map(limited).collect();
    write!(store, "{method} {} {version}\r\n", target.join("&"))?;
    for line in
        headers.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
    {
        write!(store, "{line}\r\n")?;
    }
    store.write_all(b"Connection: close\r\n\r\n")?;
    let mut text = String::new();
    store.read_to_string(&mut text)?;
    let (_, body) = text.split_once("\r\n\r\n").context("not a response")?;
    let token = "NextContinuationToken>";
    let Some((before, rest)) = body.split_once(&format!("<{token}")) else { return Ok(body.to_owned()) };
    let (_, after) = rest.split_once(&format!("</{token}")).context("the token does not end")?;
    Ok(format!("{before}{after}"))
}

/// Reads the header of a request, up to the empty line.
fn head(client: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head)?)
}

fn parse_request(head: &str) -> Option<ReceivedRequest> {
    let mut words = head.lines().next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let range =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("range:").map(str::to_owned));
    let is_continued = range.is_some_and(|range| !range.trim().starts_with("bytes=0-"));
    Some(ReceivedRequest { method, target, is_continued })
}

/// Forwards a request to the store, and the store's response to the client. Each request has its own connection, so the end of
/// the connection is the end of the response. Calls `note` before each piece is sent to the client.
fn forward(
    mut client: TcpStream,
    upstream: u16,
    head: &str,
    at_most: u64,
    piece: Option<usize>,
    stop: &Stop,
    note: impl Fn(),
) -> io::Result<()> {
    let mut store = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, upstream)), TIMEOUT)?;
    store.set_read_timeout(Some(TIMEOUT))?;
    for line in head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:")) {
        store.write_all(format!("{line}\r\n").as_bytes())?;
    }
    store.write_all(b"Connection: close\r\n\r\n")?;
    let mut buffer = vec![0; piece.unwrap_or(64 << 10)];
    let mut left = at_most;
    while left > 0 {
        let read = store.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        let some = read.min(usize::try_from(left).unwrap_or(read));
        note();
        client.write_all(&buffer[..some])?;
        left -= some as u64;
        if piece.is_some() {
            let ended = locked(&stop.0);
            let (ended, _) = stop
                .1
                .wait_timeout(ended, Duration::from_millis(50))
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if *ended {
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod unit {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpStream};

    use super::{Action, FaultProxy};
    use crate::stores::StoreServer;

    fn ask(port: u16, target: &str) -> String {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        write!(connection, "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
            .unwrap();
        let mut response = String::new();
        connection.read_to_string(&mut response).unwrap();
        response
    }

    #[test]
    #[ignore = "needs servers: cargo xtask test"]
    fn each_action_is_carried_out_and_other_requests_are_forwarded() {
        let server = StoreServer::python_http().unwrap();
        std::fs::write(server.folder().join("object"), "what the store holds").unwrap();
        let upstream = server.url().rsplit(':').next().unwrap().parse().unwrap();
        let proxy = FaultProxy::start(upstream, |request| match request.target.as_str() {
            "/object?refused" => Action::Status(503),
            "/object?cut" => Action::CutAfter(12),
            "/object?echoed" => Action::Echo,
            "/object?elsewhere" => Action::RedirectTo(1),
            "/object?trickling" => Action::Trickle(100),
            _ => Action::Forward,
        })
        .unwrap();
        assert!(ask(proxy.port(), "/object").ends_with("what the store holds"));
        assert!(ask(proxy.port(), "/object?trickling").ends_with("what the store holds"));
        assert!(ask(proxy.port(), "/object?refused").starts_with("HTTP/1.1 503 "));
        assert_eq!(ask(proxy.port(), "/object?cut").len(), 12);
        assert!(ask(proxy.port(), "/object?echoed").contains("Host: localhost"));
        assert!(
            ask(proxy.port(), "/object?elsewhere").contains("Location: http://127.0.0.1:1/object?elsewhere")
        );
        let responses = proxy.responses();
        let targets: Vec<&str> = responses.iter().map(|response| response.request.target.as_str()).collect();
        assert_eq!(targets, ["/object", "/object?trickling", "/object?cut"]);
        assert!(responses[1].ended - responses[1].started >= std::time::Duration::from_millis(50));
    }
}
