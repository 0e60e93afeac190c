//! Real object store servers from PyPI and npm, each with its own folder and its own port on loopback. Dropping a server ends its
//! process. If this program is killed, the kernel ends the servers.
//!
//! - S3: `moto`, which keeps objects in memory and can check signatures, and `s3rver`, which keeps them on disk.
//! - Azure: `azurite`, Microsoft's own emulator, which keeps objects on disk.
//! - HTTP: Python's `http.server`, which does not support ranges.
//!
//! `moto` and Python's server can use TLS with a given certificate.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::node;
use crate::program::project;
use crate::python::{Base, PYTHON, environment};
use crate::server::{free_port, tail};

/// How long a server may take to start.
const START: Duration = Duration::from_secs(60);

/// The access key of `s3rver`, which is also its secret key.
pub const S3RVER: &str = "S3RVER";

/// The public account of `azurite`
/// (<https://learn.microsoft.com/en-us/azure/storage/common/storage-use-azurite>).
pub const AZURITE_ACCOUNT: &str = "devstoreaccount1";

/// The key of [`AZURITE_ACCOUNT`].
pub const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Installs the servers below `target/` if they are missing or have other versions, and returns their folder. The first call takes a
/// minute.
///
/// # Errors
/// Fails if Python, npm, PyPI or npm's registry cannot be reached.
pub fn ensure_servers() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("stores");
    let folder = project().join("target/stores");
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock().context("waiting for another test that installs the servers of stores")?;
    environment("stores/venv", Base::Debian, &here.join("requirements.txt"))?;
    node::packages("stores/node", &here.join("package.json"))?;
    Ok(folder)
}

/// A running object store server.
#[derive(Debug)]
pub struct StoreServer {
    kind: Kind,
    folder: tempfile::TempDir,
    /// The folder of the objects.
    data: PathBuf,
    port: u16,
    /// The certificate and the key; `None` without TLS.
    tls: Option<(PathBuf, PathBuf)>,
    process: Child,
}

/// The kinds of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Moto,
    S3rver,
    Azurite,
    PythonHttp,
}

impl StoreServer {
    /// Starts an S3 server that keeps objects in memory, without a bucket. The server does not check credentials.
    ///
    /// # Errors
    /// Fails as [`ensure_servers`] does, and if the server does not start.
    pub fn moto() -> Result<Self> {
        Self::start(Kind::Moto)
    }

    /// Starts an S3 server that keeps objects on disk, with the bucket `backups`. The server checks the access key ([`S3RVER`]) but not
    /// the signature. Public objects can be read without a key.
    ///
    /// # Errors
    /// Fails as [`StoreServer::moto`] does.
    pub fn s3rver() -> Result<Self> {
        Self::start(Kind::S3rver)
    }

    /// Starts [`StoreServer::s3rver`] with its objects in this directory, where they stay when the server ends.
    ///
    /// # Errors
    /// Fails as [`StoreServer::moto`] does.
    pub fn s3rver_in(objects: &Path) -> Result<Self> {
        Self::start_with(Kind::S3rver, None, Some(objects))
    }

    /// Starts an Azure blob storage server that keeps objects on disk, with the account [`AZURITE_ACCOUNT`] and without a container.
    ///
    /// # Errors
    /// Fails as [`StoreServer::moto`] does.
    pub fn azurite() -> Result<Self> {
        Self::start(Kind::Azurite)
    }

    /// Starts a web server for the files in [`StoreServer::folder`].
    ///
    /// # Errors
    /// Fails as [`StoreServer::moto`] does.
    pub fn python_http() -> Result<Self> {
        Self::start(Kind::PythonHttp)
    }

    /// Starts [`StoreServer::moto`] with TLS and this certificate and key.
    ///
    /// # Errors
    /// Fails as [`StoreServer::moto`] does.
    pub fn moto_with_tls(tls: (PathBuf, PathBuf)) -> Result<Self> {
        Self::start_with(Kind::Moto, Some(tls), None)
    }

    /// Starts [`StoreServer::python_http`] with TLS and this certificate and key.
    ///
    /// # Errors
    /// Fails as [`StoreServer::moto`] does.
    pub fn python_https(tls: (PathBuf, PathBuf)) -> Result<Self> {
        Self::start_with(Kind::PythonHttp, Some(tls), None)
    }

    fn start(kind: Kind) -> Result<Self> {
        Self::start_with(kind, None, None)
    }

    fn start_with(kind: Kind, tls: Option<(PathBuf, PathBuf)>, data: Option<&Path>) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("understudy-store-").tempdir()?;
        let data = data.map_or_else(|| folder.path().join("data"), Path::to_owned);
        let port = free_port()?;
        let process = spawn(kind, folder.path(), &data, port, tls.as_ref())?;
        let mut server = Self { kind, folder, data, port, tls, process };
        server.wait()?;
        Ok(server)
    }

    /// Kills the server.
    ///
    /// # Errors
    /// Fails if the server has ended already.
    pub fn kill(&mut self) -> Result<()> {
        ensure!(self.process.try_wait()?.is_none(), "the server has ended by itself:\n{}", tail(&self.log()));
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts the server again on the same port, with the objects that it keeps on disk.
    ///
    /// # Errors
    /// Fails if it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.process = spawn(self.kind, self.folder.path(), &self.data, self.port, self.tls.as_ref())?;
        self.wait()
    }

    /// Returns `http://127.0.0.1:PORT`, or `https://...` with TLS.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the folder with the server's files.
    pub fn folder(&self) -> PathBuf {
        self.data.clone()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn wait(&mut self) -> Result<()> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let begun = Instant::now();
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            if let Some(status) = self.process.try_wait()? {
                bail!("{:?} ended ({status}):\n{}", self.kind, tail(&self.log()));
            }
            ensure!(begun.elapsed() < START, "{:?} does not answer:\n{}", self.kind, tail(&self.log()));
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// A Python program that runs a web server with TLS. Arguments: port, directory, certificate, key.
const PYTHON_HTTPS: &str = "import functools, http.server, ssl, sys\n\
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[2])\n\
    server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), handler)\n\
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
    tls.load_cert_chain(sys.argv[3], sys.argv[4])\n\
    # The thread of each connection does the handshake, not the thread that accepts connections.\n\
    server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)\n\
    server.serve_forever()\n";

fn spawn(
    kind: Kind,
    folder: &Path,
    data: &Path,
    port: u16,
    tls: Option<&(PathBuf, PathBuf)>,
) -> Result<Child> {
    let servers = ensure_servers()?;
    let port = port.to_string();
    fs::create_dir_all(data)?;
    // The kernel kills the server when the thread that started it ends, even if the test crashes.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    match kind {
        Kind::Moto => {
            command.arg(servers.join("venv/bin/moto_server")).args(["--host", "127.0.0.1", "--port", &port]);
            if let Some((certificate, key)) = tls {
                command.arg("--ssl").arg("--ssl-cert").arg(certificate).arg("--ssl-key").arg(key);
            }
        }
        Kind::S3rver => {
            // `s3rver` encrypts continuation tokens with a cipher that OpenSSL 3 has only in its legacy provider.
            command.env("NODE_OPTIONS", "--openssl-legacy-provider");
            command.arg(servers.join("node/node_modules/.bin/s3rver"));
            command.args([
                "--address",
                "127.0.0.1",
                "--port",
                &port,
                "--configure-bucket",
                "backups",
                "--directory",
            ]);
            command.arg(data);
        }
        Kind::Azurite => {
            command.arg(servers.join("node/node_modules/.bin/azurite-blob"));
            command.args([
                "--blobHost",
                "127.0.0.1",
                "--blobPort",
                &port,
                "--silent",
                "--disableTelemetry",
                "--location",
            ]);
            command.arg(data);
        }
        Kind::PythonHttp => {
            match tls {
                None => command
                    .args([PYTHON, "-m", "http.server", &port, "--bind", "127.0.0.1", "--directory"])
                    .arg(data),
                Some((certificate, key)) => {
                    command.args([PYTHON, "-c", PYTHON_HTTPS, &port]).arg(data).arg(certificate).arg(key)
                }
            };
        }
    }
    let log = File::options().create(true).append(true).open(folder.join("log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.current_dir(folder).spawn().context("setpriv, of Debian's package util-linux, does not run")
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        // The server may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
