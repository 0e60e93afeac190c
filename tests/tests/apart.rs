//! A run writes nothing inside another cluster, and does not remove a cluster inside a directory that the run empties.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use tests::files::paths_below;
use tests::primary::Primary;
use tests::server::{PostgresServer, run};

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn no_run_writes_inside_a_running_cluster() {
    let primary = Primary::start("inside", 100).unwrap();
    // The test would mistake files that autovacuum creates during the run for files of the program.
    primary.server.psql("ALTER SYSTEM SET autovacuum = off").unwrap();
    primary.server.psql("SELECT pg_reload_conf()").unwrap();
    primary.server.psql("CHECKPOINT").unwrap();
    let main = primary.server.datadir();
    let user = primary.playground.user();
    user.directory(&main.join("base/empty")).unwrap();
    let link = primary.playground.path("link");
    std::os::unix::fs::symlink(main.join("base"), &link).unwrap();
    let folder = fs::read_dir(primary.tablespace()).unwrap().next().unwrap().unwrap().path();
    let before = paths_below(main).unwrap();
    let inside = [
        main.join("base/replica"),
        main.join("base/empty"),
        link.join("replica"),
        main.join("pg_wal/replica"),
        folder.join("replica"),
    ];
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    let text = fs::read_to_string(replica.path("understudy.toml")).unwrap();
    let without_state = |verb: &str, setting: &str, path: &Path| {
        for arguments in [&[][..], &["--force"]] {
            let output = replica.command(verb).args(arguments).output().unwrap();
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            let what = format!("{verb} {setting} {} {arguments:?}: {said}", path.display());
            assert_eq!(output.status.code(), Some(3), "{what}");
            assert!(said.contains("inside another cluster"), "{what}");
            assert!(!replica.path("state").exists() && !replica.datadir().exists(), "{what}");
        }
    };
    for path in &inside {
        for (setting, own) in [
            ("datadir", replica.datadir()),
            ("wal_dir", replica.wal()),
            ("tablespaces", replica.fast()),
            ("state_dir", replica.path("state")),
        ] {
            let (own, other) = (format!("\"{}\"", own.display()), format!("\"{}\"", path.display()));
            assert!(text.contains(&own), "{own} in {text}");
            fs::write(replica.path("understudy.toml"), text.replace(&own, &other)).unwrap();
            for verb in ["check", "create"] {
                without_state(verb, setting, path);
            }
        }
    }
    fs::write(replica.path("understudy.toml"), &text).unwrap();
    for path in &inside[..3] {
        let report = path.parent().unwrap().join("report.json");
        let output = replica.command("create").arg("--report").arg(&report).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("inside another cluster") && !report.exists(), "{said}");
        assert!(!replica.path("state").exists() && !replica.datadir().exists(), "{said}");
    }
    assert_eq!(paths_below(main).unwrap(), before, "the run created something in the primary");
    primary.server.psql("CREATE TABLE lives (n int)").unwrap();
    // Outside the primary the same configuration works.
    replica.created_by("basebackup").unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn parts_of_another_cluster_in_old_data_are_kept_without_force_and_other_entries_are_named() {
    let primary = Primary::start("parts", 100).unwrap();
    let user = primary.playground.user();
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    replica.created_by("basebackup").unwrap();
    let data = replica.datadir();
    let make = |name: &str| run(user.command("/bin/mkdir").arg("-p").arg(data.join(name))).unwrap();
    make("backups");
    user.write(&data.join("backups/base.tar"), "years of work").unwrap();
    let checked = replica.command("check").output().unwrap();
    let told = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && told.contains("they are removed too: backups/"), "{told}");
    for (inside, shown) in [
        ("mytbs/PG_15_202209061/5", "mytbs/PG_15_202209061 is the folder of a cluster's tablespace"),
        ("wal/archive_status", "wal is a WAL directory"),
        ("old/global/pg_control.understudy", "old holds global/pg_control"),
        ("old/PG_VERSION", "old holds PG_VERSION"),
    ] {
        make(inside);
        for verb in ["check", "create"] {
            let output = replica.command(verb).output().unwrap();
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert_eq!(output.status.code(), Some(3), "{verb} {inside}: {said}");
            assert!(said.contains(shown) && said.contains("--force"), "{verb} {inside}: {said}");
            assert!(data.join(inside).exists() && replica.is_sealed(), "{verb} {inside}");
        }
        fs::remove_dir_all(data.join(inside.split('/').next().unwrap())).unwrap();
    }
    make("mytbs/PG_15_202209061/5");
    let ended = replica.create(&["--force"]).unwrap();
    assert_eq!(ended.code(), Some(0), "{}", ended.output);
    assert!(ended.output.contains("they are removed too: backups/, mytbs/"), "{}", ended.output);
    assert!(!data.join("backups").exists());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_cluster_inside_old_data_is_removed_only_with_force_and_only_if_it_is_not_running() {
    let primary = Primary::start("around", 100).unwrap();
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    replica.created_by("basebackup").unwrap();
    let inner = replica.datadir().join("base/inner");
    primary.server.stop().unwrap();
    run(primary
        .playground
        .user()
        .command("/bin/cp")
        .arg("--archive")
        .arg(primary.server.datadir())
        .arg(&inner))
    .unwrap();
    let primary = primary.restarted().unwrap();
    let config = replica.path("understudy.toml");
    let text = fs::read_to_string(&config).unwrap();
    // The restarted primary has another port.
    let (begin, end) = (text.find("port=").unwrap(), text.find(" user=replicator").unwrap());
    fs::write(&config, text.replace(&text[begin..end], &format!("port={}", primary.server.port()))).unwrap();
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.code(), Some(3), "{}", ended.output);
    assert!(ended.output.contains(inner.to_str().unwrap()), "{}", ended.output);
    assert!(inner.join("global/pg_control").exists());
    let running = PostgresServer::start(&primary.playground, &inner, "").unwrap();
    let ended = replica.create(&["--force"]).unwrap();
    assert_eq!(ended.code(), Some(3), "{}", ended.output);
    assert!(ended.output.contains("running server"), "{}", ended.output);
    running.stop().unwrap();
    let ended = replica.create(&["--force"]).unwrap();
    assert_eq!(ended.code(), Some(0), "{}", ended.output);
    assert!(!inner.exists());
}
