//! Landlock: restrictions that a thread puts on itself. Every thread and process that it starts inherits them.
//!
//! A kernel enforces the rights that it knows. [`Domain::enter`] returns the version of Landlock's interface (the ABI) that the
//! kernel has, or the newest that the library knows if that is lower, and fails if the operator requires a later version.

use std::marker::PhantomData;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::process::{getppid, test_kill_process};

use ::landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort,
    PathBeneath, PathFd, PathFdError, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError,
};

pub use ::landlock::Scope;

/// The ABI whose rights a domain restricts. An older kernel enforces those that it knows.
const KNOWN: ABI = ABI::V7;

/// The first ABI that restricts TCP connections (Linux 6.7).
pub const ABI_OF_TCP: u32 = 4;

/// The first ABI that keeps signals within a domain (Linux 6.12).
pub const ABI_OF_SIGNALS: u32 = 6;

/// A proof that this thread cannot send a signal to a process outside its domain. Only [`Domain::enter_and_prove`] makes it, and only after
/// the kernel has refused such a signal. The proof cannot leave the thread, because other threads may be outside the domain.
#[derive(Debug)]
pub struct SignalScope(PhantomData<*const ()>);

/// What is allowed below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// To read files and list directories.
    Read,
    /// To read, and to make, write, rename and remove files, directories and symbolic links. Device files, FIFOs and
    /// sockets cannot be made.
    Change,
    /// [`Allowed::Change`], and to make sockets.
    ChangeAndMakeSockets,
    /// To write to files that already exist, for devices such as `/dev/null`.
    Write,
    /// To execute and read files.
    Execute,
}

/// A set of restrictions.
#[derive(Clone, Debug)]
pub struct Domain {
    files: BitFlags<AccessFs>,
    network: BitFlags<AccessNet>,
    scopes: BitFlags<Scope>,
    trees: Vec<(PathBuf, Allowed)>,
    ports: Vec<u16>,
}

/// Why a thread could not be restricted.
#[derive(Debug, thiserror::Error)]
pub enum LandlockError {
    /// A path below which something was to be allowed cannot be opened.
    #[error("cannot open {path} for Landlock", path = path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why it cannot be opened.
        source: PathFdError,
    },
    /// The kernel refused the restrictions.
    #[error("Landlock cannot be applied")]
    Ruleset(#[from] RulesetError),
    /// The kernel's Landlock is older than what the operator requires.
    #[error("require_landlock = {required}, but this kernel offers {found}")]
    TooOld {
        /// The ABI that is required.
        required: u32,
        /// What the kernel has, in words.
        found: String,
    },
}

impl Domain {
    /// Returns a domain that allows nothing: no files, no TCP, and neither signals nor abstract sockets to processes outside of it.
    pub fn deny_all() -> Self {
        Self {
            files: AccessFs::from_all(KNOWN),
            network: AccessNet::from_all(KNOWN),
            scopes: Scope::from_all(KNOWN),
            trees: Vec::new(),
            ports: Vec::new(),
        }
    }

    /// Returns a domain that allows reading and executing files, and nothing else.
    pub fn read_only() -> Self {
        Self { files: AccessFs::from_write(KNOWN), ..Self::deny_all() }
    }

    /// Allows TCP and abstract sockets, too.
    #[must_use]
    pub fn with_network(mut self) -> Self {
        self.network = BitFlags::EMPTY;
        self.scopes = Scope::Signal.into();
        self
    }

    /// Allows `allowed` below `path`, too.
    #[must_use]
    pub fn with(mut self, path: impl Into<PathBuf>, allowed: Allowed) -> Self {
        self.trees.push((path.into(), allowed));
        self
    }

    /// Allows TCP connections to this port on any host, too. A kernel below ABI 4 does not restrict ports.
    #[must_use]
    pub fn with_connections_to(mut self, port: u16) -> Self {
        self.ports.push(port);
        self
    }

    /// Restricts the calling thread, and every thread and process that it starts from now on, permanently. Returns the ABI that the kernel
    /// enforces; 0 if the kernel has no Landlock.
    ///
    /// # Errors
    /// [`LandlockError::Path`] and [`LandlockError::Ruleset`]; [`LandlockError::TooOld`] if the ABI is below `require`, in which
    /// case the thread may nevertheless be restricted.
    pub fn enter(&self, require: Option<u32>) -> Result<u32, LandlockError> {
        self.restrict(require, true)
    }

    /// Does what [`Domain::enter`] does, and tries to prove that signals stay within the domain. The proof uses the parent of this process,
    /// which is outside the domain: this thread could send it a signal before, and can no longer do so afterwards.
    ///
    /// # Errors
    /// The errors of [`Domain::enter`].
    pub fn enter_and_prove(&self, require: Option<u32>) -> Result<(u32, Option<SignalScope>), LandlockError> {
        let parent = getppid();
        let reach = || parent.map(test_kill_process);
        let before = reach();
        // The kernel's audit log need not record the signal that is refused on purpose.
        let abi = self.restrict(require, false)?;
        let is_scoped = abi >= ABI_OF_SIGNALS && self.scopes.contains(Scope::Signal);
        let is_refused = before == Some(Ok(())) && reach() == Some(Err(Errno::PERM));
        Ok((abi, (is_scoped && is_refused).then_some(SignalScope(PhantomData))))
    }

    fn restrict(&self, require: Option<u32>, audit: bool) -> Result<u32, LandlockError> {
        let mut rules =
            Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(self.files)?;
        if !self.network.is_empty() {
            rules = rules.handle_access(self.network)?;
        }
        let mut rules = rules.scope(self.scopes)?.create()?;
        if !audit {
            rules = rules.log_same_exec(false)?;
        }
        for (path, allowed) in &self.trees {
            let opened =
                PathFd::new(path).map_err(|source| LandlockError::Path { path: path.clone(), source })?;
            rules = rules.add_rule(PathBeneath::new(opened, allowed.rights() & self.files))?;
        }
        // If the domain does not restrict the network, every port is already allowed.
        for port in self.ports.iter().filter(|_| !self.network.is_empty()) {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
        let (enforced, found) = match rules.restrict_self()?.landlock {
            LandlockStatus::NotEnabled => {
                (0, "no Landlock (it is disabled: see the kernel's lsm= setting)".to_owned())
            }
            LandlockStatus::NotImplemented => (0, "no Landlock (it is not built in)".to_owned()),
            LandlockStatus::Available { effective_abi, .. } => {
                (effective_abi as u32, format!("Landlock ABI {}", effective_abi as u32))
            }
        };
        match require {
            Some(required) if enforced < required => Err(LandlockError::TooOld { required, found }),
            _ => Ok(enforced),
        }
    }
}

impl Allowed {
    /// Returns the rights. Lists each right, because the set of all rights would also let root create device files.
    fn rights(self) -> BitFlags<AccessFs> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let write = AccessFs::WriteFile | AccessFs::Truncate;
        let change = read
            | write
            | AccessFs::MakeReg
            | AccessFs::MakeDir
            | AccessFs::MakeSym
            | AccessFs::RemoveFile
            | AccessFs::RemoveDir
            | AccessFs::Refer;
        match self {
            Self::Read => read,
            Self::Write => write,
            Self::Execute => AccessFs::Execute | AccessFs::ReadFile,
            Self::Change => change,
            Self::ChangeAndMakeSockets => change | AccessFs::MakeSock,
        }
    }
}

/// Returns the kernel's ABI. Starts a thread for it, because the library tells the ABI only to a thread that restricts itself.
///
/// # Errors
/// [`LandlockError::TooOld`] if it is below `require`.
pub fn kernel_abi(require: Option<u32>) -> Result<u32, LandlockError> {
    let answer = std::thread::spawn(move || Domain::deny_all().enter(require)).join();
    answer.unwrap_or_else(|_| {
        Err(LandlockError::TooOld { required: require.unwrap_or(0), found: "no answer".into() })
    })
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::net::{TcpListener, TcpStream};
    use std::{fs, thread};

    use super::*;

    #[test]
    fn a_thread_opens_only_what_its_domain_allows_and_the_others_stay_free() {
        assert!(kernel_abi(None).unwrap() > 0, "this test needs a kernel with Landlock");
        let scratch = tempfile::tempdir().unwrap();
        let (inside, readable, outside) =
            (scratch.path().join("inside"), scratch.path().join("readable"), scratch.path().join("outside"));
        for directory in [&inside, &readable, &outside] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("file"), "x").unwrap();
        }
        let domain = Domain::deny_all().with(&readable, Allowed::Read).with(&inside, Allowed::Change);
        let denied = {
            let outside = outside.clone();
            thread::spawn(move || {
                domain.enter(None).unwrap();
                fs::write(inside.join("new"), "x").unwrap();
                fs::rename(inside.join("new"), inside.join("newer")).unwrap();
                assert_eq!(fs::read(readable.join("file")).unwrap(), b"x");
                assert_eq!(
                    fs::write(readable.join("file"), "y").unwrap_err().kind(),
                    ErrorKind::PermissionDenied
                );
                let child = thread::spawn(move || fs::read(outside.join("file")).unwrap_err().kind());
                child.join().unwrap()
            })
            .join()
            .unwrap()
        };
        assert_eq!(denied, ErrorKind::PermissionDenied, "threads inherit the restrictions");
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"x");
    }

    #[test]
    fn a_read_only_domain_reads_everywhere_and_writes_only_where_it_is_allowed() {
        assert!(kernel_abi(None).unwrap() > 0, "this test needs a kernel with Landlock");
        let scratch = tempfile::tempdir().unwrap();
        let (inside, outside) = (scratch.path().join("inside"), scratch.path().join("outside"));
        fs::create_dir(&inside).unwrap();
        fs::write(&outside, "x").unwrap();
        let domain = Domain::read_only()
            .with(&inside, Allowed::ChangeAndMakeSockets)
            .with("/dev/null", Allowed::Write);
        thread::spawn(move || {
            domain.enter(None).unwrap();
            assert_eq!(fs::read(&outside).unwrap(), b"x");
            assert_eq!(fs::write(&outside, "y").unwrap_err().kind(), ErrorKind::PermissionDenied);
            fs::write(inside.join("new"), "x").unwrap();
            std::os::unix::net::UnixListener::bind(inside.join("socket")).unwrap();
            fs::write("/dev/null", "x").unwrap();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_connects_only_to_the_ports_that_its_domain_allows() {
        assert!(kernel_abi(None).unwrap() >= ABI_OF_TCP, "this test needs Landlock's ABI {ABI_OF_TCP}");
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (allowed, other) = (listen(), listen());
        let [to_allowed, to_other] = [&allowed, &other].map(|listener| listener.local_addr().unwrap());
        let connects = move |domain: Domain| {
            thread::spawn(move || {
                domain.enter(None).unwrap();
                [to_allowed, to_other]
                    .map(|to| TcpStream::connect(to).map(drop).map_err(|error| error.kind()))
            })
            .join()
            .unwrap()
        };
        let denied = Err(ErrorKind::PermissionDenied);
        assert_eq!(connects(Domain::deny_all().with_connections_to(to_allowed.port())), [Ok(()), denied]);
        assert_eq!(connects(Domain::deny_all()), [denied, denied]);
        assert_eq!(connects(Domain::deny_all().with_network()), [Ok(()), Ok(())]);
    }

    #[test]
    fn a_proof_about_signals_is_given_only_if_the_domain_scopes_signals() {
        if kernel_abi(None).unwrap() < ABI_OF_SIGNALS {
            eprintln!("this kernel's Landlock does not scope signals: nothing to try");
            return;
        }
        let proven = |domain: Domain| {
            thread::spawn(move || domain.enter_and_prove(None).unwrap().1.is_some()).join().unwrap()
        };
        assert!(proven(Domain::read_only().with_network()));
        assert!(!proven(Domain { scopes: Scope::AbstractUnixSocket.into(), ..Domain::read_only() }));
        // In the first domain, the thread can no longer send a signal to the parent, so a second domain proves nothing.
        let again = thread::spawn(|| {
            Domain::read_only().enter(None).unwrap();
            Domain::read_only().enter_and_prove(None).unwrap().1.is_some()
        });
        assert!(!again.join().unwrap());
    }

    #[test]
    fn an_abi_that_no_kernel_has_is_refused() {
        let error = kernel_abi(Some(10_000)).unwrap_err().to_string();
        assert!(error.starts_with("require_landlock = 10000, but this kernel offers"), "{error}");
    }
}
