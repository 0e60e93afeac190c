//! A replica folder whose only method is the component `hostile`, which runs one program.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tests::replica_folder::{Ended, ReplicaFolder};
use tests::server::{Playground, run};

/// A replica folder for runs without a source.
pub(crate) struct Stage {
    pub(crate) playground: Playground,
    pub(crate) replica: ReplicaFolder,
}

impl Stage {
    pub(crate) fn new(name: &str) -> Self {
        let playground = Playground::new(name).unwrap();
        let replica = ReplicaFolder::new(&playground, "replica").unwrap().with_shared_state(&playground);
        Self { playground, replica }
    }

    /// Writes a script that the program's user owns and may run.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.replica.path(name);
        // Another process writes the script. If this process wrote it, a child forked at the same time would inherit the open descriptor,
        // and Linux does not execute a file that is open for writing.
        let text = format!("#!/bin/sh\n{text}\n");
        let mut write = Command::new("/bin/sh");
        write.args(["-c", "printf %s \"$1\" > \"$2\"", "sh", &text]).arg(&path);
        run(&mut write).unwrap();
        self.own(&path, 0o700);
        path
    }

    /// Copies a program of this workspace, because the server's user may not have access to the original.
    pub(crate) fn copy(&self, program: &str) -> PathBuf {
        let path = self.replica.path("copy");
        run(Command::new("/bin/cp").arg(program).arg(&path)).unwrap();
        self.own(&path, 0o700);
        path
    }

    pub(crate) fn own(&self, path: &Path, mode: u32) {
        self.playground.user().own(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Configures the method. `settings` are lines for the method's section, `options` and `grants` are lines for its tables.
    pub(crate) fn configure(&self, settings: &str, options: &str, grants: &str) {
        let section = format!(
            "[method.hostile]\nno_leader = true\n{settings}\n[method.hostile.options]\nbehave = \"run-program\"\n{options}\n\
             [method.hostile.grants]\n{grants}\n"
        );
        self.replica.configure("methods = [\"hostile\"]\n", &section).unwrap();
    }

    /// Configures the method to run the program at `path` without arguments. `keys` are additional keys of the grant.
    pub(crate) fn tool(&self, settings: &str, path: &Path, keys: &str) {
        let grant = format!("programs.tool = {{ path = {path:?}{keys} }}");
        self.configure(settings, "", &grant);
    }

    pub(crate) fn create(&self) -> Ended {
        self.replica.create(&["--log-level", "debug"]).unwrap()
    }

    /// Runs `create` and returns the outcome and the message of the attempt.
    pub(crate) fn attempt(&self) -> (String, String) {
        let ended = self.create();
        let attempt = ended.attempt("hostile");
        let text = |key: &str| attempt[key].as_str().unwrap_or_default().to_owned();
        assert!(!attempt.is_null(), "{}", ended.output);
        (text("outcome"), text("message"))
    }

    /// Runs `create` and checks that the program ended with code 0. Returns the end of the program's output, which the component logs. The
    /// seal fails, because no cluster is restored.
    pub(crate) fn works(&self) -> String {
        let ended = self.create();
        assert_eq!(ended.attempts(), [("hostile", "check-failed")], "{}", ended.output);
        output(ended.attempt("hostile"))
    }
}

/// Returns the output of an attempt in its report.
pub(crate) fn output(attempt: &Value) -> String {
    let lines = attempt["output"].as_array().map(Vec::as_slice).unwrap_or_default();
    lines.iter().filter_map(Value::as_str).map(|line| format!("{line}\n")).collect()
}

/// Returns the processes that have `mark` among their arguments.
pub(crate) fn with_mark(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(mark) && entry.file_name() != *std::process::id().to_string() {
            found.push(format!("{}: {command}", entry.file_name().display()));
        }
    }
    found
}
