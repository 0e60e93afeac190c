//! The setup for the tests of the loop: scratch directories, a job, recorded events and scripted methods.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use replica::datadir::{Contents, DataDirectory};
use replica::event::Step;
use replica::outcome::Report;
use replica::seal::EndState;
use replica::source::{SourceError, SourceFacts};
use replica::{
    Cancel, Directories, Event, Failure, Job, ListedMethod, Outcome, Plan, Redactor, Request, SealRequests,
    Source, TablespaceMap, create_replica,
};
use tempfile::TempDir;
use tests::cluster::minimal_cluster;
use tests::scripted::{Scripted, source_facts};
use tests::server::BIN_DIR;

/// The system identifier of the cluster that methods restore.
pub(crate) const CLUSTER: u64 = 7_000_000_000_000_000_001;
/// The system identifier of another cluster.
pub(crate) const OTHER_CLUSTER: u64 = 7_000_000_000_000_000_002;

/// The scratch directories and the job of one test, and the events of its runs.
pub(crate) struct LoopSetup {
    pub(crate) root: TempDir,
    pub(crate) job: Job,
    pub(crate) cancel: Cancel,
    pub(crate) events: Arc<Mutex<Vec<Event>>>,
}

impl LoopSetup {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let job = Job {
            scope: "batman".to_owned(),
            directories: Arc::new(Directories {
                datadir: root.path().join("data"),
                wal: None,
                tablespaces: TablespaceMap::default(),
            }),
            bin_dir: PathBuf::from(BIN_DIR),
            state_dir: root.path().join("state"),
            source: None,
            end: EndState::default(),
            force: false,
            only_empty: false,
            timeout: None,
            redactor: Redactor::new(),
        };
        fs::create_dir(root.path().join("state")).unwrap();
        Self { root, job, cancel: Cancel::new(), events: Arc::default() }
    }

    pub(crate) fn with_old_data() -> Self {
        Self::with_data_of(CLUSTER)
    }

    pub(crate) fn with_data_of(cluster: u64) -> Self {
        let setup = Self::new();
        minimal_cluster(cluster).write_complete(&setup.datadir()).unwrap();
        fs::set_permissions(setup.datadir(), PermissionsExt::from_mode(0o700)).unwrap();
        fs::write(setup.datadir().join("base/old"), "old").unwrap();
        setup
    }

    pub(crate) fn with_source(mut self, facts: Result<SourceFacts, SourceError>) -> Self {
        let connstring = "host=127.0.0.1 port=1 user=replicator".to_owned();
        self.job.source = Some(Arc::new(Source {
            connstring,
            passfile: None,
            service_file: None,
            facts,
            asks_password: None,
        }));
        self
    }

    pub(crate) fn datadir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    pub(crate) fn has(&self, path: &str) -> bool {
        self.datadir().join(path).exists()
    }

    /// Returns whether the data directory is empty or missing. It is missing if the run created it and no method used it.
    pub(crate) fn is_empty(&self) -> bool {
        match fs::read_dir(self.datadir()) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }

    pub(crate) fn contents(&self) -> Contents {
        DataDirectory::inspect(&self.job.directories, &self.job.state_dir, false).unwrap().contents
    }

    pub(crate) async fn run(&self, candidates: &[ListedMethod]) -> Report {
        let events = self.events.clone();
        let sink = Arc::new(move |event| events.lock().unwrap().push(event));
        create_replica(&self.job, candidates, sink, &self.cancel).await
    }

    pub(crate) fn steps_of(&self, name: &str) -> Vec<Step> {
        let events = self.events.lock().unwrap();
        let of_it = |event: &Event| match event {
            Event::Step { method, step } if method == name => Some(*step),
            _ => None,
        };
        events.iter().filter_map(of_it).collect()
    }
}

pub(crate) fn facts() -> SourceFacts {
    source_facts(CLUSTER)
}

pub(crate) fn candidate(method: Scripted) -> ListedMethod {
    ListedMethod {
        method: Arc::new(method),
        keep_data: false,
        no_leader: true,
        no_params: false,
        timeout: None,
        plan_timeout: None,
        stall_timeout: None,
    }
}

pub(crate) fn with_keep_data(method: Scripted) -> ListedMethod {
    ListedMethod { keep_data: true, ..candidate(method) }
}

pub(crate) fn plan_on_old_data() -> Plan {
    Plan { builds_on_existing: true, ..Plan::default() }
}

/// Returns a method that restores a cluster that passes every check.
pub(crate) fn restores(name: &str) -> Scripted {
    Scripted::new(name, |request, _| async move {
        minimal_cluster(CLUSTER).write(&request.directories.datadir).unwrap();
        Ok(SealRequests::default())
    })
}

/// Returns a method that writes half of a cluster, with pg_control, and fails.
pub(crate) fn fails(name: &str) -> Scripted {
    fails_as(name, Outcome::Failed)
}

pub(crate) fn fails_as(name: &str, outcome: Outcome) -> Scripted {
    Scripted::new(name, move |request, _| async move {
        write_half(&request);
        Err(Failure::new(outcome, "half way"))
    })
}

pub(crate) fn write_half(request: &Request) {
    let datadir = &request.directories.datadir;
    minimal_cluster(CLUSTER).write_complete(datadir).unwrap();
    fs::write(datadir.join("base/half"), "half").unwrap();
}

/// Returns a method that writes half of a cluster, and then waits until it is cancelled.
pub(crate) fn hangs(name: &str) -> Scripted {
    Scripted::new(name, |request, run| async move {
        write_half(&request);
        run.cancelled().await;
        Err(Failure::cancelled())
    })
}

/// Returns a method whose `create` must not be called.
pub(crate) fn never(name: &str) -> Scripted {
    Scripted::new(name, |_, _| async { Err(Failure::new(Outcome::Trapped, "was reached")) })
}

pub(crate) fn outcomes(report: &Report) -> Vec<(&str, &str)> {
    report.attempts.iter().map(|attempt| (attempt.method.as_str(), attempt.outcome.word())).collect()
}

pub(crate) fn listing(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}
