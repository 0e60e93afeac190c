//! The limits `rate` and `workers`. A proxy between the program and the store's server measures whether a run keeps them.

use std::time::{Duration, Instant};

use tests::faults::{Action, FaultProxy, ForwardedResponse};
use tests::replica_folder::ReplicaFolder;
use tests::server::Playground;
use tests::stores::{S3RVER, StoreServer};

use super::stores::{bucket, port, upload};

/// Makes a component fetch `objects` objects with `size` bytes each from a bucket, and returns the responses. With `piece`, the proxy
/// sends each response in pieces of this number of bytes.
fn fetch(objects: usize, size: usize, piece: Option<usize>, grants: &str) -> Vec<ForwardedResponse> {
    let playground = Playground::new("pace").unwrap();
    let folder = playground.directory("objects").unwrap();
    for number in 0..objects {
        std::fs::write(folder.join(format!("object-{number:03}")), vec![b'x'; size]).unwrap();
    }
    let server = StoreServer::s3rver().unwrap();
    upload(&server, &folder, "pg");
    let proxy = FaultProxy::start(port(&server), move |request| match piece {
        Some(piece) if request.target.contains("object-") => Action::Trickle(piece),
        _ => Action::Forward,
    })
    .unwrap();
    let replica = ReplicaFolder::new(&playground, "replica").unwrap();
    let credentials = "access_key_id = { env = \"REPO\" }, secret_access_key = { env = \"REPO\" }";
    let store = bucket(&proxy.url(), credentials);
    replica
        .configure(
            "methods = [\"hostile\"]",
            &format!(
                "[method.hostile]\nno_leader = true\noptions = {{ behave = \"transfer\" }}\n\
                 [method.hostile.grants]\n{grants}\n[method.hostile.grants.stores.repo]\n{store}"
            ),
        )
        .unwrap();
    let output = replica.command("create").env("REPO", S3RVER).output().unwrap();
    let mut responses = proxy.responses();
    responses
        .retain(|response| response.request.method == "GET" && response.request.target.contains("object-"));
    // The seal fails because the objects are not a data directory. Before the seal, all objects were fetched.
    let output_text =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!((responses.len(), output.status.code()), (objects, Some(4)), "{output_text}");
    responses
}

/// Returns the largest number of responses that were sent at the same time.
fn at_once(responses: &[ForwardedResponse]) -> usize {
    let under_way = |moment: Instant| {
        responses.iter().filter(|response| (response.started..response.ended).contains(&moment)).count()
    };
    responses.iter().map(|response| under_way(response.started)).max().unwrap_or(0)
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_store_is_never_read_faster_than_the_granted_rate() {
    const OBJECTS: usize = 96;
    const SIZE: usize = 128 << 10;
    let responses = fetch(OBJECTS, SIZE, None, "rate = \"4MiB/s\"\nworkers = 2");
    let begun = responses.iter().map(|response| response.started).min().unwrap();
    let ended = responses.iter().map(|response| response.ended).max().unwrap();
    // Subtracts what may pass without the limit: a burst of a tenth of a second, and up to two objects per worker in network buffers.
    let bytes = OBJECTS * SIZE - (4 << 20) / 10 - 4 * SIZE;
    let least = Duration::from_secs_f64(bytes as f64 / f64::from(4 << 20));
    assert!(ended - begun >= least, "{:?} is less than {least:?}", ended - begun);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn no_more_objects_are_read_at_once_than_the_granted_workers() {
    // Each response takes half a second, so every worker sends a request before the first response ends.
    for workers in [1, 3] {
        let responses = fetch(3 * workers, 3000, Some(300), &format!("workers = {workers}"));
        assert_eq!(at_once(&responses), workers);
    }
}
