//! Backups in the directory of a Barman server.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use tests::barman::ensure_barman;
use tests::primary::Primary;
use tests::program::fast_or_full;
use tests::releases::playground;
use tests::replica_folder::ReplicaFolder;
use tests::server::{Playground, run};

/// A primary that archives its WAL to a Barman server on the same machine.
struct Scene {
    primary: Primary,
    next: u32,
}

impl Scene {
    /// Starts the primary. `more` has further lines of Barman's configuration of the server.
    fn start(playground: Playground, more: &str) -> Self {
        let primary = Primary::start_in(playground, 2_000).unwrap();
        let playground = &primary.playground;
        let home = playground.directory("barman-home").unwrap();
        playground.directory("barman.d").unwrap();
        run(Command::new("/bin/cp").arg("-R").arg(ensure_barman().unwrap()).arg(playground.path("barman")))
            .unwrap();
        // The first line of each program names Python by its full path.
        let mut name_python = Command::new("/bin/sh");
        name_python.args(["-c", "sed -i \"1s|.*|#!$1/python|\" \"$1\"/barman*", "sh"]);
        run(name_python.arg(playground.path("barman/bin"))).unwrap();
        let incoming = home.join("main/incoming");
        run(playground.user().command("/bin/mkdir").arg("-p").arg(&incoming)).unwrap();
        let server = &primary.server;
        server.psql("ALTER SYSTEM SET archive_mode = on").unwrap();
        let push = format!("test ! -f {0}/%f && cp %p {0}/%f", incoming.display());
        server.psql(&format!("ALTER SYSTEM SET archive_command = '{push}'")).unwrap();
        server.psql("ALTER SYSTEM SET wal_keep_size = '1GB'").unwrap();
        server.psql("ALTER SYSTEM SET summarize_wal = on").ok();
        server.stop().unwrap();
        let primary = primary.restarted().unwrap();
        let mut scene = Self { primary, next: 0 };
        scene.configure(more);
        scene
    }

    fn configure(&mut self, more: &str) {
        let (playground, server) = (&self.primary.playground, &self.primary.server);
        let conninfo = format!(
            "host={} port={} user=postgres dbname=postgres",
            server.sockets().display(),
            server.port()
        );
        // pg_hba.conf allows replication connections from 127.0.0.1 with a password.
        let streaming = format!("{} passfile={}", server.conninfo(), playground.path("pgpass").display());
        let text = format!(
            "[barman]\nbarman_home = {home}\nbarman_user = {user}\nlog_file = {log}\n\
             configuration_files_directory = {more_files}\n[main]\ndescription = main\nconninfo = {conninfo}\n\
             streaming_conninfo = {streaming}\narchiver = on\nstreaming_archiver = off\nimmediate_checkpoint = true\n\
             path_prefix = {bin}\n{more}\n",
            home = playground.path("barman-home").display(),
            user = user_name(playground),
            log = playground.path("barman.log").display(),
            more_files = playground.path("barman.d").display(),
            bin = playground.bin_dir().display(),
        );
        playground.user().write(&playground.path("barman.conf"), &text).unwrap();
        // Makes the folders of the server, and archives the first segment, without which Barman takes no backup.
        self.barman(&["cron"]).unwrap();
        self.barman(&["switch-wal", "--force", "--archive", "main"]).unwrap();
    }

    fn barman(&self, words: &[&str]) -> Result<String> {
        let playground = &self.primary.playground;
        let mut barman = playground.user().command(playground.path("barman/bin/barman"));
        barman
            .env("HOME", playground.path("barman-home"))
            .arg("--config")
            .arg(playground.path("barman.conf"))
            .args(words);
        Ok(String::from_utf8(run(&mut barman)?.stdout)?)
    }

    /// Changes rows, takes a backup, and waits until its WAL is archived. Returns its ID.
    fn backup(&mut self, options: &[&str]) -> String {
        self.next += 1;
        let server = &self.primary.server;
        server.psql(&format!("UPDATE letters SET body = body || '{}' WHERE id % 97 = 0", self.next)).unwrap();
        server.psql(&format!("UPDATE parcels SET body = body || '{}' WHERE id % 89 = 0", self.next)).unwrap();
        server
            .psql(&format!("CREATE TABLE step_{} AS SELECT n FROM generate_series(1, 5000) n", self.next))
            .unwrap();
        let words = [&["backup", "--wait"], options, &["main"]].concat();
        if let Err(error) = self.barman(&words) {
            panic!("{error:#}\n{:?}", self.barman(&["check", "main"]));
        }
        server.psql("SELECT pg_switch_wal()").unwrap();
        self.barman(&["archive-wal", "main"]).unwrap();
        let listed = self.barman(&["list-backups", "main", "--minimal"]).unwrap();
        listed.lines().next().unwrap().trim().to_owned()
    }

    fn section(&self, options: &str) -> String {
        let home = self.primary.playground.path("barman-home");
        let home = home.display();
        format!(
            "[method.barman]\n[method.barman.options]\ndirectory = \"{home}\"\nserver = \"main\"\n{options}\n\
             [method.barman.grants]\nread = [\"{home}\"]\n"
        )
    }

    fn replica(&self, options: &str) -> ReplicaFolder {
        self.primary.replica("replica", &["barman"], "", &self.section(options)).unwrap()
    }

    /// Creates a replica from the backup `id`, which the option `backup` names `name`, and checks that it streams.
    fn streams(&self, what: &str, (name, id): (&str, &str), options: &str) {
        let replica = self.replica(&format!("backup = \"{name}\"\n{options}"));
        let ended = replica.created_by("barman").unwrap_or_else(|error| panic!("{what}: {error:#}"));
        assert!(ended.output.contains(id), "{what}: {}", ended.output);
        self.primary.streams_to(&replica).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        fs::remove_dir_all(replica.path("")).unwrap();
    }
}

/// Returns the name of the servers' user.
fn user_name(playground: &Playground) -> String {
    let told = run(playground.user().command("/usr/bin/id").arg("-un")).unwrap();
    String::from_utf8(told.stdout).unwrap().trim().to_owned()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn plain_backups_of_both_methods_become_replicas() {
    let mut scene = Scene::start(Playground::new("barman-plain").unwrap(), "backup_method = postgres");
    let first = scene.backup(&["--name", "nightly"]);
    scene.streams("postgres", (&first, &first), "wal = \"consistent\"");
    scene.streams("by its name", ("nightly", &first), "wal = \"latest\"");
    scene.configure("backup_method = local-rsync\nreuse_backup = link");
    let rsync = scene.backup(&[]);
    scene.streams("rsync", (&rsync, &rsync), "");
    let linked = scene.backup(&[]);
    scene.streams("rsync with hard links", (&linked, &linked), "wal = \"latest\"");
    // Without a name, the newest is taken.
    let replica = scene.replica("");
    let ended = replica.created_by("barman").unwrap();
    assert!(ended.output.contains(&linked), "{}", ended.output);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn tar_backups_of_every_compression_become_replicas() {
    let mut scene = Scene::start(Playground::new("barman-tar").unwrap(), "backup_method = postgres");
    let kinds = [("gzip", "gzip"), ("zstd", "bzip2"), ("lz4", "xz"), ("none", "gzip")];
    for (compression, wal) in kinds.into_iter().take(fast_or_full(2, 4) as usize) {
        scene.configure(&format!(
            "backup_method = postgres\nbackup_compression = {compression}\nbackup_compression_format = tar\ncompression = {wal}"
        ));
        let id = scene.backup(&[]);
        scene.streams(compression, (&id, &id), "wal = \"latest\"");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_chain_of_incremental_backups_becomes_a_replica() {
    let playground = playground("barman-chain", 17).unwrap();
    let mut scene = Scene::start(playground, "backup_method = postgres");
    let full = scene.backup(&[]);
    scene.primary.server.psql("TRUNCATE step_1").unwrap();
    let first = scene.backup(&["--incremental", "last"]);
    scene.primary.server.psql("DROP TABLE step_1").unwrap();
    let second = scene.backup(&["--incremental", "last"]);
    for id in [&first, &second] {
        scene.streams("chain", (id, id), "");
    }
    let whole = combined(&scene, &[&full, &first, &second]).unwrap();
    let replica = scene.replica(&format!("backup = \"{second}\""));
    replica.created_by("barman").unwrap();
    scene.primary.verify(&replica, &whole.join("backup_manifest")).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_damaged_page_of_a_backup_without_a_manifest_is_named() {
    let mut scene = Scene::start(Playground::new("barman-pages").unwrap(), "backup_method = local-rsync");
    let id = scene.backup(&[]);
    let file = scene.primary.server.psql("SELECT pg_relation_filepath('letters')").unwrap();
    let path = scene.primary.playground.path("barman-home/main/base").join(&id).join("data").join(&file);
    let mut bytes = fs::read(&path).unwrap();
    bytes[3 * 8192 + 5000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let replica = scene.replica("wal = \"none\"");
    let attempt = replica.create(&[]).unwrap().attempt("barman").to_string();
    for word in [&file, "its block 3 has the page checksum "] {
        assert!(attempt.contains(word), "`{word}` is not in {attempt}");
    }
    assert!(!replica.is_sealed());
    fs::remove_dir_all(replica.path("")).unwrap();
    scene.replica("wal = \"none\"\nverify = false").created_by("barman").unwrap();
}

/// Combines the backups with `pg_combinebackup`, as Barman's restore does, and returns the data directory.
fn combined(scene: &Scene, ids: &[&str]) -> Result<PathBuf> {
    let playground = &scene.primary.playground;
    let oid = scene.primary.server.psql("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'")?;
    let mut combine = playground.user().command(playground.bin_dir().join("pg_combinebackup"));
    let (into, fast) = (playground.path("combined"), playground.path("combined-fast"));
    for id in ids {
        let backup = playground.path("barman-home/main/base").join(id);
        combine.arg(backup.join("data"));
        let placed = fs::read_link(backup.join("data/pg_tblspc").join(&oid))?;
        let placed = if placed.is_absolute() { placed } else { backup.join(&oid) };
        combine.arg(format!("--tablespace-mapping={}={}", placed.display(), fast.display()));
    }
    run(combine.arg("--no-sync").arg("--output").arg(&into))?;
    Ok(into)
}
