//! Patroni itself, from PyPI, as the judge of what the loop decides.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::python::environment;

/// Returns the Python of a virtual environment under `target/` that has Patroni; see [`environment`].
///
/// # Errors
/// Those of [`environment`].
pub fn ensure_patroni() -> Result<PathBuf> {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("patroni/requirements.txt");
    Ok(environment("patroni-venv", &requirements)?.join("bin/python"))
}

/// `tests/patroni/drive.py`, running: one case in, what Patroni did out. Ended when the value is dropped.
#[derive(Debug)]
pub struct Driver {
    process: Child,
    cases: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Driver {
    /// Starts it on a data directory of its own below `scratch`, with PostgreSQL's programs in `bin_dir`, of which it
    /// starts only `postgres --version`.
    ///
    /// # Errors
    /// Those of [`ensure_patroni`], and where it does not start.
    pub fn start(scratch: &Path, bin_dir: &Path) -> Result<Self> {
        let mut process = Command::new(ensure_patroni()?)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("patroni/drive.py"))
            .arg(scratch.join("patroni"))
            .arg(bin_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("patroni/drive.py does not start")?;
        let (Some(cases), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("patroni/drive.py has no pipes")
        };
        Ok(Self { process, cases: Some(cases), answers: BufReader::new(answers) })
    }

    /// What Patroni does in this case.
    ///
    /// # Errors
    /// Where the driver fell over, which prints why on stderr.
    pub fn run<T: DeserializeOwned>(&mut self, case: &impl Serialize) -> Result<T> {
        let cases = self.cases.as_mut().context("patroni/drive.py is gone")?;
        serde_json::to_writer(&mut *cases, case)?;
        cases.write_all(b"\n")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        serde_json::from_str(&answer)
            .with_context(|| format!("patroni/drive.py answered `{}`", answer.trim()))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // At the end of its input it ends by itself.
        drop(self.cases.take());
        let _status = self.process.wait();
    }
}
