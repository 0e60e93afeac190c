//! An HTTP server on loopback that responds as a test says: with faults, slowly, or never.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request that was received.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// The path and query.
    pub(crate) target: String,
    /// The headers by their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    /// Returns the first and the last byte of `Range: bytes=FIRST-LAST`.
    pub(crate) fn range(&self) -> Option<(usize, usize)> {
        let (first, last) = self.headers.get("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().unwrap(), last.parse().unwrap()))
    }
}

/// A response.
pub(crate) enum Answer {
    /// Status, headers and the whole body.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The same, but the connection is closed after this many bytes of the body.
    Cut(u16, Vec<(&'static str, String)>, Vec<u8>, usize),
    /// The same, but the server stops sending after this many bytes of the body.
    Stuck(u16, Vec<(&'static str, String)>, Vec<u8>, usize),
    /// The same, in chunks of this many bytes with a pause before each.
    Slow(u16, Vec<(&'static str, String)>, Vec<u8>, usize, Duration),
    /// A status and bytes without end.
    Endless(u16, Vec<u8>),
    /// Nothing, for as long as the client waits.
    Silence,
    /// The connection is closed at once.
    Nothing,
}

/// The server. Ends when it is dropped.
pub(crate) struct Responder {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
    ended: Arc<AtomicBool>,
}

impl Responder {
    /// Starts a server. `answer` gets the number of the request, from 0, and the request.
    pub(crate) fn start(answer: impl Fn(usize, &Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let ended = Arc::new(AtomicBool::new(false));
        let (seen, over, answer) = (Arc::clone(&requests), Arc::clone(&ended), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                // A client that has disconnected is not a failure of the server.
                std::thread::spawn(move || drop(serve(stream.unwrap(), &seen, &*answer)));
            }
        });
        Self { port, requests, ended }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Returns all requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}

fn serve(
    stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &(dyn Fn(usize, &Request) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut to = stream.try_clone()?;
    let mut from = BufReader::new(stream);
    loop {
        let Some(request) = read(&mut from)? else { return Ok(()) };
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        match answer(number, &request) {
            Answer::Whole(status, headers, body) => {
                head(&mut to, status, &headers, body.len())?;
                if request.method != "HEAD" {
                    to.write_all(&body)?;
                }
            }
            Answer::Cut(status, headers, body, after) => {
                head(&mut to, status, &headers, body.len())?;
                return to.write_all(&body[..after]);
            }
            Answer::Stuck(status, headers, body, after) => {
                head(&mut to, status, &headers, body.len())?;
                to.write_all(&body[..after])?;
                return wait_for_the_end(&mut from);
            }
            Answer::Slow(status, headers, body, piece, pause) => {
                head(&mut to, status, &headers, body.len())?;
                for piece in body.chunks(piece) {
                    std::thread::sleep(pause);
                    to.write_all(piece)?;
                }
            }
            Answer::Endless(status, bytes) => {
                head(&mut to, status, &[], 1 << 40)?;
                loop {
                    to.write_all(&bytes)?;
                }
            }
            Answer::Silence => return wait_for_the_end(&mut from),
            Answer::Nothing => return Ok(()),
        }
    }
}

fn read(from: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.to_owned()),
            None => return Ok(Some(Request { method, target, headers })),
        };
    }
}

fn head(to: &mut TcpStream, status: u16, headers: &[(&str, String)], length: usize) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} Status\r\nContent-Length: {length}\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    to.write_all((text + "\r\n").as_bytes())
}

/// Waits until the client disconnects.
fn wait_for_the_end(from: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    from.read_line(&mut String::new()).map(drop)
}
