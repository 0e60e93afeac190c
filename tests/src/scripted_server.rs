//! Servers on loopback whose answers a test defines: HTTP, HTTPS with a certificate of a private authority, or plain TCP.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::certificates::{self, Authority};

/// A connection, with TLS or without.
pub trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

type Answer = dyn Fn(&mut dyn Stream, &str) -> io::Result<()> + Send + Sync;

/// A server that ends with the test.
pub struct ScriptedServer {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl ScriptedServer {
    /// Starts a server that calls `answer` for each connection, with the head of the request.
    ///
    /// # Errors
    /// Fails if no port is free.
    pub fn http(
        answer: impl Fn(&mut dyn Stream, &str) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start(None, true, Arc::new(answer))
    }

    /// Starts a server as [`ScriptedServer::http`] does, with TLS and a certificate of `authority`.
    ///
    /// # Errors
    /// Fails if the certificate cannot be made or no port is free.
    pub fn https(
        authority: &Authority,
        certificate: certificates::ServerCertificate,
        answer: impl Fn(&mut dyn Stream, &str) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (certificate, key) = authority.certify(certificate)?;
        Self::start(Some(Arc::new(config(&certificate, &key)?)), true, Arc::new(answer))
    }

    /// Starts a server that calls `answer` for each connection without reading a request.
    ///
    /// # Errors
    /// Fails if no port is free.
    pub fn tcp(answer: impl Fn(&mut dyn Stream) -> io::Result<()> + Send + Sync + 'static) -> Result<Self> {
        Self::start(None, false, Arc::new(move |stream: &mut dyn Stream, _: &str| answer(stream)))
    }

    fn start(tls: Option<Arc<ServerConfig>>, reads_head: bool, answer: Arc<Answer>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let heads: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&heads);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (tls, answer, seen) = (tls.clone(), Arc::clone(&answer), Arc::clone(&seen));
                std::thread::spawn(move || {
                    let stream: TcpStream = stream?;
                    let mut stream: Box<dyn Stream> = match tls {
                        None => Box::new(stream),
                        Some(tls) => {
                            let connection = ServerConnection::new(tls).map_err(io::Error::other)?;
                            Box::new(StreamOwned::new(connection, stream))
                        }
                    };
                    let head = if reads_head { head(&mut *stream)? } else { String::new() };
                    seen.lock().unwrap_or_else(PoisonError::into_inner).push(head.clone());
                    answer(&mut *stream, &head)
                });
            }
        });
        Ok(Self { address, heads })
    }

    /// Returns the address on loopback.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the heads of all requests, one for each connection. A connection whose TLS handshake failed has no head.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn head(stream: &mut dyn Stream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Answers with a status, headers and a body.
///
/// # Errors
/// Fails if the connection does.
pub fn respond(stream: &mut dyn Stream, status: &str, headers: &str, body: &str) -> io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())?;
    stream.flush()
}

fn config(certificate: &Path, key: &Path) -> Result<ServerConfig> {
    let certificates = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_no_client_auth().with_single_cert(certificates, PrivateKeyDer::from_pem_file(key)?)?)
}
