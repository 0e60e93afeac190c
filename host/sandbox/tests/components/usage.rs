//! Bounds that the operator sets, and what an attempt used of them.

use std::time::{Duration, Instant};

use replica::usage::Amount;
use replica::{Bytes, Level, Outcome};
use sandbox::{LogBudget, OptionValue, StoreConfig};

use crate::stage::Stage;

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_component_that_computes_ends_when_its_processor_time_is_used_up() {
    let limit = Duration::from_millis(300);
    for behave in ["loop", "ask"] {
        for in_plan in [false, true] {
            let mut stage = Stage::hostile(behave);
            stage.settings.cpu = Some(limit);
            let stage = if in_plan { stage.in_plan() } else { stage };
            let message = stage.fails(Outcome::TimedOut).await;
            assert_eq!(message, "the method used up its 300ms of processor time (`cpu`)", "{behave}");
            let cpu = stage.used().cpu;
            assert_eq!(cpu.limit, Some(limit));
            assert!(cpu.used >= limit && cpu.used < 10 * limit, "{behave}: {cpu:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_component_that_waits_uses_no_processor_time() {
    let mut stage = Stage::hostile("sleep");
    stage.settings.cpu = Some(Duration::from_secs(5));
    let cancel = stage.cancel.clone();
    let begun = Instant::now();
    let (ended, ()) = tokio::join!(stage.create(), async {
        stage.says("sleeping").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        cancel.cancel();
    });
    assert_eq!(ended.unwrap_err().outcome, Outcome::Cancelled);
    assert!(stage.used().cpu.used < begun.elapsed() / 2, "{:?}", stage.used().cpu);
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_granted_number_of_open_files_is_reached_and_named() {
    let stage = Stage::hostile("handles").grant(|grants| grants.open_files = 40);
    let message = stage.fails(Outcome::Failed).await;
    assert!(
        message.contains("may have only 40 files open at once (`open_files` in its grants)"),
        "{message}"
    );
    assert_eq!(stage.used().open_files, Amount::of(40, 40));
    let warned = |(origin, level, line): (String, Level, String)| {
        origin == "host" && level == Level::Warn && line.contains("`open_files`")
    };
    assert_eq!(stage.lines().into_iter().filter(|line| warned(line.clone())).count(), 1);
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_granted_log_is_reached_and_named() {
    for behave in ["log-flood", "stdout-flood"] {
        for (log, lines) in [
            (LogBudget { bytes: Bytes(1 << 20), lines: 50 }, 50),
            // A line has 19 bytes while its number has one digit, then 20.
            (LogBudget { bytes: Bytes(10 * 19 + 5 * 20 + 10), lines: 1000 }, 15),
        ] {
            let stage = Stage::hostile(behave).option("count", OptionValue::Integer(200));
            let stage = stage.grant(|grants| grants.log = log);
            stage.fails(Outcome::Failed).await;
            let lines_of = |wanted: bool| {
                let lines = stage.lines().into_iter();
                lines
                    .filter(|(origin, level, _)| (origin == "host") == wanted && *level <= Level::Info)
                    .collect::<Vec<_>>()
            };
            assert_eq!(lines_of(false).len(), lines, "{behave}");
            let warned = lines_of(true);
            assert_eq!(warned.len(), 1, "{warned:?}");
            assert!(warned[0].2.contains("`log` in its grants"), "{warned:?}");
            let used = stage.used();
            assert_eq!(used.log_lines, Amount::of(lines as u64, log.lines));
            assert!(used.log_bytes.used <= log.bytes.0);
            assert_eq!(used.log_bytes.limit, Some(log.bytes.0));
        }
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn the_usage_has_what_the_component_used_of_each_bound() {
    let stage = Stage::hostile("memory").grant(|grants| grants.memory = Bytes(64 << 20));
    stage.fails(Outcome::OutOfMemory).await;
    let memory = stage.used().memory;
    assert!(memory.used > 32 << 20 && memory.used <= 64 << 20, "{memory:?}");
    assert_eq!(memory.limit, Some(64 << 20));

    let budget = |bytes| Some(sandbox::DiskBudget { bytes, ..Default::default() });
    for bytes in [Some(Bytes(5_000_000)), None] {
        let stage = Stage::hostile("transfer").grant(|grants| grants.disk = budget(bytes));
        let place = stage.directory("backup");
        std::fs::write(place.join("PG_VERSION"), "15\n").unwrap();
        std::fs::write(place.join("large"), vec![7; 3 << 20]).unwrap();
        let url = format!("file://{}", place.display());
        let stage = stage.grant(|grants| _ = grants.stores.insert("repo".to_owned(), StoreConfig::new(url)));
        stage.create().await.unwrap();
        let used = stage.used();
        assert_eq!(used.written_bytes, Amount::of((3 << 20) + 3, bytes.map(|bytes| bytes.0)));
        assert_eq!(used.written_files, Amount::of(2, None));
        assert_eq!(used.read_bytes, Amount::of((3 << 20) + 3, None));
        // One listing, and two files that were opened.
        assert_eq!(used.requests, Amount::of(3, None));
        assert_eq!(used.denials, Amount::of(0, None));
        assert!(used.host_memory.used > 0 && used.host_memory.used <= 160 << 20, "{used:?}");
        assert!(used.open_files.used > 0 && used.workers.used > 0, "{used:?}");
        assert!(used.cpu.used > Duration::ZERO, "{used:?}");
    }

    let stage = Stage::hostile("ungranted");
    stage.fails(Outcome::Denied).await;
    assert!(stage.used().denials.used >= 4, "{:?}", stage.used());
}
