//! The seal checks what a method restored and makes it startable (loop rules 29 and 30).
//!
//! Its steps, in this order: rename `global/pg_control` to its unfinished name; do every check, none of which changes anything but
//! modes; make the changes (links, configuration, signal files); check with PostgreSQL's own programs whether the server would start; if
//! backup_label says where replay begins, write an invalid checkpoint into pg_control; sync the file systems; rename pg_control back. A
//! check that does not pass, an error or a SIGKILL before the last step leaves a tree that PostgreSQL does not start from.

mod configuration;
mod control_file;
mod destination;
mod guc;
mod hba_files;
mod judged_settings;
mod layout;
mod leftover_files;
mod origin;
mod overrides;
mod places;
mod problem;
mod recovery;
mod requested_settings;
mod required_settings;
mod segments;
mod server;
mod startable;
mod tablespaces;
#[cfg(test)]
mod test_cluster;
mod tree;
mod version;
mod wal_directory;

use std::collections::BTreeSet;
use std::path::PathBuf;

use foundation::rooted::Directory;
use postgres_formats::names::PG_WAL;
use tokio_util::sync::CancellationToken;

use self::places::Places;
use self::problem::{During, Findings, Problem};
use self::segments::Start;
use self::tablespaces::Tablespaces;
use self::tree::{Tree, WalkResults};
use self::wal_directory::LinkAction;
use crate::datadir::DataDirectory;
use crate::outcome::Finding;
use crate::rule::Rule;
use crate::{Plan, Request, SealRequests};

pub(crate) use self::control_file::{ClusterIdentity, cluster_identity};
pub use self::guc::settings_of_postgresql;
pub use self::requested_settings::{SettingRefused, check_recovery_setting};
pub use postgres_formats::names::UNFINISHED_CONTROL_FILE;

/// The operator's settings for the end state.
#[derive(Clone, Debug, Default)]
pub struct EndState {
    /// If set, standby.signal and primary_conninfo are written (rule 29).
    pub configure_standby: Option<Standby>,
    /// The operator's own `restore_command`, which is written together with `primary_conninfo`. Without `configure_standby`, as under
    /// Patroni, a finding says that it was not written, with the line for Patroni's configuration. The finding shows the command, so the
    /// command must not contain a secret.
    pub restore_command: Option<String>,
    /// The trigger file that is removed (rule 29), relative to the data directory; `promote`, as in Patroni, if it is `None`.
    pub trigger_file: Option<String>,
    /// Whether the backup is an atomic snapshot: backup_label may be missing.
    pub snapshot: bool,
    /// Whether settings that run commands, load libraries, include files or lead out of the data directory fail the seal instead of
    /// being reported (`config = "refuse-commands"`).
    pub refuse_commands: bool,
    /// The server's `config_file`. With `None` it is `postgresql.conf` in the data directory or, if there is none, Debian's file below
    /// `/etc/postgresql`.
    pub config_file: Option<PathBuf>,
    /// The passfile that libpq reads for the standby if `primary_conninfo` names none: `.pgpass` in the home directory of the
    /// server's user. `None` if that is not known.
    pub default_passfile: Option<PathBuf>,
}

/// The result of a seal that succeeded.
#[derive(Clone, Debug, Default)]
pub struct Sealed {
    /// The findings, for the report.
    pub findings: Vec<Finding>,
    /// `primary_slot_name` of the configuration: the slot of the source through which the standby will follow.
    pub primary_slot_name: Option<String>,
}

/// How the replica will reach its primary.
#[derive(Clone, Debug)]
pub struct Standby {
    /// The operator's conninfo without passwords.
    pub conninfo: String,
    /// A permanent passfile, never the passfile of this run.
    pub passfile: Option<PathBuf>,
}

/// Why a seal failed. The directory is left without pg_control.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SealError {
    /// The check that did not pass; `None` if the seal was cancelled.
    pub check: Option<Rule>,
    /// What is wrong, in which file, and what to do.
    pub message: String,
    /// The findings before the seal failed.
    pub findings: Vec<Finding>,
}

/// Renames `global/pg_control` to its unfinished name, and syncs the change. From then on PostgreSQL does not start.
pub(crate) fn set_control_file_aside(top: &Directory) -> std::io::Result<()> {
    startable::set_aside(top).map_err(|problem| std::io::Error::other(problem.message))
}

/// Entries that are skipped in a mapped directory of the write-ahead log, because it may be the root of a file system.
const SKIPPED_IN_WAL: &[&str] = &["lost+found"];

/// Checks what the method restored and makes it startable. Blocking. The first step renames `global/pg_control` to its unfinished
/// name if the method wrote it under its own name; the last step renames it back and syncs the change. If `cancel` is cancelled, stops
/// before the last step, at the latest when the sync of one file system ends.
///
/// # Errors
/// Fails at the first check that does not pass, or if a file cannot be read or written. After a failure there is no `global/pg_control`.
pub fn seal(
    directory: &DataDirectory,
    request: &Request,
    plan: &Plan,
    requests: &SealRequests,
    end: &EndState,
    cancel: &CancellationToken,
) -> Result<Sealed, SealError> {
    let mut findings = Findings::default();
    let seal = Seal { request, plan, requests, end, cancel };
    let sealed = seal.run(directory, &mut findings);
    let findings = findings.into_list();
    match sealed {
        Ok(primary_slot_name) => Ok(Sealed { findings, primary_slot_name }),
        Err(Problem { check, message }) => Err(SealError { check, message, findings }),
    }
}

/// Checks the operator's own configuration file, if `config_file` is set, before anything is emptied. Blocking.
///
/// # Errors
/// Fails with the problem that would make the seal fail later.
pub(crate) fn check_configuration_file(
    request: &Request,
    end: &EndState,
    major: u32,
    cancel: &CancellationToken,
) -> Result<Vec<Finding>, SealError> {
    let mut findings = Findings::default();
    let (directories, bin_dir) = (&*request.directories, &*request.bin_dir);
    let future = server::FutureReplica { directories, bin_dir, major, end, cancel };
    let checked = server::check_own_file(&future, &mut findings);
    let findings = findings.into_list();
    match checked {
        Ok(()) => Ok(findings),
        Err(Problem { check, message }) => Err(SealError { check, message, findings }),
    }
}

/// The state of one seal.
struct Seal<'a> {
    request: &'a Request,
    plan: &'a Plan,
    requests: &'a SealRequests,
    end: &'a EndState,
    cancel: &'a CancellationToken,
}

impl Seal<'_> {
    fn run(&self, directory: &DataDirectory, findings: &mut Findings) -> Result<Option<String>, Problem> {
        // This comes first, because a failure before it would leave a startable tree.
        startable::set_aside(directory.directory())?;
        self.run_in(&Places::of(directory, &self.request.directories)?, findings)
    }

    fn run_in(&self, places: &Places<'_>, findings: &mut Findings) -> Result<Option<String>, Problem> {
        let checked = self.check(places, findings)?;
        self.check_cancelled()?;
        self.change(places, &checked, findings)?;
        let primary_slot_name = self.ask_the_server(places, &checked, findings)?;
        self.check_cancelled()?;
        if checked.by_label {
            startable::invalidate_checkpoint(&places.top)?;
        }
        self.sync(places, &checked)?;
        self.check_cancelled()?;
        startable::put_in_place(&places.top)?;
        Ok(primary_slot_name)
    }

    /// Fails if the seal is cancelled (rule 5).
    fn check_cancelled(&self) -> Result<(), Problem> {
        if self.cancel.is_cancelled() {
            return Err(Problem::cancelled());
        }
        Ok(())
    }

    /// Does every check of rule 30, in its order.
    fn check(&self, places: &Places<'_>, findings: &mut Findings) -> Result<Checked, Problem> {
        let top = &places.top;
        let major = version::read(top)?;
        let control = startable::read(top)?;
        let facts = origin::source_facts(self.request, findings);
        let others = version::Others {
            bin_dir: &self.request.bin_dir,
            planned: self.plan.postgresql_major,
            source: facts.map(|facts| facts.server_version / 10_000),
        };
        version::check(major, &control, &others, findings)?;
        origin::check_identifier(&control, self.plan, facts)?;
        layout::check(top)?;
        let label = origin::read_label(top, &control, major, self.end.snapshot, findings)?;
        let (timeline, lsn) = origin::start_of_replay(label.as_ref(), &control);
        origin::check_timeline((timeline, lsn), &control, self.plan, facts, findings)?;

        let wal = wal_directory::judge(places)?;
        let log = wal_directory::open(places, wal)?;
        let start = Start { timeline, lsn, by_label: label.is_some() };
        segments::check(log.as_ref(), start, &control, facts, findings)?;
        let tablespaces = tablespaces::judge(places, &self.plan.tablespaces, &control, major, findings)?;

        tree::check_top(top, findings)?;
        let seen = self.walk(places, wal, &tablespaces, findings)?;

        let configuration = configuration::read(places)?;
        let requested = requested_settings::judge(&self.requests.recovery_settings, major, findings)?;
        required_settings::check(&configuration, requested, &control.required)?;
        let overrides = judged_settings::check(places, &configuration, major, self.end, findings)?;
        hba_files::check(places, &configuration, major, self.end.refuse_commands, findings)?;
        let auto_conf = recovery::judge(top, &overrides, requested, self.end, findings)?;
        let trigger_file = leftover_files::trigger_file(self.end)?;
        Ok(Checked {
            major,
            by_label: label.is_some(),
            wal,
            tablespaces,
            mounted: seen.mounted,
            auto_conf,
            trigger_file,
        })
    }

    /// Walks every file of the replica, in the data directory and the mapped directories.
    fn walk(
        &self,
        places: &Places<'_>,
        wal: LinkAction,
        tablespaces: &Tablespaces,
        findings: &mut Findings,
    ) -> Result<WalkResults, Problem> {
        let mut results = WalkResults::until(self.cancel.clone());
        let mut links: BTreeSet<PathBuf> =
            tablespaces.linked.iter().map(|tablespace| tablespace.link().to_owned()).collect();
        if matches!(wal, LinkAction::Keep | LinkAction::ReplaceLink) {
            links.insert(PathBuf::from(PG_WAL));
        }
        tree::walk(&Tree { directory: &places.top, links, skipped: &[] }, &mut results)?;
        if let Some(wal) = &places.wal {
            tree::check_mapped(&wal.directory, findings)?;
            let tree = Tree { directory: &wal.directory, links: BTreeSet::new(), skipped: SKIPPED_IN_WAL };
            tree::walk(&tree, &mut results)?;
        }
        for tablespace in &tablespaces.linked {
            tree::check_mapped(&tablespace.directory, findings)?;
            let folder = tablespace.directory.open_directory(&tablespace.folder).during(Rule::Tablespaces)?;
            tree::tighten_folder(&folder, &mut results)?;
            tree::walk(&Tree { directory: &folder, links: BTreeSet::new(), skipped: &[] }, &mut results)?;
        }
        results.report(findings);
        Ok(results)
    }

    /// Writes everything that the seal writes, after every check has passed.
    fn change(&self, places: &Places<'_>, checked: &Checked, findings: &mut Findings) -> Result<(), Problem> {
        let top = &places.top;
        leftover_files::clear(top, &checked.trigger_file, findings)?;
        layout::complete(top, findings)?;
        wal_directory::apply(places, checked.wal, findings)?;
        tablespaces::apply(top, &checked.tablespaces, findings)?;
        recovery::apply(top, checked.auto_conf.as_ref())?;
        leftover_files::signal(top, self.requests, self.end, findings)
    }

    /// Makes PostgreSQL's own programs check whether the server would start. Returns the server's `primary_slot_name`.
    fn ask_the_server(
        &self,
        places: &Places<'_>,
        checked: &Checked,
        findings: &mut Findings,
    ) -> Result<Option<String>, Problem> {
        let replica = server::Replica {
            places,
            bin_dir: &self.request.bin_dir,
            major: checked.major,
            configuration: &configuration::read(places)?,
            control_file: &startable::bytes(&places.top)?,
            end: self.end,
            slot: self.requests.standby_slot.as_deref(),
            to_fill: None,
            cancel: self.cancel,
        };
        server::check(&replica, findings)
    }

    /// Syncs every file system that the replica is on, each once.
    fn sync(&self, places: &Places<'_>, checked: &Checked) -> Result<(), Problem> {
        const CHECK: Rule = Rule::Sync;
        let tablespaces = checked.tablespaces.linked.iter().map(|tablespace| &tablespace.directory);
        let wal = places.wal.iter().map(|wal| &wal.directory);
        let mut synced = BTreeSet::new();
        for directory in [&places.top].into_iter().chain(wal).chain(tablespaces).chain(&checked.mounted) {
            if synced.insert(directory.own_metadata().during(CHECK)?.device) {
                self.check_cancelled()?;
                directory.sync_file_system().during(CHECK)?;
            }
        }
        Ok(())
    }
}

/// What the checks found, and what has to be changed.
struct Checked {
    /// PostgreSQL's major version.
    major: u32,
    /// Whether replay begins where backup_label says, and not at pg_control's latest checkpoint.
    by_label: bool,
    wal: LinkAction,
    tablespaces: Tablespaces,
    /// File systems that are mounted within the data directory and the mapped directories.
    mounted: Vec<Directory>,
    auto_conf: Option<recovery::AutoConf>,
    trigger_file: foundation::rooted::RelativePath,
}
