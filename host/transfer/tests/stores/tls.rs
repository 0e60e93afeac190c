//! Servers with TLS and a certificate of a private authority: which ones are trusted.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tests::certificates::{Authority, ServerCertificate};
use tests::server::run;
use tests::stores::{StoreServer, ensure_servers};
use tokio::runtime::Handle;
use transfer::error::{Error, Kind};
use transfer::store::{Credentials, Store, StoreConfig};

use crate::implementations::config;

/// Reads an object over TLS and trusts these authorities, certificates in PEM.
async fn read(url: &str, options: &[(&str, &str)], authorities: Option<&str>) -> Result<Vec<u8>, Error> {
    let credentials: &[(&str, &str)] = match url.starts_with("s3:") {
        true => &[("access_key_id", "somebody"), ("secret_access_key", "something")],
        false => &[],
    };
    let store =
        StoreConfig { authorities: authorities.map(str::to_owned), ..config(url, options, credentials) };
    let store = Store::open(&store, &Handle::current())?;
    let (_, mut body) = store.read("object", None).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: cargo xtask test"]
async fn a_web_server_is_trusted_only_with_its_own_authority() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(&folder.path().join("own")).unwrap();
    let other = Authority::new(&folder.path().join("other")).unwrap();
    let own = fs::read_to_string(authority.certificate()).unwrap();
    let other = fs::read_to_string(other.certificate()).unwrap();
    let unknown = "not from an authority that this machine trusts; for a private authority of the store's own host set `ca_file`";
    for (who, authorities, says) in [
        (ServerCertificate::Right, Some(own.clone()), None),
        (ServerCertificate::Right, Some(format!("{other}{own}")), None),
        (ServerCertificate::Right, None, Some(unknown)),
        (
            ServerCertificate::Right,
            Some(other),
            Some("127.0.0.1 cannot prove its identity: its certificate is from none of the"),
        ),
        (ServerCertificate::Elsewhere, Some(own.clone()), Some("for other names")),
        (ServerCertificate::Expired, Some(own), Some("has expired")),
    ] {
        let server = StoreServer::python_https(authority.certify(who).unwrap()).unwrap();
        fs::write(server.folder().join("object"), "bytes").unwrap();
        let read = read(&server.url(), &[], authorities.as_deref()).await;
        match says {
            None => assert_eq!(read.unwrap(), b"bytes", "{who:?}"),
            Some(says) => {
                let error = read.unwrap_err();
                assert_eq!(error.kind, Kind::Denied, "{who:?}: {error}");
                assert!(error.message.contains(says), "{who:?}: {error}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: cargo xtask test"]
async fn s3_is_trusted_only_with_its_own_authority() {
    const PUT: &str = "import sys, boto3\n\
        s3 = boto3.client('s3', endpoint_url=sys.argv[1], verify=sys.argv[2], aws_access_key_id='x', aws_secret_access_key='x', region_name='us-east-1')\n\
        s3.create_bucket(Bucket='backups')\n\
        s3.put_object(Bucket='backups', Key='object', Body=b'bytes')\n";
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path()).unwrap();
    let server = StoreServer::moto_with_tls(authority.certify(ServerCertificate::Right).unwrap()).unwrap();
    let url = server.url();
    let python = ensure_servers().unwrap().join("venv/bin/python");
    run(Command::new(python).args(["-c", PUT, &url]).arg(authority.certificate())).unwrap();
    let options = [("endpoint", url.as_str()), ("region", "us-east-1")];

    let own = fs::read_to_string(authority.certificate()).unwrap();
    assert_eq!(read("s3://backups", &options, Some(&own)).await.unwrap(), b"bytes");
    let error = read("s3://backups", &options, None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(error.message.contains("`ca_file`"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: cargo xtask test"]
async fn a_private_authority_of_a_store_is_not_trusted_for_token_servers() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path()).unwrap();
    let own = fs::read_to_string(authority.certificate()).unwrap();
    let tokens = StoreServer::python_https(authority.certify(ServerCertificate::Right).unwrap()).unwrap();
    let environment = |name: &str| match name {
        "AZURE_CLIENT_ID" => Some("id".into()),
        "AZURE_TENANT_ID" => Some("tenant".into()),
        "AZURE_CLIENT_SECRET" => Some("secret".into()),
        "AZURE_AUTHORITY_HOST" => Some(tokens.url().trim_end_matches('/').into()),
        _ => None,
    };
    let options = [("account", "account"), ("endpoint", "https://store.invalid")];
    let store = StoreConfig {
        credentials: Credentials::Auto,
        authorities: Some(own),
        ..config("az://container", &options, &[])
    };
    let store = Store::open_in(&store, &environment, &Handle::current()).unwrap();
    let error = store.read("object", None).await.map(drop).unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(error.message.contains("the server 127.0.0.1 cannot prove its identity"), "{error}");
    assert!(error.message.contains("not from an authority that this machine trusts"), "{error}");
}

/// Starts a server that sends these bytes to every client, and counts connections.
fn speaking(bytes: &'static [u8]) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            // The server ignores what the client sends.
            let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(bytes));
            // Waits until the client disconnects, because closing first could discard the bytes.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    (port, connections)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_usable_tls_is_reported_at_once() {
    const HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    // A fatal alert, protocol_version (RFC 8446, 6).
    const TOO_OLD: &[u8] = &[21, 3, 1, 0, 2, 2, 70];
    for (bytes, says) in [(HTTP, "does not speak TLS"), (TOO_OLD, "ProtocolVersion")] {
        for s3 in [false, true] {
            let (port, connections) = speaking(bytes);
            let url = format!("https://127.0.0.1:{port}");
            let (url, options) = match s3 {
                false => (url.as_str(), vec![]),
                true => ("s3://backups", vec![("endpoint", url.as_str())]),
            };
            let error = read(url, &options, None).await.unwrap_err();
            assert_eq!(error.kind, Kind::Invalid, "{error}");
            assert!(error.message.contains("127.0.0.1") && error.message.contains(says), "{error}");
            assert_eq!(connections.load(Ordering::SeqCst), 1);
        }
    }
}
