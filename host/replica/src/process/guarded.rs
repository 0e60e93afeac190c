//! A guard as the host sees it.

use std::io;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{Child, ChildStderr, ChildStdout};

use super::order::Word;
use crate::state::{ProcessStamp, process};

/// How often processes whose guard died are looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// A guard that stands.
pub(super) struct Guarded {
    pub(super) child: Child,
    pub(super) stamp: ProcessStamp,
    pub(super) words: Words,
    pub(super) output: (Option<ChildStdout>, Option<ChildStderr>),
    pub(super) landlock: u32,
}

impl Guarded {
    /// Waits until the guard is gone; a program that has not started it does not start any more.
    pub(super) async fn see_off(mut self) -> io::Result<()> {
        drop(self.words);
        self.child.wait().await.map(drop)
    }

    /// The guard is dead, and its program with it: kills what they started. The guard is not reaped yet, so that its
    /// number still means its group.
    pub(super) async fn end_group(&self) -> io::Result<()> {
        let Some(group) = i32::try_from(self.stamp.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
        loop {
            // Only the dead guard may be left in the group; what else is, the next look tells.
            let _ = kill_process_group(group, Signal::KILL);
            let mut left = false;
            process::each(&mut |process| {
                left |= process.group == self.stamp.pid && !process.is_dead();
                Ok(())
            })?;
            if !left {
                return Ok(());
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// The host's end of the socket to a guard.
pub(super) struct Words {
    lines: Lines<BufReader<OwnedReadHalf>>,
    sender: OwnedWriteHalf,
}

impl Words {
    pub(super) fn on(socket: std::os::unix::net::UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (receiver, sender) = UnixStream::from_std(socket)?.into_split();
        Ok(Self { lines: BufReader::new(receiver).lines(), sender })
    }

    pub(super) async fn say(&mut self, line: &str) -> io::Result<()> {
        self.sender.write_all(format!("{line}\n").as_bytes()).await
    }

    /// The guard's next word; none where it is gone.
    pub(super) async fn next(&mut self) -> io::Result<Option<Word>> {
        match self.lines.next_line().await {
            Ok(Some(line)) => Ok(Some(serde_json::from_str(&line)?)),
            Ok(None) => Ok(None),
            // It died with our words unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }
}
