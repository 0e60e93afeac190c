//! Runs the programs of one call of a component, on the host's runtime.
//!
//! Landlock restricts the method's thread, and a process that this thread starts would inherit the restrictions. So the thread sends an
//! order over a channel, and the future that waits for the thread starts the program.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use replica::datadir::DataDirectory;
use replica::process::{
    Confinement, Ending, Exceeded, GRACE, GuardExecutable, LineUse, NEVER_ENFORCED, NativeProgram, PATH,
    ProcessError, Resources, Status, bytes_moved_by_descendants, not_enforced,
};
use replica::usage::{Amount, ProgramUsage, Time};
use replica::{Bytes, Directories, Finding, Level, Rule, Run};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::executable::{self, Executed};
use super::grant::{EnvironmentValue, ProgramGrant};
use super::readable;
use super::tail::Tail;
use crate::files::Step;
use crate::reporter::Reporter;
use crate::{DiskBudget, Grants};

/// How often the free space is checked while a program runs.
const FREE_SPACE_PAUSE: Duration = Duration::from_millis(200);

/// How often to check whether the program reads or writes.
const ACTIVITY_PAUSE: Duration = Duration::from_secs(1);

/// An order to run a program for a component. The program and its arguments have been checked against the grant.
pub(super) struct Order {
    pub(super) name: String,
    pub(super) grant: ProgramGrant,
    pub(super) arguments: Vec<String>,
    /// The values of the grant's environment, with the secrets.
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) reply: Reply,
}

/// The sender for the result of a program.
pub(super) type Reply = oneshot::Sender<Result<Completed, Stopped>>;

/// The result of a program that ended by itself.
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
    /// The program did not end in time.
    TimedOut(Duration),
    /// The program had more processes and threads than this.
    TooManyProcesses(u64),
    /// The program used more processor time than this.
    TooMuchCpu(Duration),
    /// Too little space stayed free.
    OutOfDisk(String),
    /// The program did not start, or its end was not observed.
    Failed(String),
}

impl Stopped {
    /// Returns how the program ended, for the record of the call.
    pub(super) fn recorded(&self) -> String {
        match self {
            Self::Cancelled => "was ended because the call was cancelled".to_owned(),
            Self::TimedOut(timeout) => format!("was ended after {timeout:?} (timeout)"),
            Self::TooManyProcesses(most) => {
                format!("was ended because it had more than {most} processes and threads (processes)")
            }
            Self::TooMuchCpu(most) => format!("was ended after {most:?} of processor time (cpu)"),
            Self::OutOfDisk(_) => "was ended because the disk is full (disk.keep_free)".to_owned(),
            Self::Failed(_) => "did not start, or its end was not seen".to_owned(),
        }
    }
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
    /// Runs the ordered programs one after another until `ended` is cancelled. Returns when all their processes have ended.
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
        let began = Instant::now();
        let cancel = self.run.cancellation().child_token();
        let run = self.run.clone().with_cancellation(cancel.clone());
        let mut tail = Tail::default();
        let mut stopped = None;
        let watch = Watch {
            run: self.run.clone(),
            written: program.writable.clone(),
            timeout: grant.timeout,
            keep_free: self.disk.and_then(|disk| disk.keep_free),
        };
        // This runs in a separate task, because a program that prints endlessly could keep this task busy.
        let watch = tokio::spawn({
            let cancel = cancel.clone();
            async move {
                let why = watch.until_it_must_end().await;
                cancel.cancel();
                why
            }
        });
        let mut watch = AbortOnDropHandle::new(watch);
        let ending = {
            let on_line = |line: &replica::process::Line| {
                self.run.activity().mark();
                self.reporter.program(&name, line);
                tail.push(line);
                LineUse::Taken
            };
            let mut running = pin!(program.run(&run, on_line));
            loop {
                let why = tokio::select! {
                    // The reasons to end the program are checked before its output, because the output may never cease.
                    biased;
                    why = &mut watch, if stopped.is_none() => why.unwrap_or_else(|error| Stopped::Failed(error.to_string())),
                    // The component has ended, or does not wait any more.
                    () = ended.cancelled(), if stopped.is_none() => Stopped::Cancelled,
                    () = reply.closed(), if stopped.is_none() => Stopped::Cancelled,
                    ending = &mut running => break ending,
                };
                stopped = Some(why);
                cancel.cancel();
            }
        };
        // The watch may have ended the program before the loop above received the reason.
        if stopped.is_none() && watch.is_finished() {
            stopped = watch.await.ok();
        }
        let used = match &ending {
            Ok(ending) => Some(ending.used),
            // The guard, which reports what the program used, was killed. So only the run and its duration are recorded.
            Err(ProcessError::GuardKilled { .. }) => Some(Resources::default()),
            Err(_) => None,
        };
        if let Some(used) = used {
            self.run.usage().add_program(&name, &usage(&grant, began.elapsed(), used));
        }
        let answer = match (ending, stopped) {
            (Ok(Ending { exceeded: Some(Exceeded::Processes), .. }), _) => {
                Err(Stopped::TooManyProcesses(grant.processes))
            }
            (Ok(Ending { exceeded: Some(Exceeded::Cpu), .. }), _) => {
                Err(Stopped::TooMuchCpu(grant.cpu.unwrap_or_default()))
            }
            (Ok(Ending { stopped: true, .. }) | Err(ProcessError::Cancelled { .. }), why) => {
                Err(why.unwrap_or(Stopped::Cancelled))
            }
            (Ok(Ending { status, .. }), _) => Ok(Completed { status, tail }),
            (Err(error), _) => Err(Stopped::Failed(error.to_string())),
        };
        // Fails if the component has ended.
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
            // resolv.conf(5): makes the C library query DNS over TCP, because UDP is not available.
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
}

/// The conditions that end a program that does not end by itself.
struct Watch {
    run: Run,
    written: Vec<PathBuf>,
    timeout: Option<Duration>,
    keep_free: Option<Bytes>,
}

impl Watch {
    /// Waits until the program must be ended. Until then, records activity when the program reads or writes, so that the method does not
    /// count as stalled.
    async fn until_it_must_end(self) -> Stopped {
        let began = Instant::now();
        let (mut moved, mut looked) = (0, began);
        loop {
            let left = self.timeout.map(|timeout| timeout.saturating_sub(began.elapsed()));
            if let (Some(timeout), Some(Duration::ZERO)) = (self.timeout, left) {
                return Stopped::TimedOut(timeout);
            }
            let pause = if self.keep_free.is_some() { FREE_SPACE_PAUSE } else { ACTIVITY_PAUSE };
            tokio::time::sleep(left.map_or(pause, |left| left.min(pause))).await;
            let look_at_activity = looked.elapsed() >= ACTIVITY_PAUSE;
            let (written, keep_free) = (self.written.clone(), self.keep_free);
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

/// Returns what one run of a program used, together with the limits.
fn usage(grant: &ProgramGrant, wall: Duration, used: Resources) -> ProgramUsage {
    ProgramUsage {
        runs: 1,
        wall: Time { used: wall, limit: grant.timeout },
        cpu: Time { used: used.cpu, limit: grant.cpu },
        memory: Amount::of(used.memory, grant.memory.0),
        processes: Amount::of(used.processes, grant.processes),
        written_bytes: Amount::of(used.written, None),
    }
}

/// The receiver of a call's orders.
pub(crate) struct Receiver(pub(super) mpsc::Receiver<Order>);

fn is_full(place: &Path, keep: Bytes) -> bool {
    rustix::fs::statvfs(place).is_ok_and(|system| system.f_bavail.saturating_mul(system.f_frsize) < keep.0)
}

/// Returns the confinement of the program in this step.
///
/// # Errors
/// Says what is wrong with the program's file or with a directory.
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
        processes: grant.processes,
        cpu: grant.cpu,
        memory: grant.memory.0,
        file_size: disk.and_then(|disk| disk.bytes).map(|bytes| bytes.0),
    })
}

/// Returns every file that is executed when this program, or one that it may start, is run.
///
/// # Errors
/// Says what is wrong with a file, and what to do.
pub(super) fn executables(grant: &ProgramGrant) -> Result<Vec<PathBuf>, String> {
    let mut files = Vec::new();
    for program in executed(grant) {
        for file in program?.files {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// Returns what is executed when the program is run, and when each program that it may start is run.
pub(super) fn executed(grant: &ProgramGrant) -> impl Iterator<Item = Result<Executed, String>> {
    let search = match grant.env.get("PATH") {
        Some(EnvironmentValue::Text(path)) => OsStr::new(path),
        Some(EnvironmentValue::Key(_)) | None => OsStr::new(PATH),
    };
    std::iter::once(&grant.path)
        .chain(&grant.execute)
        .map(move |program| executable::executed(program, search))
}

/// Returns the findings about the restrictions on granted programs that this kernel does not enforce, and about paths in `read` that do not
/// exist or cannot be reached.
pub(crate) fn findings(grants: &Grants, abi: u32) -> Vec<Finding> {
    let of_program = |(name, grant): (&String, &ProgramGrant)| {
        let missing = not_enforced(abi, !grant.network.is_empty());
        let finding = |missing| Finding {
            check: Rule::Grant,
            level: Level::Warn,
            message: format!("the program {name} {missing}; `require_landlock = 6` refuses such a kernel"),
        };
        let always = Finding {
            check: Rule::Grant,
            level: Level::Info,
            message: format!("the program {name} {NEVER_ENFORCED}"),
        };
        let absent = grant.read.iter().filter_map(|path| {
            let why = match path.try_exists() {
                Ok(true) => return None,
                Ok(false) => "does not exist".to_owned(),
                Err(error) => format!("cannot be reached: {error}"),
            };
            let message = format!("`programs.{name}.read` names {}, which {why}", path.display());
            Some(Finding { check: Rule::Grant, level: Level::Warn, message })
        });
        missing.into_iter().map(finding).chain([always]).chain(absent).collect::<Vec<_>>()
    };
    grants.programs.iter().flat_map(of_program).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_granted_path_that_does_not_exist_is_reported() {
        let mut grant = ProgramGrant::new(PathBuf::from("/bin/true"));
        grant.read = vec!["/etc".into(), "/etc/acme/typo".into()];
        let grants = Grants { programs: [("tool".to_owned(), grant)].into(), ..Grants::default() };
        let found = findings(&grants, 6);
        let missing: Vec<_> =
            found.iter().filter(|finding| finding.message.contains("does not exist")).collect();
        assert_eq!(missing.len(), 1, "{found:?}");
        assert!(
            missing[0].level == Level::Warn && missing[0].message.contains("/etc/acme/typo"),
            "{missing:?}"
        );
    }
}
