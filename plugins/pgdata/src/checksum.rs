//! The checksums of files in a manifest (pg_basebackup's option `--manifest-checksums`).

use std::fmt;

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

/// The algorithm of a file's checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// CRC-32C, written as four bytes, least significant byte first.
    Crc32c,
    /// SHA-224
    Sha224,
    /// SHA-256
    Sha256,
    /// SHA-384
    Sha384,
    /// SHA-512
    Sha512,
}

impl Algorithm {
    /// Returns the algorithm that a manifest calls `name`; `None` if it is unknown.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "CRC32C" => Some(Self::Crc32c),
            "SHA224" => Some(Self::Sha224),
            "SHA256" => Some(Self::Sha256),
            "SHA384" => Some(Self::Sha384),
            "SHA512" => Some(Self::Sha512),
            _ => None,
        }
    }

    /// Returns the length of a checksum in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Crc32c => 4,
            Self::Sha224 => 28,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crc32c => "CRC32C",
            Self::Sha224 => "SHA224",
            Self::Sha256 => "SHA256",
            Self::Sha384 => "SHA384",
            Self::Sha512 => "SHA512",
        })
    }
}

/// Computes a checksum. Implemented by [`Summing`]. A caller can provide a faster implementation.
pub trait Digesting {
    /// Adds `bytes`.
    fn update(&mut self, bytes: &[u8]);

    /// Returns the bytes of the checksum, in the order in which a manifest writes them in hexadecimal.
    fn finish(self) -> Vec<u8>;
}

/// Computes a checksum in the component itself, without the host's help.
#[derive(Clone, Debug)]
pub struct Summing(Inner);

#[derive(Clone, Debug)]
enum Inner {
    Crc32c(u32),
    Sha224(Sha224),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Summing {
    /// Begins a checksum.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Crc32c => Inner::Crc32c(0),
            Algorithm::Sha224 => Inner::Sha224(Sha224::new()),
            Algorithm::Sha256 => Inner::Sha256(Sha256::new()),
            Algorithm::Sha384 => Inner::Sha384(Sha384::new()),
            Algorithm::Sha512 => Inner::Sha512(Sha512::new()),
        })
    }
}

impl Digesting for Summing {
    fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Inner::Crc32c(sum) => *sum = crc32c::crc32c_append(*sum, bytes),
            Inner::Sha224(sum) => sum.update(bytes),
            Inner::Sha256(sum) => sum.update(bytes),
            Inner::Sha384(sum) => sum.update(bytes),
            Inner::Sha512(sum) => sum.update(bytes),
        }
    }

    fn finish(self) -> Vec<u8> {
        match self.0 {
            Inner::Crc32c(sum) => sum.to_le_bytes().to_vec(),
            Inner::Sha224(sum) => sum.finalize().to_vec(),
            Inner::Sha256(sum) => sum.finalize().to_vec(),
            Inner::Sha384(sum) => sum.finalize().to_vec(),
            Inner::Sha512(sum) => sum.finalize().to_vec(),
        }
    }
}

/// Decodes hexadecimal digits; `None` if `text` contains other characters or an odd number of digits.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    digits.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_is_written_from_its_least_significant_byte() {
        let mut sum = Summing::new(Algorithm::Crc32c);
        sum.update(b"1");
        sum.update(b"5\n");
        assert_eq!(sum.finish(), from_hex("8a744722").unwrap());
    }

    #[test]
    fn every_algorithm_returns_the_number_of_bytes_that_it_declares() {
        for name in ["CRC32C", "SHA224", "SHA256", "SHA384", "SHA512"] {
            let algorithm = Algorithm::named(name).unwrap();
            assert_eq!(algorithm.to_string(), name);
            assert_eq!(Summing::new(algorithm).finish().len(), algorithm.size());
        }
        assert_eq!(Algorithm::named("NONE"), None);
    }

    #[test]
    fn only_pairs_of_hexadecimal_digits_are_read() {
        assert_eq!(from_hex("00fF"), Some(vec![0, 255]));
        for text in ["0", "0g", "+1", "\u{e9}"] {
            assert_eq!(from_hex(text), None, "{text}");
        }
    }
}
