//! What stands between the program and a real store, and does to a request what a test says: refuses it, keeps it waiting,
//! cuts its answer short. The requests themselves are the program's own and the answers the store's.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// The longest head of a request.
const HEAD: usize = 64 << 10;

/// How long an answer of the store may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request that came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET`, `HEAD`, ...
    pub method: String,
    /// The path and the query.
    pub target: String,
    /// Whether it asks for a part, and not from the first byte on.
    pub is_continued: bool,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The store answers it.
    Passed,
    /// It is answered with this status.
    Refused(u16),
    /// It is answered with this status and this body.
    Answered(u16, &'static str),
    /// It is answered with its own head, credentials included, as a debugging proxy does.
    Echoed,
    /// It is sent on to the same path at this port of loopback.
    RedirectedTo(u16),
    /// It is a question for a listing of S3, and answered as by a server that lists so many keys at most and has no tokens: it says
    /// that there is more, and not how to go on.
    WithoutTokens(usize),
    /// The connection stays open and nothing comes.
    NeverAnswered,
    /// The store's answer ends after so many bytes of it, head included.
    CutAfter(u64),
    /// The store's answer comes so many bytes at a time, as often as twenty times a second.
    Trickling(usize),
}

/// An answer of the store that was passed on.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What it is the answer to.
    pub asked: Asked,
    /// When the request had come.
    pub begun: Instant,
    /// When all but its last bytes, so far, were on their way: whoever asks next has not read them before.
    pub ended: Instant,
}

type Judge = dyn FnMut(&Asked) -> Fate + Send;

/// Who waits until it is over.
type Over = Arc<(Mutex<bool>, Condvar)>;

/// A running one. What goes on when it is dropped ends.
pub struct Faults {
    port: u16,
    over: Over,
    answers: Arc<Mutex<Vec<Answer>>>,
}

impl Faults {
    /// Listens on a port of loopback for what the store at `upstream`, a port of loopback too, would be asked. `judge` decides
    /// about every request, one at a time.
    ///
    /// # Errors
    /// Where no port can be had.
    pub fn before(upstream: u16, judge: impl FnMut(&Asked) -> Fate + Send + 'static) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let over: Over = Arc::default();
        let judge: Arc<Mutex<Box<Judge>>> = Arc::new(Mutex::new(Box::new(judge)));
        let answers = Arc::default();
        let (ends, noted) = (Arc::clone(&over), Arc::clone(&answers));
        thread::Builder::new().name("faults".to_owned()).spawn(move || {
            for client in listener.incoming() {
                if *locked(&ends.0) {
                    return;
                }
                let Ok(client) = client else { continue };
                let (judge, ends, noted) = (Arc::clone(&judge), Arc::clone(&ends), Arc::clone(&noted));
                // A connection that breaks is what a test is about, or its client's own affair.
                thread::spawn(move || drop(serve(client, upstream, &judge, &ends, &noted)));
            }
        })?;
        Ok(Self { port, over, answers })
    }

    /// The store's answers that were passed on so far, as they began.
    pub fn answers(&self) -> Vec<Answer> {
        locked(&self.answers).clone()
    }

    /// The port to ask instead of the store's.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        *locked(&self.over.0) = true;
        self.over.1.notify_all();
        // Wakes the one that listens.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Answers the one request of a connection.
fn serve(
    mut client: TcpStream,
    upstream: u16,
    judge: &Mutex<Box<Judge>>,
    over: &Over,
    answers: &Mutex<Vec<Answer>>,
) -> Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let head = head(&mut client)?;
    let asked = asked(&head).context("no request")?;
    let begun = Instant::now();
    let fate = (locked(judge))(&asked);
    let (at_most, piece) = match fate {
        Fate::Refused(status) => {
            let text = format!("HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            client.write_all(text.as_bytes())?;
            return Ok(());
        }
        Fate::Answered(status, body) => {
            client.write_all(answer(status, if asked.method == "HEAD" { "" } else { body }).as_bytes())?;
            return Ok(());
        }
        Fate::Echoed => {
            client.write_all(answer(200, if asked.method == "HEAD" { "" } else { &head }).as_bytes())?;
            return Ok(());
        }
        Fate::RedirectedTo(port) => {
            let text = format!(
                "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{port}{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                asked.target
            );
            client.write_all(text.as_bytes())?;
            return Ok(());
        }
        Fate::WithoutTokens(most) => {
            let whole = without_tokens(upstream, &head, most)?;
            client.write_all(answer(200, &whole).as_bytes())?;
            return Ok(());
        }
        Fate::NeverAnswered => {
            let mut ended = locked(&over.0);
            while !*ended {
                ended = over.1.wait(ended).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            return Ok(());
        }
        Fate::Passed => (u64::MAX, None),
        Fate::CutAfter(bytes) => (bytes, None),
        Fate::Trickling(bytes) => (u64::MAX, Some(bytes)),
    };
    let index = {
        let mut answers = locked(answers);
        answers.push(Answer { asked, begun, ended: begun });
        answers.len() - 1
    };
    let note = || locked(answers)[index].ended = Instant::now();
    Ok(pass(client, upstream, &head, at_most, piece, over, note)?)
}

fn answer(status: u16, body: &str) -> String {
    format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

/// The store's answer with as many keys as are said, without a token.
fn without_tokens(upstream: u16, head: &str, most: usize) -> Result<String> {
    let mut store = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, upstream)), PATIENCE)?;
    store.set_read_timeout(Some(PATIENCE))?;
    let (first, headers) = head.split_once("\r\n").context("no request")?;
    let words: Vec<&str> = first.split(' ').collect();
    let [method, target, version] = words[..] else { anyhow::bail!("no request") };
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
    let (_, body) = text.split_once("\r\n\r\n").context("no answer")?;
    let token = "NextContinuationToken>";
    let Some((before, rest)) = body.split_once(&format!("<{token}")) else { return Ok(body.to_owned()) };
    let (_, after) = rest.split_once(&format!("</{token}")).context("the token does not end")?;
    Ok(format!("{before}{after}"))
}

/// Everything up to the empty line.
fn head(client: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head)?)
}

fn asked(head: &str) -> Option<Asked> {
    let mut words = head.lines().next()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let range =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("range:").map(str::to_owned));
    let is_continued = range.is_some_and(|range| !range.trim().starts_with("bytes=0-"));
    Some(Asked { method, target, is_continued })
}

/// Has the store answer, with a connection of its own for each request, so that its end is the answer's end. Calls `note`
/// before some of it goes to the client.
fn pass(
    mut client: TcpStream,
    upstream: u16,
    head: &str,
    at_most: u64,
    piece: Option<usize>,
    over: &Over,
    note: impl Fn(),
) -> io::Result<()> {
    let mut store = TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, upstream)), PATIENCE)?;
    store.set_read_timeout(Some(PATIENCE))?;
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
            let ended = locked(&over.0);
            let (ended, _) = over
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

    use super::{Fate, Faults};
    use crate::stores::StoreServer;

    fn ask(port: u16, target: &str) -> String {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        write!(connection, "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    #[ignore = "needs servers: cargo xtask test"]
    fn each_fate_is_met_and_the_rest_is_the_stores_own_answer() {
        let server = StoreServer::python_http().unwrap();
        std::fs::write(server.folder().join("object"), "what the store holds").unwrap();
        let upstream = server.url().rsplit(':').next().unwrap().parse().unwrap();
        let faults = Faults::before(upstream, |asked| match asked.target.as_str() {
            "/object?refused" => Fate::Refused(503),
            "/object?cut" => Fate::CutAfter(12),
            "/object?echoed" => Fate::Echoed,
            "/object?elsewhere" => Fate::RedirectedTo(1),
            "/object?trickling" => Fate::Trickling(100),
            _ => Fate::Passed,
        })
        .unwrap();
        assert!(ask(faults.port(), "/object").ends_with("what the store holds"));
        assert!(ask(faults.port(), "/object?trickling").ends_with("what the store holds"));
        assert!(ask(faults.port(), "/object?refused").starts_with("HTTP/1.1 503 "));
        assert_eq!(ask(faults.port(), "/object?cut").len(), 12);
        assert!(ask(faults.port(), "/object?echoed").contains("Host: localhost"));
        assert!(
            ask(faults.port(), "/object?elsewhere").contains("Location: http://127.0.0.1:1/object?elsewhere")
        );
        let answers = faults.answers();
        let targets: Vec<&str> = answers.iter().map(|answer| answer.asked.target.as_str()).collect();
        assert_eq!(targets, ["/object", "/object?trickling", "/object?cut"]);
        assert!(answers[1].ended - answers[1].begun >= std::time::Duration::from_millis(50));
    }
}
