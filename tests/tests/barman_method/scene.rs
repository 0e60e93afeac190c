//! A primary with a Barman server on the same machine, and the replicas that are made from its backups.

use std::fs;

use anyhow::Result;
use tests::barman::Release;
use tests::primary::Primary;
use tests::replica_folder::ReplicaFolder;
use tests::server::{Playground, run};

use super::same_files;

/// How a backup is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A tree that rsync copies.
    Rsync,
    /// A tree that rsync copies, in which files that did not change are hard links to the backup before.
    Linked,
    /// A tree that pg_basebackup writes.
    Plain,
    /// Archives that pg_basebackup writes, with this compression.
    Tar(&'static str),
}

impl Kind {
    /// Returns the lines of Barman's configuration of the server.
    pub(crate) fn settings(self) -> String {
        match self {
            Self::Rsync => "backup_method = local-rsync".to_owned(),
            Self::Linked => "backup_method = local-rsync\nreuse_backup = link".to_owned(),
            Self::Plain => "backup_method = postgres".to_owned(),
            Self::Tar(compression) => format!(
                "backup_method = postgres\nbackup_compression = {compression}\nbackup_compression_format = tar"
            ),
        }
    }
}

/// A cell of the matrix.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) kind: Kind,
    /// The compression of archived WAL.
    pub(crate) wal: &'static str,
    /// The WAL that is restored (the method's option `wal`).
    pub(crate) restored: &'static str,
}

/// A primary that archives its WAL to a Barman server on the same machine.
pub(crate) struct Scene {
    pub(crate) primary: Primary,
    next: u32,
}

impl Scene {
    /// Starts the primary, and archives its first segment, without which Barman takes no backup.
    pub(crate) fn start(playground: Playground) -> Self {
        let primary = Primary::start_in(playground, 2_000).unwrap();
        let playground = &primary.playground;
        let home = playground.directory("barman-home").unwrap();
        playground.directory("barman.d").unwrap();
        Release::Newest.install(&playground.path("barman")).unwrap();
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
        let scene = Self { primary, next: 0 };
        scene.configure("backup_method = postgres");
        // The first command makes the folders of the server.
        scene.barman(&["cron"]).unwrap();
        scene.barman(&["switch-wal", "--force", "--archive", "main"]).unwrap();
        scene
    }

    /// Writes Barman's configuration. `more` has further lines for the server.
    pub(crate) fn configure(&self, more: &str) {
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
             staging_path = {staging}\nstaging_location = local\npath_prefix = {bin}\n{more}\n",
            home = playground.path("barman-home").display(),
            user = user_name(playground),
            log = playground.path("barman.log").display(),
            more_files = playground.path("barman.d").display(),
            staging = playground.path("staging").display(),
            bin = playground.bin_dir().display(),
        );
        playground.user().write(&playground.path("barman.conf"), &text).unwrap();
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
    pub(crate) fn backup(&mut self, options: &[&str]) -> String {
        self.next += 1;
        let server = &self.primary.server;
        server.psql(&format!("UPDATE letters SET body = body || '{}' WHERE id % 97 = 0", self.next)).unwrap();
        server.psql(&format!("UPDATE parcels SET body = body || '{}' WHERE id % 89 = 0", self.next)).unwrap();
        // Of the tables of earlier backups, one becomes empty and one goes.
        server
            .psql(&format!("CREATE TABLE step_{} AS SELECT n FROM generate_series(1, 5000) n", self.next))
            .unwrap();
        if self.next > 1 {
            server.psql(&format!("TRUNCATE step_{}", self.next - 1)).unwrap();
        }
        if self.next > 2 {
            server.psql(&format!("DROP TABLE step_{}", self.next - 2)).unwrap();
        }
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

    /// Makes the folder of the replica.
    pub(crate) fn replica(&self, options: &str) -> ReplicaFolder {
        self.primary.replica("replica", &["barman"], "", &self.section(options)).unwrap()
    }

    /// Removes the replica, and what Barman restored.
    pub(crate) fn forget(&self) {
        for name in ["replica", "theirs", "theirs-fast"] {
            let folder = self.primary.playground.path(name);
            if folder.exists() {
                fs::remove_dir_all(folder).unwrap();
            }
        }
    }

    /// Takes a backup, and checks it as [`Scene::same`] does.
    pub(crate) fn check(&mut self, cell: &Cell) {
        let wal = if cell.wal == "none" { String::new() } else { format!("\ncompression = {}", cell.wal) };
        self.configure(&(cell.kind.settings() + &wal));
        let id = self.backup(&[]);
        self.same(&format!("{cell:?}"), &id, &format!("wal = \"{}\"", cell.restored));
    }

    /// Creates a replica from the backup `id`, and restores it with Barman. Checks that both have the same files, and that the replica
    /// streams.
    pub(crate) fn same(&self, what: &str, id: &str, options: &str) {
        println!("{what}: {id}");
        let replica = self.replica(&format!("backup = \"{id}\"\n{options}"));
        let ended = replica.created_by("barman").unwrap_or_else(|error| panic!("{what}: {error:#}"));
        assert!(ended.output.contains(id), "{what}: {}", ended.output);
        let [theirs, fast] = ["theirs", "theirs-fast"].map(|name| self.primary.playground.path(name));
        let placed = format!("fast:{}", fast.display());
        self.barman(&["restore", "--tablespace", &placed, "main", id, &theirs.display().to_string()])
            .unwrap_or_else(|error| panic!("{what}: {error:#}"));
        same_files(&replica, &theirs, &fast);
        self.primary.streams_to(&replica).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        self.forget();
    }
}

/// Returns the name of the servers' user.
fn user_name(playground: &Playground) -> String {
    let told = run(playground.user().command("/usr/bin/id").arg("-un")).unwrap();
    String::from_utf8(told.stdout).unwrap().trim().to_owned()
}
