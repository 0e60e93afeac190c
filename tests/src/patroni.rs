//! Runs Patroni from PyPI, so that tests can compare its decisions with the decisions of the loop.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::python::{Base, environment};

/// Returns the Python of a virtual environment under `target/` that has Patroni; see [`environment`].
///
/// # Errors
/// Fails as [`environment`] does.
pub fn ensure_patroni() -> Result<PathBuf> {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("patroni/requirements.txt");
    Ok(environment("patroni-venv", Base::Debian, &requirements)?.join("bin/python"))
}

/// A running `tests/patroni/drive.py` or `read.py`, which reads a case and writes what Patroni did. Dropping the value ends it.
#[derive(Debug)]
pub struct Driver {
    process: Child,
    cases: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    script: &'static str,
}

impl Driver {
    /// Starts the driver with its own data directory below `scratch`. The driver runs `postgres --version` in `bin_dir`, and no other
    /// PostgreSQL program.
    ///
    /// # Errors
    /// Fails as [`ensure_patroni`] does, and if the driver does not start.
    pub fn start(scratch: &Path, bin_dir: &Path) -> Result<Self> {
        Self::spawn("drive.py", &[&scratch.join("patroni"), bin_dir])
    }

    /// Starts `tests/patroni/read.py`, which reads configurations as Patroni does.
    ///
    /// # Errors
    /// Fails as [`ensure_patroni`] does, and if the script does not start.
    pub fn reading() -> Result<Self> {
        Self::spawn("read.py", &[])
    }

    fn spawn(script: &'static str, arguments: &[&Path]) -> Result<Self> {
        let mut process = Command::new(ensure_patroni()?)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("patroni").join(script))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("patroni/{script} does not start"))?;
        let (Some(cases), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("patroni/{script} has no pipes")
        };
        Ok(Self { process, cases: Some(cases), answers: BufReader::new(answers), script })
    }

    /// Runs a case, and returns what Patroni did.
    ///
    /// # Errors
    /// Fails if the driver has ended. The driver prints the cause to standard error.
    pub fn run<T: DeserializeOwned>(&mut self, case: &impl Serialize) -> Result<T> {
        let cases = self.cases.as_mut().with_context(|| format!("patroni/{} is gone", self.script))?;
        serde_json::to_writer(&mut *cases, case)?;
        cases.write_all(b"\n")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        serde_json::from_str(&answer)
            .with_context(|| format!("patroni/{} answered `{}`", self.script, answer.trim()))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The driver exits at the end of its input.
        drop(self.cases.take());
        let _status = self.process.wait();
    }
}
