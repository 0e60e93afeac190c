//! Stopping when told to.

use std::io::{self, Read};

use crate::{Failure, host};

/// Whether the host asked the method to stop. Costs well below a microsecond.
pub fn is_cancelled() -> bool {
    host::cancel_requested()
}

/// For a loop: `cancelled()?` ends it when the host asked the method to stop. A method that never asks is ended by force.
///
/// # Errors
/// [`Failure::Cancelled`].
pub fn cancelled() -> Result<(), Failure> {
    if is_cancelled() { Err(Failure::Cancelled) } else { Ok(()) }
}

/// How many bytes are read between two looks.
const STEP: usize = 1 << 20;

/// Reads through to another reader until the host asks the method to stop; then reading fails with [`Failure::Cancelled`],
/// which [`crate::AtPath::at`] and `?` bring back out of the [`io::Error`]. Looks once every MiB.
#[derive(Debug)]
pub struct UntilCancelled<R> {
    inner: R,
    since: usize,
}

impl<R> UntilCancelled<R> {
    /// Reads through to `inner`.
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
