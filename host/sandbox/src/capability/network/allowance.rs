//! Bytes that a method may send and receive: of all servers together, and of one server.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use replica::{Bytes, Level};

use crate::reporter::Reporter;

/// A number of bytes that is used up once.
#[derive(Debug)]
pub(super) struct Allowance {
    limit: Bytes,
    spent: AtomicU64,
    /// The setting of the limit, in the words of a message.
    setting: String,
    is_reported: AtomicBool,
}

/// A limit of bytes was reached.
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

    fn spend(&self, bytes: u64) -> Result<(), SpentAll> {
        let spent = self.spent.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if spent > self.limit.0 {
            return Err(SpentAll { limit: self.limit, setting: self.setting.clone() });
        }
        Ok(())
    }
}

/// Counts the bytes of one connection.
#[derive(Clone)]
pub(super) struct Meter {
    pub(super) allowances: Vec<Arc<Allowance>>,
    pub(super) reporter: Reporter,
}

impl Meter {
    /// Counts bytes that were moved.
    ///
    /// # Errors
    /// An error that holds [`SpentAll`] once a limit is passed. The first one is reported.
    pub(super) fn count(&self, bytes: usize) -> io::Result<()> {
        for allowance in &self.allowances {
            if let Err(spent) = allowance.spend(bytes as u64) {
                if !allowance.is_reported.swap(true, Ordering::Relaxed) {
                    self.reporter.host(Level::Warn, &spent.to_string());
                }
                return Err(io::Error::other(spent));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn bytes_are_counted_over_all_connections_and_the_end_is_reported_once() {
        let (events, mut reported) = unbounded_channel();
        let total = Arc::new(Allowance::new(Bytes(100), "network_bytes".to_owned()));
        let of_server = Arc::new(Allowance::new(Bytes(60), "bytes of a:1".to_owned()));
        let reporter = Reporter::new("m", events);
        let both = Meter { allowances: vec![Arc::clone(&total), of_server], reporter: reporter.clone() };
        let other = Meter { allowances: vec![total], reporter };
        both.count(60).unwrap();
        let error = both.clone().count(1).unwrap_err();
        assert_eq!(error.to_string(), "the method has sent and received more than 60 B (bytes of a:1)");
        // What went beyond the limit of one server counts for all.
        other.count(39).unwrap();
        for _ in 0..5 {
            assert!(other.count(1).unwrap_err().to_string().ends_with("(network_bytes)"));
        }
        let lines: Vec<_> = std::iter::from_fn(|| reported.try_recv().ok()).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
    }
}
