//! Limits the bytes that a method may exchange with all servers together, with each server, and over each connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use replica::usage::Amount;
use replica::{Bytes, Level};

use crate::calls::Ongoing;
use crate::reporter::Reporter;

/// A limit of bytes.
#[derive(Debug)]
pub(super) struct Limit {
    bytes: Bytes,
    /// The setting of the limit, as messages name it.
    setting: String,
    /// The most that one allowance with this limit has spent.
    most: AtomicU64,
    /// Whether it was reported that an allowance is spent. All connections have the same limit, and a method may make many.
    is_reported: AtomicBool,
}

impl Limit {
    /// Makes a limit of `bytes`.
    pub(super) fn new(bytes: Bytes, setting: String) -> Arc<Self> {
        Arc::new(Self { bytes, setting, most: AtomicU64::new(0), is_reported: AtomicBool::new(false) })
    }

    /// Returns the most that one allowance has spent, at most the limit, and the limit.
    pub(super) fn used(&self) -> Amount {
        Amount::of(self.most.load(Ordering::Relaxed).min(self.bytes.0), self.bytes.0)
    }
}

/// The bytes that may be exchanged in one run, with one server or over one connection, and how many were.
#[derive(Debug)]
pub(super) struct Allowance {
    limit: Arc<Limit>,
    spent: AtomicU64,
}

/// A limit of bytes was exceeded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the method has sent and received more than {limit} ({setting})")]
pub(super) struct SpentAll {
    limit: Bytes,
    setting: String,
}

impl Allowance {
    /// Makes an allowance of which nothing is spent.
    pub(super) fn new(limit: Arc<Limit>) -> Self {
        Self { limit, spent: AtomicU64::new(0) }
    }

    /// Returns how many bytes were used up, at most the limit, and the limit.
    pub(super) fn used(&self) -> Amount {
        self.limit.used()
    }

    /// Returns how many bytes are left.
    fn left(&self) -> u64 {
        self.limit.bytes.0.saturating_sub(self.spent.load(Ordering::Relaxed))
    }

    fn spend(&self, bytes: u64) -> Result<(), SpentAll> {
        let spent = self.spent.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        self.limit.most.fetch_max(spent, Ordering::Relaxed);
        if spent > self.limit.bytes.0 {
            return Err(SpentAll { limit: self.limit.bytes, setting: self.limit.setting.clone() });
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
                if !allowance.limit.is_reported.swap(true, Ordering::Relaxed) {
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

    fn allowance(bytes: u64, setting: &str) -> Arc<Allowance> {
        Arc::new(Allowance::new(Limit::new(Bytes(bytes), setting.to_owned())))
    }

    #[test]
    fn each_connection_has_its_own_bytes_and_the_end_of_the_first_is_reported() {
        let (events, mut reported) = unbounded_channel();
        let reporter = Reporter::new("m", events);
        let limit = Limit::new(Bytes(10), "connection_bytes".to_owned());
        for moved in [4, 10] {
            let allowances = vec![Arc::new(Allowance::new(Arc::clone(&limit)))];
            let meter = Meter { allowances, reporter: reporter.clone(), call: Ongoing::default() };
            meter.count(Direction::In, moved).unwrap();
            assert!(limit.used().used >= moved as u64);
            assert!(meter.count(Direction::Out, 11 - moved).is_err());
            assert_eq!(limit.used(), Amount::of(10, 10));
        }
        assert!(reported.try_recv().is_ok() && reported.try_recv().is_err(), "not reported once");
    }

    #[test]
    fn bytes_are_counted_over_all_connections_and_the_end_is_reported_once() {
        let (events, mut reported) = unbounded_channel();
        let total = allowance(100, "network_bytes");
        let of_server = allowance(60, "bytes of a:1");
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
        assert_eq!(total.used(), Amount::of(100, 100));
        for _ in 0..5 {
            assert!(other.count(Direction::In, 1).unwrap_err().to_string().ends_with("(network_bytes)"));
        }
        let lines: Vec<_> = std::iter::from_fn(|| reported.try_recv().ok()).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(total.used(), Amount::of(100, 100));
    }

    #[test]
    fn a_method_that_moves_bytes_is_active() {
        let activity = Activity::default();
        let total = allowance(100, "network_bytes");
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
