//! Methods of creating a replica: the trait that each implements, and the types of its arguments and results.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use foundation::causes::with_causes;
use serde::Serialize;

use crate::datadir::DataDirectory;
use crate::outcome::Finding;
use crate::rule::Rule;
use crate::{Bytes, Directories, Lsn, Outcome, Run, Source};

/// A method of creating a replica. The loop owns the data directory; a method only fills it.
#[async_trait]
pub trait Method: Send + Sync {
    /// Returns the name of the method in the operator's list.
    fn name(&self) -> &str;

    /// Returns what the report says about the method's component; `None` for a method that is not a component.
    fn component(&self) -> Option<ComponentFacts> {
        None
    }

    /// Checks everything that can be checked without running the method.
    ///
    /// # Errors
    /// Fails with a [`Refusal`] that names the rule and, if there is one, the line of configuration to change.
    async fn preflight(&self, request: &Request) -> Result<(), Refusal>;

    /// Returns what the operator should know about the method after its preflight, such as that the kernel does not enforce a grant.
    fn findings(&self) -> Vec<Finding> {
        Vec::new()
    }

    /// Returns what would be restored. Touches nothing.
    ///
    /// # Errors
    /// Fails with [`Outcome::NotApplicable`] if there is nothing to restore.
    async fn plan(&self, request: &Request, run: &Run) -> Result<Plan, Failure>;

    /// Fills the data directory. Notices within 250 ms if `run` is cancelled. Does not return while a thread or process of the method may
    /// still write, unless the failure says so (`may_still_write`).
    ///
    /// # Errors
    /// Fails with a [`Failure`]. The loop then cleans up the directory.
    async fn create(&self, request: &Request, plan: &Plan, run: &Run) -> Result<SealRequests, Failure>;
}

/// What the report says about a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComponentFacts {
    /// The component's file, or that the component is included in the program.
    pub path: String,
    /// The name that the component gives itself. This field and the next two are `None` if the component could not be loaded.
    pub name: Option<String>,
    /// The component's version.
    pub version: Option<String>,
    /// `sha256:` and hexadecimal digits.
    pub digest: Option<String>,
    /// The component's grants, by their names in the configuration. They contain no secrets.
    pub grants: BTreeMap<String, String>,
}

/// What a method gets when it is called.
#[derive(Clone, Debug)]
pub struct Request {
    /// Patroni's four parameters; `None` for a method with `no_params`.
    pub context: Option<Context>,
    /// Whether the data directory keeps its content (`keep_data`).
    pub keep_data: bool,
    /// The operator's directories: nothing outside them may be written.
    pub directories: Arc<Directories>,
    /// The directory of PostgreSQL's own programs, such as `/usr/lib/postgresql/15/bin`.
    pub bin_dir: PathBuf,
    /// The server to copy from; `None` if only methods that need no server are tried.
    pub source: Option<Arc<Source>>,
    /// The locked data directory: native programs need its lock and its state file, and a method may empty it to start over. `None`
    /// in `check`, which locks nothing and never calls `create`.
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

/// What the method would restore. Before the data directory is touched, the loop compares the plan with the source, the server's version,
/// the operator's tablespace map and the free space.
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
    /// The position at which the replica becomes consistent.
    #[serde(serialize_with = "lsn_as_text")]
    pub stop_lsn: Option<Lsn>,
    /// How much will be written.
    #[serde(serialize_with = "bytes_as_number")]
    pub bytes: Option<Bytes>,
    /// How many files will be written.
    pub files: Option<u64>,
    /// Every tablespace of the backup except `pg_default` and `pg_global`.
    pub tablespaces: Vec<Tablespace>,
    /// Whether `create` keeps old files in the data directory that match the backup.
    pub builds_on_existing: bool,
}

impl Plan {
    /// Returns the plan with every text passed through `change`, so that secrets can be removed before it is reported.
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
    /// The object identifier of the tablespace, which is the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// The name of the tablespace, if the backup records it.
    pub name: Option<String>,
    /// The path of the tablespace on the server that the backup was taken from.
    pub location: PathBuf,
}

/// What a method that filled the data directory requests of the seal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SealRequests {
    /// Settings for postgresql.auto.conf: each name with its plain, unquoted value.
    pub recovery_settings: Vec<(String, String)>,
    /// Signal files to write.
    pub signals: Vec<Signal>,
    /// The replication slot on the source through which the method received WAL. With `configure_standby`, the standby uses this slot.
    /// Components cannot request a slot.
    pub standby_slot: Option<String>,
}

/// A file that tells PostgreSQL how to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `standby.signal`
    Standby,
    /// `recovery.signal`
    Recovery,
}

/// Why a method may not run, found before it runs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The rule that the method breaks.
    pub rule: Rule,
    /// What happened, to which file or setting.
    pub message: String,
    /// The line of configuration that would change the answer.
    pub remedy: Option<String>,
    /// Whether the operator's policy (signature, grant, digest) refuses the method.
    pub policy: bool,
}

impl Refusal {
    /// Returns a refusal by `rule`.
    pub fn new(rule: Rule, message: impl Into<String>) -> Self {
        Self { rule, message: message.into(), remedy: None, policy: false }
    }

    /// Returns the refusal with the line that would change the answer.
    #[must_use]
    pub fn remedy(mut self, line: impl Into<String>) -> Self {
        self.remedy = Some(line.into());
        self
    }

    /// Marks the refusal as one by policy, which has its own exit code.
    #[must_use]
    pub fn by_policy(mut self) -> Self {
        self.policy = true;
        self
    }
}

/// Why a method that ran did not create a replica.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// How the method ended; never [`Outcome::Created`].
    pub outcome: Outcome,
    /// What happened, to which file or setting, and what to do.
    pub message: String,
    /// The error that caused the failure.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// Whether something of the method may still write, such as a thread that hangs in a system call. If so, no other method may use the
    /// directory while this process lives.
    pub may_still_write: bool,
}

impl Failure {
    /// Returns a failure without a further cause.
    pub fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into(), source: None, may_still_write: false }
    }

    /// Returns a failure caused by `source`.
    pub fn caused_by(
        outcome: Outcome,
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { outcome, message: message.into(), source: Some(source.into()), may_still_write: false }
    }

    /// Marks the failure as that of a method that could not be stopped.
    #[must_use]
    pub fn may_still_write(mut self) -> Self {
        self.may_still_write = true;
        self
    }

    /// Returns the failure of a cancelled attempt.
    pub fn cancelled() -> Self {
        Self::new(Outcome::Cancelled, "cancelled")
    }

    /// Returns the message and all its causes, on one line.
    pub fn chain(&self) -> String {
        match self.source.as_deref() {
            Some(source) => format!("{}: {}", self.message, with_causes(source)),
            None => self.message.clone(),
        }
    }
}
