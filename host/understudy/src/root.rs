//! Dropping root: before any method runs, and before any thread exists, the program becomes the user that PostgreSQL runs as
//! (loop rule 30). That user owns the files that the program creates, and no other user may read them.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{
    Gid, Uid, User, getgroups, getresgid, getresuid, initgroups, setresgid, setresuid, setuid,
};
use rustix::fs::Mode;
use rustix::process::umask;

/// The user to become if the configuration names none.
pub(crate) const DEFAULT_USER: &str = "postgres";

/// The user that the program runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's name, or its number if the system knows no name for it.
    pub name: String,
    /// The home directory of the user database; `None` if the database does not know the user.
    pub home: Option<PathBuf>,
}

/// Why the program could not become the user that it should run as.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// The user database does not know the default user.
    #[error(
        "this program runs as root, and there is no user `{DEFAULT_USER}` to become: set `user` below [replica]"
    )]
    NoDefaultUser,
    /// The user database does not know the configured user. The message does not show the value, which may be anything, even a password.
    #[error("this program runs as root, and `user` below [replica] names no user of this system: correct it")]
    NoSuchUser,
    /// The user is another name of root.
    #[error("`{0}` is root itself, which PostgreSQL does not run as: set `user` below [replica] to its user")]
    StillRoot(String),
    /// Only root can become another user.
    #[error(
        "`user` below [replica] names another user than `{current}`, which this program runs as and which cannot become another: \
         start it as that user or as root, or remove the line"
    )]
    CannotBecome {
        /// The user that the program runs as.
        current: String,
    },
    /// A thread would have stayed root.
    #[error("cannot drop root: {0} threads exist already, and each would keep it")]
    Threads(usize),
    /// A system call failed.
    #[error("cannot become the server's user: {step} failed")]
    System {
        /// The step that failed.
        step: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// The system calls succeeded, but the program could still act as root.
    #[error("root was not dropped for good: {0}")]
    NotDropped(&'static str),
}

/// Becomes `user`, or `postgres` if that is `None`, if the program runs as root. Sets umask 077 in any case.
///
/// # Errors
/// Fails if the program runs as the wrong user and cannot become the right one. The caller must then end the program.
pub fn drop_root(user: Option<&str>) -> Result<Account, RootError> {
    umask(Mode::RWXG | Mode::RWXO);
    let current = Uid::effective();
    if !current.is_root() {
        let account = account_of(current);
        return match user {
            Some(wanted) if wanted != account.name => Err(RootError::CannotBecome { current: account.name }),
            _ => Ok(account),
        };
    }
    let unknown = || if user.is_some() { RootError::NoSuchUser } else { RootError::NoDefaultUser };
    let name = user.unwrap_or(DEFAULT_USER);
    let failed = |step| move |error: nix::Error| RootError::System { step, source: error.into() };
    let found = User::from_name(name).map_err(failed("looking it up"))?;
    let user = found.ok_or_else(unknown)?;
    if user.uid.is_root() {
        return Err(RootError::StillRoot(name.to_owned()));
    }
    only_one_thread()?;
    let c_name = CString::new(name).map_err(|_| RootError::NoSuchUser)?;
    initgroups(&c_name, user.gid).map_err(failed("initgroups"))?;
    setresgid(user.gid, user.gid, user.gid).map_err(failed("setresgid"))?;
    setresuid(user.uid, user.uid, user.uid).map_err(failed("setresuid"))?;
    verify(user.uid, user.gid)?;
    // The user, and so a native program, may have no permission to enter root's current directory.
    std::env::set_current_dir("/").map_err(|source| RootError::System { step: "entering /", source })?;
    Ok(Account { name: user.name, home: Some(user.dir) })
}

/// Becomes a user that may create a file in `directory`, if the program still runs as root because no configuration that names a
/// user was accepted. This is the directory's owner, or `postgres` if root owns the directory and others may write to it. The
/// program stays root if only root may write to the directory.
///
/// # Errors
/// Fails as [`drop_root`] does, and if the owner has no name.
pub fn drop_root_for(directory: &Path) -> Result<(), RootError> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let failed = |source| RootError::System { step: "reading the owner of the report's directory", source };
    let found = std::fs::metadata(directory).map_err(failed)?;
    match (found.uid(), found.mode() & 0o022) {
        (0, 0) => Ok(()),
        (0, _) => drop_root(None).map(drop),
        (owner, _) => drop_root(Some(&account_of(Uid::from_raw(owner)).name)).map(drop),
    }
}

fn account_of(uid: Uid) -> Account {
    match User::from_uid(uid) {
        Ok(Some(user)) => Account { name: user.name, home: Some(user.dir) },
        _ => Account { name: uid.to_string(), home: None },
    }
}

fn only_one_thread() -> Result<(), RootError> {
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(|source| RootError::System { step: "counting threads in /proc/self/task", source })?;
    match threads.count() {
        1 => Ok(()),
        threads => Err(RootError::Threads(threads)),
    }
}

/// Checks which user the program runs as now, and that it cannot become root again.
fn verify(uid: Uid, gid: Gid) -> Result<(), RootError> {
    let users = getresuid().map_err(|_| RootError::NotDropped("getresuid failed"))?;
    let groups = getresgid().map_err(|_| RootError::NotDropped("getresgid failed"))?;
    if [users.real, users.effective, users.saved] != [uid; 3] {
        return Err(RootError::NotDropped("a user ID is still wrong"));
    }
    if [groups.real, groups.effective, groups.saved] != [gid; 3] {
        return Err(RootError::NotDropped("a group ID is still wrong"));
    }
    let supplementary = getgroups().map_err(|_| RootError::NotDropped("getgroups failed"))?;
    if gid.as_raw() != 0 && supplementary.contains(&Gid::from_raw(0)) {
        return Err(RootError::NotDropped("root's group is still a supplementary one"));
    }
    if setuid(Uid::from_raw(0)).is_ok() {
        return Err(RootError::NotDropped("setuid(0) still works"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The test harness has threads, so a test that runs as root cannot become another user and must get an error.
    #[test]
    fn rule_30_dropping_root_fails_while_other_threads_exist() {
        if !Uid::effective().is_root() {
            let account = drop_root(None).unwrap();
            let error = drop_root(Some("somebody-else")).unwrap_err();
            assert!(error.to_string().contains(&account.name), "{error}");
            return;
        }
        assert!(matches!(drop_root(Some("nobody")), Err(RootError::Threads(threads)) if threads > 1));
        assert!(Uid::effective().is_root());
    }

    #[test]
    fn rule_30_users_that_are_root_and_unknown_users_are_refused() {
        if Uid::effective().is_root() {
            assert!(matches!(drop_root(Some("root")), Err(RootError::StillRoot(_))));
            assert!(matches!(drop_root(Some("no-such-user-here")), Err(RootError::NoSuchUser)));
        }
    }
}
