//! This project's loop over a case, with methods that play its scripts on a real data directory.

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
use replica::source::SourceFacts;
use replica::{
    Cancel, CancelReason, Directories, Event, Failure, Job, ListedMethod, Lsn, Method, Outcome, Plan,
    Redactor, Refusal, Request, Rule, SealRequests, Source, TablespaceMap, create_replica, methods_to_try,
};
use tests::cluster::minimal_cluster;
use tests::scripted::Scripted;
use tokio_util::sync::CancellationToken;

use crate::case::{Before, Case, Ends, Listed, Old, Script, Try};
use crate::native::{ADDED_ARGUMENTS, Said, StandIns};
use crate::trace::{Act, CONTROL_FILE, Call, Files, Parameters, Trace, without_control_file};

/// The cluster that every script restores.
pub(crate) const CLUSTER: u64 = 7_000_000_000_000_000_001;
/// What Patroni makes of the source of drive.py.
pub(crate) const CONNSTRING: &str = "dbname=postgres user=replicator host=10.0.0.1 port=5432";

/// What this project's loop did with a case.
pub(crate) enum Ours {
    /// There was nothing to run, and this was said.
    Said(String),
    /// It ran.
    Ran(Box<Run>),
}

/// A run, and what a judge wants to know of it.
pub(crate) struct Run {
    pub(crate) report: Report,
    pub(crate) trace: Trace,
    /// The place in the list of each attempt, and what the data directory held when it began.
    pub(crate) attempts: Vec<(usize, Files)>,
    /// Whether the run was cancelled.
    pub(crate) cancelled: bool,
    /// Whether pg_control was there at the end.
    pub(crate) control_file_left: bool,
}

/// How basebackup is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Basebackup {
    /// As a scripted method with two tries.
    Scripted,
    /// As it is, over a stand-in for `pg_basebackup`.
    Real,
}

/// What is recorded while the loop runs.
struct Record {
    datadir: PathBuf,
    cancel: Cancel,
    stand_ins: StandIns,
    scripts: BTreeMap<usize, Script>,
    /// The place in the list of each attempt.
    places: Vec<usize>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    trace: Trace,
    last: Files,
    attempts: Vec<Files>,
    /// Which try of the real basebackup is running.
    number: usize,
    /// What its program was given.
    arguments: Vec<String>,
}

impl Record {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Looks at the data directory; what is gone since the last look was emptied.
    fn look(&self) -> Files {
        self.saw(files(&self.datadir))
    }

    fn saw(&self, now: Files) -> Files {
        let mut told = self.told();
        let last = std::mem::replace(&mut told.last, now.clone());
        told.trace.vanished(&last, &now);
        now
    }

    fn take(&self, event: &Event) {
        match event {
            Event::State { state } => self.told().trace.states.push((*state).to_owned()),
            Event::AttemptStarted { .. } => {
                let found = self.look();
                self.told().attempts.push(without_control_file(&found));
                self.next_try(0);
            }
            Event::Step { step: Step::Empty, .. } | Event::AttemptEnded { .. } => {
                self.look();
            }
            Event::Log { origin, message, .. } if origin == "host" && message.starts_with("trying again") => {
                self.next_try(1);
                if self.script().1.tries[0].cancel_in_pause {
                    self.cancel.cancel(CancelReason::Interrupt);
                }
            }
            Event::Log { origin, message, .. } if origin == "pg_basebackup" => match Said::parse(message) {
                Some(Said::Argument(argument)) => self.told().arguments.push(argument),
                Some(Said::Found(found)) => self.called(found),
                Some(Said::Left(left)) => drop(self.saw(left)),
                Some(Said::Cancel) => self.cancel.cancel(CancelReason::Interrupt),
                None => {}
            },
            _ => {}
        }
    }

    /// The script of the attempt that is under way, and its place.
    fn script(&self) -> (usize, &Script) {
        let place = self.places[self.told().attempts.len() - 1];
        (place, &self.scripts[&place])
    }

    fn next_try(&self, number: usize) {
        self.told().number = number;
        self.stand_ins.next(&self.script().1.tries[number]);
    }

    /// The real basebackup's program began.
    fn called(&self, found: Files) {
        let (place, at_start) = (self.script().0, without_control_file(&found));
        assert!(!found.contains(CONTROL_FILE), "pg_control was there when pg_basebackup began");
        self.saw(found);
        let mut told = self.told();
        let pgdata = format!("--pgdata={}", self.datadir.display());
        let dbname = format!("--dbname={CONNSTRING}");
        let patronis = [&pgdata, "-X", "stream", &dbname];
        let expected: Vec<&str> = patronis.into_iter().chain(ADDED_ARGUMENTS).collect();
        assert_eq!(std::mem::take(&mut told.arguments), expected, "Patroni's arguments of pg_basebackup");
        let number = told.number;
        told.trace.acts.push(Act::Called(Call { place, number, parameters: None, at_start }));
    }

    /// Plays one call of a program.
    fn play(
        &self,
        place: usize,
        number: usize,
        script: &Try,
        parameters: Option<Parameters>,
    ) -> Result<(), Failure> {
        let at_start = self.look();
        assert!(!at_start.contains(CONTROL_FILE), "pg_control was there when a method began");
        let at_start = without_control_file(&at_start);
        self.told().trace.acts.push(Act::Called(Call { place, number, parameters, at_start }));
        if script.ends == Ends::Code(0) {
            minimal_cluster(CLUSTER).write(&self.datadir).unwrap();
        }
        for path in script.leaves.iter().filter(|path| script.ends != Ends::Code(0) || *path != CONTROL_FILE)
        {
            put(&self.datadir, path);
        }
        self.look();
        if script.cancel {
            self.cancel.cancel(CancelReason::Interrupt);
        }
        match script.ends {
            Ends::Code(0) => Ok(()),
            Ends::Code(75) => Err(Failure::new(Outcome::RetryLater, "scripted")),
            Ends::Code(_) | Ends::NotStarted => Err(Failure::new(Outcome::Failed, "scripted")),
            // A panic without the hook that prints it.
            Ends::Exception => panic::resume_unwind(Box::new("scripted")),
        }
    }
}

fn put(datadir: &Path, path: &str) {
    let path = datadir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, "scripted").unwrap();
}

/// What the data directory holds, as far as a case put it there.
fn files(datadir: &Path) -> Files {
    let below = |folder: &str| {
        let entries = fs::read_dir(datadir.join(folder)).into_iter().flatten().flatten();
        entries.map(|entry| format!("{folder}/{}", entry.file_name().to_string_lossy())).collect::<Files>()
    };
    let mut found = below("base");
    found.extend(below("global").into_iter().filter(|path| path == CONTROL_FILE));
    found
}

/// Runs the loop in a place of its own below `scratch`.
pub(crate) async fn run(case: &Case, scratch: &Path, stand_ins: &StandIns, how: Basebackup) -> Ours {
    let names = |list: &[Listed]| list.iter().map(|(_, name)| name.clone()).collect::<Vec<_>>();
    let remote = case.remote.as_deref().map(names);
    let listed = match methods_to_try(&names(&case.local), remote.as_deref(), case.from_leader, case.source) {
        Ok(listed) => listed,
        Err(error) => return Ours::Said(error.to_string()),
    };

    let root = tempfile::tempdir_in(scratch).unwrap();
    let datadir = root.path().join("data");
    make_old_data(case.old, &datadir);
    fs::create_dir(root.path().join("state")).unwrap();
    let cancel = Cancel::new();
    let can_be_tried = |name: &String| case.source || name != BASEBACKUP && case.flag(name, "no_leader");
    let places: Vec<usize> = (0..listed.len()).filter(|place| can_be_tried(&listed[*place])).collect();
    let record = Arc::new(Record {
        datadir: datadir.clone(),
        cancel: cancel.clone(),
        stand_ins: stand_ins.clone(),
        scripts: case.scripts.clone(),
        places: places.clone(),
        told: Mutex::default(),
    });
    let candidates: Vec<ListedMethod> =
        listed.iter().enumerate().map(|(place, name)| candidate(case, place, name, &record, how)).collect();
    if case.cancel_before {
        cancel.cancel(CancelReason::Interrupt);
    }

    let events = record.clone();
    let sink = Arc::new(move |event: Event| events.take(&event));
    let report =
        create_replica(&job(case, root.path(), stand_ins.bin_dir()), &candidates, sink, &cancel).await;

    let left = files(&datadir);
    let mut told = std::mem::take(&mut *record.told());
    told.trace.created = report.result == replica::RunResult::Created;
    told.trace.left = without_control_file(&left);
    Ours::Ran(Box::new(Run {
        report,
        trace: told.trace,
        attempts: places.into_iter().zip(told.attempts).collect(),
        cancelled: cancel.reason().is_some(),
        control_file_left: left.contains(CONTROL_FILE),
    }))
}

fn make_old_data(old: Old, datadir: &Path) {
    match old {
        Old::Missing => return,
        Old::Empty => fs::create_dir(datadir).unwrap(),
        Old::Cluster => {
            minimal_cluster(CLUSTER).write_whole(datadir).unwrap();
            put(datadir, "base/old");
        }
    }
    fs::set_permissions(datadir, PermissionsExt::from_mode(0o700)).unwrap();
}

fn job(case: &Case, root: &Path, bin_dir: &Path) -> Job {
    let facts = SourceFacts {
        server_version: 150_018,
        system_identifier: CLUSTER,
        timeline: 1,
        wal_position: Lsn(0x500_0000),
        history: Vec::new(),
        tablespaces: None,
    };
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
        timeout: None,
        redactor: Redactor::new(),
    }
}

fn candidate(case: &Case, place: usize, name: &str, record: &Arc<Record>, how: Basebackup) -> ListedMethod {
    let script = case.scripts[&place].clone();
    let method: Arc<dyn Method> = match (name == BASEBACKUP, how) {
        (true, Basebackup::Real) => Arc::new(record.stand_ins.basebackup()),
        (true, Basebackup::Scripted) => Arc::new(basebackup(place, script, record.clone())),
        (false, _) => Arc::new(plugin(name, place, script, record.clone())),
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

fn plugin(name: &str, place: usize, script: Script, record: Arc<Record>) -> Scripted {
    let [only, _] = script.tries;
    let datadir = record.datadir.clone();
    let method = Scripted::new(name, move |request, _| {
        let (record, only, datadir) = (record.clone(), only.clone(), datadir.clone());
        async move {
            record.play(place, 0, &only, parameters(&request, &datadir)).map(|()| SealRequests::default())
        }
    });
    match script.before {
        Before::GoesOn => method.planning(Plan { builds_on_existing: script.builds, ..Plan::default() }),
        Before::NotApplicable => {
            method.looking(|_, _| async { Err(Failure::new(Outcome::NotApplicable, "scripted")) })
        }
        Before::Refused => method.refused(Refusal::new(Rule::Grant, "scripted")),
    }
}

/// The four parameters, the data directory by the name that both programs have for it.
fn parameters(request: &Request, datadir: &Path) -> Option<Parameters> {
    request.context.clone().map(|context| Parameters {
        scope: context.scope,
        role: context.role,
        datadir: context.datadir.replace(datadir.to_str().unwrap(), "<datadir>"),
        connstring: context.connstring,
    })
}

/// Two tries, the directory emptied between them, no pause.
fn basebackup(place: usize, script: Script, record: Arc<Record>) -> Scripted {
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
                let call = || record.play(place, number, one, None).map(|()| SealRequests::default());
                // An exception is one try's failure here.
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
