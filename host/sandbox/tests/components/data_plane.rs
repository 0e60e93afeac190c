//! Stores and transfers: what is granted works, everything else is denied, and nothing continues after the run.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use replica::{Bytes, Event, Method, Outcome};
use sandbox::{DiskBudget, StoreConfig};

use crate::stage::{Stage, text};

/// Makes a directory with these files, in the same folder as the data directory.
fn backup(stage: &Stage, files: &[(&str, &[u8])]) -> PathBuf {
    let place = stage.directory("backup");
    for (name, content) in files {
        let path = place.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    place
}

fn as_store(stage: Stage, place: &Path) -> Stage {
    let url = format!("file://{}", place.display());
    stage.grant(|grants| _ = grants.stores.insert("repo".to_owned(), StoreConfig::new(url)))
}

/// Returns every file below a directory with its size.
fn files(place: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut open = vec![place.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                found.insert(entry.path(), entry.metadata().unwrap().len());
            }
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn a_transfer_from_a_granted_store_fills_the_data_directory_and_reports_its_progress() {
    let stage = Stage::hostile("transfer");
    let large = vec![7; 3 << 20];
    let place =
        backup(&stage, &[("PG_VERSION", b"15\n"), ("base/5/1259", &large), ("global/pg_control", b"c")]);
    let stage = as_store(stage, &place);
    stage.create().await.unwrap();
    let datadir = stage.datadir();
    assert_eq!(fs::read(datadir.join("PG_VERSION")).unwrap(), b"15\n");
    assert_eq!(fs::read(datadir.join("base/5/1259")).unwrap(), large);
    assert!(!datadir.join("global/pg_control").exists(), "only the host may give a file this name");
    assert_eq!(fs::read(datadir.join("global/pg_control.understudy")).unwrap(), b"c");
    let last = stage.events().into_iter().rev().find_map(|event| match event {
        Event::Progress { bytes, files, .. } => Some((bytes, files)),
        _ => None,
    });
    assert_eq!(last, Some(((3 << 20) + 4, 3)));
    assert_eq!(stage.denials(), []);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn a_granted_directory_is_a_store_and_any_other_is_denied_with_a_remedy() {
    let stage = Stage::hostile("transfer");
    let place = backup(&stage, &[("pg_wal/1", b"x")]);
    let path = text(place.to_str().unwrap());
    let stage = stage.option("store", path);
    let message = stage.fails(Outcome::Denied).await;
    let line = format!(r#"[method.hostile.grants] read = ["{}"]"#, place.display());
    assert_eq!(
        (stage.denials()[0].capability.word(), stage.denials()[0].remedy.as_deref()),
        ("read", Some(line.as_str()))
    );
    assert!(message.contains(&line), "{message}");

    let stage = stage.grant(|grants| grants.read.push(place));
    stage.create().await.unwrap();
    assert_eq!(fs::read(stage.datadir().join("pg_wal/1")).unwrap(), b"x");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn what_is_not_granted_is_denied_in_plan_and_in_create_with_a_remedy() {
    for stage in [Stage::hostile("ungranted"), Stage::hostile("ungranted").in_plan()] {
        stage.fails(Outcome::Denied).await;
        let denials = stage.denials();
        for (capability, what, remedy) in [
            (
                "key",
                "the key key",
                Some(r#"[method.hostile.grants] keys.key = { file = "/path", stores = ["NAME"] }"#),
            ),
            ("store", "the store repo", Some(r#"[method.hostile.grants] stores.repo = { url = "..." }"#)),
        ] {
            let reported = denials.iter().find(|denial| denial.what == what);
            let reported = reported.map(|denial| (denial.capability.word(), denial.remedy.as_deref()));
            assert_eq!(reported, Some((capability, remedy)), "{denials:?}");
        }
        // The remedy has the path of this machine's shell.
        let program = denials.iter().find(|denial| denial.what == "the program sh");
        let remedy = program.and_then(|denial| denial.remedy.as_deref()).unwrap_or_default();
        let begins = remedy.starts_with("[method.hostile.grants] programs.sh = { path = \"/");
        assert!(begins && remedy.ends_with("/sh\", args = [\"-c\", \"id\"] }"), "{denials:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn a_plan_reads_stores_and_writes_nothing() {
    let stage = Stage::hostile("transfer").in_plan();
    let place = backup(&stage, &[("PG_VERSION", b"15\n")]);
    let stage = as_store(stage, &place);
    let failure = stage.plan().await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::Denied, "{}", failure.chain());
    let what = "a transfer into the data directory (nothing may be written in plan)";
    assert_eq!((stage.denials()[0].capability.word(), stage.denials()[0].what.as_str()), ("write", what));
    assert!(files(stage.datadir()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn nothing_is_written_outside_the_data_directory_nor_under_the_hosts_own_name() {
    let stage = Stage::hostile("transfer-elsewhere").path(Path::new("object"));
    let place = backup(&stage, &[("object", b"x")]);
    let around = place.parent().unwrap().to_owned();
    let before = files(&around);
    let stage = as_store(stage, &place);
    let failure = stage.create().await.unwrap_err();
    assert!(!failure.message.contains("ESCAPED"), "{}", failure.chain());
    assert_eq!(files(&around), before);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn a_call_takes_no_more_than_4096_items_and_gives_no_more_than_4_mib() {
    let stage = Stage::hostile("too-many-at-once").path(Path::new("large"));
    let place = backup(&stage, &[("large", &vec![0; (4 << 20) + 1])]);
    as_store(stage, &place).fails(Outcome::Failed).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn streams_and_jobs_are_bounded() {
    let stage = Stage::hostile("streams").path(Path::new("large"));
    let place = backup(&stage, &[("large", &vec![0; 4 << 20])]);
    let message = as_store(stage, &place).fails(Outcome::Failed).await;
    assert!(message.contains("16 open streams") && message.contains("Limit"), "{message}");
    let message = Stage::hostile("jobs").fails(Outcome::Trapped).await;
    assert!(message.contains("64 jobs"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn derived_keys_are_bounded_in_number_and_in_bytes() {
    for (length, says) in
        [(8, ["64 derived keys", "64 keys were derived already"]), (1500, ["2 derived keys", "4096 bytes"])]
    {
        let stage = Stage::hostile("derive-many").path(Path::new("object"));
        let line = |number: usize| format!("{number}=\"{number:0>length$}\"\n");
        let text = format!("[keys]\n{}", (0..65).map(line).collect::<String>());
        let place = backup(&stage, &[("object", text.as_bytes())]);
        let message = as_store(stage, &place).fails(Outcome::Failed).await;
        assert!(says.iter().all(|says| message.contains(says)) && message.contains("Limit"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn a_transfer_stops_at_the_disk_budget() {
    let stage = Stage::hostile("transfer");
    let place = backup(&stage, &[("large", &vec![1; 2 << 20])]);
    let budget = DiskBudget { bytes: Some(Bytes(1 << 20)), ..DiskBudget::default() };
    let stage = as_store(stage, &place).grant(|grants| grants.disk = Some(budget));
    let message = stage.fails(Outcome::OutOfDisk).await;
    assert!(message.contains("disk.bytes"), "{message}");
    assert!(files(stage.datadir()).values().sum::<u64>() <= 1 << 20);
}

/// Makes a stage with a component that fetches without end.
fn endless() -> Stage {
    let stage = Stage::hostile("transfer-and-stay").path(Path::new("object"));
    let place = backup(&stage, &[("object", &vec![3; 1 << 20])]);
    as_store(stage, &place)
}

/// Waits until the first file is complete, because a cancelled job removes an incomplete one. The log of the component does not show that:
/// the host transfers the file on its own.
async fn writes(stage: &Stage) {
    let started = Instant::now();
    while !files(stage.datadir()).values().any(|size| *size == 1 << 20) {
        assert!(started.elapsed() < Duration::from_secs(20), "nothing was written");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Checks that no file grows or appears any more.
fn no_file_changes(stage: &Stage) {
    let (now, until) = (files(stage.datadir()), Instant::now() + Duration::from_millis(300));
    assert!(!now.is_empty());
    while Instant::now() < until {
        assert_eq!(files(stage.datadir()), now);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn nothing_is_written_any_more_when_a_cancelled_call_returns() {
    let stage = endless();
    let (ended, ()) = tokio::join!(stage.create(), async {
        writes(&stage).await;
        stage.cancel.cancel();
    });
    assert_eq!(ended.unwrap_err().outcome, Outcome::Cancelled);
    no_file_changes(&stage);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn nothing_is_written_any_more_when_a_component_has_trapped() {
    let stage = endless().option("address", text("trap"));
    let message = stage.fails(Outcome::Trapped).await;
    assert!(message.contains("trapped"), "{message}");
    no_file_changes(&stage);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn dropping_the_call_ends_its_transfer() {
    let mut stage = endless();
    stage.settings.name = "given-up".to_owned();
    let (method, request, run) = (stage.method(), stage.request(), stage.run());
    let plan = method.plan(&request, &run).await.unwrap();
    tokio::select! {
        _ = method.create(&request, &plan, &run) => panic!("it has no end"),
        () = writes(&stage) => {}
    }
    crate::cancelling::gone("given-up").await;
    no_file_changes(&stage);
}
