//! The second wall for files: a Landlock domain on the thread of one run. It stops what a path escape of the WASI
//! layer would reach. It is no wall against native code in this process, nor for `stat`, `chmod` and `utimensat`,
//! which Landlock does not know.

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath,
    PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, Scope,
};

use crate::files::{Access, Place};

/// The ABI whose rights are asked for; an older kernel enforces those that it knows.
const KNOWN: ABI = ABI::V7;

/// What a thread may still open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wall {
    /// Trees that it may read.
    pub(crate) read: Vec<PathBuf>,
    /// Trees that it may change.
    pub(crate) write: Vec<PathBuf>,
}

/// A wall that cannot be built.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WallError {
    #[error("cannot open {path} for Landlock")]
    Path { path: PathBuf, source: landlock::PathFdError },
    #[error("Landlock cannot be applied")]
    Ruleset(#[from] RulesetError),
    #[error("require_landlock = {required}, but this kernel offers {found}")]
    TooOld { required: u32, found: String },
}

impl Wall {
    /// A wall around these places, as far as they are there.
    pub(crate) fn around(places: &[Place]) -> Self {
        let mut wall = Self::default();
        for place in places.iter().filter(|place| place.path.is_dir()) {
            match place.access {
                Access::Write => wall.write.push(place.path.clone()),
                Access::Read => wall.read.push(place.path.clone()),
                Access::Nothing => {}
            }
        }
        wall
    }

    /// Puts the calling thread, and every thread that it starts from now on, behind this wall for good.
    ///
    /// Returns the ABI that is enforced; 0 where the kernel has none.
    pub(crate) fn restrict_this_thread(&self, require: Option<u32>) -> Result<u32, WallError> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(KNOWN))?
            .handle_access(AccessNet::from_all(ABI::V4))?
            .scope(Scope::from_all(ABI::V6))?
            .create()?;
        for (paths, rights) in [(&self.read, read_rights()), (&self.write, write_rights())] {
            for path in paths {
                let opened =
                    PathFd::new(path).map_err(|source| WallError::Path { path: path.clone(), source })?;
                rules = rules.add_rule(PathBeneath::new(opened, rights))?;
            }
        }
        let status = rules.restrict_self()?.landlock;
        match require {
            Some(required) if number(status) < required => {
                Err(WallError::TooOld { required, found: in_words(status) })
            }
            _ => Ok(number(status)),
        }
    }
}

/// Reading a tree.
fn read_rights() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// Changing a tree. One by one: below a directory `AccessFs::from_all` would let root make device nodes.
fn write_rights() -> BitFlags<AccessFs> {
    read_rights()
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::MakeSym
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer
}

/// The kernel's ABI, asked on a thread that ends with the answer: only applying a ruleset tells it.
///
/// # Errors
/// [`WallError::TooOld`] where it is below `require`.
pub(crate) fn kernel_abi(require: Option<u32>) -> Result<u32, WallError> {
    let asked = std::thread::spawn(move || Wall::default().restrict_this_thread(require)).join();
    asked.unwrap_or_else(|_| {
        Err(WallError::TooOld { required: require.unwrap_or(0), found: "no answer".into() })
    })
}

fn number(status: LandlockStatus) -> u32 {
    match status {
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
    }
}

fn in_words(status: LandlockStatus) -> String {
    match status {
        LandlockStatus::NotEnabled => {
            "no Landlock (it is disabled: see the kernel's lsm= setting)".to_owned()
        }
        LandlockStatus::NotImplemented => "no Landlock (it is not built in)".to_owned(),
        LandlockStatus::Available { effective_abi, .. } => format!("Landlock ABI {}", effective_abi as u32),
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::{fs, thread};

    use super::*;

    #[test]
    fn a_thread_behind_the_wall_opens_only_what_it_was_given_and_the_others_stay_free() {
        if kernel_abi(None).unwrap() == 0 {
            eprintln!("this kernel has no Landlock: nothing to try");
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let (inside, readable, outside) =
            (scratch.path().join("inside"), scratch.path().join("readable"), scratch.path().join("outside"));
        for directory in [&inside, &readable, &outside] {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("file"), "x").unwrap();
        }
        let wall = Wall { read: vec![readable.clone()], write: vec![inside.clone()] };
        let denied = {
            let outside = outside.clone();
            thread::spawn(move || {
                wall.restrict_this_thread(None).unwrap();
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
        assert_eq!(denied, ErrorKind::PermissionDenied, "threads inherit the wall");
        assert_eq!(fs::read(outside.join("file")).unwrap(), b"x");
    }

    #[test]
    fn an_abi_that_no_kernel_has_is_refused() {
        let error = kernel_abi(Some(10_000)).unwrap_err().to_string();
        assert!(error.starts_with("require_landlock = 10000, but this kernel offers"), "{error}");
    }
}
