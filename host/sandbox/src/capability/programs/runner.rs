//! Runs the programs of one call of a component, on the program's runtime.
//!
//! The method's thread is behind Landlock, and what it starts inherits its domain. So it sends an order over a channel, and the future
//! that waits for the thread starts the program.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use replica::datadir::DataDirectory;
use replica::process::{
    Confinement, Ending, GRACE, GuardExecutable, LineUse, NativeProgram, PATH, ProcessError, Status,
    bytes_moved_by_descendants, not_enforced,
};
use replica::{Bytes, Directories, Finding, Level, Rule, Run};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::grant::{EnvironmentValue, ProgramGrant};
use super::tail::Tail;
use super::{executable, readable};
use crate::files::Step;
use crate::reporter::Reporter;
use crate::{DiskBudget, Grants};

/// How often the free space is looked at while a program runs.
const FREE_SPACE_PAUSE: Duration = Duration::from_millis(200);

/// How often it is looked at whether the program moves bytes.
const ACTIVITY_PAUSE: Duration = Duration::from_secs(1);

/// A program that a component runs. The grant covers it.
pub(super) struct Order {
    pub(super) name: String,
    pub(super) grant: ProgramGrant,
    pub(super) arguments: Vec<String>,
    /// The values of the grant's environment, with the secrets.
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) reply: Reply,
}

/// Where the end of a program is told.
pub(super) type Reply = oneshot::Sender<Result<Completed, Stopped>>;

/// How a program ended by itself.
#[derive(Debug)]
pub(super) struct Completed {
    pub(super) status: Status,
    pub(super) tail: Tail,
}

/// Why a program did not end by itself.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The run is being cancelled.
    Cancelled,
    /// It did not end in time.
    TimedOut(Duration),
    /// Too little space stayed free.
    OutOfDisk(String),
    /// It did not start, or its end was not seen.
    Failed(String),
}

/// Runs the programs of one call.
pub(crate) struct ProgramRunner {
    pub(crate) step: Step,
    pub(crate) directories: Arc<Directories>,
    /// The locked data directory; `None` in `check`.
    pub(crate) directory: Option<Arc<DataDirectory>>,
    pub(crate) disk: Option<DiskBudget>,
    pub(crate) require_landlock: Option<u32>,
    pub(crate) guard: GuardExecutable,
    pub(crate) run: Run,
    pub(crate) reporter: Reporter,
}

impl ProgramRunner {
    /// Runs the programs that are ordered, one after another, until `ended` is cancelled. Returns only when nothing of a program is alive.
    pub(crate) async fn serve(self, mut orders: Receiver, ended: &CancellationToken) {
        loop {
            let order = tokio::select! {
                biased;
                () = ended.cancelled() => return,
                order = orders.0.recv() => order,
            };
            match order {
                Some(order) => self.run(order, ended).await,
                None => return,
            }
        }
    }

    async fn run(&self, order: Order, ended: &CancellationToken) {
        let Order { name, grant, arguments, environment, mut reply } = order;
        let program = match self.program(&name, &grant, arguments, environment).await {
            Ok(program) => program,
            Err(why) => {
                let _ = reply.send(Err(Stopped::Failed(why)));
                return;
            }
        };
        let cancel = self.run.cancellation().child_token();
        let run = self.run.clone().with_cancellation(cancel.clone());
        let mut tail = Tail::default();
        let mut stopped = None;
        let ending = {
            let on_line = |line: &replica::process::Line| {
                self.run.activity().mark();
                self.reporter.program(&name, &line.text);
                tail.push(line);
                LineUse::Taken
            };
            let mut running = pin!(program.run(&run, on_line));
            let mut watch = pin!(self.watch(&program.writable, grant.timeout));
            loop {
                let why = tokio::select! {
                    biased;
                    ending = &mut running => break ending,
                    why = &mut watch, if stopped.is_none() => why,
                    // The component was ended, or does not wait any more.
                    () = ended.cancelled(), if stopped.is_none() => Stopped::Cancelled,
                    () = reply.closed(), if stopped.is_none() => Stopped::Cancelled,
                };
                stopped = Some(why);
                cancel.cancel();
            }
        };
        let answer = match (ending, stopped) {
            (Ok(Ending { stopped: true, .. }) | Err(ProcessError::Cancelled { .. }), why) => {
                Err(why.unwrap_or(Stopped::Cancelled))
            }
            (Ok(Ending { status, .. }), _) => Ok(Completed { status, tail }),
            (Err(error), _) => Err(Stopped::Failed(error.to_string())),
        };
        // Fails if the component was ended.
        let _ = reply.send(answer);
    }

    async fn program(
        &self,
        name: &str,
        grant: &ProgramGrant,
        arguments: Vec<String>,
        environment: Vec<(OsString, OsString)>,
    ) -> Result<NativeProgram, String> {
        if rustix::process::geteuid().is_root() {
            return Err(format!("the program {name} is not run as root: set `user` below [replica]"));
        }
        let (step, directories, disk) = (self.step, Arc::clone(&self.directories), self.disk);
        let granted = grant.clone();
        let judged = tokio::task::spawn_blocking(move || confinement(&granted, step, &directories, disk));
        let confinement = judged
            .await
            .unwrap_or_else(|error| Err(error.to_string()))
            .map_err(|why| format!("the program {name}: {why}"))?;
        let mut environment = environment;
        if !grant.network.is_empty() && !grant.env.contains_key("RES_OPTIONS") {
            // resolv.conf(5): names are asked over TCP, the only protocol that there is.
            environment.push(("RES_OPTIONS".into(), "use-vc".into()));
        }
        Ok(NativeProgram {
            name: name.to_owned(),
            program: grant.path.clone(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment,
            writable: confinement.write.clone(),
            require_landlock: self.require_landlock,
            directory: self.directory.clone(),
            guard: self.guard.clone(),
            grace: GRACE,
            confinement: Some(confinement),
        })
    }

    /// Waits until the program must be ended. Meanwhile notes whether it moves bytes, without which the method would be taken for stalled.
    async fn watch(&self, written: &[PathBuf], timeout: Option<Duration>) -> Stopped {
        let began = Instant::now();
        let keep_free = self.disk.and_then(|disk| disk.keep_free);
        let (mut moved, mut looked) = (0, began);
        loop {
            let left = timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
            if let (Some(timeout), Some(Duration::ZERO)) = (timeout, left) {
                return Stopped::TimedOut(timeout);
            }
            let pause = if keep_free.is_some() { FREE_SPACE_PAUSE } else { ACTIVITY_PAUSE };
            tokio::time::sleep(left.map_or(pause, |left| left.min(pause))).await;
            let look_at_activity = looked.elapsed() >= ACTIVITY_PAUSE;
            let written = written.to_vec();
            let seen = tokio::task::spawn_blocking(move || {
                let full = keep_free.filter(|keep| written.iter().any(|place| is_full(place, *keep)));
                (full, look_at_activity.then(bytes_moved_by_descendants))
            });
            let Ok((full, seen)) = seen.await else { continue };
            if let Some(keep) = full {
                return Stopped::OutOfDisk(format!("less than {keep} stayed free (disk.keep_free)"));
            }
            if let Some(seen) = seen {
                looked = Instant::now();
                if seen != moved {
                    moved = seen;
                    self.run.activity().mark();
                }
            }
        }
    }
}

/// The receiver of a call's orders.
pub(crate) struct Receiver(pub(super) mpsc::Receiver<Order>);

fn is_full(place: &Path, keep: Bytes) -> bool {
    rustix::fs::statvfs(place).is_ok_and(|system| system.f_bavail.saturating_mul(system.f_frsize) < keep.0)
}

/// Returns what the program may do in this step.
///
/// # Errors
/// Why it must not run: what is wrong with its file or with a directory.
fn confinement(
    grant: &ProgramGrant,
    step: Step,
    directories: &Directories,
    disk: Option<DiskBudget>,
) -> Result<Confinement, String> {
    let own = std::iter::once(directories.datadir.as_path()).chain(directories.mapped());
    let places = own.map(Path::to_owned).chain(grant.write.iter().cloned()).filter(|place| place.exists());
    let places: Vec<_> = places.collect();
    let mut read = readable::files(!grant.network.is_empty());
    read.extend(grant.read.iter().filter(|path| path.exists()).cloned());
    let write = match step {
        Step::Plan => {
            read.extend(places);
            Vec::new()
        }
        Step::Create => places,
    };
    Ok(Confinement {
        execute: executables(grant)?,
        read,
        write,
        ports: grant.network.clone(),
        memory: grant.memory.0,
        file_size: disk.and_then(|disk| disk.bytes).map(|bytes| bytes.0),
    })
}

/// Returns every file that is executed if the program and those that it may start are.
///
/// # Errors
/// What is wrong with a file, and what to do.
pub(super) fn executables(grant: &ProgramGrant) -> Result<Vec<PathBuf>, String> {
    let search = match grant.env.get("PATH") {
        Some(EnvironmentValue::Text(path)) => OsStr::new(path),
        Some(EnvironmentValue::Key(_)) | None => OsStr::new(PATH),
    };
    let mut files = Vec::new();
    for program in std::iter::once(&grant.path).chain(&grant.execute) {
        for file in executable::files(program, search)? {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// Returns what this kernel does not enforce of the programs in these grants.
pub(crate) fn findings(grants: &Grants, abi: u32) -> Vec<Finding> {
    let of_program = |(name, grant): (&String, &ProgramGrant)| {
        let missing = not_enforced(abi, !grant.network.is_empty());
        let finding = |missing| Finding {
            check: Rule::Grant,
            level: Level::Warn,
            message: format!("the program {name} {missing}; `require_landlock = 6` refuses such a kernel"),
        };
        missing.into_iter().map(finding).collect::<Vec<_>>()
    };
    grants.programs.iter().flat_map(of_program).collect()
}
