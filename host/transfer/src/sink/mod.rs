//! Where bytes are written: files below opened directories, and bounded buffers.

pub(crate) mod destination;
pub(crate) mod directories;
pub(crate) mod file;
pub(crate) mod ring;
pub(crate) mod scattered;

use std::io::{self, Read};

use crate::error::{Error, Kind};

/// How many bytes a worker reads and writes at once: few enough to stay in the processor's cache while they are read, hashed and
/// written.
pub const BUFFER: usize = 256 << 10;

/// How many bytes a companion reads ahead of its worker.
pub const RING: usize = 8 * BUFFER;

/// Reads `from` to its end into memory.
///
/// # Errors
/// `Limit` if `from` has more than `limit` bytes (at most `limit` + 1 bytes are read); errors of `from`.
pub fn read_bounded(from: impl Read, limit: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    from.take((limit as u64).saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(Error::new(
            Kind::Limit,
            format!("it has more than the {limit} bytes that were requested"),
        ));
    }
    Ok(bytes)
}

/// Fills `buffer` until it is full or `from` ends, and returns how many bytes were read.
///
/// # Errors
/// Errors of `from`.
pub(crate) fn read_full(from: &mut (impl Read + ?Sized), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_into_memory_is_bounded() {
        assert_eq!(read_bounded(&b"abc"[..], 3).unwrap(), b"abc");
        assert_eq!(read_bounded(io::repeat(0), 1000).unwrap_err().kind, Kind::Limit);
        assert_eq!(read_bounded(&b"a"[..], 0).unwrap_err().kind, Kind::Limit);
    }
}
