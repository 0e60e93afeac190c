//! A real server that is killed in the middle of a read and started again.

use object_store::ObjectStoreExt;
use object_store::path::Path;
use tests::stores::{S3RVER, StoreServer};
use tokio::runtime::Handle;
use transfer::error::Kind;
use transfer::store::{Retry, Store, StoreConfig};

use crate::implementations::{config, s3_writer};
use crate::suite::pattern;

/// More bytes than the network buffers between a server and a client that does not read.
const LENGTH: usize = 64 << 20;

async fn prepared(at_most: std::time::Duration) -> (StoreServer, Vec<u8>, Store) {
    let server = StoreServer::s3rver().unwrap();
    let object = pattern(LENGTH);
    s3_writer(&server, "backups").put(&Path::from("base.tar"), object.clone().into()).await.unwrap();
    let url = server.url();
    let options = [("endpoint", url.as_str()), ("allow_http", "true")];
    let credentials = [("access_key_id", S3RVER), ("secret_access_key", S3RVER)];
    let config = StoreConfig {
        retry: Retry { at_most, ..Retry::default() },
        ..config("s3://backups", &options, &credentials)
    };
    let store = Store::open(&config, &Handle::current()).unwrap();
    (server, object, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: cargo xtask test"]
async fn a_read_goes_on_when_the_killed_server_is_started_again() {
    let (mut server, object, store) = prepared(Retry::default().at_most).await;
    let (_, mut body) = store.read("base.tar", None).await.unwrap();
    let mut bytes = body.chunk().await.unwrap().unwrap().to_vec();
    server.kill().unwrap();
    // Buffered bytes still arrive; the rest needs the server.
    let reading = async {
        while let Some(chunk) = body.chunk().await.unwrap() {
            bytes.extend_from_slice(&chunk);
        }
    };
    let restarting = async {
        // Some attempts fail because the server is down.
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        server.restart().unwrap();
    };
    tokio::join!(reading, restarting);
    assert!(bytes == object);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: cargo xtask test"]
async fn a_read_whose_server_stays_away_fails_and_names_the_object() {
    let (mut server, _, store) = prepared(std::time::Duration::from_secs(2)).await;
    let (_, mut body) = store.read("base.tar", None).await.unwrap();
    body.chunk().await.unwrap().unwrap();
    server.kill().unwrap();
    let error = loop {
        match body.chunk().await {
            Ok(chunk) => assert!(chunk.is_some(), "nobody sends the end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, Kind::Transient, "{error}");
    assert!(error.message.contains("`base.tar` of s3://backups"), "{error}");
}
