//! The processes that this one was started by. Patroni starts what a run makes; where Patroni is gone and another one runs
//! already, nobody may complete a data directory under its hands.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getpid, getppid, pidfd_open};
use tokio::sync::oneshot;

/// The parent, and what started that: a wrapper stays when Patroni is gone, and waits.
#[derive(Debug)]
pub struct Parents {
    found: Vec<(String, OwnedFd)>,
    /// Why one could not be looked at.
    problem: Option<String>,
    /// The one that started this process was gone before anybody looked.
    gone: bool,
}

/// What `/proc/PID/stat` says of a process.
struct Stat {
    name: String,
    parent: Option<Pid>,
    group: Option<Pid>,
}

/// `PID (NAME) STATE PPID PGRP ...`; a name may hold anything, a parenthesis too (proc_pid_stat(5)).
fn parse(text: &str) -> Option<Stat> {
    let (head, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(1);
    let mut pid = || Some(Pid::from_raw(fields.next()?.parse().ok()?));
    Some(Stat { name: head.split_once('(')?.1.to_owned(), parent: pid()?, group: pid()? })
}

fn stat(pid: Pid) -> Option<Stat> {
    parse(&String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/stat")).ok()?))
}

impl Parents {
    /// The parent of this process and, as far as they are of this process's group, the parents before it: Patroni gives what it
    /// starts no group of its own, a shell with a person at it does.
    pub fn of_this_process() -> Self {
        let mut parents = Self { found: Vec::new(), problem: None, gone: false };
        let own = getpid();
        // None for a group that is led from outside of the container: getpgrp(2) says 0 then.
        let group = stat(own).and_then(|own| own.group);
        let (mut child, mut next) = (own, getppid());
        // Who has lost its parent is the init process's, which is of another group than whoever did not start a session.
        if next == Some(Pid::INIT) && group != Some(own) {
            parents.gone = stat(Pid::INIT).is_some_and(|init| init.group != group);
        }
        while let Some(pid) = next.filter(|pid| *pid != Pid::INIT) {
            let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(descriptor) => descriptor,
                // It ended since its child was looked at.
                Err(Errno::SRCH) => {
                    parents.gone = true;
                    break;
                }
                Err(error) => {
                    parents.problem = Some(format!("cannot watch process {pid}: {error}"));
                    break;
                }
            };
            // The number is that of the parent only if it still is now that the descriptor holds it.
            let still = if child == own { getppid() } else { stat(child).and_then(|child| child.parent) };
            if still != Some(pid) {
                parents.gone = true;
                break;
            }
            // Another user's may not be looked at (`hidepid`, proc(5)): it is there, and what started it cannot be known.
            let Some(parent) = stat(pid) else {
                if child == own {
                    parents.found.push((format!("process {pid}"), descriptor));
                }
                break;
            };
            if child != own && parent.group != group {
                break;
            }
            parents.found.push((format!("process {pid} ({})", parent.name), descriptor));
            (child, next) = (pid, parent.parent);
        }
        parents
    }

    /// Waits until one of them has ended; says which. `Err` tells why one cannot be watched, and the others are not either.
    pub async fn ended(self) -> Result<String, String> {
        if self.gone {
            return Ok("the process".to_owned());
        }
        if let Some(problem) = self.problem {
            return Err(problem);
        }
        if self.found.is_empty() {
            return std::future::pending().await;
        }
        let (told, ended) = oneshot::channel();
        // Ends with the process. No runtime's: one that shuts down would wait for it.
        std::thread::Builder::new()
            .name("parent".to_owned())
            .spawn(move || told.send(first_to_end(&self.found)))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        ended.await.map_err(|_| "the thread that watched it is gone".to_owned())?
    }
}

/// Blocks until one of these has ended: a pidfd is readable then (pidfd_open(2)).
fn first_to_end(processes: &[(String, OwnedFd)]) -> Result<String, String> {
    let mut watched: Vec<_> =
        processes.iter().map(|(_, descriptor)| PollFd::new(descriptor, PollFlags::IN)).collect();
    loop {
        match poll(&mut watched, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(format!("cannot watch it: {error}")),
        }
        let ended = processes.iter().zip(&watched).find(|(_, watched)| !watched.revents().is_empty());
        if let Some(((name, _), _)) = ended {
            return Ok(name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let stat = parse("12 (a) b) S 7 9 9 0").unwrap();
        assert_eq!(stat.name, "a) b");
        assert_eq!((stat.parent, stat.group), (Pid::from_raw(7), Pid::from_raw(9)));
        assert!(parse("12 (x) S").is_none());
    }

    #[tokio::test]
    async fn a_parent_that_ends_is_told_by_its_name() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let parents = Parents { found: vec![("sleep".to_owned(), descriptor)], problem: None, gone: false };
        let ended = tokio::spawn(parents.ended());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(ended.await.unwrap().as_deref(), Ok("sleep"));
    }
}
