//! One of PostgreSQL's programs that only looks, run to its end within bounds: time, output, address space, and behind Landlock
//! where the kernel has it. Blocking, for what judges a data directory.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, prlimit};
use tokio_util::sync::CancellationToken;

use super::PATH;
use foundation::landlock::{Allowed, Domain};

/// How often it is looked at.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);

/// How long it may take to end by itself when it is asked to.
const GRACE: Duration = Duration::from_secs(1);

/// The most that is kept of each of its streams, in bytes; what follows is read and thrown away.
const KEPT: u64 = 64 << 10;

/// Its address space in bytes. A server with the least buffers maps some 200 MB, libraries included.
const ADDRESS_SPACE: u64 = 2 << 30;

/// The longest file that it may write, in bytes.
const LONGEST_FILE: u64 = 64 << 20;

/// A program, its bounds, and where it may write.
#[derive(Debug)]
pub(crate) struct Briefly<'a> {
    /// Its absolute path.
    pub(crate) program: &'a Path,
    /// Its arguments; every user of the machine sees them.
    pub(crate) arguments: Vec<OsString>,
    /// Below which it may write, and make sockets; nowhere else.
    pub(crate) writable: Option<&'a Path>,
    /// How long it may take, also in processor time.
    pub(crate) patience: Duration,
    /// Where this is cancelled it is ended.
    pub(crate) cancel: &'a CancellationToken,
}

/// What it said.
#[derive(Debug)]
pub(crate) struct Said {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// Standard output, at most [`KEPT`] bytes of it.
    pub(crate) output: Vec<u8>,
    /// Standard error, at most [`KEPT`] bytes of it.
    pub(crate) error: Vec<u8>,
}

/// It did not come to its end; nothing of its process group is left.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSaid {
    /// It could not be run.
    #[error("{} cannot be run: {message}", program.display())]
    NotRun {
        /// Its path.
        program: PathBuf,
        /// Why.
        message: String,
    },
    /// It took too long.
    #[error("{} did not end within {} s", program.display(), patience.as_secs())]
    TooLong {
        /// Its path.
        program: PathBuf,
        /// How long it had.
        patience: Duration,
    },
    /// The run was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl Briefly<'_> {
    /// Runs it, with an environment of its own and nothing to read.
    ///
    /// # Errors
    /// [`NotSaid`]; a program that fails is a [`Said`] with its status.
    pub(crate) fn run(&self) -> Result<Said, NotSaid> {
        // Landlock restricts a thread and what that starts, so it gets one of its own.
        std::thread::scope(|threads| threads.spawn(|| self.confined()).join())
            .unwrap_or_else(|_| Err(self.not_run("the thread that runs it panicked")))
    }

    fn not_run(&self, message: impl ToString) -> NotSaid {
        NotSaid::NotRun { program: self.program.to_owned(), message: message.to_string() }
    }

    fn confined(&self) -> Result<Said, NotSaid> {
        // It makes sockets only below `writable`, reaches no network, and sends signals only within.
        let mut domain = Domain::read_only().with("/dev/null", Allowed::Write);
        if let Some(writable) = self.writable {
            domain = domain.with(writable, Allowed::ChangeAndMakeSockets);
        }
        domain.enter(None).map_err(|error| self.not_run(error))?;
        let mut child = Command::new(self.program)
            .args(&self.arguments)
            .env_clear()
            .envs([("PATH", PATH), ("LC_ALL", "C"), ("TZ", "UTC")])
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| self.not_run(error))?;
        let group = Pid::from_child(&child);
        let (output, error) = (child.stdout.take(), child.stderr.take());
        std::thread::scope(|threads| {
            let output = threads.spawn(|| kept(output));
            let error = threads.spawn(|| kept(error));
            let status = self.bound(group).and_then(|()| self.wait(&mut child));
            if status.is_err() {
                // A server gives its shared memory back when it is asked to end, and not when it is killed.
                let _ = kill_process_group(group, Signal::QUIT);
                let asked = Instant::now();
                while asked.elapsed() < GRACE && matches!(child.try_wait(), Ok(None)) {
                    std::thread::sleep(BETWEEN_LOOKS);
                }
            }
            // Whatever it started holds the pipes too.
            let _ = kill_process_group(group, Signal::KILL);
            if status.is_err() {
                let _ = child.wait();
            }
            let panicked = |_| Err(io::Error::other("the thread that reads it panicked"));
            let output = output.join().unwrap_or_else(panicked);
            let error = error.join().unwrap_or_else(panicked);
            Ok(Said {
                status: status?,
                output: output.map_err(|error| self.not_run(error))?,
                error: error.map_err(|error| self.not_run(error))?,
            })
        })
    }

    fn bound(&self, child: Pid) -> Result<(), NotSaid> {
        let bounds = [
            (Resource::Cpu, self.patience.as_secs().max(1)),
            (Resource::As, ADDRESS_SPACE),
            (Resource::Fsize, LONGEST_FILE),
            (Resource::Core, 0),
        ];
        for (resource, most) in bounds {
            let limit = Rlimit { current: Some(most), maximum: Some(most) };
            match prlimit(Some(child), resource, limit) {
                // It has ended already.
                Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                // The bound that this process has is narrower.
                Err(rustix::io::Errno::PERM) => {}
                Err(error) => return Err(self.not_run(io::Error::from(error))),
            }
        }
        Ok(())
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus, NotSaid> {
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().map_err(|error| self.not_run(error))? {
                return Ok(status);
            }
            if self.cancel.is_cancelled() {
                return Err(NotSaid::Cancelled);
            }
            if began.elapsed() > self.patience {
                return Err(NotSaid::TooLong { program: self.program.to_owned(), patience: self.patience });
            }
            std::thread::sleep(BETWEEN_LOOKS);
        }
    }
}

/// The first [`KEPT`] bytes of a stream that is read to its end.
fn kept(stream: Option<impl Read>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        (&mut stream).take(KEPT).read_to_end(&mut kept)?;
        io::copy(&mut stream, &mut io::sink())?;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn shell(script: &str, writable: Option<&Path>, patience: Duration) -> Result<Said, NotSaid> {
        let briefly = Briefly {
            program: Path::new("/bin/sh"),
            arguments: vec!["-c".into(), script.into()],
            writable,
            patience,
            cancel: &CancellationToken::new(),
        };
        briefly.run()
    }

    #[test]
    fn it_has_an_environment_of_its_own_and_writes_only_where_it_may() {
        let (may, may_not) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let script = format!(
            "env | grep -v -e ^PWD= -e ^_= | sort; echo x > {}/a; echo x > {}/b; echo done >&2",
            may.path().display(),
            may_not.path().display()
        );
        let said = shell(&script, Some(may.path()), Duration::from_secs(20)).unwrap();
        assert_eq!(String::from_utf8(said.output).unwrap(), format!("LC_ALL=C\nPATH={PATH}\nTZ=UTC\n"));
        assert!(may.path().join("a").exists() && !may_not.path().join("b").exists());
        assert!(String::from_utf8(said.error).unwrap().contains("b: Permission denied"));
        // Only the thread that ran it was restricted.
        std::fs::write(may_not.path().join("b"), "").unwrap();
    }

    #[test]
    fn what_takes_too_long_is_ended_with_all_that_it_started() {
        let began = Instant::now();
        let ended = shell("sleep 600 & sleep 600", None, Duration::from_millis(200));
        assert!(matches!(ended, Err(NotSaid::TooLong { .. })), "{ended:?}");
        assert!(began.elapsed() < Duration::from_secs(60));
        // A child that outlives it would hold the pipe.
        let said = shell("sleep 600 & echo here", None, Duration::from_secs(20)).unwrap();
        assert_eq!(said.output, b"here\n");
    }

    #[test]
    fn of_what_it_says_only_so_much_is_kept() {
        let said = shell("head -c 1000000 /dev/zero; echo end >&2", None, Duration::from_secs(20)).unwrap();
        assert_eq!(said.output.len() as u64, KEPT);
        assert_eq!(said.error, b"end\n");
    }

    #[test]
    fn it_cannot_take_all_memory_or_fill_the_disk() {
        let place = tempfile::tempdir().unwrap();
        let script = format!("ulimit -v; head -c 100000000 /dev/zero > {}/big", place.path().display());
        let said =
            shell(&format!("sleep 0.2; {script}"), Some(place.path()), Duration::from_secs(20)).unwrap();
        assert_eq!(said.output, format!("{}\n", ADDRESS_SPACE >> 10).into_bytes());
        assert!(said.status.signal().is_some() || !said.status.success(), "{:?}", said.status);
        assert_eq!(std::fs::metadata(place.path().join("big")).unwrap().len(), LONGEST_FILE);
    }

    #[test]
    fn a_cancelled_run_does_not_wait_and_a_program_that_is_not_there_is_named() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let with = |program, cancel: &CancellationToken| {
            let patience = Duration::from_secs(600);
            let arguments = vec!["-c".into(), "sleep 600".into()];
            Briefly { program: Path::new(program), arguments, writable: None, patience, cancel }.run()
        };
        assert!(matches!(with("/bin/sh", &cancel), Err(NotSaid::Cancelled)));
        let missing = with("/nonexistent/postgres", &CancellationToken::new()).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/postgres"), "{missing}");
    }
}
