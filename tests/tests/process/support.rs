//! Helpers for the tests of native programs.

use std::collections::HashMap;
use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use replica::event::Level;
use replica::process::{Ending, GRACE, GuardExecutable, LineUse, NativeProgram};
use replica::{Event, Run};
use rustix::process::{Pid, Signal, kill_process};
use tokio_util::sync::CancellationToken;

/// A run whose events are recorded.
pub(crate) struct Watched {
    pub(crate) run: Run,
    pub(crate) cancel: CancellationToken,
    pub(crate) events: Arc<Mutex<Vec<Event>>>,
}

pub(crate) fn watched() -> Watched {
    let events = Arc::new(Mutex::new(Vec::new()));
    let cancel = CancellationToken::new();
    let sink = events.clone();
    let run = Run::new("test", cancel.clone(), Arc::new(move |event| sink.lock().unwrap().push(event)));
    Watched { run, cancel, events }
}

impl Watched {
    /// Returns the origin and text of each log line.
    pub(crate) fn log(&self) -> Vec<(String, String)> {
        let events = self.events.lock().unwrap();
        let lines = events.iter().filter_map(|event| match event {
            Event::Log { origin, message, .. } => Some((origin.clone(), message.clone())),
            _ => None,
        });
        lines.collect()
    }
}

/// Returns a unique word that a test puts into the arguments of its processes, to recognize them.
pub(crate) fn mark() -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("mark-{}-{number}-end", std::process::id())
}

/// Returns a shell command that runs `script`, in which `$0` is `mark`.
pub(crate) fn shell(script: &str, mark: &str) -> NativeProgram {
    NativeProgram {
        name: "sh".to_owned(),
        program: "/bin/sh".into(),
        arguments: ["-c", script, mark].map(Into::into).to_vec(),
        environment: Vec::new(),
        writable: Vec::new(),
        require_landlock: None,
        directory: None,
        guard: GuardExecutable::at(env!("CARGO_BIN_EXE_guard")),
        grace: GRACE,
        confinement: None,
    }
}

pub(crate) fn logged(_: &replica::process::Line) -> LineUse {
    LineUse::Log(Level::Info)
}

/// Returns the running processes that have `mark` among their arguments, with their parents.
pub(crate) fn with_mark(mark: &str) -> HashMap<i32, i32> {
    let mut found = HashMap::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if pid as u32 != std::process::id() && String::from_utf8_lossy(&arguments).contains(mark) {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let fields: Vec<_> =
                stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
            if let [state, parent, ..] = fields[..]
                && state != "Z"
            {
                found.insert(pid, parent.parse().unwrap());
            }
        }
    }
    found
}

/// Returns the parent of the program that has `mark` among its arguments.
pub(crate) fn guard_of(mark: &str) -> i32 {
    let family = with_mark(mark);
    *family.values().find(|parent| !family.contains_key(parent)).unwrap()
}

/// Waits until `condition` holds, and returns the waiting time.
pub(crate) fn within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < patience, "{what} not within {patience:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}

pub(crate) fn kill(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

pub(crate) async fn run_script(script: &str) -> Ending {
    shell(script, "x").run(&watched().run, logged).await.unwrap()
}

/// Runs a script, cancels the run when the script prints `ready`, and returns how the run ended and how long it took to end.
pub(crate) async fn cancelled_when_ready(script: &str, mark: &str) -> (Ending, Duration) {
    let watched = watched();
    let cancel = watched.cancel.clone();
    let mut when = None;
    let ending = shell(script, mark)
        .run(&watched.run, |line| {
            if line.text == "ready" {
                assert!(!with_mark(mark).is_empty());
                when = Some(Instant::now());
                cancel.cancel();
            }
            LineUse::Log(Level::Info)
        })
        .await
        .unwrap();
    (ending, when.unwrap().elapsed())
}
