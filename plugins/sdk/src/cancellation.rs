//! Stops a method when the run is cancelled.

use std::io::{self, Read};

use crate::{Failure, host};

/// Returns whether the run is being cancelled. A call takes far less than a microsecond.
pub fn is_cancelled() -> bool {
    host::cancel_requested()
}

/// Fails if the run is being cancelled, so `cancelled()?` ends a loop. If a method never checks, the host ends
/// it by force.
///
/// ```
/// # fn copy(_name: &str) -> Result<(), understudy::Failure> { Ok(()) }
/// for name in ["base/5/1259", "base/5/1249"] {
///     understudy::cancelled()?;
///     copy(name)?;
/// }
/// # Ok::<(), understudy::Failure>(())
/// ```
///
/// # Errors
/// [`Failure::Cancelled`].
pub fn cancelled() -> Result<(), Failure> {
    if is_cancelled() { Err(Failure::Cancelled) } else { Ok(()) }
}

/// Turns any failure after a cancellation into [`Failure::Cancelled`]: a cancelled read may fail with another error.
///
/// # Errors
/// The failure of `result`, or [`Failure::Cancelled`].
pub fn or_cancelled<T>(result: Result<T, Failure>) -> Result<T, Failure> {
    result.map_err(|failure| if is_cancelled() { Failure::Cancelled } else { failure })
}

/// How many bytes are read between two checks for cancellation.
const STEP: usize = 1 << 20;

/// A reader that passes reads through to another reader until the run is cancelled. Then reading fails with [`Failure::Cancelled`], which
/// [`crate::AtPath::at`] and `?` extract from the [`io::Error`]. The reader checks for cancellation once every MiB.
///
/// ```
/// use std::io::Read;
/// use understudy::{AtPath, Failure, UntilCancelled};
///
/// fn count(path: &str) -> Result<usize, Failure> {
///     let mut bytes = Vec::new();
///     UntilCancelled::new(std::fs::File::open(path).at(path)?).read_to_end(&mut bytes).at(path)
/// }
/// ```
#[derive(Debug)]
pub struct UntilCancelled<R> {
    inner: R,
    since: usize,
}

impl<R> UntilCancelled<R> {
    /// Wraps `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, since: 0 }
    }
}

impl<R: Read> Read for UntilCancelled<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.since >= STEP {
            self.since = 0;
            cancelled()?;
        }
        let read = self.inner.read(into)?;
        self.since += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::Host;

    #[test]
    fn an_endless_reader_ends_within_a_mebibyte_of_the_cancellation() {
        let (result, _) = Host::new("/data").cancel_after(2).run(|| {
            let mut read = 0;
            let mut reader = UntilCancelled::new(io::repeat(0));
            let mut buffer = vec![0; 64 << 10];
            loop {
                match reader.read(&mut buffer) {
                    Ok(count) => read += count,
                    Err(error) => return (read, Failure::from(error)),
                }
            }
        });
        assert_eq!(result, (3 << 20, Failure::Cancelled));
    }
}
