//! A primary whose backups a generator writes as WAL-G does.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context, Result, ensure};
use tests::primary::Primary;
use tests::replica_folder::ReplicaFolder;
use tests::server::{PostgresServer, run};

use super::crypt::{Crypt, Encryption};
use super::storage::{Backup, Cluster, Compression, Packed, Settings, archive_wal};

/// What happens on the primary before each backup.
const CHANGES: [&str; 3] = [
    "DROP TABLE IF EXISTS shrinks, grows, stays, goes, comes, placed;
     CREATE TABLE shrinks AS SELECT n, repeat('x', 100) AS body FROM generate_series(1, 60000) n;
     CREATE TABLE grows AS SELECT n, repeat('y', 100) AS body FROM generate_series(1, 5000) n;
     CREATE TABLE stays AS SELECT n, repeat('s', 100) AS body FROM generate_series(1, 20000) n;
     CREATE TABLE goes AS SELECT 1 AS n;
     CREATE TABLE comes (n int);
     CREATE TABLE placed (n int, body text) TABLESPACE fast;
     INSERT INTO placed SELECT n, repeat('z', 200) FROM generate_series(1, 20000) n",
    "UPDATE shrinks SET body = 'changed' WHERE n % 500 = 0;
     INSERT INTO grows SELECT n, repeat('y', 100) FROM generate_series(5001, 40000) n;
     DROP TABLE goes;
     INSERT INTO comes SELECT n FROM generate_series(1, 3000) n;
     UPDATE placed SET body = 'changed' WHERE n BETWEEN 100 AND 200",
    "DELETE FROM shrinks WHERE n > 10000;
     VACUUM (TRUNCATE) shrinks;
     TRUNCATE comes;
     INSERT INTO comes SELECT n FROM generate_series(1, 10) n;
     UPDATE placed SET body = 'again' WHERE n = 15000",
];

/// The tables of [`CHANGES`] that every backup has.
pub(crate) const TABLES: [&str; 5] = ["shrinks", "grows", "stays", "comes", "placed"];

/// A primary and its backups.
pub(crate) struct Scene {
    pub(crate) primary: Primary,
    pub(crate) settings: Settings,
    /// The storage that replicas are created from: the one that is written, or an encrypted copy of it.
    served: (PathBuf, Option<Crypt>),
    backups: Vec<Backup>,
}

impl Scene {
    pub(crate) fn new(name: &str, compression: Compression, owner: u64) -> Self {
        let primary = Primary::start(name, 2_000).unwrap();
        // A replica without archived WAL streams from the beginning of its backup.
        primary.server.psql("ALTER SYSTEM SET wal_keep_size = '1GB'").unwrap();
        primary.server.psql("SELECT pg_reload_conf()").unwrap();
        let storage = primary.playground.directory("storage").unwrap();
        let settings = Settings { storage, compression, part: 2 << 20, owner };
        let served = (settings.storage.clone(), None);
        Self { primary, settings, served, backups: Vec::new() }
    }

    /// Takes a full backup and two delta backups.
    pub(crate) fn take_chain(&mut self) {
        self.take_backups(CHANGES.len());
    }

    /// Takes a full backup, and then delta backups until there are `count` backups.
    pub(crate) fn take_backups(&mut self, count: usize) {
        for changes in &CHANGES[..count] {
            for change in changes.split(';') {
                self.primary.server.psql(change).unwrap();
            }
            let parent = self.backups.last().cloned();
            self.backups.push(self.take(parent.as_ref()).unwrap());
        }
        self.own();
    }

    /// Replaces the storage with an empty one with another compression. Removes the old one.
    pub(crate) fn start_over(&mut self, compression: Compression) {
        self.serve(None);
        fs::remove_dir_all(&self.settings.storage).unwrap();
        self.primary.playground.directory("storage").unwrap();
        self.settings.compression = compression;
        self.backups.clear();
    }

    /// Creates replicas from an encrypted copy of the storage from now on; from the storage itself if `encryption` is `None`.
    pub(crate) fn serve(&mut self, encryption: Option<Encryption>) {
        if self.served.1.is_some() {
            fs::remove_dir_all(&self.served.0).unwrap();
        }
        self.served = (self.settings.storage.clone(), encryption.map(Crypt::new));
        if let Some(crypt) = &self.served.1 {
            let encrypted = self.primary.playground.path("encrypted");
            let mut copy = self.primary.playground.user().command("/bin/cp");
            run(copy.arg("--recursive").arg(&self.served.0).arg(&encrypted)).unwrap();
            crypt.encrypt_all(&encrypted);
            self.served.0 = encrypted;
        }
    }

    /// Gives the storage to the user of the servers.
    pub(crate) fn own(&self) {
        let mut chown = std::process::Command::new("chown");
        chown
            .arg("--recursive")
            .arg("--reference")
            .arg(self.primary.playground.path(""))
            .arg(&self.settings.storage);
        assert!(chown.status().unwrap().success());
    }

    /// Returns the name of the `full`, the `first` or the `second` backup.
    pub(crate) fn backup(&self, which: &str) -> &str {
        let index = ["full", "first", "second"].iter().position(|name| *name == which).unwrap();
        &self.backups[index].name
    }

    pub(crate) fn folder(&self, which: &str) -> PathBuf {
        self.settings.storage.join("basebackups_005").join(self.backup(which))
    }

    fn take(&self, parent: Option<&Backup>) -> Result<Backup> {
        let server = &self.primary.server;
        let cluster = Cluster {
            data: server.datadir().to_owned(),
            system_identifier: server.psql("SELECT system_identifier FROM pg_control_system()")?.parse()?,
            version: server.psql("SHOW server_version_num")?.parse()?,
            timeline: 1,
            segment: 16 << 20,
        };
        let mut session = Session::start(server)?;
        let start = session.ask("SELECT pg_backup_start('walg', true)")?;
        let packed = Packed::pack(&self.settings, &cluster, lsn(&start)?, parent)?;
        let stopped =
            session.ask("SELECT lsn || '#' || labelfile || '#' || spcmapfile FROM pg_backup_stop(false)")?;
        let mut parts = stopped.split('#');
        let (finish, label, map) = (parts.next(), parts.next(), parts.next());
        let (finish, label) = (finish.context("no LSN")?, label.context("no label")?);
        let backup = packed.finish(lsn(finish)?, label, map.unwrap_or(""))?;
        drop(session);
        server.psql("SELECT pg_switch_wal()")?;
        self.archive(lsn(&start)?, lsn(finish)?)?;
        Ok(backup)
    }

    /// Archives the WAL from `start` to `finish`.
    fn archive(&self, start: u64, finish: u64) -> Result<()> {
        for number in start >> 24..=(finish - 1) >> 24 {
            let name = format!("00000001{:08X}{:08X}", number >> 8, number & 0xff);
            archive_wal(&self.settings, &self.primary.server.datadir().join("pg_wal").join(name))?;
        }
        Ok(())
    }

    /// Returns the section of the method for the backup `which`, with further options.
    pub(crate) fn section(&self, which: &str, options: &str) -> String {
        let storage = self.served.0.display();
        let (store, grants) = match &self.served.1 {
            None => (format!("directory = \"{storage}\""), format!("read = [\"{storage}\"]")),
            Some(crypt) => (
                format!("store = \"repo\"\nkey = \"repo\"\n{}", crypt.options()),
                format!(
                    "stores.repo = {{ url = \"file://{storage}\" }}\nkeys.repo = {{ {} }}",
                    crypt.grant(&|name, text| self.secret_file(name, text))
                ),
            ),
        };
        format!(
            "[method.walg]\n[method.walg.options]\n{store}\nbackup = \"{}\"\n{options}\n[method.walg.grants]\n{grants}\n",
            self.backup(which)
        )
    }

    /// Writes a file that the user of the servers alone can read.
    fn secret_file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.primary.playground.path(name);
        self.primary.playground.user().write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    /// Makes the folder of a replica from the backup `which`.
    pub(crate) fn replica(&self, which: &str, options: &str) -> ReplicaFolder {
        let name = format!("replica-{which}");
        self.primary.replica(&name, &["walg"], "", &self.section(which, options)).unwrap()
    }
}

/// A session of psql in which a backup is taken: it must be the same from start to stop.
struct Session {
    psql: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Session {
    fn start(server: &PostgresServer) -> Result<Self> {
        let mut psql = server.client("psql");
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--dbname=postgres"]);
        let mut psql = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = psql.stdin.take().context("no input")?;
        let output = BufReader::new(psql.stdout.take().context("no output")?);
        Ok(Self { psql, input, output })
    }

    fn ask(&mut self, sql: &str) -> Result<String> {
        writeln!(self.input, "{sql};\n\\echo END")?;
        let mut answer = String::new();
        loop {
            let mut line = String::new();
            ensure!(self.output.read_line(&mut line)? > 0, "psql has ended: {answer}");
            if line.trim_end() == "END" {
                ensure!(!answer.is_empty(), "`{sql}` fails");
                answer.pop();
                return Ok(answer);
            }
            answer.push_str(&line);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}

fn lsn(text: &str) -> Result<u64> {
    let (high, low) = text.trim().split_once('/').context("no LSN")?;
    Ok(u64::from_str_radix(high, 16)? << 32 | u64::from_str_radix(low, 16)?)
}
