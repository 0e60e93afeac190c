//! The seal: links, configuration, modes, the checks of semantics rule 30, syncfs, then pg_control put in place.
//!
//! In this order: `global/pg_control` to its unfinished name; every check, none of which changes anything but modes;
//! the changes (links, configuration, signal files); PostgreSQL's own word whether it would start; in pg_control a checkpoint that
//! is nowhere, where backup_label says where replay begins; the file systems synced; pg_control under its own name. A
//! check that does not pass, an error or a SIGKILL anywhere before the last act leaves a tree that PostgreSQL does not start from.

mod asked;
mod configuration;
mod control_file;
mod guc;
mod hazards;
mod hba_files;
mod layout;
mod leads;
mod left_overs;
mod origin;
mod overrides;
mod places;
mod problem;
#[cfg(test)]
mod real;
mod recovery;
mod segments;
mod server;
mod settings;
mod startable;
mod tablespaces;
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
use self::tree::{Seen, Tree};
use self::wal_directory::Work;
use crate::datadir::DataDirectory;
use crate::outcome::Finding;
use crate::rule::Rule;
use crate::{Filled, Plan, Request};

pub use self::asked::{SettingRefused, check_recovery_setting};
pub(crate) use self::control_file::{ClusterIdentity, cluster_identity};
pub use self::guc::settings_of_postgresql;
pub use postgres_formats::names::UNFINISHED_CONTROL_FILE;

/// What the operator wants of the end state.
#[derive(Clone, Debug, Default)]
pub struct EndState {
    /// Write standby.signal and primary_conninfo (rule 29).
    pub configure_standby: Option<Standby>,
    /// The operator's own `restore_command`: written beside `primary_conninfo`; where nobody asked for that, as under Patroni,
    /// that it was not written is a warning, with the line for Patroni's configuration. It is told, so nothing secret is in it.
    pub restore_command: Option<String>,
    /// The trigger file that is removed (rule 29), relative to the data directory; `promote`, as in Patroni, where none is named.
    pub trigger_file: Option<String>,
    /// The backup is an atomic snapshot: backup_label may be missing.
    pub snapshot: bool,
    /// Settings that run commands, load libraries, include files or lead out of the data directory fail the seal rather
    /// than being reported (`config = "refuse-commands"`).
    pub refuse_commands: bool,
    /// The server's `config_file`, where it is not `postgresql.conf` in the data directory. `None` looks there, and then for
    /// Debian's below `/etc/postgresql`.
    pub config_file: Option<PathBuf>,
    /// The passfile that libpq reads for the standby if `primary_conninfo` names none: `.pgpass` in the home directory of the
    /// server's user. `None` if that is not known.
    pub default_passfile: Option<PathBuf>,
}

/// What a seal that came to its end says.
#[derive(Clone, Debug, Default)]
pub struct Sealed {
    /// What is worth telling.
    pub findings: Vec<Finding>,
    /// `primary_slot_name` of the configuration: the slot of the source through which the standby will follow.
    pub primary_slot_name: Option<String>,
}

/// How the replica reaches its primary later.
#[derive(Clone, Debug)]
pub struct Standby {
    /// The operator's conninfo without passwords.
    pub conninfo: String,
    /// A lasting passfile, never the run's.
    pub passfile: Option<PathBuf>,
}

/// A seal that did not come to its end; the directory is left without pg_control.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct SealError {
    /// The check that did not pass; `None` if the seal was cancelled.
    pub check: Option<Rule>,
    /// What is wrong, in which file, and what to do.
    pub message: String,
    /// What was found before.
    pub findings: Vec<Finding>,
}

/// Takes `global/pg_control` to its unfinished name, on disk when this returns: PostgreSQL does not start from then on.
pub(crate) fn set_control_file_aside(top: &Directory) -> std::io::Result<()> {
    startable::set_aside(top).map_err(|problem| std::io::Error::other(problem.message))
}

/// What is not looked at in a mapped directory of the write-ahead log, which may be a file system of its own.
const NOT_OURS: &[&str] = &["lost+found"];

/// Checks what the method left and makes it startable. Blocking. First act: `global/pg_control` to its unfinished
/// name where the method left it in place; last act: the reverse, synced. Where `cancel` is cancelled before that it stops, at the
/// latest when the file system that is being synced is.
///
/// # Errors
/// The first check that does not pass, or what could not be read or written. `global/pg_control` is absent then.
pub fn seal(
    directory: &DataDirectory,
    request: &Request,
    plan: &Plan,
    filled: &Filled,
    end: &EndState,
    cancel: &CancellationToken,
) -> Result<Sealed, SealError> {
    let mut findings = Findings::default();
    let seal = Seal { request, plan, filled, end, cancel };
    let sealed = seal.carry_out(directory, &mut findings);
    let findings = findings.into_list();
    match sealed {
        Ok(primary_slot_name) => Ok(Sealed { findings, primary_slot_name }),
        Err(Problem { check, message }) => Err(SealError { check, message, findings }),
    }
}

/// One seal.
struct Seal<'a> {
    request: &'a Request,
    plan: &'a Plan,
    filled: &'a Filled,
    end: &'a EndState,
    cancel: &'a CancellationToken,
}

impl Seal<'_> {
    fn carry_out(
        &self,
        directory: &DataDirectory,
        findings: &mut Findings,
    ) -> Result<Option<String>, Problem> {
        // Nothing may fail before this.
        startable::set_aside(directory.directory())?;
        self.of(&Places::held(directory, &self.request.directories)?, findings)
    }

    fn of(&self, places: &Places<'_>, findings: &mut Findings) -> Result<Option<String>, Problem> {
        let checked = self.check(places, findings)?;
        self.go_on()?;
        self.change(places, &checked, findings)?;
        let primary_slot_name = self.ask_the_server(places, &checked, findings)?;
        self.go_on()?;
        if checked.by_label {
            startable::invalidate_checkpoint(&places.top)?;
        }
        self.sync(places, &checked)?;
        self.go_on()?;
        startable::put_in_place(&places.top)?;
        Ok(primary_slot_name)
    }

    /// Looks at cancellation (rule 5).
    fn go_on(&self) -> Result<(), Problem> {
        if self.cancel.is_cancelled() {
            return Err(Problem::cancelled());
        }
        Ok(())
    }

    /// Every check of rule 30, in its order.
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
        let asked = asked::judge(&self.filled.recovery_settings, major)?;
        settings::check(&configuration, asked, &control.required, findings)?;
        let overrides = hazards::check(places, &configuration, major, self.end.refuse_commands, findings)?;
        hba_files::check(places, &configuration, major, self.end.refuse_commands, findings)?;
        let auto_conf = recovery::judge(top, &overrides, asked, self.end, findings)?;
        let trigger_file = left_overs::trigger_file(self.end)?;
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

    /// Looks at every file of the replica, wherever it is.
    fn walk(
        &self,
        places: &Places<'_>,
        wal: Work,
        tablespaces: &Tablespaces,
        findings: &mut Findings,
    ) -> Result<Seen, Problem> {
        let mut seen = Seen::until(self.cancel.clone());
        let mut links: BTreeSet<PathBuf> =
            tablespaces.linked.iter().map(|tablespace| tablespace.link().to_owned()).collect();
        if matches!(wal, Work::Keep | Work::ReplaceLink) {
            links.insert(PathBuf::from(PG_WAL));
        }
        tree::walk(&Tree { directory: &places.top, links, left_out: &[] }, &mut seen)?;
        if let Some(wal) = &places.wal {
            tree::check_mapped(&wal.directory, findings)?;
            let tree = Tree { directory: &wal.directory, links: BTreeSet::new(), left_out: NOT_OURS };
            tree::walk(&tree, &mut seen)?;
        }
        for tablespace in &tablespaces.linked {
            tree::check_mapped(&tablespace.directory, findings)?;
            let folder = tablespace.directory.open_directory(&tablespace.folder).during(Rule::Tablespaces)?;
            tree::tighten_folder(&folder, &mut seen)?;
            tree::walk(&Tree { directory: &folder, links: BTreeSet::new(), left_out: &[] }, &mut seen)?;
        }
        seen.tell(findings);
        Ok(seen)
    }

    /// Everything that is written, after every check passed.
    fn change(&self, places: &Places<'_>, checked: &Checked, findings: &mut Findings) -> Result<(), Problem> {
        let top = &places.top;
        left_overs::clear(top, &checked.trigger_file, findings)?;
        layout::complete(top, findings)?;
        wal_directory::carry_out(places, checked.wal, findings)?;
        tablespaces::carry_out(top, &checked.tablespaces, findings)?;
        recovery::carry_out(top, checked.auto_conf.as_ref())?;
        left_overs::signal(top, self.filled, self.end, findings)
    }

    /// Has PostgreSQL's own programs say whether it would start from what is there now; gives `primary_slot_name`.
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
            cancel: self.cancel,
        };
        server::check(&replica, findings)
    }

    /// Has every file system that the replica is on written to disk, each once.
    fn sync(&self, places: &Places<'_>, checked: &Checked) -> Result<(), Problem> {
        const CHECK: Rule = Rule::Sync;
        let tablespaces = checked.tablespaces.linked.iter().map(|tablespace| &tablespace.directory);
        let wal = places.wal.iter().map(|wal| &wal.directory);
        let mut synced = BTreeSet::new();
        for directory in [&places.top].into_iter().chain(wal).chain(tablespaces).chain(&checked.mounted) {
            if synced.insert(directory.own_metadata().during(CHECK)?.device) {
                self.go_on()?;
                directory.sync_file_system().during(CHECK)?;
            }
        }
        Ok(())
    }
}

/// What the checks found, and what is to be done.
struct Checked {
    /// PostgreSQL's major version.
    major: u32,
    /// Whether replay begins where backup_label says, not at pg_control's latest checkpoint.
    by_label: bool,
    wal: Work,
    tablespaces: Tablespaces,
    /// File systems within the data directory and the mapped ones.
    mounted: Vec<Directory>,
    auto_conf: Option<recovery::AutoConf>,
    trigger_file: foundation::rooted::RelativePath,
}
