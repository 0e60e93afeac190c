//! Digests of files, computed while the bytes pass.

/// How a file is checked.
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

/// What a file's plain bytes must come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// By which rule.
    pub algorithm: Algorithm,
    /// The digest itself.
    pub value: Vec<u8>,
}
