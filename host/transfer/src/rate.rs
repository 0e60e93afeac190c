//! Limits the bytes per second of everything that shares a [`Rate`].

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use foundation::units::Bytes;

/// How much may be read at once after a pause: as many bytes as the rate allows in this time.
const BURST: Duration = Duration::from_millis(100);

/// The smallest burst in bytes, so that a low rate does not lead to many tiny reads.
const LEAST_BURST: u64 = 64 << 10;

/// The longest wait for one call of `take` in seconds: a year, which keeps `Instant` in its range.
const LONGEST_WAIT: f64 = 31_536_000.0;

/// A limit of bytes per second. A caller that takes more than the burst waits afterwards. In any time `t` after a pause, at most `rate * t`
/// bytes plus one burst and one `take` pass.
#[derive(Debug)]
pub struct Rate {
    bytes_a_second: u64,
    burst: Duration,
    /// The time at which all bytes taken so far conform to the rate; never earlier than one burst ago.
    paid: Mutex<Option<Instant>>,
}

impl Rate {
    /// Makes a limit of `a_second` bytes per second. Zero counts as one.
    pub fn new(a_second: Bytes) -> Self {
        let bytes_a_second = a_second.0.max(1);
        let least = Duration::from_secs_f64(LEAST_BURST as f64 / bytes_a_second as f64);
        // Without the second, the smallest burst would take hours at a rate of a few bytes per second.
        Self { bytes_a_second, burst: BURST.max(least.min(Duration::from_secs(1))), paid: Mutex::new(None) }
    }

    /// Returns the limit.
    pub fn a_second(&self) -> Bytes {
        Bytes(self.bytes_a_second)
    }

    /// Takes `bytes` and waits until they conform to the rate. They count even if the caller stops waiting.
    pub async fn take(&self, bytes: u64) {
        let now = Instant::now();
        let wait = self.reserve(bytes, now);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes `bytes` and returns how long the caller must wait.
    fn reserve(&self, bytes: u64, now: Instant) -> Duration {
        let cost = Duration::from_secs_f64((bytes as f64 / self.bytes_a_second as f64).min(LONGEST_WAIT));
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let full = now.checked_sub(self.burst).unwrap_or(now);
        let after = paid.map_or(full, |paid| paid.max(full)) + cost;
        *paid = Some(after);
        after.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A clock that advances only by waiting.
    struct Clock(Instant);

    impl Clock {
        fn take(&mut self, rate: &Rate, bytes: u64) {
            self.0 += rate.reserve(bytes, self.0);
        }
    }

    #[test]
    fn many_takes_together_stay_below_the_rate() {
        let rate = Rate::new(Bytes(10 * MIB));
        let start = Instant::now();
        // Eight callers at once, each with its own clock.
        let mut takers: Vec<Clock> = (0..8).map(|_| Clock(start)).collect();
        for _ in 0..50 {
            // The caller that has waited the least is next.
            takers.sort_by_key(|taker| taker.0);
            takers.iter_mut().for_each(|taker| taker.take(&rate, MIB / 4));
        }
        // 100 MiB at 10 MiB/s, less the burst of a tenth of a second.
        let took = takers.iter().map(|taker| taker.0 - start).max().unwrap();
        assert!(took >= Duration::from_millis(9_890) && took <= Duration::from_millis(10_000), "{took:?}");
    }

    #[test]
    fn a_long_pause_allows_no_more_than_the_burst_at_once() {
        let rate = Rate::new(Bytes(10 * MIB));
        let mut clock = Clock(Instant::now());
        clock.take(&rate, MIB);
        clock.0 += Duration::from_secs(3600);
        let start = clock.0;
        clock.take(&rate, MIB);
        assert!(clock.0 - start <= Duration::from_millis(1), "{:?}", clock.0 - start);
        clock.take(&rate, 10 * MIB);
        assert!(clock.0 - start >= Duration::from_millis(990), "{:?}", clock.0 - start);
    }

    #[test]
    fn a_take_larger_than_the_burst_is_waited_for_and_no_more() {
        let rate = Rate::new(Bytes(MIB));
        let start = Instant::now();
        let mut clock = Clock(start);
        clock.take(&rate, 5 * MIB);
        let took = clock.0 - start;
        assert!(took >= Duration::from_millis(4_890) && took <= Duration::from_secs(5), "{took:?}");
    }

    #[test]
    fn no_rate_and_no_take_is_too_small_or_too_large() {
        let start = Instant::now();
        assert!(Rate::new(Bytes(0)).reserve(3, start) <= Duration::from_secs(3));
        assert_eq!(Rate::new(Bytes(u64::MAX)).reserve(u64::MAX / 2, start).as_secs(), 0);
        assert!(Rate::new(Bytes(1)).reserve(u64::MAX, start) <= Duration::from_secs_f64(LONGEST_WAIT));
    }

    #[tokio::test]
    async fn a_take_really_waits() {
        let rate = Rate::new(Bytes(MIB));
        let start = Instant::now();
        rate.take(MIB / 4).await;
        assert!(start.elapsed() >= Duration::from_millis(140), "{:?}", start.elapsed());
    }
}
