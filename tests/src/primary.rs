//! A primary with data worth copying, and backups of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::control_file::as_in_the_backup;
use crate::replica_folder::ReplicaFolder;
use crate::server::{Playground, PostgresServer, run};

/// What two servers must agree on to hold the same rows.
const CONTENT: &str = "SELECT (SELECT (count(*), sum(hashtext(body))) FROM letters), (SELECT (count(*), sum(hashtext(body))) FROM parcels)";

/// A running primary with a table in the default tablespace and one in a tablespace of its own.
#[derive(Debug)]
pub struct Primary {
    /// The server.
    pub server: PostgresServer,
    /// The folder that everything is in.
    pub playground: Playground,
    tablespace_oid: String,
}

impl Primary {
    /// Starts one with so many rows of half a kilobyte in each table.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub fn start(name: &str, rows: u32) -> Result<Self> {
        Self::start_in(Playground::new(name)?, rows)
    }

    /// The same in a playground that is there already.
    ///
    /// # Errors
    /// What PostgreSQL says.
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

    /// The same primary, started again after it was stopped.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub fn restarted(self) -> Result<Self> {
        let Self { server: stopped, playground, tablespace_oid } = self;
        let datadir = stopped.datadir().to_owned();
        // Its end would stop the next one, which runs on the same directory.
        drop(stopped);
        let server =
            PostgresServer::start(&playground, &datadir, "wal_level = replica\nmax_wal_senders = 10\n")?;
        server.passfile(&playground.path("pgpass"))?;
        Ok(Self { server, playground, tablespace_oid })
    }

    /// Where the tablespace is on the primary.
    pub fn tablespace(&self) -> PathBuf {
        self.playground.path("fast-disks")
    }

    /// Takes a tar backup into `<playground>/backups/<name>` with further options of pg_basebackup's.
    ///
    /// # Errors
    /// What pg_basebackup says.
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

    /// The directory that backups are in, and that plugins are granted.
    ///
    /// # Errors
    /// Those of mkdir.
    pub fn backups(&self) -> Result<PathBuf> {
        let backups = self.playground.path("backups");
        if backups.exists() { Ok(backups) } else { self.playground.directory("backups") }
    }

    /// A replica's folder, configured for these methods with both places mapped and a standby configured; `replica` are further
    /// lines of its section, `sections` further sections.
    ///
    /// # Errors
    /// Those of the file system.
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
                mapped = folder.mapped(&self.tablespace(), &self.tablespace_oid),
            ),
            &format!("{}\n{sections}", self.source()),
        )?;
        Ok(folder)
    }

    /// The section `[source]`, and basebackup's options.
    pub fn source(&self) -> String {
        format!(
            "[source]\nconninfo = \"{}\"\npassfile = \"{}\"\n\n[method.basebackup.options]\ncheckpoint = \"fast\"\n",
            self.server.conninfo(),
            self.playground.path("pgpass").display()
        )
    }

    /// The section of a method `tarball` that restores this backup.
    pub fn tarball(&self, backup: &Path) -> String {
        let (backups, backup) = (self.playground.path("backups"), backup.display());
        format!(
            "[method.tarball]\noptions = {{ directory = \"{backup}\" }}\ngrants = {{ read = [\"{}\"] }}\n",
            backups.display()
        )
    }

    /// Stops the primary, copies it into the backups, and gives the section of a method `mirror` that restores the copy; see
    /// [`Primary::restarted`].
    ///
    /// # Errors
    /// What cp says.
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

    /// The section of a method `hostile` that behaves so; `more` are further options and keys.
    pub fn hostile(&self, behave: &str, more: &str) -> String {
        format!("[method.hostile]\n{more}\n[method.hostile.options]\nbehave = \"{behave}\"\n")
    }

    /// Starts the replica in this folder, and holds that it streams, follows and has the same rows in indexes and tables
    /// that are whole.
    ///
    /// # Errors
    /// What does not hold.
    pub fn streams_to(&self, replica: &ReplicaFolder) -> Result<()> {
        self.streams_from(&self.server, replica)
    }

    /// The same from another server of the cluster that takes writes.
    ///
    /// # Errors
    /// What does not hold.
    pub fn streams_from(&self, source: &PostgresServer, replica: &ReplicaFolder) -> Result<()> {
        let standby = PostgresServer::start(&self.playground, &replica.datadir(), "")?;
        let name = format!("c{}", standby.port());
        source.wait_for(
            &format!("SELECT state FROM pg_stat_replication WHERE application_name = '{name}'"),
            "streaming",
        )?;
        let id = format!("-{}", standby.port());
        source.psql(&format!("INSERT INTO parcels VALUES ({id}, 'written now')"))?;
        standby.wait_for(&format!("SELECT body FROM parcels WHERE id = {id}"), "written now")?;
        let (there, here) = (source.psql(CONTENT)?, standby.psql(CONTENT)?);
        ensure!(there == here, "the primary holds {there}, the replica {here}");
        run(standby.client("pg_amcheck").args(["--database=postgres", "--heapallindexed"]))
            .context("pg_amcheck found something")?;
        standby.stop()
    }

    /// Holds a replica that was not started yet against the manifest of its backup with `pg_verifybackup`.
    ///
    /// # Errors
    /// What pg_verifybackup finds.
    pub fn verify(&self, replica: &ReplicaFolder, manifest: &Path) -> Result<()> {
        let mut verify = self.playground.user().command(self.playground.bin_dir().join("pg_verifybackup"));
        verify.arg("--manifest-path").arg(manifest);
        // The host made the links itself, and tablespace_map is gone.
        verify.args(["--ignore=tablespace_map", "--wal-directory"]).arg(replica.wal()).arg(replica.datadir());
        as_in_the_backup(&replica.datadir(), || run(&mut verify))?;
        Ok(())
    }
}
