//! The host's side of the connection to a guard.

use std::io;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, ChildStdout};

use super::orphans::{self, RunningGuard};
use super::protocol::GuardMessage;
use crate::state::{ProcessIdentity, process};

/// The pause between two checks whether the processes of a dead guard have ended.
const INTERVAL: Duration = Duration::from_millis(10);

/// A guard that is ready.
pub(super) struct Guarded {
    pub(super) child: Child,
    pub(super) identity: ProcessIdentity,
    pub(super) socket: GuardSocket,
    pub(super) output: (Option<ChildStdout>, Option<ChildStderr>),
    pub(super) landlock: u32,
    /// This field is dropped last: until then, this process adopts the processes that the guard leaves.
    pub(super) _running: RunningGuard,
}

impl Guarded {
    /// Closes the socket and waits until the guard is gone. A guard that has not started its program yet never starts it.
    pub(super) async fn wait_until_gone(mut self) -> io::Result<()> {
        drop(self.socket);
        self.child.wait().await.map(drop)
    }

    /// Kills the processes that a dead guard and its program have started. The guard must not be reaped yet, so that its PID still
    /// identifies its process group. Processes that have left the group are children of this process once the guard is dead.
    pub(super) async fn end_orphans(&self) -> io::Result<()> {
        let Some(group) = i32::try_from(self.identity.pid).ok().and_then(Pid::from_raw) else {
            return Ok(());
        };
        loop {
            // This fails if only the dead guard is left in the group. The loop below finds other processes.
            let _ = kill_process_group(group, Signal::KILL);
            let mut left = false;
            process::each(&mut |process| {
                left |= process.group == self.identity.pid && !process.is_dead();
                Ok(())
            })?;
            // This comes after the loop over the group, which includes the guard: if the loop saw the guard dead, the guard has no children
            // any more.
            left |= orphans::kill(self.identity)?;
            if !left {
                return Ok(());
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// The host's end of the socket to a guard.
pub(super) struct GuardSocket {
    lines: Lines<BufReader<OwnedReadHalf>>,
    sender: OwnedWriteHalf,
}

impl GuardSocket {
    pub(super) fn on(socket: std::os::unix::net::UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (receiver, sender) = UnixStream::from_std(socket)?.into_split();
        Ok(Self { lines: BufReader::new(receiver).lines(), sender })
    }

    pub(super) async fn send(&mut self, line: &str) -> io::Result<()> {
        self.sender.write_all(format!("{line}\n").as_bytes()).await
    }

    /// Receives the guard's next message; `None` if the guard is gone.
    pub(super) async fn receive(&mut self) -> io::Result<Option<GuardMessage>> {
        match self.lines.next_line().await {
            Ok(Some(line)) => Ok(Some(serde_json::from_str(&line)?)),
            Ok(None) => Ok(None),
            // The guard died before it read the host's last line.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }
}
