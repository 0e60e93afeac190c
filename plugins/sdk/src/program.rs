//! Native programs that the operator granted. The host confines each program to its grant, logs its output, and ends the program when the
//! run ends.
//!
//! ```
//! use understudy::{Failure, program};
//!
//! /// Runs the operator's restore program, `grants.programs.restore`.
//! fn restore(backup: &str) -> Result<(), Failure> {
//!     let completed = program::run("restore", &["--backup".to_owned(), backup.to_owned()])?;
//!     if completed.ending.is_success() {
//!         return Ok(());
//!     }
//!     let last = completed.last_line().unwrap_or_default();
//!     Err(Failure::failed(format!("the program restore {}: {last}", completed.ending)))
//! }
//! ```

use std::fmt;

use crate::{Error, host};

pub use crate::raw::understudy::method::program::{Completed, Ending};

/// How many characters of a line [`Completed::last_line`] returns.
const LINE: usize = 512;

/// Runs the program `grants.programs.NAME` with `arguments` and waits for its end. Returns `Ok` for any exit code.
///
/// # Errors
/// [`Error::Denied`] if no grant allows the program with these arguments; [`Error::Cancelled`] if the run was cancelled; another
/// [`Error`] if the host could not run the program or had to end it.
pub fn run(name: &str, arguments: &[String]) -> Result<Completed, Error> {
    host::run_program(name, arguments)
}

/// Checks that [`run`] may run this program with these arguments, without running it. Call this function in `plan`, so that a missing grant
/// is an error before the data directory is emptied.
///
/// # Errors
/// [`Error::Denied`] and [`Error::Invalid`], in the same cases as [`run`].
pub fn check(name: &str, arguments: &[String]) -> Result<(), Error> {
    host::check_program(name, arguments)
}

impl Ending {
    /// Returns whether the program exited with code 0.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Code(0))
    }
}

/// Writes `exited with code 1` or `was ended by signal 9`.
impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

impl Completed {
    /// Returns the last non-empty line of the program's output, shortened to 512 characters; `None` if there is no such line. Invalid UTF-8
    /// becomes U+FFFD.
    pub fn last_line(&self) -> Option<String> {
        let text = String::from_utf8_lossy(&self.tail);
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        Some(line.chars().take(LINE).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::Host;

    fn completed(tail: &[u8]) -> Completed {
        Completed { ending: Ending::Code(1), tail: tail.to_vec() }
    }

    #[test]
    fn the_last_line_is_the_last_that_is_not_blank() {
        assert_eq!(completed(b"").last_line(), None);
        assert_eq!(completed(b" \n\t\r\n").last_line(), None);
        assert_eq!(completed(b"first\r\n  second \r\n\n").last_line().as_deref(), Some("second"));
        assert_eq!(completed(&vec![b'x'; 64 << 10]).last_line().map(|line| line.len()), Some(LINE));
    }

    #[test]
    fn the_stand_in_runs_a_granted_program_and_denies_every_other() {
        let (answers, record) = Host::new("/data").program("list", "/bin/echo").run(|| {
            let hello = ["hello".to_owned()];
            check("list", &hello).unwrap();
            assert!(matches!(check("other", &hello), Err(Error::Denied(_))));
            (run("list", &hello).unwrap(), run("other", &hello).unwrap_err())
        });
        assert!(answers.0.ending.is_success());
        assert_eq!(answers.0.tail, b"hello\n");
        assert!(matches!(answers.1, Error::Denied(_)), "{}", answers.1);
        assert_eq!(record.programs.len(), 1);
    }
}
