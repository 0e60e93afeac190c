//! `rate` and `workers`: what the operator granted is kept, as the store's server sees it.

use std::time::{Duration, Instant};

use tests::faults::{Answer, Fate, Faults};
use tests::replica_folder::ReplicaFolder;
use tests::server::Playground;
use tests::stores::{S3RVER, StoreServer};

use super::stores::{bucket, port, upload};

/// Has a component fetch so many objects of so many bytes from a bucket, each answer coming `piece` bytes at a time where that
/// is said, and gives the answers, as they ended.
fn fetched(objects: usize, size: usize, piece: Option<usize>, grants: &str) -> Vec<Answer> {
    let playground = Playground::new("pace").unwrap();
    let folder = playground.directory("objects").unwrap();
    for number in 0..objects {
        std::fs::write(folder.join(format!("object-{number:03}")), vec![b'x'; size]).unwrap();
    }
    let server = StoreServer::s3rver().unwrap();
    upload(&server, &folder, "pg");
    let faults = Faults::before(port(&server), move |asked| match piece {
        Some(piece) if asked.target.contains("object-") => Fate::Trickling(piece),
        _ => Fate::Passed,
    })
    .unwrap();
    let replica = ReplicaFolder::new(&playground, "replica").unwrap();
    let credentials = "access_key_id = { env = \"REPO\" }, secret_access_key = { env = \"REPO\" }";
    let store = bucket(&faults.url(), credentials);
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
    let mut answers = faults.answers();
    answers.retain(|answer| answer.asked.method == "GET" && answer.asked.target.contains("object-"));
    // That the objects are no data directory is told when all of them are there.
    let told =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!((answers.len(), output.status.code()), (objects, Some(4)), "{told}");
    answers
}

/// How many answers were under way at once, at most.
fn at_once(answers: &[Answer]) -> usize {
    let under_way = |moment: Instant| {
        answers.iter().filter(|answer| (answer.begun..answer.ended).contains(&moment)).count()
    };
    answers.iter().map(|answer| under_way(answer.begun)).max().unwrap_or(0)
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_store_is_never_read_faster_than_the_rate_that_is_granted() {
    const OBJECTS: usize = 96;
    const SIZE: usize = 128 << 10;
    let answers = fetched(OBJECTS, SIZE, None, "rate = \"4MiB/s\"\nworkers = 2");
    let begun = answers.iter().map(|answer| answer.begun).min().unwrap();
    let ended = answers.iter().map(|answer| answer.ended).max().unwrap();
    // At once may come a burst of a tenth of a second, and for each worker what the network holds of one object.
    let bytes = OBJECTS * SIZE - (4 << 20) / 10 - 4 * SIZE;
    let least = Duration::from_secs_f64(bytes as f64 / f64::from(4 << 20));
    assert!(ended - begun >= least, "{:?} is less than {least:?}", ended - begun);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn no_more_objects_are_read_at_once_than_workers_are_granted() {
    // Each answer takes half a second, so that whoever could ask would.
    for workers in [1, 3] {
        let answers = fetched(3 * workers, 3000, Some(300), &format!("workers = {workers}"));
        assert_eq!(at_once(&answers), workers);
    }
}
