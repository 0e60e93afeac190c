//! Runs this project's loop for a case, with methods that execute the case's scripts on a real data directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use replica::create_replica::BASEBACKUP;
use replica::datadir::EmptyScope;
use replica::event::Step;
use replica::outcome::Report;
use replica::seal::EndState;
use replica::{
    Cancel, CancelReason, Directories, Event, Failure, Job, ListedMethod, Method, Outcome, Plan, Redactor,
    Refusal, Request, Rule, SealRequests, Source, TablespaceMap, create_replica, methods_to_try,
};
use tests::cluster::minimal_cluster;
use tests::scripted::{Scripted, source_facts};
use tokio_util::sync::CancellationToken;

use crate::case::{BeforeCreate, Case, Ending, Listed, OldData, Script, Try};
use crate::native::{ADDED_ARGUMENTS, StubOutput, StubPrograms};
use crate::trace::{Act, CONTROL_FILE, Call, Files, Parameters, Trace, without_control_file};

/// The system identifier of the cluster that every script restores.
pub(crate) const CLUSTER: u64 = 7_000_000_000_000_000_001;
/// The connection string that Patroni makes from the source in drive.py.
pub(crate) const CONNSTRING: &str = "dbname=postgres user=replicator host=10.0.0.1 port=5432";

/// What this project's loop did with a case.
pub(crate) enum LoopOutcome {
    /// The loop did not run, with this message.
    Refused(String),
    /// The loop ran.
    Ran(Box<Run>),
}

/// A run, with the facts that the comparison needs.
pub(crate) struct Run {
    pub(crate) report: Report,
    pub(crate) trace: Trace,
    /// For each attempt, its position in the list and the files in the data directory when the attempt began.
    pub(crate) attempts: Vec<(usize, Files)>,
    /// Whether the run was cancelled.
    pub(crate) cancelled: bool,
    /// Whether pg_control existed at the end.
    pub(crate) control_file_left: bool,
}

/// How basebackup is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Basebackup {
    /// Basebackup is a scripted method with two tries.
    Scripted,
    /// Basebackup is the real method, with a stub of `pg_basebackup`.
    Real,
}

/// Records what happens while the loop runs.
struct Record {
    datadir: PathBuf,
    cancel: Cancel,
    stubs: StubPrograms,
    scripts: BTreeMap<usize, Script>,
    /// For each attempt, its position in the list.
    positions: Vec<usize>,
    recorded: Mutex<Recorded>,
}

#[derive(Default)]
struct Recorded {
    trace: Trace,
    last: Files,
    attempts: Vec<Files>,
    /// The number of the running try of the real basebackup.
    number: usize,
    /// The arguments of the `pg_basebackup` that the running try started.
    arguments: Vec<String>,
}

impl Record {
    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Reads the data directory, and records files that were removed since the last time.
    fn observe(&self) -> Files {
        self.observed(files(&self.datadir))
    }

    fn observed(&self, now: Files) -> Files {
        let mut recorded = self.recorded();
        let last = std::mem::replace(&mut recorded.last, now.clone());
        recorded.trace.record_removed(&last, &now);
        now
    }

    fn take(&self, event: &Event) {
        match event {
            Event::State { state } => self.recorded().trace.states.push((*state).to_owned()),
            Event::AttemptStarted { .. } => {
                let found = self.observe();
                self.recorded().attempts.push(without_control_file(&found));
                self.next_try(0);
            }
            Event::Step { step: Step::Empty, .. } | Event::AttemptEnded { .. } => {
                self.observe();
            }
            Event::Log { origin, message, .. } if origin == "host" && message.starts_with("trying again") => {
                self.next_try(1);
                if self.script().1.tries[0].cancel_in_pause {
                    self.cancel.cancel(CancelReason::Interrupt);
                }
            }
            Event::Log { origin, message, .. } if origin == "pg_basebackup" => {
                match StubOutput::parse(message) {
                    Some(StubOutput::Argument(argument)) => self.recorded().arguments.push(argument),
                    Some(StubOutput::Found(found)) => self.called(found),
                    Some(StubOutput::Left(left)) => drop(self.observed(left)),
                    Some(StubOutput::Cancel) => self.cancel.cancel(CancelReason::Interrupt),
                    None => {}
                }
            }
            _ => {}
        }
    }

    /// Returns the position and the script of the current attempt.
    fn script(&self) -> (usize, &Script) {
        let position = self.positions[self.recorded().attempts.len() - 1];
        (position, &self.scripts[&position])
    }

    fn next_try(&self, number: usize) {
        self.recorded().number = number;
        self.stubs.set_next(&self.script().1.tries[number]);
    }

    /// Records that the real basebackup has started its program.
    fn called(&self, found: Files) {
        let (position, at_start) = (self.script().0, without_control_file(&found));
        assert!(!found.contains(CONTROL_FILE), "pg_control was there when pg_basebackup began");
        self.observed(found);
        let mut recorded = self.recorded();
        let pgdata = format!("--pgdata={}", self.datadir.display());
        let dbname = format!("--dbname={CONNSTRING}");
        let patronis = [&pgdata, "-X", "stream", &dbname];
        let expected: Vec<&str> = patronis.into_iter().chain(ADDED_ARGUMENTS).collect();
        assert_eq!(std::mem::take(&mut recorded.arguments), expected, "Patroni's arguments of pg_basebackup");
        let number = recorded.number;
        recorded.trace.acts.push(Act::Called(Call { position, number, parameters: None, at_start }));
    }

    /// Executes the script of one call of a program.
    fn execute(
        &self,
        position: usize,
        number: usize,
        script: &Try,
        parameters: Option<Parameters>,
    ) -> Result<(), Failure> {
        let at_start = self.observe();
        assert!(!at_start.contains(CONTROL_FILE), "pg_control was there when a method began");
        let at_start = without_control_file(&at_start);
        self.recorded().trace.acts.push(Act::Called(Call { position, number, parameters, at_start }));
        if script.ends == Ending::Code(0) {
            minimal_cluster(CLUSTER).write(&self.datadir).unwrap();
        }
        for path in
            script.leaves.iter().filter(|path| script.ends != Ending::Code(0) || *path != CONTROL_FILE)
        {
            put(&self.datadir, path);
        }
        self.observe();
        if script.cancel {
            self.cancel.cancel(CancelReason::Interrupt);
        }
        match script.ends {
            Ending::Code(0) => Ok(()),
            Ending::Code(75) => Err(Failure::new(Outcome::RetryLater, "scripted")),
            Ending::Code(_) | Ending::NotStarted => Err(Failure::new(Outcome::Failed, "scripted")),
            // `resume_unwind` panics without calling the hook that prints the message.
            Ending::Exception => panic::resume_unwind(Box::new("scripted")),
        }
    }
}

fn put(datadir: &Path, path: &str) {
    let path = datadir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "scripted").unwrap();
}

/// Returns the files in the data directory that a case may have put there.
fn files(datadir: &Path) -> Files {
    let below = |folder: &str| {
        let entries = fs::read_dir(datadir.join(folder)).into_iter().flatten().flatten();
        entries.map(|entry| format!("{folder}/{}", entry.file_name().to_string_lossy())).collect::<Files>()
    };
    let mut found = below("base");
    found.extend(below("global").into_iter().filter(|path| path == CONTROL_FILE));
    found
}

/// Runs the loop in a separate directory below `scratch`.
pub(crate) async fn run(case: &Case, scratch: &Path, stubs: &StubPrograms, how: Basebackup) -> LoopOutcome {
    let names = |list: &[Listed]| list.iter().map(|(_, name)| name.clone()).collect::<Vec<_>>();
    let remote = case.remote.as_deref().map(names);
    let listed = match methods_to_try(&names(&case.local), remote.as_deref(), case.from_leader, case.source) {
        Ok(listed) => listed,
        Err(error) => return LoopOutcome::Refused(error.to_string()),
    };

    let root = tempfile::tempdir_in(scratch).unwrap();
    let datadir = root.path().join("data");
    make_old_data(case.old, &datadir);
    fs::create_dir(root.path().join("state")).unwrap();
    let cancel = Cancel::new();
    let can_be_tried = |name: &String| case.source || name != BASEBACKUP && case.flag(name, "no_leader");
    let positions: Vec<usize> =
        (0..listed.len()).filter(|position| can_be_tried(&listed[*position])).collect();
    let record = Arc::new(Record {
        datadir: datadir.clone(),
        cancel: cancel.clone(),
        stubs: stubs.clone(),
        scripts: case.scripts.clone(),
        positions: positions.clone(),
        recorded: Mutex::default(),
    });
    let candidates: Vec<ListedMethod> = listed
        .iter()
        .enumerate()
        .map(|(position, name)| candidate(case, position, name, &record, how))
        .collect();
    if case.cancel_before {
        cancel.cancel(CancelReason::Interrupt);
    }

    let events = record.clone();
    let sink = Arc::new(move |event: Event| events.take(&event));
    let report = create_replica(&job(case, root.path(), stubs.bin_dir()), &candidates, sink, &cancel).await;

    let left = files(&datadir);
    let mut recorded = std::mem::take(&mut *record.recorded());
    recorded.trace.created = report.result == replica::RunResult::Created;
    recorded.trace.left = without_control_file(&left);
    LoopOutcome::Ran(Box::new(Run {
        report,
        trace: recorded.trace,
        attempts: positions.into_iter().zip(recorded.attempts).collect(),
        cancelled: cancel.reason().is_some(),
        control_file_left: left.contains(CONTROL_FILE),
    }))
}

fn make_old_data(old: OldData, datadir: &Path) {
    match old {
        OldData::Missing => return,
        OldData::Empty => fs::create_dir(datadir).unwrap(),
        OldData::Cluster => {
            minimal_cluster(CLUSTER).write_complete(datadir).unwrap();
            put(datadir, "base/old");
        }
    }
    fs::set_permissions(datadir, PermissionsExt::from_mode(0o700)).unwrap();
}

fn job(case: &Case, root: &Path, bin_dir: &Path) -> Job {
    let facts = source_facts(CLUSTER);
    let source = Source {
        connstring: CONNSTRING.to_owned(),
        passfile: None,
        service_file: None,
        facts: Ok(facts),
        asks_password: None,
    };
    Job {
        scope: "batman".to_owned(),
        directories: Arc::new(Directories {
            datadir: root.join("data"),
            wal: None,
            tablespaces: TablespaceMap::default(),
        }),
        bin_dir: bin_dir.to_owned(),
        state_dir: root.join("state"),
        source: case.source.then(|| Arc::new(source)),
        end: EndState::default(),
        force: false,
        only_empty: false,
        timeout: None,
        redactor: Redactor::new(),
    }
}

fn candidate(
    case: &Case,
    position: usize,
    name: &str,
    record: &Arc<Record>,
    how: Basebackup,
) -> ListedMethod {
    let script = case.scripts[&position].clone();
    let method: Arc<dyn Method> = match (name == BASEBACKUP, how) {
        (true, Basebackup::Real) => Arc::new(record.stubs.basebackup()),
        (true, Basebackup::Scripted) => Arc::new(basebackup(position, script, record.clone())),
        (false, _) => Arc::new(plugin(name, position, script, record.clone())),
    };
    ListedMethod {
        method,
        keep_data: case.flag(name, "keep_data"),
        no_leader: case.flag(name, "no_leader"),
        no_params: case.flag(name, "no_params"),
        timeout: None,
        plan_timeout: None,
        stall_timeout: None,
    }
}

fn plugin(name: &str, position: usize, script: Script, record: Arc<Record>) -> Scripted {
    let [only, _] = script.tries;
    let datadir = record.datadir.clone();
    let method = Scripted::new(name, move |request, _| {
        let (record, only, datadir) = (record.clone(), only.clone(), datadir.clone());
        async move {
            record
                .execute(position, 0, &only, parameters(&request, &datadir))
                .map(|()| SealRequests::default())
        }
    });
    match script.before {
        BeforeCreate::GoesOn => {
            method.planning(Plan { builds_on_existing: script.builds, ..Plan::default() })
        }
        BeforeCreate::NotApplicable => {
            method.planning_with(|_, _| async { Err(Failure::new(Outcome::NotApplicable, "scripted")) })
        }
        BeforeCreate::Refused => method.refusing(Refusal::new(Rule::Grant, "scripted")),
    }
}

/// Returns the four parameters, with `<datadir>` in place of the data directory.
fn parameters(request: &Request, datadir: &Path) -> Option<Parameters> {
    request.context.clone().map(|context| Parameters {
        scope: context.scope,
        role: context.role,
        datadir: context.datadir.replace(datadir.to_str().unwrap(), "<datadir>"),
        connstring: context.connstring,
    })
}

/// Returns a scripted basebackup with two tries, which empties the directory between the tries and does not pause.
fn basebackup(position: usize, script: Script, record: Arc<Record>) -> Scripted {
    let tries = script.tries;
    Scripted::new(BASEBACKUP, move |request, run| {
        let (record, tries) = (record.clone(), tries.clone());
        async move {
            let mut ended = Err(Failure::cancelled());
            for (number, one) in tries.iter().enumerate() {
                if run.is_cancelled() {
                    break;
                }
                if number > 0 {
                    let directory = request.directory.clone().unwrap();
                    directory.empty(EmptyScope::Everything, None, &CancellationToken::new()).unwrap();
                }
                let call = || record.execute(position, number, one, None).map(|()| SealRequests::default());
                // An exception makes only this try fail.
                ended = panic::catch_unwind(panic::AssertUnwindSafe(call))
                    .unwrap_or_else(|_| Err(Failure::new(Outcome::Failed, "scripted")));
                if ended.is_ok() {
                    break;
                }
                if one.cancel_in_pause {
                    record.cancel.cancel(CancelReason::Interrupt);
                }
            }
            ended
        }
    })
}
