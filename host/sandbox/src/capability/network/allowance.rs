//! Limits the bytes that a method may exchange with all servers together, and with each server.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use replica::{Bytes, Level};

use crate::calls::Ongoing;
use crate::reporter::Reporter;

/// A limit of bytes for one run, and how much of it is used.
#[derive(Debug)]
pub(super) struct Allowance {
    limit: Bytes,
    spent: AtomicU64,
    /// The setting of the limit, as messages name it.
    setting: String,
    is_reported: AtomicBool,
}

/// A limit of bytes was exceeded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the method has sent and received more than {limit} ({setting})")]
pub(super) struct SpentAll {
    limit: Bytes,
    setting: String,
}

impl Allowance {
    /// Makes an allowance of `limit` bytes.
    pub(super) fn new(limit: Bytes, setting: String) -> Self {
        Self { limit, spent: AtomicU64::new(0), setting, is_reported: AtomicBool::new(false) }
    }

    /// Returns how many bytes were used up, at most the limit, and the limit.
    pub(super) fn spent(&self) -> (Bytes, Bytes) {
        (Bytes(self.spent.load(Ordering::Relaxed).min(self.limit.0)), self.limit)
    }

    /// Returns how many bytes are left.
    fn left(&self) -> u64 {
        self.limit.0.saturating_sub(self.spent.load(Ordering::Relaxed))
    }

    fn spend(&self, bytes: u64) -> Result<(), SpentAll> {
        let spent = self.spent.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if spent > self.limit.0 {
            return Err(SpentAll { limit: self.limit, setting: self.setting.clone() });
        }
        Ok(())
    }
}

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the server.
    In,
    /// To the server.
    Out,
}

/// Counts the bytes of one connection.
#[derive(Clone)]
pub(super) struct Meter {
    pub(super) allowances: Vec<Arc<Allowance>>,
    pub(super) reporter: Reporter,
    /// The record of the call that made the connection.
    pub(super) call: Ongoing,
}

impl Meter {
    /// Returns how many bytes may be moved before a limit is passed.
    pub(super) fn left(&self) -> usize {
        let least = self.allowances.iter().map(|allowance| allowance.left()).min();
        least.map_or(usize::MAX, |least| usize::try_from(least).unwrap_or(usize::MAX))
    }

    /// Counts bytes that were sent or received, or are about to be, and notes that the method is active.
    ///
    /// # Errors
    /// An error that holds [`SpentAll`] once a limit is passed. The first such error is reported.
    pub(super) fn count(&self, direction: Direction, bytes: usize) -> io::Result<()> {
        if bytes > 0 {
            self.reporter.activity().mark();
        }
        for allowance in &self.allowances {
            if let Err(spent) = allowance.spend(bytes as u64) {
                if !allowance.is_reported.swap(true, Ordering::Relaxed) {
                    self.reporter.host(Level::Warn, &spent.to_string());
                }
                self.call.fails("limit");
                return Err(io::Error::other(spent));
            }
        }
        match direction {
            Direction::In => self.call.received(bytes),
            Direction::Out => self.call.sent(bytes),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use replica::run::Activity;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn bytes_are_counted_over_all_connections_and_the_end_is_reported_once() {
        let (events, mut reported) = unbounded_channel();
        let total = Arc::new(Allowance::new(Bytes(100), "network_bytes".to_owned()));
        let of_server = Arc::new(Allowance::new(Bytes(60), "bytes of a:1".to_owned()));
        let reporter = Reporter::new("m", events);
        let call = Ongoing::default();
        let both = Meter {
            allowances: vec![Arc::clone(&total), of_server],
            reporter: reporter.clone(),
            call: call.clone(),
        };
        let other = Meter { allowances: vec![Arc::clone(&total)], reporter, call };
        both.count(Direction::Out, 60).unwrap();
        let error = both.clone().count(Direction::In, 1).unwrap_err();
        assert_eq!(error.to_string(), "the method has sent and received more than 60 B (bytes of a:1)");
        // Bytes beyond the limit of one server count towards the limit of all servers.
        other.count(Direction::In, 39).unwrap();
        assert_eq!(total.spent(), (Bytes(100), Bytes(100)));
        for _ in 0..5 {
            assert!(other.count(Direction::In, 1).unwrap_err().to_string().ends_with("(network_bytes)"));
        }
        let lines: Vec<_> = std::iter::from_fn(|| reported.try_recv().ok()).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(total.spent(), (Bytes(100), Bytes(100)));
    }

    #[test]
    fn a_method_that_moves_bytes_is_active() {
        let activity = Activity::default();
        let total = Arc::new(Allowance::new(Bytes(100), "network_bytes".to_owned()));
        let reporter = Reporter::new("m", unbounded_channel().0).noting(&activity);
        let meter = Meter { allowances: vec![total], reporter, call: Ongoing::default() };
        while activity.idle() < Duration::from_millis(20) {
            std::hint::spin_loop();
        }
        meter.count(Direction::In, 0).unwrap();
        assert!(activity.idle() >= Duration::from_millis(20), "no byte was moved");
        let before = activity.idle();
        meter.count(Direction::In, 1).unwrap();
        assert!(activity.idle() < before);
    }
}
