//! One way to create a replica.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;

use crate::datadir::DataDirectory;
use crate::rule::Rule;
use crate::{Bytes, Directories, Lsn, Outcome, Run, Source};

/// One way to create a replica. The loop owns the data directory; a method only fills it.
#[async_trait]
pub trait Method: Send + Sync {
    /// The name that it has in the operator's list of methods.
    fn name(&self) -> &str;

    /// What is known of the component that the method is, for the report; none for a method that is none.
    fn component(&self) -> Option<ComponentFacts> {
        None
    }

    /// Everything that can be checked without running the method.
    ///
    /// # Errors
    /// A [`Refusal`] that names the rule and, where there is one, the line of configuration to change.
    async fn preflight(&self, request: &Request) -> Result<(), Refusal>;

    /// What would be restored; touches nothing.
    ///
    /// # Errors
    /// A [`Failure`]; [`Outcome::NotApplicable`] where there is nothing to restore. The data directory is as it was.
    async fn plan(&self, request: &Request, run: &Run) -> Result<Plan, Failure>;

    /// Fills the data directory. Returns only when nothing of it writes any more, also when `run` is cancelled,
    /// which it notices within 250 ms.
    ///
    /// # Errors
    /// A [`Failure`]; whatever is in the directory by then is the loop's to remove.
    async fn create(&self, request: &Request, plan: &Plan, run: &Run) -> Result<Filled, Failure>;
}

/// What the report tells of a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComponentFacts {
    /// Its file, or that it is included in the program.
    pub path: String,
    /// The name that it gives itself; none where it could not be loaded, as the next two.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// `sha256:` and hexadecimal digits.
    pub digest: Option<String>,
    /// What it is granted, by the names of the configuration. No secret is in it.
    pub grants: BTreeMap<String, String>,
}

/// What a method is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Patroni's four parameters; none for a method with `no_params`.
    pub context: Option<Context>,
    /// Whether the data directory keeps what it holds (`keep_data`).
    pub keep_data: bool,
    /// The places that may be written.
    pub directories: Arc<Directories>,
    /// Where PostgreSQL's own programs are, such as `/usr/lib/postgresql/15/bin`.
    pub bin_dir: PathBuf,
    /// The server to copy from; none where only methods that need no source are tried.
    pub source: Option<Arc<Source>>,
    /// The data directory that the run holds: for the lock and the state file that native programs need, and for a
    /// method that starts over. None in `check`, where nothing is held and `create` is never called.
    pub directory: Option<Arc<DataDirectory>>,
}

/// The four parameters that Patroni passes to a replica method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The name of the Patroni cluster.
    pub scope: String,
    /// Always `replica`.
    pub role: String,
    /// The data directory, absolute, as the operator wrote it.
    pub datadir: String,
    /// The connection string of the source, without a password; empty without a source.
    pub connstring: String,
}

/// What would be restored, as the method sees it. Compared with the source, the server's version, the operator's
/// map and the space on disk before the data directory is touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Names the backup for a person and for `create`.
    pub backup: String,
    /// The major version that the backup was taken from, such as 15.
    pub postgresql_major: Option<u32>,
    /// The cluster that the backup was taken from.
    pub system_identifier: Option<u64>,
    /// The timeline on which the backup ends.
    pub timeline: Option<u32>,
    /// Where replay begins.
    #[serde(serialize_with = "lsn_as_text")]
    pub start_lsn: Option<Lsn>,
    /// Where the replica becomes consistent.
    #[serde(serialize_with = "lsn_as_text")]
    pub stop_lsn: Option<Lsn>,
    /// How much will be written.
    #[serde(serialize_with = "bytes_as_number")]
    pub bytes: Option<Bytes>,
    /// How many files will be written.
    pub files: Option<u64>,
    /// Every tablespace of the backup besides `pg_default` and `pg_global`.
    pub tablespaces: Vec<Tablespace>,
    /// Whether `create` keeps what matches in a directory that holds data.
    pub builds_on_existing: bool,
}

impl Plan {
    /// The same with every text passed through `change`, for what is told of it.
    #[must_use]
    pub fn map_texts(self, change: &dyn Fn(String) -> String) -> Self {
        let path = |path: PathBuf| {
            path.into_os_string().into_string().map_or_else(PathBuf::from, |text| change(text).into())
        };
        let tablespace = |tablespace: Tablespace| Tablespace {
            oid: tablespace.oid,
            name: tablespace.name.map(change),
            location: path(tablespace.location),
        };
        Self {
            backup: change(self.backup),
            tablespaces: self.tablespaces.into_iter().map(tablespace).collect(),
            ..self
        }
    }
}

fn lsn_as_text<S: serde::Serializer>(lsn: &Option<Lsn>, serializer: S) -> Result<S::Ok, S::Error> {
    lsn.map(|lsn| lsn.to_string()).serialize(serializer)
}

fn bytes_as_number<S: serde::Serializer>(bytes: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes.map(|bytes| bytes.0).serialize(serializer)
}

/// A tablespace of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tablespace {
    /// Its object identifier, the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its name, where the backup records it.
    pub name: Option<String>,
    /// The path that it had where the backup was taken.
    pub location: PathBuf,
}

/// What a method that filled the data directory asks the host to do when it seals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    /// Lines for postgresql.auto.conf: a name and its plain, unquoted value.
    pub recovery_settings: Vec<(String, String)>,
    /// Signal files to write.
    pub signals: Vec<Signal>,
}

/// A file that tells PostgreSQL how to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `standby.signal`
    Standby,
    /// `recovery.signal`
    Recovery,
}

/// A method that may not run, found before it did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The rule that it breaks.
    pub rule: Rule,
    /// What happened, to which file or setting.
    pub message: String,
    /// The line of configuration that would change the answer.
    pub remedy: Option<String>,
    /// Whether it is the operator's policy (signature, grant, digest) that refuses.
    pub policy: bool,
}

impl Refusal {
    /// A refusal by `rule`.
    pub fn new(rule: Rule, message: impl Into<String>) -> Self {
        Self { rule, message: message.into(), remedy: None, policy: false }
    }

    /// The same with the line that would change the answer.
    #[must_use]
    pub fn remedy(mut self, line: impl Into<String>) -> Self {
        self.remedy = Some(line.into());
        self
    }

    /// The same as a refusal by policy, which has an exit code of its own.
    #[must_use]
    pub fn by_policy(mut self) -> Self {
        self.policy = true;
        self
    }
}

/// A method that ran and did not create a replica.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The word for it; never [`Outcome::Created`].
    pub outcome: Outcome,
    /// What happened, to which file or setting, and what to do.
    pub message: String,
    /// What caused it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// Something of the method may still write, as a thread that hangs in a system call: nobody else may touch the directory while
    /// this process lives.
    pub may_write: bool,
}

impl Failure {
    /// A failure without a further cause.
    pub fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into(), source: None, may_write: false }
    }

    /// A failure caused by `source`.
    pub fn caused_by(
        outcome: Outcome,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { outcome, message: message.into(), source: Some(source.into()), may_write: false }
    }

    /// The same of a method that could not be stopped.
    #[must_use]
    pub fn may_write(mut self) -> Self {
        self.may_write = true;
        self
    }

    /// The cancelled attempt.
    pub fn cancelled() -> Self {
        Self::new(Outcome::Cancelled, "cancelled")
    }

    /// The message and all its causes, on one line.
    pub fn chain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source.as_deref().map(|source| source as &dyn std::error::Error);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
