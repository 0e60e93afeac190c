//! The folder with clusters, backups and targets. Clusters and backups stay in the folder between runs, because creating them takes long.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use tests::pgbackrest::{PGBACKREST, STANZA};
use tests::program::project;
use tests::server::{BIN_DIR, Playground, PostgresServer, run};
use tests::user::ServerUser;

use crate::say;

/// The number of tables of each kind. With this number each file has tens of megabytes, as in a cluster in use.
const TABLES: u64 = 64;

/// The size of an incompressible row in bytes. Four rows fill a page.
const NOISE: u64 = 1900;

/// The size on disk of one unit of pgbench's scale factor, in bytes, including the index.
const SCALE: u64 = 15_300_000;

/// The medium to which a target is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TargetMedium {
    /// The file system that contains the checkout.
    Disk,
    /// A tmpfs, where writing costs only processor time and memory.
    Memory,
}

impl TargetMedium {
    /// Returns the medium's name for use in a sentence about a target.
    pub(crate) fn at(self) -> &'static str {
        match self {
            Self::Disk => "on disk",
            Self::Memory => "in memory",
        }
    }

    /// Returns the medium's name for use in a table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
        }
    }
}

/// The folder `target/bench`, and a folder in memory. Dropping the value removes the folder in memory.
pub(crate) struct Home {
    playground: Playground,
    memory: PathBuf,
}

impl Drop for Home {
    fn drop(&mut self) {
        // Otherwise the files would stay in memory. A destructor cannot report a failure.
        let _ = std::fs::remove_dir_all(&self.memory);
    }
}

impl Home {
    /// Opens the folder, and removes files that an interrupted run left.
    pub(crate) fn open() -> Result<Self> {
        let folder = project().join("target/bench");
        let playground = Playground::persistent(&folder)?;
        let reachable = playground.user().command("/usr/bin/test").arg("-x").arg(&folder).status()?;
        ensure!(
            reachable.success(),
            "{} cannot be reached by the user that PostgreSQL runs as: check the project out below a directory that it may enter",
            folder.display()
        );
        let memory = PathBuf::from(format!("/dev/shm/understudy-bench-{}", std::process::id()));
        playground.user().directory(&memory)?;
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().join("postmaster.pid").exists() {
                // pg_ctl fails if the server is not running any more.
                let _ = playground
                    .user()
                    .command(Path::new(BIN_DIR).join("pg_ctl"))
                    .args(["stop", "--wait", "--silent", "--pgdata"])
                    .arg(entry.path())
                    .status()?;
            } else if name.starts_with("sockets-") {
                std::fs::remove_dir_all(entry.path())?;
            } else if name.starts_with("log-") {
                std::fs::remove_file(entry.path())?;
            }
        }
        let home = Self { playground, memory };
        home.remove(&home.path("targets"))?;
        home.playground.directory("targets")?;
        Ok(home)
    }

    /// Returns a path in the folder on disk.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.playground.path(name)
    }

    /// Returns the user that owns every file and runs every program.
    pub(crate) fn user(&self) -> ServerUser {
        self.playground.user()
    }

    /// Returns the path of the target with this name.
    pub(crate) fn target(&self, medium: TargetMedium, name: &str) -> PathBuf {
        match medium {
            TargetMedium::Disk => self.path("targets").join(name),
            TargetMedium::Memory => self.memory.join(name),
        }
    }

    /// Removes a directory tree if it exists.
    pub(crate) fn remove(&self, tree: &Path) -> Result<()> {
        match std::fs::remove_dir_all(tree) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", tree.display()))
            }
            _ => Ok(()),
        }
    }

    /// Replaces a directory tree with an empty directory.
    pub(crate) fn fresh(&self, tree: &Path) -> Result<()> {
        self.remove(tree)?;
        self.user().directory(tree)
    }

    /// Reads every file in a directory tree once, so that the files are in the page cache for every contestant.
    pub(crate) fn warm(&self, tree: &Path) -> Result<()> {
        run(&mut shell_command(
            &self.user(),
            &format!("find {} -type f -exec cat {{}} + >/dev/null", quoted(tree)),
        ))?;
        Ok(())
    }

    /// Creates `name` with `make`, unless an earlier run has completed it.
    pub(crate) fn once(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let (tree, ready) = (self.path(name), self.path(&format!("{name}.ready")));
        if !ready.exists() {
            self.remove(&tree)?;
            make(&tree)?;
            std::fs::write(&ready, "")?;
        }
        Ok(tree)
    }

    /// Returns a stopped cluster of about this size in bytes: half random bytes, half pgbench tables. Creates the cluster if it is missing.
    pub(crate) fn cluster(&self, name: &str, bytes: u64) -> Result<PathBuf> {
        self.once(name, |datadir| {
            say(&format!("making the cluster {name}: {} MB, half of them incompressible", bytes / 1_000_000));
            PostgresServer::init(&self.playground, name)?.stop()?;
            // With these settings loading rows writes no WAL. A backup would not contain that WAL anyway.
            let settings = "wal_level = minimal\nmax_wal_senders = 0\nmax_wal_size = 2GB\nautovacuum = off\n\
                            shared_buffers = 256MB\nmaintenance_work_mem = 256MB";
            let server = PostgresServer::start(&self.playground, datadir, settings)?;
            let scale = (bytes / 2 / SCALE).max(1);
            run(server
                .client("pgbench")
                .args([
                    "--initialize",
                    "--quiet",
                    &format!("--scale={scale}"),
                    &format!("--partitions={TABLES}"),
                ])
                .arg("postgres"))?;
            self.noise(&server, bytes / 2)?;
            server.psql("CHECKPOINT")?;
            server.stop()
        })
    }

    /// Fills tables with this number of random bytes.
    fn noise(&self, server: &PostgresServer, bytes: u64) -> Result<()> {
        let each = bytes / TABLES / NOISE * NOISE;
        // COPY writes no WAL for a table that the same transaction created.
        let script = format!(
            "for table in $(seq {TABLES}); do\n\
               echo \"BEGIN; CREATE TABLE noise_$table (body bytea); COPY noise_$table FROM STDIN;\"\n\
               head --bytes={each} /dev/urandom | basenc --base16 --wrap={digits} | sed 's/^/\\\\\\\\x/'\n\
               printf '\\\\.\\nCOMMIT;\\n'\n\
             done",
            digits = 2 * NOISE
        );
        let mut noise = shell_command(&self.user(), &script).stdout(Stdio::piped()).spawn()?;
        let sql = noise.stdout.take().context("the noise has no output")?;
        let loaded = run(server
            .client("psql")
            .args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname=postgres"])
            .stdin(sql));
        ensure!(noise.wait()?.success(), "no noise");
        loaded.map(drop)
    }

    /// Returns a small cluster with this number of additional one-page files in a database's folder. Half of each page is random. Creates
    /// the cluster if it is missing.
    pub(crate) fn cluster_of_small_files(&self, name: &str, files: u32) -> Result<PathBuf> {
        self.once(name, |datadir| {
            say(&format!("making the cluster {name}: {files} files of 8 KiB"));
            PostgresServer::init(&self.playground, name)?.stop()?;
            let mut random = fastrand::Rng::with_seed(16);
            let folder = datadir.join("base/5");
            let mut page = [0_u8; 8192];
            for file in 0..files {
                random.fill(&mut page[4096..]);
                let path = folder.join((1_000_000 + file).to_string());
                std::fs::write(&path, page)?;
                self.user().own(&path)?;
            }
            Ok(())
        })
    }

    /// Returns a cluster of about this size, with copies of the relations in `from` as additional files in a database's folder. A backup
    /// treats the copies as relations, and copying is far faster than filling tables. Creates the cluster if it is missing.
    pub(crate) fn cluster_of_copies(&self, name: &str, bytes: u64, from: &Path) -> Result<PathBuf> {
        self.once(name, |datadir| {
            say(&format!("making the cluster {name}: {} MB of copies", bytes / 1_000_000));
            PostgresServer::init(&self.playground, name)?.stop()?;
            let mut relations = Vec::new();
            for entry in std::fs::read_dir(from.join("base/5"))? {
                let entry = entry?;
                let size = entry.metadata()?.len();
                if size > 1 << 20 {
                    relations.push((entry.path(), size));
                }
            }
            relations.sort();
            ensure!(!relations.is_empty(), "{} holds no relations", from.display());
            // The pgbench relations come first and the random relations last, so the copies alternate between both ends.
            let (mut made, mut number) = (0, 0);
            while made < bytes {
                let at = number / 2 % relations.len();
                let at = if number % 2 == 0 { at } else { relations.len() - 1 - at };
                let (relation, size) = &relations[at];
                let copy = datadir.join("base/5").join((1_000_000 + number).to_string());
                std::fs::copy(relation, &copy)?;
                self.user().own(&copy)?;
                made += size;
                number += 1;
            }
            Ok(())
        })
    }

    /// Starts the server of a cluster.
    pub(crate) fn server(&self, cluster: &Path) -> Result<PostgresServer> {
        PostgresServer::start(
            &self.playground,
            cluster,
            "wal_level = replica\nmax_wal_senders = 10\nautovacuum = off",
        )
    }

    /// Returns a tar backup of a cluster, taken by pg_basebackup with these options. Takes the backup if it is missing.
    pub(crate) fn backup(&self, cluster: &Path, name: &str, options: &[&str]) -> Result<PathBuf> {
        self.once(name, |backup| {
            say(&format!("taking the backup {name} {}", options.join(" ")));
            let server = self.server(cluster)?;
            run(server
                .client("pg_basebackup")
                // The small files do not contain PostgreSQL's pages, so page checksums must not be verified.
                .args(["--format=tar", "--checkpoint=fast", "--no-sync", "--no-verify-checksums", "--pgdata"])
                .arg(backup)
                .args(options))?;
            server.stop()
        })
    }

    /// Returns a folder with the full backup `link-0` of a cluster of about this size, and with the incremental backups `link-1` and
    /// `link-2`, before each of which two percent of the rows changed. PostgreSQL 17 took them, with zstd. Takes the backups if they are
    /// missing. `bin_dir` is the directory of the programs of PostgreSQL 17.
    pub(crate) fn chain(&self, name: &str, bytes: u64, bin_dir: &Path) -> Result<PathBuf> {
        self.once(name, |folder| {
            say(&format!("making a cluster of {} MB and taking the chain {name}", bytes / 1_000_000));
            self.user().directory(folder)?;
            let mut playground = Playground::persistent(folder)?;
            playground.set_bin_dir(bin_dir.to_owned());
            PostgresServer::init(&playground, "cluster")?.stop()?;
            let cluster = folder.join("cluster");
            let quiet = "max_wal_size = 4GB\nautovacuum = off\nshared_buffers = 256MB\nmaintenance_work_mem = 256MB";
            let loading = format!("wal_level = minimal\nmax_wal_senders = 0\n{quiet}");
            let server = PostgresServer::start(&playground, &cluster, &loading)?;
            let rows = bytes / 2 / SCALE * 100_000;
            let options = ["--initialize", "--quiet", &format!("--scale={}", rows / 100_000), &format!("--partitions={TABLES}")];
            run(server.client("pgbench").args(options).arg("postgres"))?;
            self.noise(&server, bytes / 2)?;
            server.stop()?;
            let following = format!("wal_level = replica\nmax_wal_senders = 10\nsummarize_wal = on\n{quiet}");
            let server = PostgresServer::start(&playground, &cluster, &following)?;
            for number in 0..3 {
                let mut backup = server.client("pg_basebackup");
                backup.args(["--format=tar", "--checkpoint=fast", "--no-sync", "--compress=client-zstd", "--pgdata"]);
                backup.arg(folder.join(format!("link-{number}")));
                if number > 0 {
                    let first = rows / 100 * (10 * number);
                    let last = first + rows / 50;
                    server.psql(&format!(
                        "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid BETWEEN {first} AND {last}"
                    ))?;
                    let before = folder.join(format!("link-{}/backup_manifest", number - 1));
                    backup.arg(format!("--incremental={}", before.display()));
                }
                run(&mut backup)?;
            }
            server.stop()?;
            self.remove(&cluster)
        })
    }

    /// Returns a folder with a pgBackRest repository in `repository`, which has one full backup of a cluster, and with the configuration
    /// `pgbackrest.conf`. `settings` has further lines for the configuration. Takes the backup if it is missing.
    pub(crate) fn repository(&self, cluster: &Path, name: &str, settings: &str) -> Result<PathBuf> {
        self.repository_by(Path::new(PGBACKREST), cluster, name, settings)
    }

    /// Returns a repository as [`Home::repository`] does, whose backup another release of pgBackRest has taken.
    pub(crate) fn repository_by(
        &self,
        program: &Path,
        cluster: &Path,
        name: &str,
        settings: &str,
    ) -> Result<PathBuf> {
        self.once(name, |folder| {
            say(&format!("taking the pgBackRest backup {name}"));
            self.user().directory(folder)?;
            let at = |name: &str| folder.join(name).display().to_string();
            let config = at("pgbackrest.conf");
            let program = program.display();
            let server = PostgresServer::start(
                &self.playground,
                cluster,
                &format!(
                    "wal_level = replica\nmax_wal_senders = 10\nautovacuum = off\narchive_mode = on\n\
                     archive_command = '{program} --config={config} --stanza={STANZA} archive-push %p'"
                ),
            )?;
            for folder in ["lock", "log", "spool"] {
                self.user().directory(Path::new(&at(folder)))?;
            }
            self.user().write(
                Path::new(&config),
                &format!(
                    "[global]\nrepo1-path={}\nrepo1-retention-full=9999999\nlock-path={}\nlog-path={}\nspool-path={}\n\
                     log-level-file=off\nlog-level-console=error\nlog-level-stderr=off\nstart-fast=y\n{settings}\
                     [{STANZA}]\npg1-path={}\npg1-port={}\npg1-socket-path={}\npg1-user=postgres\n",
                    at("repository"),
                    at("lock"),
                    at("log"),
                    at("spool"),
                    cluster.display(),
                    server.port(),
                    server.sockets().display()
                ),
            )?;
            // The small files do not contain PostgreSQL's pages, so page checksums must not be verified.
            for words in [&["stanza-create"][..], &["--type=full", "--process-max=2", "--no-checksum-page", "backup"]] {
                let mut pgbackrest = self.user().command(program.to_string());
                run(pgbackrest.arg(format!("--config={config}")).arg(format!("--stanza={STANZA}")).args(words))?;
            }
            server.stop()
        })
    }

    /// Removes a cluster or backup that is too large to keep.
    pub(crate) fn forget(&self, name: &str) -> Result<()> {
        let ready = self.path(&format!("{name}.ready"));
        if ready.exists() {
            std::fs::remove_file(ready)?;
        }
        self.remove(&self.path(name))
    }

    /// Returns whether an earlier run completed `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(&format!("{name}.ready")).exists()
    }
}

/// Returns a bash command that runs a script and stops at the first failure, even within a pipeline.
pub(crate) fn shell(script: &str) -> Vec<OsString> {
    ["/bin/bash", "-c", &format!("set -e -o pipefail\n{script}")].map(OsString::from).to_vec()
}

fn shell_command(user: &ServerUser, script: &str) -> Command {
    let words = shell(script);
    let mut command = user.command(&words[0]);
    command.args(&words[1..]);
    command
}

/// Quotes a path for use in a shell script.
pub(crate) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

/// Returns the total size of the regular files in a directory tree, in bytes.
pub(crate) fn size(tree: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(tree).with_context(|| format!("cannot read {}", tree.display()))? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            bytes += size(&entry.path())?;
        } else if metadata.is_file() {
            bytes += metadata.len();
        }
    }
    Ok(bytes)
}
