//! The server to copy from: its connection string, the passfile of a run, the facts that it reports. Loop rule 3.

mod ask;
pub mod conninfo;
mod keywords;
mod passfile;
mod passfile_entries;
mod slot;
mod transient;
mod uri;
mod values;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foundation::secret::Secret;
use tokio_util::sync::CancellationToken;

use crate::{Lsn, Tablespace};
pub use conninfo::Conninfo;
pub use passfile::passwords_in;
pub use passfile_entries::{WithoutEntry, hosts_without_entry};
pub use postgres_formats::history::Fork;
pub use slot::{Slot, is_slot_name};
pub use transient::{shown_if_there, unusable_passfile};

/// How the operator names the source.
#[derive(Clone, Debug)]
pub struct SourceConfig {
    /// The connection string; a password in it goes into the passfile of the run.
    pub conninfo: Conninfo,
    /// A password outside the connection string (`password = { env | file }`). It takes precedence over one in the connection string.
    pub password: Option<Secret>,
    /// The operator's passfile, or the caller's PGPASSFILE. It is not copied. A password that is set in another way takes precedence over
    /// it, as in libpq.
    pub passfile: Option<PathBuf>,
}

/// The source of one run: how native programs reach it and what it reported. Clones share the files of the run.
#[derive(Clone, Debug)]
pub struct Source {
    /// The connection string without passwords, as Patroni's scripts get it.
    pub connstring: String,
    /// The passfile of this run. If the run created the file, it is removed when the last clone of this value is dropped.
    pub passfile: Option<PassFile>,
    /// The service file of this run, for the secrets that a passfile cannot hold (`sslpassword`). It is removed when the last clone of this
    /// value is dropped.
    pub service_file: Option<Arc<tempfile::TempPath>>,
    /// What the server reported, or why it could not be asked.
    pub facts: Result<SourceFacts, SourceError>,
    /// Whether the server asks this role for a password; `None` if that was not tried ([`Source::try_without_password`]).
    pub asks_password: Option<bool>,
}

/// A passfile: the operator's own, or one that this run made (0600) and removes.
#[derive(Clone, Debug)]
pub enum PassFile {
    /// The operator's or the caller's.
    Given(PathBuf),
    /// This run's.
    Made(Arc<tempfile::TempPath>),
}

/// Why the source could not be asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What happened and what to do, free of secrets.
    pub message: String,
    /// Whether the cause stays until a person changes something, such as a password: a later try does not help.
    pub permanent: bool,
}

impl SourceError {
    /// Returns an error whose cause may pass by itself, such as a server that is starting up.
    pub fn transient(message: impl Into<String>) -> Self {
        Self { message: message.into(), permanent: false }
    }

    /// Returns an error whose cause stays until a person changes something.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { message: message.into(), permanent: true }
    }
}

/// What the source reported in replication mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFacts {
    /// `server_version_num`, such as 150018.
    pub server_version: u32,
    /// IDENTIFY_SYSTEM's systemid.
    pub system_identifier: u64,
    /// IDENTIFY_SYSTEM's timeline.
    pub timeline: u32,
    /// IDENTIFY_SYSTEM's xlogpos.
    pub wal_position: Lsn,
    /// TIMELINE_HISTORY of that timeline: each earlier timeline and where the next one forked off, oldest first.
    pub history: Vec<Fork>,
    /// The tablespaces except `pg_default` and `pg_global`; `None` if the role may not connect to a database and list them, for example if
    /// it may only replicate.
    pub tablespaces: Option<Vec<Tablespace>>,
}

impl SourceFacts {
    /// Returns whether a backup that ends on `timeline` at `stop` lies in the history of the source, so that a replica made
    /// from it can follow: PostgreSQL's own rule, `tliOfPointInHistory(stop - 1) == timeline` in `timeline.c`.
    ///
    /// On the source's own timeline a stop beyond the position that the source reported is in its history, because the backup may
    /// have ended since. Without a stop only the timeline counts.
    pub fn contains(&self, timeline: u32, stop: Option<Lsn>) -> bool {
        let fork = self.history.iter().position(|fork| fork.timeline == timeline);
        let (begin, end) = match fork {
            Some(index) => (index.checked_sub(1), Some(self.history[index].at)),
            None if timeline == self.timeline => (self.history.len().checked_sub(1), None),
            None => return false,
        };
        let begin = begin.map(|index| self.history[index].at);
        stop.is_none_or(|stop| begin.is_none_or(|begin| stop > begin) && end.is_none_or(|end| stop <= end))
    }
}

impl Source {
    /// Writes the passfile of the run into `directory` (a private one, outside the data directory; created with mode 0700 if it
    /// is missing) and asks the server with `psql` from `bin_dir`, for 15 seconds at most.
    /// If the server cannot be asked, `facts` has the error.
    ///
    /// # Errors
    /// Fails if a file cannot be written, or cannot hold a secret. The error shows no secret.
    pub async fn connect(
        config: &SourceConfig,
        bin_dir: &Path,
        directory: &Path,
        cancel: &CancellationToken,
    ) -> std::io::Result<Self> {
        let password = config.password.clone().or_else(|| config.conninfo.password());
        let mut conninfo = config.conninfo.clone();
        let passfile = match (&password, &config.passfile) {
            (Some(password), _) => {
                // libpq reads a `passfile` of the connection string before PGPASSFILE.
                conninfo = conninfo.without("passfile");
                let content = passfile::content(&conninfo, password)?;
                Some(PassFile::Made(Arc::new(passfile::write(directory, "pgpass-", &content)?)))
            }
            (None, given) => given.clone().map(PassFile::Given),
        };
        let service_file = match passfile::service(&config.conninfo)? {
            Some(content) => Some(Arc::new(passfile::write(directory, "service-", &content)?)),
            None => None,
        };
        let facts = Err(SourceError::transient("the source was not asked"));
        let connstring = conninfo.without_passwords();
        let mut source = Self { connstring, passfile, service_file, facts, asks_password: None };
        source.facts = source.ask_again(bin_dir, cancel).await;
        Ok(source)
    }

    /// Asks the server once more, as [`Source::connect`] did, because it may have been promoted since.
    ///
    /// # Errors
    /// Fails with the server's error, or if it does not answer in 15 seconds.
    pub async fn ask_again(
        &self,
        bin_dir: &Path,
        cancel: &CancellationToken,
    ) -> Result<SourceFacts, SourceError> {
        ask::ask(self, bin_dir, cancel).await
    }

    /// Connects once more, without any password, if the source has answered. Afterwards `asks_password` says whether the source asks this
    /// role for a password, regardless of any passfiles. If the source asks this run, it will also ask a standby on this machine.
    pub async fn try_without_password(&mut self, bin_dir: &Path, cancel: &CancellationToken) {
        if self.facts.is_ok() {
            self.asks_password = ask::asks_password(self, bin_dir, cancel).await;
        }
    }

    /// Asks the source about a replication slot.
    ///
    /// # Errors
    /// Fails with the server's error, or if it does not answer in 15 seconds.
    pub async fn slot(
        &self,
        bin_dir: &Path,
        name: &str,
        cancel: &CancellationToken,
    ) -> Result<Slot, SourceError> {
        slot::ask(self, bin_dir, name, cancel).await
    }

    /// Returns the path that native programs get as PGPASSFILE.
    pub fn passfile(&self) -> Option<&Path> {
        match self.passfile.as_ref()? {
            PassFile::Given(path) => Some(path),
            PassFile::Made(path) => Some(path),
        }
    }

    /// Returns whether this run needs a password to reach the source; if so, the standby needs one too. If this was not tried, because the
    /// source did not answer, returns whether this run has a password: in the settings or in the passfile that libpq reads.
    pub fn uses_password(&self) -> bool {
        if let Some(asks) = self.asks_password {
            return asks;
        }
        if matches!(self.passfile, Some(PassFile::Made(_))) {
            return true;
        }
        self.passfile_in_use().is_some_and(|(passfile, conninfo)| {
            unusable_passfile(&passfile).is_none()
                && hosts_without_entry(&passfile, &conninfo).is_ok_and(|without| !without.is_all)
        })
    }

    /// Returns the hosts for which a standby's passfile has another password than this run uses, each as the first fields of its line.
    /// Returns none if no setting names the passfile that this run uses.
    ///
    /// # Errors
    /// Fails if a passfile cannot be read, or has more than 1 MiB.
    pub fn hosts_with_another_password(
        &self,
        passfile: &Path,
        conninfo: &Conninfo,
    ) -> std::io::Result<Vec<String>> {
        match self.passfile_in_use() {
            Some((own, source)) => {
                passfile_entries::hosts_with_another_password((&own, &source), (passfile, conninfo))
            }
            None => Ok(Vec::new()),
        }
    }

    /// Returns the passfile that libpq reads for this run, and the connection string that it looks up there.
    fn passfile_in_use(&self) -> Option<(PathBuf, Conninfo)> {
        let conninfo = Conninfo::parse(&self.connstring).ok()?;
        let named = conninfo.get("passfile").map(PathBuf::from);
        let passfile = named.or_else(|| self.passfile().map(Path::to_owned))?;
        Some((passfile, conninfo))
    }

    /// Returns the connection string for PostgreSQL's own programs: `connstring`, and the service of the run's service file
    /// if there is one. It holds no secret, and needs the variables of [`Source::environment`].
    pub fn native_connstring(&self) -> String {
        match &self.service_file {
            Some(_) => format!("{} service={}", self.connstring, passfile::SERVICE).trim_start().to_owned(),
            None => self.connstring.clone(),
        }
    }

    /// Returns the environment variables that PostgreSQL's own programs need to reach the source: the paths of the passfile
    /// and the service file.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let passfile = self.passfile().map(|path| ("PGPASSFILE".into(), path.into()));
        let service_file =
            self.service_file.as_ref().map(|path| ("PGSERVICEFILE".into(), path.as_os_str().into()));
        passfile.into_iter().chain(service_file).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promoted_twice() -> SourceFacts {
        let fork = |timeline, at| Fork { timeline, at: Lsn(at) };
        SourceFacts {
            server_version: 150_018,
            system_identifier: 7_000_000_000_000_000_001,
            timeline: 4,
            wal_position: Lsn(500),
            history: vec![fork(1, 100), fork(3, 300)],
            tablespaces: None,
        }
    }

    #[test]
    fn rule_30_a_backup_must_end_in_the_history_of_the_source() {
        let facts = promoted_twice();
        for (timeline, stop, contained) in [
            (1, Some(100), true),
            (1, Some(101), false),
            (1, None, true),
            (2, Some(150), false),
            (2, None, false),
            (3, Some(100), false),
            (3, Some(101), true),
            (3, Some(300), true),
            (3, Some(301), false),
            (4, Some(300), false),
            (4, Some(301), true),
            (4, Some(900), true),
            (4, None, true),
            (5, Some(400), false),
            (5, None, false),
        ] {
            assert_eq!(facts.contains(timeline, stop.map(Lsn)), contained, "timeline {timeline} at {stop:?}");
        }
    }

    #[test]
    fn rule_30_a_source_that_was_never_promoted_contains_its_own_timeline_only() {
        let facts = SourceFacts { timeline: 1, history: Vec::new(), ..promoted_twice() };
        assert!(facts.contains(1, Some(Lsn(0))));
        assert!(!facts.contains(2, None));
    }

    #[test]
    fn rule_03_a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "<secret>");
    }
}
