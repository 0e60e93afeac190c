//! WAL in backups from real servers: on two timelines, and in recycled segments.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tests::primary::Primary;
use tests::server::{PostgresServer, run};

use super::scene::Scene;

/// Creates and starts a standby of the server `of` in a folder with this name.
fn standby(primary: &Primary, of: &PostgresServer, name: &str) -> PostgresServer {
    let playground = &primary.playground;
    let (datadir, fast) = (playground.path(name), playground.path(&format!("{name}-fast")));
    run(of
        .client("pg_basebackup")
        .args(["--format=plain", "--checkpoint=fast", "--no-sync", "--write-recovery-conf", "--pgdata"])
        .arg(&datadir)
        .arg(format!("--tablespace-mapping={}={}", tablespace_of(of), fast.display())))
    .unwrap();
    PostgresServer::start(playground, &datadir, "hot_standby = on\nwal_keep_size = 1GB").unwrap()
}

/// Returns the location of the tablespace on a server.
fn tablespace_of(server: &PostgresServer) -> String {
    server.psql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'").unwrap()
}

/// A running pg_basebackup. Dropping the value kills it, for example if the test fails.
struct RunningBackup(Child);

impl RunningBackup {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap(), signal).unwrap();
    }
}

impl Drop for RunningBackup {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_backup(of: &PostgresServer, into: &Path) -> RunningBackup {
    let mut command: Command = of.client("pg_basebackup");
    command.args(["--format=tar", "--checkpoint=fast", "--no-sync", "--max-rate=4M", "--pgdata"]).arg(into);
    RunningBackup(command.stdin(Stdio::null()).spawn().unwrap())
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_wal_of_a_backup_across_a_promotion_is_checked_on_both_timelines() {
    let scene = Scene::new("timelines");
    let primary = &scene.primary;
    let middle = standby(primary, &primary.server, "middle");
    let last = standby(primary, &middle, "last");
    let backup = primary.backups().unwrap().join("latest");
    let mut backup_process = start_backup(&last, &backup);
    last.wait_for("SELECT phase FROM pg_stat_progress_basebackup", "streaming database files").unwrap();
    // pg_basebackup is stopped (SIGSTOP) while the server switches to the new timeline.
    backup_process.signal(Signal::STOP);
    middle.psql("SELECT pg_promote()").unwrap();
    middle
        .psql("INSERT INTO letters SELECT -n, 'on the new timeline' FROM generate_series(1, 5000) n")
        .unwrap();
    middle.psql("CHECKPOINT").unwrap();
    let there = middle.psql("SELECT pg_current_wal_lsn()").unwrap();
    last.wait_for(&format!("SELECT pg_last_wal_replay_lsn() >= '{there}'"), "t").unwrap();
    last.psql("CHECKPOINT").unwrap();
    last.wait_for("SELECT min_recovery_end_timeline FROM pg_control_recovery()", "2").unwrap();
    backup_process.signal(Signal::CONT);
    assert!(backup_process.0.wait().unwrap().success());

    let manifest = backup.join("backup_manifest");
    let text = std::fs::read_to_string(&manifest).unwrap();
    for timeline in 1..=2 {
        assert!(text.contains(&format!("\"Timeline\": {timeline},")), "{text}");
    }
    let (_, ended) = scene.creates("two timelines", &scene.directory_section(&backup), &manifest);
    for timeline in 1..=2 {
        let end = format!("on timeline {timeline}");
        assert!(ended.output.lines().any(|line| line.contains("records of WAL") && line.ends_with(&end)));
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn wal_in_recycled_segments_is_read_to_its_end_and_no_further() {
    let scene = Scene::new("recycled");
    let server = &scene.primary.server;
    // Each checkpoint recycles segments: PostgreSQL renames segments that are no longer needed, to use them later.
    for round in 0..4 {
        server.psql(&format!("INSERT INTO letters SELECT {round} * 100000 + n + 10000, repeat(md5(n::text), 14) FROM generate_series(1, 20000) n")).unwrap();
        server.psql("SELECT pg_switch_wal()").unwrap();
        server.psql("CHECKPOINT").unwrap();
    }
    let ahead = "SELECT count(*) > 1 FROM pg_ls_waldir() WHERE name > pg_walfile_name(pg_current_wal_lsn()) AND length(name) = 24";
    assert_eq!(server.psql(ahead).unwrap(), "t", "no segment was recycled");
    for options in [&["--wal-method=fetch"][..], &["--wal-method=stream"]] {
        let backup = scene.primary.tar_backup("latest", options).unwrap();
        scene.creates(options[0], &scene.directory_section(&backup), &backup.join("backup_manifest"));
        // Without a manifest, the end of the backup is found in the WAL itself.
        std::fs::remove_file(backup.join("backup_manifest")).unwrap();
        let ended = scene.replica(&scene.directory_section(&backup)).created_by("tarball").unwrap();
        assert!(ended.output.contains("records of WAL"), "{}", ended.output);
        std::fs::remove_dir_all(backup).unwrap();
    }
}
