//! A stanza of the real pgBackRest for a real primary with real repositories, and replicas that are created from these repositories.
//!
//! pgBackRest runs as the server's user, with its own configuration, whose lock, log and spool paths are in the playground. The
//! machine's configuration is never read.

mod info;
mod newer;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

pub use info::Info;
pub use newer::newer_pgbackrest;

use crate::primary::Primary;
use crate::replica_folder::ReplicaFolder;
use crate::server::{PostgresServer, run};

/// The path of pgBackRest in Debian's package.
pub const PGBACKREST: &str = "/usr/bin/pgbackrest";

/// The name of the stanza in every test.
pub const STANZA: &str = "demo";

/// The passphrase of an encrypted repository. It must not appear in a log, an argument or a report.
pub const PASS: &str = "open sesame/of+the repository";

/// The values of pgBackRest's option `compress-type`.
pub const CODECS: [&str; 5] = ["gz", "lz4", "zst", "bz2", "none"];

/// The kind of a repository.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kind {
    /// Whether small files are bundled (`repo-bundle`).
    pub bundle: bool,
    /// Whether the repository is encrypted with [`PASS`] (`repo-cipher-type`).
    pub encrypted: bool,
    /// Whether files are stored in blocks (`repo-block`). Then the stanza uses the newer pgBackRest of [`newer_pgbackrest`].
    pub blocks: bool,
}

/// A repository without bundles and without encryption.
pub const PLAIN: Kind = Kind { bundle: false, encrypted: false, blocks: false };

/// An encrypted repository without bundles.
pub const ENCRYPTED: Kind = Kind { bundle: false, encrypted: true, blocks: false };

/// A repository with bundles and without encryption.
pub const BUNDLED: Kind = Kind { bundle: true, encrypted: false, blocks: false };

/// An encrypted repository with bundles.
pub const BUNDLED_ENCRYPTED: Kind = Kind { bundle: true, encrypted: true, blocks: false };

/// A repository with files in blocks and without encryption.
pub const BLOCKS: Kind = Kind { bundle: true, encrypted: false, blocks: true };

/// An encrypted repository with files in blocks.
pub const BLOCKS_ENCRYPTED: Kind = Kind { bundle: true, encrypted: true, blocks: true };

/// A tablespace of the primary.
#[derive(Clone, Debug)]
pub struct Tablespace {
    /// Its object identifier.
    pub oid: String,
    /// Its location on the primary.
    pub path: PathBuf,
}

/// A primary that archives its WAL into pgBackRest repositories, and the backups of that primary.
#[derive(Debug)]
pub struct Stanza {
    /// The primary.
    pub primary: Primary,
    /// Its tablespaces.
    pub tablespaces: Vec<Tablespace>,
    repositories: Vec<Kind>,
    /// The program.
    program: PathBuf,
    compress_type: String,
    next: AtomicU32,
}

impl Stanza {
    /// Starts a primary with this number of rows in each table. The primary archives into one repository of each of these kinds, at
    /// most four. Repositories are numbered from 1.
    ///
    /// # Errors
    /// Fails if a program of PostgreSQL or pgBackRest fails.
    pub fn start(name: &str, rows: u32, repositories: &[Kind], compress_type: &str) -> Result<Self> {
        let primary = Primary::start(name, rows)?;
        for folder in ["pgbackrest", "repositories", "secrets"] {
            primary.playground.directory(folder)?;
        }
        for folder in ["lock", "log", "spool"] {
            primary.playground.directory(&format!("pgbackrest/{folder}"))?;
        }
        let pass = primary.playground.path("secrets/repository.pass");
        primary.playground.user().write(&pass, &format!("{PASS}\n"))?;
        fs::set_permissions(&pass, fs::Permissions::from_mode(0o600))?;
        let oid = primary.server.psql("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'")?;
        let program = match repositories.iter().any(|kind| kind.blocks) {
            true => {
                // The server's user may not be able to read the checkout.
                let copy = primary.playground.path("pgbackrest/program");
                run(Command::new("/bin/cp").arg(newer_pgbackrest()?).arg(&copy))?;
                copy
            }
            false => PathBuf::from(PGBACKREST),
        };
        let mut stanza = Self {
            program,
            tablespaces: vec![Tablespace { oid, path: primary.tablespace() }],
            primary,
            repositories: repositories.to_vec(),
            compress_type: compress_type.to_owned(),
            next: AtomicU32::new(0),
        };
        let config = stanza.config();
        stanza.primary.server.psql("ALTER SYSTEM SET archive_mode = 'on'")?;
        stanza
            .primary
            .server
            .psql(&format!("ALTER SYSTEM SET archive_command = '{}'", stanza.archive_command(&config)))?;
        stanza = stanza.restarted()?;
        run(&mut stanza.pgbackrest(&["stanza-create"]))?;
        Ok(stanza)
    }

    /// Starts the primary again.
    ///
    /// # Errors
    /// Fails if a program of PostgreSQL fails.
    pub fn restarted(self) -> Result<Self> {
        let Self { primary, tablespaces, repositories, program, compress_type, next } = self;
        if primary.server.datadir().join("postmaster.pid").exists() {
            primary.server.stop()?;
        }
        let primary = primary.restarted()?;
        let stanza = Self { primary, tablespaces, repositories, program, compress_type, next };
        stanza.configure(&stanza.config(), &stanza.primary.server)?;
        Ok(stanza)
    }

    /// Creates another tablespace, and a table in that tablespace.
    ///
    /// # Errors
    /// Fails if a program of PostgreSQL fails.
    pub fn add_tablespace(&mut self, name: &str, rows: u32) -> Result<()> {
        let path = self.primary.playground.directory(&format!("{name}-disks"))?;
        let server = &self.primary.server;
        server.psql(&format!("CREATE TABLESPACE {name} LOCATION '{}'", path.display()))?;
        server
            .psql(&format!("CREATE TABLE of_{name} (id bigint PRIMARY KEY, body text) TABLESPACE {name}"))?;
        server.psql(&format!(
            "INSERT INTO of_{name} SELECT n, md5(n::text) FROM generate_series(1, {rows}) n"
        ))?;
        let oid = server.psql(&format!("SELECT oid FROM pg_tablespace WHERE spcname = '{name}'"))?;
        self.tablespaces.push(Tablespace { oid, path });
        Ok(())
    }

    /// Sets the compression of later backups and WAL segments.
    ///
    /// # Errors
    /// Fails if the configuration cannot be written.
    pub fn compress(&mut self, compress_type: &str) -> Result<()> {
        compress_type.clone_into(&mut self.compress_type);
        self.configure(&self.config(), &self.primary.server)
    }

    /// Returns the path of the repository with this number, from 1.
    pub fn repository(&self, number: usize) -> PathBuf {
        self.primary.playground.path(&format!("repositories/{number}"))
    }

    /// Returns a path in the folder of a repository's backups.
    pub fn backups(&self, number: usize, path: &str) -> PathBuf {
        self.repository(number).join("backup").join(STANZA).join(path)
    }

    /// Returns the folder of the primary's WAL segments in a repository.
    pub fn archive(&self, number: usize) -> PathBuf {
        self.repository(number).join("archive").join(STANZA).join("15-1")
    }

    /// Returns the path of the primary's pgBackRest configuration.
    fn config(&self) -> PathBuf {
        self.primary.playground.path("pgbackrest/pgbackrest.conf")
    }

    fn archive_command(&self, config: &Path) -> String {
        let program = self.program.display();
        format!("{program} --config={} --stanza={STANZA} archive-push %p", config.display())
    }

    fn configure(&self, config: &Path, server: &PostgresServer) -> Result<()> {
        let at =
            |name: &str| self.primary.playground.path(&format!("pgbackrest/{name}")).display().to_string();
        let mut text = format!(
            "[global]\nlock-path={}\nlog-path={}\nspool-path={}\nlog-level-file=off\nlog-level-console=warn\n\
             log-level-stderr=off\nstart-fast=y\narchive-timeout=60\ncompress-type={}\n",
            at("lock"),
            at("log"),
            at("spool"),
            self.compress_type
        );
        for (index, kind) in self.repositories.iter().enumerate() {
            let number = index + 1;
            text += &format!(
                "repo{number}-path={}\nrepo{number}-retention-full=9999999\n",
                self.repository(number).display()
            );
            if kind.bundle {
                text += &format!("repo{number}-bundle=y\n");
            }
            if kind.blocks {
                text += &format!("repo{number}-block=y\n");
            }
            if kind.encrypted {
                text += &format!("repo{number}-cipher-type=aes-256-cbc\nrepo{number}-cipher-pass={PASS}\n");
            }
        }
        text += &format!(
            "[{STANZA}]\npg1-path={}\npg1-port={}\npg1-socket-path={}\npg1-user=postgres\n",
            server.datadir().display(),
            server.port(),
            server.sockets().display()
        );
        self.primary.playground.user().write(config, &text)
    }

    /// Returns a command that runs pgBackRest with these arguments for the primary.
    pub fn pgbackrest(&self, words: &[&str]) -> Command {
        self.with(&self.config(), words)
    }

    fn with(&self, config: &Path, words: &[&str]) -> Command {
        let mut command = self.primary.playground.user().command(&self.program);
        command.arg(format!("--config={}", config.display())).arg(format!("--stanza={STANZA}")).args(words);
        command
    }

    /// Configures another server of the same cluster, such as a standby, to archive into the repositories too.
    ///
    /// # Errors
    /// Fails if a file cannot be written.
    pub fn archive_from(&self, server: &PostgresServer) -> Result<()> {
        let config = self.primary.playground.path(&format!("pgbackrest/{}.conf", server.port()));
        self.configure(&config, server)?;
        server.psql(&format!("ALTER SYSTEM SET archive_command = '{}'", self.archive_command(&config)))?;
        server.psql("SELECT pg_reload_conf()").map(drop)
    }

    /// Takes a backup of type `full`, `diff` or `incr` into a repository, and returns its label.
    ///
    /// # Errors
    /// Fails if pgBackRest fails.
    pub fn backup(&self, number: usize, kind: &str, options: &[&str]) -> Result<String> {
        let words = [format!("--repo={number}"), format!("--type={kind}")];
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.extend_from_slice(options);
        words.push("backup");
        run(&mut self.pgbackrest(&words))?;
        self.labels(number)?.pop().context("pgBackRest took a backup and lists none")
    }

    /// Returns the labels of the backups in a repository, oldest first.
    ///
    /// # Errors
    /// Fails if pgBackRest fails.
    pub fn labels(&self, number: usize) -> Result<Vec<String>> {
        let repository = format!("--repo={number}");
        let output = run(&mut self.pgbackrest(&[&repository, "--output=json", "info"]))?;
        let info: Value = serde_json::from_slice(&output.stdout).context("pgBackRest's info is not JSON")?;
        let backups = info[0]["backup"].as_array().context("pgBackRest's info has no backups")?;
        Ok(backups.iter().filter_map(|backup| Some(backup["label"].as_str()?.to_owned())).collect())
    }

    /// Restores a backup with pgBackRest into `<playground>/<name>/data`, next to the folders of the tablespaces, and returns that
    /// folder. `kind` is pgBackRest's `--type`: `standby`, or `preserve` to keep the configuration of the backup.
    ///
    /// # Errors
    /// Fails if pgBackRest fails.
    pub fn restore(&self, number: usize, label: &str, name: &str, kind: &str) -> Result<PathBuf> {
        let playground = &self.primary.playground;
        playground.directory(name)?;
        let data = playground.directory(&format!("{name}/data"))?;
        let mut words = vec![
            format!("--repo={number}"),
            format!("--set={label}"),
            format!("--pg1-path={}", data.display()),
            format!("--type={kind}"),
        ];
        for space in &self.tablespaces {
            let path = playground.directory(&format!("{name}/{}", space.oid))?;
            words.push(format!("--tablespace-map={}={}", space.oid, path.display()));
        }
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        words.push("restore");
        run(&mut self.pgbackrest(&words))?;
        Ok(data)
    }

    /// Switches to a new WAL segment, and waits until the old one is archived.
    ///
    /// # Errors
    /// Fails if psql fails, or if archiving takes longer than a minute.
    pub fn switch_wal(&self) -> Result<()> {
        let server = &self.primary.server;
        // At the first byte of a segment pg_switch_wal does nothing, so a WAL record is written first.
        server.psql("SELECT pg_create_restore_point('switch')")?;
        let segment = server.psql("SELECT pg_walfile_name(pg_switch_wal())")?;
        server.wait_for(&format!("SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver"), "t")
    }

    /// Makes the primary remove or recycle its old WAL segments, and waits until the segment `gone` no longer exists.
    ///
    /// # Errors
    /// Fails if psql fails, or if the primary keeps the segment.
    pub fn recycle_wal(&self, gone: &str) -> Result<()> {
        let path = self.primary.server.datadir().join("pg_wal").join(gone);
        for _ in 0..10 {
            self.switch_wal()?;
            self.primary.server.psql("CHECKPOINT")?;
            if !path.exists() {
                return Ok(());
            }
        }
        anyhow::bail!("the primary keeps {gone}")
    }

    /// Returns the configuration section for a method `pgbackrest` that restores from these repositories, which are tried in this order.
    /// `keys` has further lines for the section, and `options` has further options.
    pub fn method(&self, numbers: &[usize], keys: &str, options: &str) -> String {
        let name =
            |number: usize| if numbers.len() == 1 { "repo".to_owned() } else { format!("repo{number}") };
        let mut stores = String::new();
        for number in numbers {
            let name = name(*number);
            stores +=
                &format!("stores.{name} = {{ url = \"file://{}\" }}\n", self.repository(*number).display());
            if self.repositories[number - 1].encrypted {
                stores += &format!(
                    "keys.{name} = {{ file = \"{}\" }}\n",
                    self.primary.playground.path("secrets/repository.pass").display()
                );
            }
        }
        let repositories = if numbers.len() == 1 {
            String::new()
        } else {
            format!("repositories = {:?}\n", numbers.iter().map(|number| name(*number)).collect::<Vec<_>>())
        };
        section(keys, &format!("{repositories}{options}"), &stores)
    }

    /// Creates a replica's folder, configured with these sections and with every tablespace mapped: the first by its path on the
    /// primary, the others by object identifier. `more` has further lines for `[replica]`.
    ///
    /// # Errors
    /// Fails if a file or directory cannot be created.
    pub fn folder(&self, more: &str, sections: &str) -> Result<ReplicaFolder> {
        let playground = &self.primary.playground;
        let name = format!("replica-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let folder = ReplicaFolder::new(playground, &name)?.with_shared_state(playground);
        let mut map = Vec::new();
        for (index, space) in self.tablespaces.iter().enumerate() {
            let old = if index == 0 { space.path.display().to_string() } else { space.oid.clone() };
            map.push(format!("\"{old}\" = \"{}\"", folder.directory(&space.oid)?.display()));
        }
        folder.configure(
            &format!(
                "methods = [\"pgbackrest\"]\nwal_dir = \"{}\"\ntablespaces = {{ {} }}\n{more}",
                folder.wal().display(),
                map.join(", ")
            ),
            sections,
        )?;
        Ok(folder)
    }

    /// Creates a replica's folder with the primary as the source, from which the replica will stream.
    ///
    /// # Errors
    /// Fails if a file or directory cannot be created.
    pub fn replica(&self, method: &str) -> Result<ReplicaFolder> {
        self.replica_of(&self.primary.server, method)
    }

    /// Creates a replica's folder with another server of the same cluster as the source.
    ///
    /// # Errors
    /// Fails if a file or directory cannot be created.
    pub fn replica_of(&self, source: &PostgresServer, method: &str) -> Result<ReplicaFolder> {
        let passfile = self.primary.playground.path(&format!("pgpass-{}", source.port()));
        source.passfile(&passfile)?;
        let passfile = passfile.display();
        self.folder(
            &format!("configure_standby = true\nstandby_passfile = \"{passfile}\"\n"),
            &format!("[source]\nconninfo = \"{}\"\npassfile = \"{passfile}\"\n\n{method}", source.conninfo()),
        )
    }

    /// Runs `understudy create`, which must create the replica, and returns the report of the attempt.
    ///
    /// # Errors
    /// Fails with the output if the program did not create the replica.
    pub fn created(&self, replica: &ReplicaFolder) -> Result<Value> {
        let ended = replica.create(&[])?;
        let attempt = ended.attempt("pgbackrest").clone();
        ensure!(ended.code() == Some(0), "{}: {attempt}\n{}", ended.status, ended.output);
        Ok(attempt)
    }
}

/// Returns the configuration section for a method `pgbackrest` with these further keys, options and grants.
pub fn section(keys: &str, options: &str, grants: &str) -> String {
    format!(
        "[method.pgbackrest]\nno_leader = true\n{keys}\n[method.pgbackrest.options]\nstanza = \"{STANZA}\"\n{options}\n\
         [method.pgbackrest.grants]\n{grants}\n"
    )
}
