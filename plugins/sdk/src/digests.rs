//! Digests, computed by the host with processor instructions that a component cannot use.
//!
//! ```
//! use understudy::digests::{Algorithm, Hasher};
//!
//! let mut hasher = Hasher::new(Algorithm::Sha1);
//! hasher.update(b"abc");
//! # #[cfg(not(target_family = "wasm"))]
//! assert_eq!(hasher.finish()[..4], [0xa9, 0x99, 0x3e, 0x36]);
//! ```

use crate::Error;
use crate::host::data;
use crate::keys::Key;

pub use crate::raw::understudy::method::digests::{Algorithm, Digest};

/// How many bytes go to the host in one call.
const MOST: usize = 1 << 20;

/// Computes the digest of bytes that come in pieces.
pub struct Hasher(data::Hasher);

impl Hasher {
    /// Begins a digest.
    pub fn new(by: Algorithm) -> Self {
        Self(data::Hasher::new(by))
    }

    /// Adds the next bytes. Each call has a cost, so pass some kilobytes at a time.
    pub fn update(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(MOST) {
            self.0.update(piece);
        }
    }

    /// Adds the bytes of `key`, which the method reads as `*`, for a checksum of a text that contains the key.
    ///
    /// # Errors
    /// [`Error::Denied`] if the key was granted rather than derived, or if the algorithm is CRC-32C.
    pub fn secret(&mut self, key: &Key) -> Result<(), Error> {
        Ok(self.0.secret(&key.0)?)
    }

    /// Returns the digest of all bytes so far.
    pub fn finish(&self) -> Vec<u8> {
        self.0.finish()
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_does_not_depend_on_the_pieces() {
        let text = vec![7; 3 * MOST / 2];
        let all = [
            Algorithm::Crc32c,
            Algorithm::Sha1,
            Algorithm::Sha224,
            Algorithm::Sha256,
            Algorithm::Sha384,
            Algorithm::Sha512,
        ];
        for (by, length) in all.into_iter().zip([4, 20, 28, 32, 48, 64]) {
            let (mut whole, mut pieces) = (Hasher::new(by), Hasher::new(by));
            whole.update(&text);
            text.chunks(1000).for_each(|piece| pieces.update(piece));
            assert_eq!(whole.finish(), pieces.finish());
            assert_eq!(whole.finish().len(), length);
        }
    }
}
