//! WAL that is restored from the archive together with a backup. No test in this module sets a `restore_command`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::pgbackrest::{BUNDLED_ENCRYPTED, PLAIN, Stanza};
use tests::replica_folder::ReplicaFolder;
use tests::server::{PostgresServer, run};

use super::scene::{OldData, fails, fails_in};

/// Returns the names in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Returns the segments in a replica's WAL directory.
fn segments(replica: &ReplicaFolder) -> Vec<String> {
    names(&replica.wal()).into_iter().filter(|name| name.len() == 24).collect()
}

/// Returns the names of all files in a repository's WAL archive for the cluster.
fn archived(stanza: &Stanza, number: usize) -> Vec<String> {
    let mut found = Vec::new();
    for entry in names(&stanza.archive(number)) {
        let path = stanza.archive(number).join(&entry);
        if path.is_dir() {
            found.extend(names(&path));
        } else {
            found.push(entry);
        }
    }
    found.sort();
    found
}

/// Returns the first WAL segment of the newest backup.
fn first_segment(stanza: &Stanza, number: usize) -> String {
    let output =
        run(&mut stanza.pgbackrest(&[&format!("--repo={number}"), "--output=json", "info"])).unwrap();
    let info: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let backup = info[0]["backup"].as_array().unwrap().last().unwrap();
    backup["archive"]["start"].as_str().unwrap().to_owned()
}

/// Writes a row and archives the segment, three times.
fn write_and_archive(stanza: &Stanza, from: u32) {
    for step in from..from + 3 {
        let id = 1_000_000 + step;
        stanza.primary.server.psql(&format!("INSERT INTO letters SELECT {id}, repeat('work', 20)")).unwrap();
        stanza.switch_wal().unwrap();
    }
}

/// Creates a standby of the primary with pg_basebackup, which archives into the repositories too.
fn standby(stanza: &Stanza, name: &str) -> PostgresServer {
    let playground = &stanza.primary.playground;
    let datadir = playground.path(name);
    let mut copy = stanza.primary.server.client("pg_basebackup");
    copy.args(["--checkpoint=fast", "--no-sync", "--write-recovery-conf", "--wal-method=stream", "--pgdata"]);
    copy.arg(&datadir);
    for (index, space) in stanza.tablespaces.iter().enumerate() {
        copy.arg(format!(
            "--tablespace-mapping={}={}",
            space.path.display(),
            playground.path(&format!("{name}-space-{index}")).display()
        ));
    }
    run(&mut copy).unwrap();
    let server = PostgresServer::start(playground, &datadir, "").unwrap();
    stanza.archive_from(&server).unwrap();
    let name = format!("c{}", server.port());
    let streams = format!("SELECT state FROM pg_stat_replication WHERE application_name = '{name}'");
    stanza.primary.server.wait_for(&streams, "streaming").unwrap();
    server
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_latest_wal_replaces_segments_that_the_primary_has_recycled_and_is_not_archived_again() {
    let stanza = Stanza::start("pgbr-latest", 500, &[PLAIN, BUNDLED_ENCRYPTED], "zst").unwrap();
    for number in [1, 2] {
        stanza.backup(number, "full", &[]).unwrap();
        let start = first_segment(&stanza, number);
        write_and_archive(&stanza, u32::try_from(number).unwrap() * 10);
        stanza.recycle_wal(&start).unwrap();

        let consistent = stanza.replica(&stanza.method(&[number], "", "")).unwrap();
        stanza.created(&consistent).unwrap();
        let last = segments(&consistent).pop().unwrap();
        assert!(
            !stanza.primary.server.datadir().join("pg_wal").join(last).exists(),
            "the primary still has the segment"
        );

        let replica = stanza.replica(&stanza.method(&[number], "", "wal = \"latest\"\n")).unwrap();
        stanza.created(&replica).unwrap();
        let restored = segments(&replica);
        assert!(restored.len() >= 4 && restored.contains(&start), "{restored:?}");
        for segment in &restored {
            let status = replica.wal().join(format!("archive_status/{segment}.done"));
            assert!(status.exists(), "{segment} is not marked as archived");
        }
        stanza.primary.streams_to(&replica).unwrap();

        // After a promotion the replica archives its own segments, but no segment that came from the archive.
        let log = stanza.primary.playground.path(&format!("archived-{number}"));
        let server = PostgresServer::start(&stanza.primary.playground, &replica.datadir(), "").unwrap();
        server.psql(&format!("ALTER SYSTEM SET archive_command = 'echo %f >>{}'", log.display())).unwrap();
        server.psql("SELECT pg_reload_conf()").unwrap();
        server.psql("SELECT pg_promote()").unwrap();
        for _ in 0..3 {
            server.psql("SELECT pg_create_restore_point('switch')").unwrap();
            let segment = server.psql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
            server.psql("CHECKPOINT").unwrap();
            let done = format!("SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver");
            server.wait_for(&done, "t").unwrap();
        }
        let archived_names = fs::read_to_string(&log).unwrap();
        let twice: Vec<&str> = archived_names
            .lines()
            .filter(|name| {
                archived(&stanza, number).iter().any(|there| there.starts_with(&format!("{name}-")))
            })
            .collect();
        assert!(twice.is_empty(), "archived again: {twice:?}\n{archived_names}");
        assert!(archived_names.contains("00000002.history"), "{archived_names}");
        server.stop().unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn after_a_failover_the_latest_wal_is_that_of_the_new_primary() {
    let stanza = Stanza::start("pgbr-failover", 500, &[PLAIN], "gz").unwrap();
    let old = &stanza.primary.server;
    let full = stanza.backup(1, "full", &[]).unwrap();
    let start = first_segment(&stanza, 1);
    write_and_archive(&stanza, 0);
    let new = standby(&stanza, "standby");
    // The promotion happens in the middle of a segment, which is archived as a partial segment.
    old.psql("INSERT INTO letters VALUES (2000000, 'the last that both have')").unwrap();
    new.wait_for("SELECT count(*) FROM letters WHERE id = 2000000", "1").unwrap();
    new.psql("SELECT pg_promote()").unwrap();

    // The old primary is not stopped, and goes on writing and archiving.
    old.psql("INSERT INTO letters VALUES (3000000, 'stray')").unwrap();
    write_and_archive(&stanza, 10);
    let stray = stanza.backup(1, "full", &[]).unwrap();
    for step in 0..3 {
        new.psql(&format!("INSERT INTO letters VALUES ({}, 'on the new timeline')", 4_000_000 + step))
            .unwrap();
        new.psql("SELECT pg_create_restore_point('switch')").unwrap();
        let segment = new.psql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
        new.wait_for(&format!("SELECT last_archived_wal = '{segment}' FROM pg_stat_archiver"), "t").unwrap();
        new.psql("CHECKPOINT").unwrap();
    }
    let archive = archived(&stanza, 1);
    assert!(archive.iter().any(|name| name.contains(".partial")), "{archive:?}");
    assert!(archive.iter().any(|name| name == "00000002.history"), "{archive:?}");
    assert!(!new.datadir().join("pg_wal").join(&start).exists(), "the new primary has no {start}");

    let latest = |label: &str| stanza.method(&[1], "", &format!("backup = \"{label}\"\nwal = \"latest\"\n"));
    let replica = stanza.replica_of(&new, &latest(&full)).unwrap();
    stanza.created(&replica).unwrap();
    let wal = names(&replica.wal());
    assert!(wal.iter().any(|name| name == "00000002.history"), "{wal:?}");
    assert!(!wal.iter().any(|name| name.contains("partial")), "{wal:?}");
    assert!(replica.wal().join("archive_status/00000002.history.done").exists());
    let fork = new.psql("SELECT pg_walfile_name(pg_current_wal_lsn())").unwrap();
    assert!(
        fork.starts_with("00000002") && wal.iter().any(|name| name.starts_with("000000020000")),
        "{wal:?}"
    );
    stanza.primary.streams_from(&new, &replica).unwrap();
    let again = PostgresServer::start(&stanza.primary.playground, &replica.datadir(), "").unwrap();
    let rows = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM letters WHERE id >= 2000000";
    assert_eq!(again.psql(rows).unwrap(), "2000000 4000000 4000001 4000002");
    again.stop().unwrap();

    // If the options name no backup, the run restores the newest backup from which a standby can follow the new primary.
    let newest = stanza.replica_of(&new, &stanza.method(&[1], "", "wal = \"latest\"\n")).unwrap();
    assert_eq!(stanza.created(&newest).unwrap()["plan"]["backup"], full);
    for section in [latest(&stray), stanza.method(&[1], "", &format!("backup = \"{stray}\"\n"))] {
        let replica = stanza.replica_of(&new, &section).unwrap();
        fails_in(&stanza, &replica, "past the fork", OldData::Untouched, &["timeline"]);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_that_could_not_follow_a_source_promoted_meanwhile_fails_the_seal() {
    let stanza = Stanza::start("pgbr-promoted", 500, &[PLAIN], "gz").unwrap();
    let old = &stanza.primary.server;
    stanza.backup(1, "full", &[]).unwrap();
    write_and_archive(&stanza, 0);
    let new = standby(&stanza, "standby");
    old.psql("INSERT INTO letters VALUES (2000000, 'the last that both have')").unwrap();
    new.wait_for("SELECT count(*) FROM letters WHERE id = 2000000", "1").unwrap();

    // The copy is so slow that it has barely begun when the run is stopped (SIGSTOP).
    let latest = stanza.method(&[1], "", "wal = \"latest\"\n");
    let slow = latest.replace(".grants]\n", ".grants]\nrate = \"1MiB/s\"\n");
    let replica = stanza.replica_of(&new, &slow).unwrap();
    let running = replica.spawn(&[]).unwrap();
    let started = Instant::now();
    while !replica.datadir().join("base").exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing is copied");
        std::thread::sleep(Duration::from_millis(2));
    }
    running.signal(Signal::STOP).unwrap();
    new.psql("SELECT pg_promote()").unwrap();
    old.psql("INSERT INTO letters VALUES (3000000, 'stray')").unwrap();
    write_and_archive(&stanza, 10);
    running.signal(Signal::CONT).unwrap();
    let ended = replica.wait_for_end(running).unwrap();
    assert_eq!(ended.attempts(), [("pgbackrest", "check-failed")], "{}", ended.output);
    assert!(ended.output.contains("run again: by now the source reports where it left"), "{}", ended.output);
    assert!(!replica.is_sealed());

    stanza.created(&replica).unwrap();
    stanza.primary.streams_from(&new, &replica).unwrap();
    let server = PostgresServer::start(&stanza.primary.playground, &replica.datadir(), "").unwrap();
    let rows = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM letters WHERE id >= 2000000";
    assert_eq!(server.psql(rows).unwrap(), "2000000");
    server.stop().unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_option_wal_chooses_how_much_wal_is_restored() {
    let stanza = Stanza::start("pgbr-consistent", 500, &[PLAIN], "lz4").unwrap();
    stanza.backup(1, "full", &[]).unwrap();
    stanza.primary.server.psql("INSERT INTO letters VALUES (5000000, 'after the backup')").unwrap();
    write_and_archive(&stanza, 0);

    // Without a source the replica starts on its own, with the rows of the backup.
    let alone = stanza.folder("", &stanza.method(&[1], "", "")).unwrap();
    stanza.created(&alone).unwrap();
    let server = PostgresServer::start(&stanza.primary.playground, &alone.datadir(), "").unwrap();
    assert_eq!(server.psql("SELECT count(*) FROM letters").unwrap(), "500");
    server.stop().unwrap();

    let none = stanza.replica(&stanza.method(&[1], "", "wal = \"none\"\n")).unwrap();
    stanza.created(&none).unwrap();
    assert_eq!(segments(&none), [""; 0]);
    stanza.primary.streams_to(&none).unwrap();

    let latest = stanza.method(&[1], "", "wal = \"latest\"\n");
    fails(&stanza, "latest without a source", &latest, OldData::Untouched, &["latest", "source"]);
    let wrong = stanza.folder("", &stanza.method(&[1], "", "wal = \"all\"\n")).unwrap();
    let ended = wrong.create(&[]).unwrap();
    assert!(ended.code() == Some(1) && ended.output.contains("wal"), "{}", ended.output);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_gap_in_the_archive_ends_the_restored_wal_or_fails_the_attempt() {
    let stanza = Stanza::start("pgbr-gap", 500, &[PLAIN], "gz").unwrap();
    stanza.primary.server.psql("ALTER SYSTEM SET wal_keep_size = '8GB'").unwrap();
    stanza.primary.server.psql("SELECT pg_reload_conf()").unwrap();
    stanza.backup(1, "full", &[]).unwrap();
    let start = first_segment(&stanza, 1);
    write_and_archive(&stanza, 0);
    write_and_archive(&stanza, 10);
    let folder = stanza.archive(1).join(&start[..16]);
    let later: Vec<String> = names(&folder).into_iter().filter(|name| name[..24] > *start).collect();
    let gap = &later[later.len() - 3];
    fs::rename(folder.join(gap), stanza.primary.playground.path("gap")).unwrap();

    // Segments after the gap are not restored; the source still has them.
    let replica = stanza.replica(&stanza.method(&[1], "", "wal = \"latest\"\n")).unwrap();
    stanza.created(&replica).unwrap();
    let restored = segments(&replica);
    assert!(
        restored.contains(&start) && restored.iter().all(|name| **name < gap[..24]),
        "{restored:?} {gap}"
    );
    stanza.primary.streams_to(&replica).unwrap();

    // A backup with a gap in its own WAL cannot become consistent without a source.
    let own = names(&folder).into_iter().find(|name| name.starts_with(&start)).unwrap();
    fs::remove_file(folder.join(own)).unwrap();
    fails(&stanza, "the backup's own", &stanza.method(&[1], "", ""), OldData::Untouched, &[&start]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_damaged_segment_is_reported_by_name() {
    let stanza = Stanza::start("pgbr-segment", 500, &[PLAIN], "zst").unwrap();
    stanza.backup(1, "full", &[]).unwrap();
    let start = first_segment(&stanza, 1);
    let folder = stanza.archive(1).join(&start[..16]);
    let segment = names(&folder).into_iter().find(|name| name.starts_with(&start)).unwrap();
    super::bad_input::flip(&folder.join(segment));
    fails(&stanza, "flipped", &stanza.method(&[1], "", ""), OldData::Emptied, &[&start]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_segment_that_is_archived_twice_fails_only_a_backup_that_needs_it() {
    let stanza = Stanza::start("pgbr-twice", 500, &[PLAIN], "gz").unwrap();
    stanza.primary.server.psql("ALTER SYSTEM SET wal_keep_size = '8GB'").unwrap();
    stanza.primary.server.psql("SELECT pg_reload_conf()").unwrap();
    stanza.backup(1, "full", &[]).unwrap();
    let start = first_segment(&stanza, 1);
    write_and_archive(&stanza, 0);
    let folder = stanza.archive(1).join(&start[..16]);
    let object = |segment: &str| names(&folder).into_iter().find(|name| name.starts_with(segment)).unwrap();
    let last = names(&folder).into_iter().filter(|name| name.len() > 60).max().unwrap();
    let (own, unwanted) = (object(&start), object(&last[..24]));
    let copied = |from: &str, to: &str| {
        run(std::process::Command::new("/bin/cp")
            .arg("--archive")
            .arg(folder.join(from))
            .arg(folder.join(to)))
        .unwrap();
    };
    // The same segment in two compressions, a partial segment, a temporary file, and a file that does not belong to the archive.
    copied(&own, &own.replace(".gz", ".zst"));
    copied(&own, &format!("{}.partial{}", &own[..24], &own[24..]));
    copied(&own, &format!("{own}.pgbackrest.tmp"));
    copied(&own, "notes");
    // Another primary wrote this segment on the same timeline.
    let other = format!("{}-{}.gz", &unwanted[..24], "0123456789".repeat(4));
    copied(&unwanted, &other);
    let replica = stanza.replica(&stanza.method(&[1], "", "")).unwrap();
    stanza.created(&replica).unwrap();
    stanza.primary.streams_to(&replica).unwrap();
    let latest = stanza.replica(&stanza.method(&[1], "", "wal = \"latest\"\n")).unwrap();
    fails_in(&stanza, &latest, "a wanted one", OldData::Untouched, &["archived twice", &other, &unwanted]);
    let digest = "9876543210".repeat(4);
    copied(&own, &format!("{start}-{digest}.gz"));
    fails(
        &stanza,
        "the backup's own",
        &stanza.method(&[1], "", ""),
        OldData::Untouched,
        &["archived twice", &digest],
    );
}
