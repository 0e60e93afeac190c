//! A primary with some rows, and its backups.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::control_file::with_checkpoint_of_backup;
use crate::replica_folder::ReplicaFolder;
use crate::server::{Playground, PostgresServer, run};

/// The tables that every primary has.
const TABLES: [&str; 2] = ["letters", "parcels"];

/// A running primary with one table in the default tablespace and another in a separate tablespace.
#[derive(Debug)]
pub struct Primary {
    /// The server.
    pub server: PostgresServer,
    /// The folder with the server, its backups and its replicas.
    pub playground: Playground,
    tablespace_oid: String,
}

impl Primary {
    /// Starts a primary with this number of rows in each table. A row has half a kilobyte.
    ///
    /// # Errors
    /// Fails if a program of PostgreSQL fails.
    pub fn start(name: &str, rows: u32) -> Result<Self> {
        Self::start_in(Playground::new(name)?, rows)
    }

    /// Starts a primary as [`Primary::start`] does, in an existing playground.
    ///
    /// # Errors
    /// Fails if a program of PostgreSQL fails.
    pub fn start_in(playground: Playground, rows: u32) -> Result<Self> {
        let server = PostgresServer::init(&playground, "primary")?;
        let fast = playground.directory("fast-disks")?;
        server.psql(&format!("CREATE TABLESPACE fast LOCATION '{}'", fast.display()))?;
        server.psql("CREATE TABLE letters (id bigint PRIMARY KEY, body text)")?;
        server.psql("CREATE TABLE parcels (id bigint PRIMARY KEY, body text) TABLESPACE fast")?;
        for table in ["letters", "parcels"] {
            server.psql(&format!(
                "INSERT INTO {table} SELECT n, repeat(md5(n::text), 14) FROM generate_series(1, {rows}) n"
            ))?;
        }
        server.psql("CHECKPOINT")?;
        server.passfile(&playground.path("pgpass"))?;
        let tablespace_oid = server.psql("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'")?;
        Ok(Self { server, playground, tablespace_oid })
    }

    /// Starts the primary again after it was stopped.
    ///
    /// # Errors
    /// Fails if a program of PostgreSQL fails.
    pub fn restarted(self) -> Result<Self> {
        let Self { server: stopped, playground, tablespace_oid } = self;
        let datadir = stopped.datadir().to_owned();
        // Dropping the old value later would stop the new server, which uses the same directory.
        drop(stopped);
        let server =
            PostgresServer::start(&playground, &datadir, "wal_level = replica\nmax_wal_senders = 10\n")?;
        server.passfile(&playground.path("pgpass"))?;
        Ok(Self { server, playground, tablespace_oid })
    }

    /// Returns the location of the tablespace on the primary.
    pub fn tablespace(&self) -> PathBuf {
        self.playground.path("fast-disks")
    }

    /// Takes a tar backup into `<playground>/backups/<name>` with further options of pg_basebackup.
    ///
    /// # Errors
    /// Fails if pg_basebackup fails.
    pub fn tar_backup(&self, name: &str, options: &[&str]) -> Result<PathBuf> {
        let backups = self.backups()?;
        let backup = backups.join(name);
        run(self
            .server
            .client("pg_basebackup")
            .args(["--format=tar", "--checkpoint=fast", "--no-sync", "--pgdata"])
            .arg(&backup)
            .args(options))?;
        Ok(backup)
    }

    /// Returns the directory for the backups, to which plugins are granted access. Creates the directory if it is missing.
    ///
    /// # Errors
    /// Fails if mkdir fails.
    pub fn backups(&self) -> Result<PathBuf> {
        let backups = self.playground.path("backups");
        if backups.exists() { Ok(backups) } else { self.playground.directory("backups") }
    }

    /// Creates a replica's folder, configured for these methods and as a standby, with the WAL directory and the tablespace mapped.
    /// `replica` has further lines for `[replica]`, and `sections` has further sections.
    ///
    /// # Errors
    /// Fails if a file or directory cannot be created.
    pub fn replica(
        &self,
        name: &str,
        methods: &[&str],
        replica: &str,
        sections: &str,
    ) -> Result<ReplicaFolder> {
        let folder = ReplicaFolder::new(&self.playground, name)?;
        let passfile = self.playground.path("pgpass");
        folder.configure(
            &format!(
                "methods = {methods:?}\nconfigure_standby = true\nstandby_passfile = \"{passfile}\"\n{mapped}{replica}",
                passfile = passfile.display(),
                mapped = folder.mapping_lines(&self.tablespace(), &self.tablespace_oid),
            ),
            &format!("{}\n{sections}", self.source()),
        )?;
        Ok(folder)
    }

    /// Returns the section `[source]` and the section with basebackup's options.
    pub fn source(&self) -> String {
        format!(
            "[source]\nconninfo = \"{}\"\npassfile = \"{}\"\n\n[method.basebackup.options]\ncheckpoint = \"fast\"\n",
            self.server.conninfo(),
            self.playground.path("pgpass").display()
        )
    }

    /// Returns the configuration section for a method `tarball` that restores this backup.
    pub fn tarball(&self, backup: &Path) -> String {
        let (backups, backup) = (self.playground.path("backups"), backup.display());
        format!(
            "[method.tarball]\noptions = {{ directory = \"{backup}\" }}\ngrants = {{ read = [\"{}\"] }}\n",
            backups.display()
        )
    }

    /// Stops the primary, copies its data directory to the backups, and returns the configuration section for a method `mirror` that
    /// restores the copy. Start the primary with [`Primary::restarted`] afterwards.
    ///
    /// # Errors
    /// Fails if pg_ctl or cp fails.
    pub fn copy_for_mirror(&self) -> Result<String> {
        let copies = self.backups()?;
        self.server.stop()?;
        for (from, to) in [(self.server.datadir(), "cold"), (&self.tablespace(), "cold-fast")] {
            run(self.playground.user().command("/bin/cp").arg("--archive").arg(from).arg(copies.join(to)))?;
        }
        Ok(format!(
            "[method.mirror]\nno_leader = true\ngrants = {{ read = [\"{copies}\"] }}\n[method.mirror.options]\n\
             directory = \"{copies}/cold\"\ntablespaces = [\"{oid}={copies}/cold-fast\"]\n",
            copies = copies.display(),
            oid = self.tablespace_oid,
        ))
    }

    /// Returns the configuration section for a method `hostile` with this behaviour. `more` has further keys for the section.
    pub fn hostile(&self, behave: &str, more: &str) -> String {
        format!("[method.hostile]\n{more}\n[method.hostile.options]\nbehave = \"{behave}\"\n")
    }

    /// Starts the replica in this folder, and checks that the replica streams, replays new rows, has the same rows as the primary, and
    /// has intact tables and indexes.
    ///
    /// # Errors
    /// Fails with the check that failed.
    pub fn streams_to(&self, replica: &ReplicaFolder) -> Result<()> {
        self.streams_from(&self.server, replica)
    }

    /// Checks the replica as [`Primary::streams_to`] does. The replica must have the same rows in these tables too.
    ///
    /// # Errors
    /// Fails with the check that failed.
    pub fn streams_with(&self, replica: &ReplicaFolder, tables: &[&str]) -> Result<()> {
        self.streams(&self.server, replica, &[&TABLES, tables].concat())
    }

    /// Checks the replica as [`Primary::streams_to`] does, with another server of the cluster, which accepts writes, as the primary.
    ///
    /// # Errors
    /// Fails with the check that failed.
    pub fn streams_from(&self, source: &PostgresServer, replica: &ReplicaFolder) -> Result<()> {
        self.streams(source, replica, &TABLES)
    }

    fn streams(&self, source: &PostgresServer, replica: &ReplicaFolder, tables: &[&str]) -> Result<()> {
        let standby = PostgresServer::start(&self.playground, &replica.datadir(), "")?;
        let name = format!("c{}", standby.port());
        source.wait_for(
            &format!("SELECT state FROM pg_stat_replication WHERE application_name = '{name}'"),
            "streaming",
        )?;
        let id = format!("-{}", standby.port());
        source.psql(&format!("INSERT INTO parcels VALUES ({id}, 'written now')"))?;
        standby.wait_for(&format!("SELECT body FROM parcels WHERE id = {id}"), "written now")?;
        // Two servers return the same if both have the same rows.
        let of = |table: &&str| format!("(SELECT (count(*), sum(hashtext({table}::text))) FROM {table})");
        let content = format!("SELECT {}", tables.iter().map(of).collect::<Vec<_>>().join(", "));
        let (there, here) = (source.psql(&content)?, standby.psql(&content)?);
        ensure!(there == here, "the primary holds {there}, the replica {here}");
        run(standby.client("pg_amcheck").args(["--database=postgres", "--heapallindexed"]))
            .context("pg_amcheck found something")?;
        standby.stop()
    }

    /// Checks a replica that was not started yet against the manifest of its backup with `pg_verifybackup`.
    ///
    /// # Errors
    /// Fails if pg_verifybackup fails.
    pub fn verify(&self, replica: &ReplicaFolder, manifest: &Path) -> Result<()> {
        let mut verify = self.playground.user().command(self.playground.bin_dir().join("pg_verifybackup"));
        verify.arg("--manifest-path").arg(manifest);
        // The host created the links and removed tablespace_map.
        verify.args(["--ignore=tablespace_map", "--wal-directory"]).arg(replica.wal()).arg(replica.datadir());
        with_checkpoint_of_backup(&replica.datadir(), || run(&mut verify))?;
        Ok(())
    }
}
