//! Digests of files, computed while their bytes are written.

#[cfg(test)]
mod tests;

use std::fmt;

use sha1::Sha1;
use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};

use crate::error::{Error, Kind};
use crate::keys::Key;

/// An algorithm for the digest of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// CRC-32C; its value is four bytes, least significant first, as `backup_manifest` writes it.
    Crc32c,
    /// SHA-1.
    Sha1,
    /// SHA-224.
    Sha224,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// Returns the name of the algorithm for messages. `backup_manifest` uses the same name for each algorithm that it supports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32c => "CRC32C",
            Self::Sha1 => "SHA1",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        }
    }

    /// Returns the length of the algorithm's digests in bytes.
    pub const fn length(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Sha1 => 20,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The expected digest of a file's plain bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// The digest itself.
    pub value: Vec<u8>,
}

impl Digest {
    /// Checks that the value has the length of its algorithm's digests; no file could match a value of another length.
    ///
    /// # Errors
    /// `Invalid`, with both lengths.
    pub fn check_length(&self) -> Result<(), Error> {
        let (algorithm, given) = (self.algorithm, self.value.len());
        if given == algorithm.length() {
            return Ok(());
        }
        Err(Error::new(
            Kind::Invalid,
            format!("a digest by {algorithm} has {} bytes, and this one has {given}", algorithm.length()),
        ))
    }
}

/// Writes the algorithm and the value in lower-case hexadecimal: `SHA1 0a4d55a8...`.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.algorithm)?;
        self.value.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Computes a [`Digest`], with the processor's instructions for the algorithm if it has any.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Crc32c(u32),
    Sha1(Sha1),
    Sha224(Sha224),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    /// Starts a digest.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Crc32c => State::Crc32c(0),
            Algorithm::Sha1 => State::Sha1(Sha1::new()),
            Algorithm::Sha224 => State::Sha224(Sha224::new()),
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha384 => State::Sha384(Sha384::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Crc32c(sum) => *sum = crc32c::crc32c_append(*sum, bytes),
            State::Sha1(state) => state.update(bytes),
            State::Sha224(state) => state.update(bytes),
            State::Sha256(state) => state.update(bytes),
            State::Sha384(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// Adds the exact JSON text of a derived key, without its quotes. A plugin needs this for the checksum of a text in which it sees only
    /// the blanked key.
    ///
    /// The digest lets a plugin test guesses of the key offline. That is harmless for a long random key, but not for a word that a person
    /// chose. So a key that the operator granted is refused.
    ///
    /// # Errors
    /// `Denied` for a granted key, and for CRC-32C, whose value would reveal bits of the key. Then nothing is added.
    pub fn secret(&mut self, key: &Key) -> Result<(), Error> {
        let why = match (key.json(), &self.0) {
            (Some(_), State::Crc32c(_)) => "which CRC32C does not hide",
            (Some(text), _) => {
                self.update(text.expose());
                return Ok(());
            }
            (None, _) => "which was granted by name and not derived",
        };
        Err(Error::new(Kind::Denied, format!("a digest over the key {}, {why}", key.name)))
    }

    /// Returns the digest of all bytes that were added.
    pub fn finish(self) -> Digest {
        let (algorithm, value) = match self.0 {
            State::Crc32c(sum) => (Algorithm::Crc32c, sum.to_le_bytes().to_vec()),
            State::Sha1(state) => (Algorithm::Sha1, state.finalize().to_vec()),
            State::Sha224(state) => (Algorithm::Sha224, state.finalize().to_vec()),
            State::Sha256(state) => (Algorithm::Sha256, state.finalize().to_vec()),
            State::Sha384(state) => (Algorithm::Sha384, state.finalize().to_vec()),
            State::Sha512(state) => (Algorithm::Sha512, state.finalize().to_vec()),
        };
        Digest { algorithm, value }
    }
}
