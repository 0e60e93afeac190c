//! Runs one of PostgreSQL's programs for a check of a data directory. Bounds the program's time, output and address space, and confines it
//! with Landlock if the kernel has Landlock. The functions block.

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

/// The pause between two polls of the program.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// How long the program may take to end after SIGQUIT.
const GRACE: Duration = Duration::from_secs(1);

/// How many bytes of each output stream are kept. The rest is read and discarded.
const KEPT: u64 = 64 << 10;

/// The program's address space in bytes. A server with the smallest buffers maps about 200 MB, including libraries.
const ADDRESS_SPACE: u64 = 2 << 30;

/// The largest size of a file that the program writes, in bytes.
const LONGEST_FILE: u64 = 64 << 20;

/// A program, its bounds, and where it may write.
#[derive(Debug)]
pub(crate) struct BoundedProgram<'a> {
    /// The absolute path of the program.
    pub(crate) program: &'a Path,
    /// The arguments; every user of the machine sees them.
    pub(crate) arguments: Vec<OsString>,
    /// The directory below which the program may write and create sockets; `None` if it may not write or create sockets anywhere.
    pub(crate) writable: Option<&'a Path>,
    /// How long the program may take. The limit applies to elapsed time and to processor time.
    pub(crate) timeout: Duration,
    /// Ends the program when this token is cancelled.
    pub(crate) cancel: &'a CancellationToken,
}

/// The program's output and exit status.
#[derive(Debug)]
pub(crate) struct ProgramOutput {
    /// How the program ended.
    pub(crate) status: ExitStatus,
    /// The first [`KEPT`] bytes of standard output.
    pub(crate) output: Vec<u8>,
    /// The first [`KEPT`] bytes of standard error.
    pub(crate) error: Vec<u8>,
}

/// Why the program did not run to its end. All processes of its group have ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BoundedProgramError {
    /// The program could not be run.
    #[error("{} cannot be run: {message}", program.display())]
    NotRun {
        /// The path.
        program: PathBuf,
        /// Why the program could not be run.
        message: String,
    },
    /// The program took too long.
    #[error("{} did not end within {} s", program.display(), timeout.as_secs())]
    TooLong {
        /// The path.
        program: PathBuf,
        /// The time that the program had.
        timeout: Duration,
    },
    /// The run was cancelled.
    #[error("cancelled")]
    Cancelled,
}

impl BoundedProgram<'_> {
    /// Runs the program, with a new environment and an empty standard input.
    ///
    /// # Errors
    /// Fails with a [`BoundedProgramError`]. If the program itself fails, returns a [`ProgramOutput`] with its status.
    pub(crate) fn run(&self) -> Result<ProgramOutput, BoundedProgramError> {
        // Landlock restricts a thread and the processes that it starts, so the program is started by a separate thread.
        std::thread::scope(|threads| threads.spawn(|| self.confined()).join())
            .unwrap_or_else(|_| Err(self.not_run("the thread that runs it panicked")))
    }

    fn not_run(&self, message: impl ToString) -> BoundedProgramError {
        BoundedProgramError::NotRun { program: self.program.to_owned(), message: message.to_string() }
    }

    fn confined(&self) -> Result<ProgramOutput, BoundedProgramError> {
        // The program may create sockets only below `writable`, has no network, and may send signals only to its own processes.
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
                // A server frees its shared memory after SIGQUIT, but not after SIGKILL.
                let _ = kill_process_group(group, Signal::QUIT);
                let signalled = Instant::now();
                while signalled.elapsed() < GRACE && matches!(child.try_wait(), Ok(None)) {
                    std::thread::sleep(POLL_INTERVAL);
                }
            }
            // Descendants of the program may also keep the pipes open, so kill them.
            let _ = kill_process_group(group, Signal::KILL);
            if status.is_err() {
                let _ = child.wait();
            }
            let panicked = |_| Err(io::Error::other("the thread that reads it panicked"));
            let output = output.join().unwrap_or_else(panicked);
            let error = error.join().unwrap_or_else(panicked);
            Ok(ProgramOutput {
                status: status?,
                output: output.map_err(|error| self.not_run(error))?,
                error: error.map_err(|error| self.not_run(error))?,
            })
        })
    }

    fn bound(&self, child: Pid) -> Result<(), BoundedProgramError> {
        let bounds = [
            (Resource::Cpu, self.timeout.as_secs().max(1)),
            (Resource::As, ADDRESS_SPACE),
            (Resource::Fsize, LONGEST_FILE),
            (Resource::Core, 0),
        ];
        for (resource, most) in bounds {
            let limit = Rlimit { current: Some(most), maximum: Some(most) };
            match prlimit(Some(child), resource, limit) {
                // The program has ended already.
                Ok(_) | Err(rustix::io::Errno::SRCH) => {}
                // This process already has a lower limit.
                Err(rustix::io::Errno::PERM) => {}
                Err(error) => return Err(self.not_run(io::Error::from(error))),
            }
        }
        Ok(())
    }

    fn wait(&self, child: &mut Child) -> Result<ExitStatus, BoundedProgramError> {
        let began = Instant::now();
        loop {
            if let Some(status) = child.try_wait().map_err(|error| self.not_run(error))? {
                return Ok(status);
            }
            if self.cancel.is_cancelled() {
                return Err(BoundedProgramError::Cancelled);
            }
            if began.elapsed() > self.timeout {
                return Err(BoundedProgramError::TooLong {
                    program: self.program.to_owned(),
                    timeout: self.timeout,
                });
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Reads a stream to its end and returns its first [`KEPT`] bytes.
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

    fn shell(
        script: &str,
        writable: Option<&Path>,
        timeout: Duration,
    ) -> Result<ProgramOutput, BoundedProgramError> {
        let program_run = BoundedProgram {
            program: Path::new("/bin/sh"),
            arguments: vec!["-c".into(), script.into()],
            writable,
            timeout,
            cancel: &CancellationToken::new(),
        };
        program_run.run()
    }

    #[test]
    fn a_program_gets_a_new_environment_and_can_write_only_below_writable() {
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
        // Only the thread that ran the program was restricted.
        std::fs::write(may_not.path().join("b"), "").unwrap();
    }

    #[test]
    fn a_program_that_takes_too_long_is_ended_with_its_descendants() {
        let began = Instant::now();
        let ended = shell("sleep 600 & sleep 600", None, Duration::from_millis(200));
        assert!(matches!(ended, Err(BoundedProgramError::TooLong { .. })), "{ended:?}");
        assert!(began.elapsed() < Duration::from_secs(60));
        // A child that outlives the program would keep the pipe open.
        let said = shell("sleep 600 & echo here", None, Duration::from_secs(20)).unwrap();
        assert_eq!(said.output, b"here\n");
    }

    #[test]
    fn only_the_beginning_of_the_output_is_kept() {
        let said = shell("head -c 1000000 /dev/zero; echo end >&2", None, Duration::from_secs(20)).unwrap();
        assert_eq!(said.output.len() as u64, KEPT);
        assert_eq!(said.error, b"end\n");
    }

    #[test]
    fn a_program_cannot_take_all_memory_or_fill_the_disk() {
        let place = tempfile::tempdir().unwrap();
        let script = format!("ulimit -v; head -c 100000000 /dev/zero > {}/big", place.path().display());
        let said =
            shell(&format!("sleep 0.2; {script}"), Some(place.path()), Duration::from_secs(20)).unwrap();
        assert_eq!(said.output, format!("{}\n", ADDRESS_SPACE >> 10).into_bytes());
        assert!(said.status.signal().is_some() || !said.status.success(), "{:?}", said.status);
        assert_eq!(std::fs::metadata(place.path().join("big")).unwrap().len(), LONGEST_FILE);
    }

    #[test]
    fn a_cancelled_run_returns_at_once_and_the_error_names_a_missing_program() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let with = |program, cancel: &CancellationToken| {
            let timeout = Duration::from_secs(600);
            let arguments = vec!["-c".into(), "sleep 600".into()];
            BoundedProgram { program: Path::new(program), arguments, writable: None, timeout, cancel }.run()
        };
        assert!(matches!(with("/bin/sh", &cancel), Err(BoundedProgramError::Cancelled)));
        let missing = with("/nonexistent/postgres", &CancellationToken::new()).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/postgres"), "{missing}");
    }
}
