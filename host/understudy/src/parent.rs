//! The processes that started this one. Patroni starts a PostgreSQL server on the data directory that a run creates. If Patroni has ended,
//! another Patroni may already be running, so this run must not continue to write to that directory.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getpid, getppid, pidfd_open};
use tokio::sync::oneshot;

/// The parent process and its ancestors. The ancestors matter because a wrapper that started this process may outlive Patroni.
#[derive(Debug)]
pub struct Parents {
    found: Vec<(String, OwnedFd)>,
    /// Why one of the processes cannot be watched.
    problem: Option<String>,
    /// Whether the process that started this one had ended before it could be found.
    gone: bool,
}

/// The fields of `/proc/PID/stat` that are used here.
struct Stat {
    name: String,
    parent: Option<Pid>,
    group: Option<Pid>,
}

/// Parses `PID (NAME) STATE PPID PGRP ...`. A name may hold any character, even a parenthesis (proc_pid_stat(5)).
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
    /// Finds the parent of this process, and its ancestors as long as they belong to the process group of this process. Patroni starts
    /// processes within its own group; an interactive shell creates a new group for each command.
    pub fn of_this_process() -> Self {
        let mut parents = Self { found: Vec::new(), problem: None, gone: false };
        let own = getpid();
        // `None` if the leader of the group is outside the container: the number of the group is then 0.
        let group = stat(own).and_then(|own| own.group);
        let (mut child, mut next) = (own, getppid());
        // The init process adopts a process whose parent has ended. If this process inherited its group, only then does the group differ
        // from init's. If this process leads its own group, the group always differs from init's, which says nothing about the parent.
        if next == Some(Pid::INIT) && group != Some(own) {
            parents.gone = stat(Pid::INIT).is_some_and(|init| init.group != group);
        }
        while let Some(pid) = next.filter(|pid| *pid != Pid::INIT) {
            let descriptor = match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(descriptor) => descriptor,
                // The parent ended after its number was read.
                Err(Errno::SRCH) => {
                    parents.gone = true;
                    break;
                }
                Err(error) => {
                    parents.problem = Some(format!("cannot watch process {pid}: {error}"));
                    break;
                }
            };
            // The number may have been given to another process before the descriptor was open, so the parent is read again.
            let still = if child == own { getppid() } else { stat(child).and_then(|child| child.parent) };
            if still != Some(pid) {
                parents.gone = true;
                break;
            }
            // With `hidepid` (proc(5)) a process of another user exists but its `stat` cannot be read, so its parent stays
            // unknown.
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

    /// Waits until one of these processes has ended, and returns its description.
    ///
    /// # Errors
    /// Fails if one of the processes cannot be watched; then none of the others is watched.
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
        let (sender, ended) = oneshot::channel();
        // The thread runs until the program ends. It is not a runtime's thread, because a runtime would wait for it when it shuts down.
        std::thread::Builder::new()
            .name("parent".to_owned())
            .spawn(move || sender.send(first_to_end(&self.found)))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        ended.await.map_err(|_| "the thread that watched its parents has ended".to_owned())?
    }
}

/// Blocks until one of these processes has ended, and returns its description. The pidfd of a process that ended is readable
/// (pidfd_open(2)).
fn first_to_end(processes: &[(String, OwnedFd)]) -> Result<String, String> {
    let mut watched: Vec<_> =
        processes.iter().map(|(_, descriptor)| PollFd::new(descriptor, PollFlags::IN)).collect();
    loop {
        match poll(&mut watched, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(format!("cannot wait for the end of its parents: {error}")),
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
    async fn ended_returns_the_name_of_the_parent_that_ended() {
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
