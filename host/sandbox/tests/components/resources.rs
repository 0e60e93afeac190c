//! Everything that a component can use is bounded.

use replica::{Bytes, Event, Level, Outcome};
use sandbox::{DiskBudget, OptionValue};

use crate::stage::Stage;

fn budget(bytes: Option<u64>, files: Option<u64>, keep_free: Option<u64>) -> Option<DiskBudget> {
    Some(DiskBudget { bytes: bytes.map(Bytes), files, keep_free: keep_free.map(Bytes) })
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn floods_of_text_end_in_one_warning_each() {
    for behave in ["log-flood", "stdout-flood"] {
        let stage = Stage::hostile(behave).option("count", OptionValue::Integer(50_000));
        stage.fails(Outcome::Failed).await;
        let lines = stage.lines();
        let flood = lines.iter().filter(|(origin, ..)| origin != "host").count();
        assert!((1_000..=10_000).contains(&flood), "{behave}: {flood}");
        let warned =
            lines.iter().filter(|(origin, level, _)| origin == "host" && *level == Level::Warn).count();
        assert_eq!(warned, 1, "{behave}");
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_line_without_end_is_cut() {
    let stage = Stage::hostile("stderr-endless-line").option("count", OptionValue::Integer(4096));
    stage.fails(Outcome::Failed).await;
    let lines: Vec<_> = stage.lines().into_iter().filter(|(origin, ..)| origin == "stderr").collect();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].2.chars().count() <= 4097);
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_flood_of_progress_is_throttled_and_its_phases_are_cut() {
    let stage = Stage::hostile("progress-flood").option("count", OptionValue::Integer(100_000));
    stage.fails(Outcome::Failed).await;
    let events = stage.events();
    let reported = events.iter().filter(|event| matches!(event, Event::Progress { .. })).count();
    assert!((1..1000).contains(&reported), "{reported}");
    for event in events {
        if let Event::Phase { name, .. } = event {
            assert!(name.chars().count() <= 201);
        }
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn open_files_are_bounded_and_the_component_gets_an_error() {
    let message = Stage::hostile("handles").fails(Outcome::Failed).await;
    assert!(message.contains("open files"), "{message}");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn the_memory_of_open_listings_is_bounded() {
    let stage = Stage::hostile("listings").option("count", OptionValue::Integer(60));
    let large = stage.directory("large");
    for number in 0..6000 {
        std::fs::File::create(large.join(format!("{number:0>250}"))).unwrap();
    }
    let stage = stage.path(&large).grant(|grants| grants.read.push(large.clone()));
    let message = stage.fails(Outcome::Failed).await;
    // 64 MiB hold 29 listings of 6000 names of 250 bytes.
    assert!(message.contains("29 open listings: "), "{message}");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn open_listings_are_bounded() {
    let stage = Stage::hostile("listings").option("count", OptionValue::Integer(100));
    let small = stage.directory("small");
    let stage = stage.path(&small).grant(|grants| grants.read.push(small.clone()));
    let message = stage.fails(Outcome::Failed).await;
    assert!(message.contains("64 open listings: "), "{message}");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn the_arguments_of_a_call_and_the_resources_of_a_component_are_bounded() {
    for (behave, bound) in [("pollables", 1024), ("random", 64 << 10), ("long-call", 16 << 20)] {
        let stage = |count| Stage::hostile(behave).option("count", OptionValue::Integer(count));
        let below = stage(bound / 4).create().await.unwrap_err();
        assert!(below.message.contains("ESCAPED"), "a quarter of it is allowed, but {behave} says {below}");
        stage(bound + 1).fails(Outcome::Trapped).await;
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn directories_are_no_deeper_than_a_path_is_long() {
    let stage = Stage::hostile("deep").option("count", OptionValue::Integer(100));
    let message = stage.fails(Outcome::Failed).await;
    assert!(message.contains("name-too-long"), "{message}");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn exceeding_the_disk_budget_is_out_of_disk() {
    let stage = Stage::hostile("fill-disk").grant(|grants| grants.disk = budget(Some(5_000_000), None, None));
    let message = stage.fails(Outcome::OutOfDisk).await;
    assert!(message.contains("disk.bytes"), "{message}");
    let written = std::fs::metadata(stage.datadir().join("filler")).unwrap().len();
    assert!((4_000_000..=5_000_000).contains(&written), "{written}");

    let stage = Stage::hostile("many-files").grant(|grants| grants.disk = budget(None, Some(25), None));
    assert!(stage.fails(Outcome::OutOfDisk).await.contains("disk.files"));
    assert_eq!(std::fs::read_dir(stage.datadir()).unwrap().count(), 25);

    let stage = Stage::hostile("fill-disk").grant(|grants| grants.disk = budget(None, None, Some(1 << 60)));
    assert!(stage.fails(Outcome::OutOfDisk).await.contains("disk.keep_free"));
    assert_eq!(std::fs::read_dir(stage.datadir()).unwrap().count(), 0);
}
