//! Decrypts what backup tools write: the formats of `openssl enc`, AES-256-CBC with a pass phrase, libsodium's secretstream, and OpenPGP
//! messages.
//!
//! In OpenSSL's formats the key is derived from the pass phrase and eight bytes of salt by EVP_BytesToKey(3) with one round. The last block is padded as
//! in PKCS#7 (RFC 5652, section 6.3). There is no checksum, and valid padding proves little: only a digest of the plain bytes
//! verifies them.

mod openpgp;
mod secretstream;
#[cfg(test)]
mod tests;

use std::io::{self, Read};

use aes::Aes256;
use cbc::Decryptor;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit, array::Array};
use sha1::{Digest, Sha1};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::codec::Windows;
use crate::error::{Error, Kind};
use crate::keys::Key;
use crate::sink::read_full;
pub use openpgp::OpenPgpKey;
use secretstream::KeyText;

/// The format of encrypted bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CipherFormat {
    /// `Salted__` and eight bytes of salt, key by EVP_BytesToKey with one round of SHA-1: `openssl enc -md sha1`.
    OpensslSha1,
    /// `Salted__` and eight bytes of salt, key by EVP_BytesToKey with one round of SHA-256: `openssl enc` since 1.1.0.
    OpensslSha256,
    /// The eight bytes of salt without `Salted__`, otherwise the same as [`CipherFormat::OpensslSha1`]: for many small files in one object.
    SaltOnlySha1,
    /// libsodium's secretstream in messages of 8192 bytes. The key is the first 32 bytes of the operator's text.
    Secretstream,
    /// As [`CipherFormat::Secretstream`]; the operator's text is the key in hexadecimal.
    SecretstreamHex,
    /// As [`CipherFormat::Secretstream`]; the operator's text is the key in base64.
    SecretstreamBase64,
    /// A binary message of OpenPGP (RFC 9580, RFC 4880) for a public key, protected against modification. The operator's key is a secret key.
    OpenPgp,
}

/// A format of OpenSSL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Openssl {
    Sha1,
    Sha256,
    SaltOnlySha1,
}

/// The beginning of OpenSSL's formats.
const MAGIC: &[u8; 8] = b"Salted__";

/// The size of an AES block in bytes.
const BLOCK: usize = 16;

/// How many bytes are decrypted at once at first, because most files are small.
const FIRST_BUFFER: usize = 16 << 10;

/// How many bytes are decrypted at once after that.
const LATER_BUFFER: usize = 256 << 10;

/// Returns a reader of the plain bytes of `stored`. It fails with `Corrupt` (an [`Error`] within the [`io::Error`]) if the data are
/// wrong, with `Invalid` if the key is not one for this format, and passes errors of `stored` on unchanged. A reader that has failed returns
/// the same error again. The reader charges large buffers to `windows`.
pub(crate) fn decrypt(
    stored: Box<dyn Read + Send>,
    key: &Key,
    format: CipherFormat,
    windows: &Windows,
) -> Box<dyn Read + Send> {
    let format = match format {
        CipherFormat::OpensslSha1 => Openssl::Sha1,
        CipherFormat::OpensslSha256 => Openssl::Sha256,
        CipherFormat::SaltOnlySha1 => Openssl::SaltOnlySha1,
        CipherFormat::Secretstream => return secretstream::decrypt(stored, key, KeyText::Plain),
        CipherFormat::SecretstreamHex => return secretstream::decrypt(stored, key, KeyText::Hex),
        CipherFormat::SecretstreamBase64 => return secretstream::decrypt(stored, key, KeyText::Base64),
        CipherFormat::OpenPgp => return openpgp::decrypt(stored, key, windows),
    };
    Box::new(Decrypting {
        source: stored,
        key: key.clone(),
        format,
        cipher: None,
        buffer: Vec::new(),
        start: 0,
        end: 0,
        held: None,
        ended: false,
        failed: None,
    })
}

struct Decrypting {
    source: Box<dyn Read + Send>,
    key: Key,
    format: Openssl,
    /// `None` until the salt has been read.
    cipher: Option<Decryptor<Aes256>>,
    /// Space for the block that was held back, followed by the bytes that were read and are decrypted in place.
    buffer: Vec<u8>,
    /// The range of the buffer that is plain and not returned yet.
    start: usize,
    end: usize,
    /// The last plain block so far, held back because it contains the padding if nothing follows it.
    held: Option<[u8; BLOCK]>,
    ended: bool,
    failed: Option<Error>,
}

impl Decrypting {
    /// Reads the salt and derives the key.
    fn begin(&mut self) -> io::Result<Decryptor<Aes256>> {
        let mut header = [0; 16];
        let header = match self.format {
            Openssl::Sha1 | Openssl::Sha256 => &mut header[..],
            Openssl::SaltOnlySha1 => &mut header[8..],
        };
        let read = read_full(&mut self.source, header)?;
        let Some((magic, salt)) = header.split_last_chunk::<8>() else { return Err(self.truncated().into()) };
        if !magic.is_empty() && !magic.starts_with(&MAGIC[..read.min(8)]) {
            return Err(Error::new(
                Kind::Corrupt,
                "the stored bytes do not begin with `Salted__`: they are not encrypted, or in another format",
            )
            .into());
        }
        if read < magic.len() + salt.len() {
            return Err(self.truncated().into());
        }
        let pass = self.key.text()?.expose();
        let derived = match self.format {
            Openssl::Sha256 => bytes_to_key::<Sha256>(pass, salt),
            Openssl::Sha1 | Openssl::SaltOnlySha1 => bytes_to_key::<Sha1>(pass, salt),
        };
        let (key, iv) = derived.split_at(32);
        Decryptor::new_from_slices(key, &iv[..BLOCK])
            .map_err(|error| Error::new(Kind::Failed, format!("AES-256 cannot be set up: {error}")).into())
    }

    /// Reads and decrypts the next bytes.
    fn refill(&mut self) -> io::Result<()> {
        let mut cipher = match self.cipher.take() {
            Some(cipher) => cipher,
            None => self.begin()?,
        };
        let size = if self.buffer.is_empty() { FIRST_BUFFER } else { LATER_BUFFER };
        if self.buffer.len() < BLOCK + size {
            self.buffer = vec![0; BLOCK + size];
        }
        let read = read_full(&mut self.source, &mut self.buffer[BLOCK..])?;
        let (blocks, rest) = Array::slice_as_chunks_mut(&mut self.buffer[BLOCK..BLOCK + read]);
        if !rest.is_empty() {
            return Err(self.truncated().into());
        }
        cipher.decrypt_blocks(blocks);
        self.cipher = Some(cipher);
        (self.start, self.end) = (BLOCK, BLOCK + read);
        if let Some(held) = self.held.take() {
            self.buffer[..BLOCK].copy_from_slice(&held);
            self.start = 0;
        }
        let Some(&last) = self.buffer[self.start..self.end].last_chunk::<BLOCK>() else {
            return Err(self.truncated().into());
        };
        if BLOCK + read < self.buffer.len() {
            self.end -= self.padding(&last)?;
            self.ended = true;
        } else {
            self.held = Some(last);
            self.end -= BLOCK;
        }
        Ok(())
    }

    /// Returns how many bytes of the last block are padding.
    fn padding(&self, last: &[u8; BLOCK]) -> Result<usize, Error> {
        let length = usize::from(last[BLOCK - 1]);
        if (1..=BLOCK).contains(&length)
            && last[BLOCK - length..].iter().all(|&byte| usize::from(byte) == length)
        {
            return Ok(length);
        }
        Err(Error::new(
            Kind::Corrupt,
            format!(
                "the text decrypted with the key `{}` does not end with valid padding: the key is wrong, or the stored bytes are \
                 damaged",
                self.key.name
            ),
        ))
    }

    fn truncated(&self) -> Error {
        Error::new(
            Kind::Corrupt,
            "the stored bytes end within an AES block: they are truncated, or not encrypted in this format",
        )
    }
}

impl Read for Decrypting {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        while self.start == self.end && !self.ended && !output.is_empty() {
            self.refill().inspect_err(|error| {
                (self.start, self.end) = (0, 0);
                self.failed = Some(Error::again(error));
            })?;
        }
        let length = output.len().min(self.end - self.start);
        output[..length].copy_from_slice(&self.buffer[self.start..self.start + length]);
        self.start += length;
        Ok(length)
    }
}

/// Derives 32 bytes of key and 16 bytes of initialisation vector with one round of EVP_BytesToKey(3).
fn bytes_to_key<D: Digest>(pass: &[u8], salt: &[u8]) -> Zeroizing<Vec<u8>> {
    // The vector never grows, so no copy of the key stays in memory.
    let mut derived = Zeroizing::new(Vec::with_capacity(128));
    let mut before = 0..0;
    while derived.len() < 48 {
        let digest =
            D::new().chain_update(&derived[before.clone()]).chain_update(pass).chain_update(salt).finalize();
        before = derived.len()..derived.len() + digest.len();
        derived.extend_from_slice(&digest);
    }
    derived
}
