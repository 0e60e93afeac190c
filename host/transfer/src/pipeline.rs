//! Turns stored bytes into plain bytes: decrypts, then decompresses.

use std::io::Read;

use crate::budget::{ALLOCATION_OVERHEAD, MemoryAllowance};
use crate::cipher::CipherFormat;
use crate::codec::{Codec, Windows};
use crate::error::Error;
use crate::key_texts::{Blanking, Refusing, RefusingCompressed};
use crate::keys::Key;

/// The decryption and decompression of one origin. The default does neither.
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    /// The key and format of the decryption, the first step.
    pub decrypt: Option<(Key, CipherFormat)>,
    /// The codec of the decompression, the second step.
    pub decompress: Option<Codec>,
}

impl Pipeline {
    /// Returns how many bytes a clone takes on the heap, its key included.
    pub fn heap(&self) -> u64 {
        self.decrypt.as_ref().map_or(0, |(key, _)| key.heap() + 3 * ALLOCATION_OVERHEAD)
    }

    /// Returns whether the pipeline changes nothing.
    pub fn is_plain(&self) -> bool {
        self.decrypt.is_none() && self.decompress.is_none()
    }

    /// Returns whether both pipelines decode in the same way. Ignores the names of their keys.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let with =
            |pipeline: &Self| pipeline.decrypt.as_ref().map(|(key, format)| (key.secret().clone(), *format));
        with(self) == with(other) && self.decompress == other.decompress
    }

    /// Returns a reader of the plain bytes of `stored`. It fails with `Corrupt` (inside the [`std::io::Error`]) if the stream is
    /// truncated or damaged, or if bytes follow its end. When it reaches the end, every checksum of the codec has been compared.
    ///
    /// The reader fails with `Denied` if the pipeline only decrypts, and the decrypted bytes are a compressed text that holds keys: a
    /// plugin could decompress the text itself and see the keys.
    ///
    /// The decoders charge their memory to `allowance` before they allocate it.
    ///
    /// # Errors
    /// Fails if a decoder cannot be set up, or `allowance` has too little memory for it.
    pub fn decode(
        &self,
        stored: Box<dyn Read + Send>,
        allowance: &MemoryAllowance,
    ) -> Result<Box<dyn Read + Send>, Error> {
        let windows = Windows::new(allowance);
        let decrypted = match &self.decrypt {
            Some((key, format)) => crate::cipher::decrypt(stored, key, *format, &windows),
            None => stored,
        };
        match self.decompress {
            Some(codec) => codec.decode_with(decrypted, &windows),
            None if self.decrypt.is_some() => Ok(Box::new(RefusingCompressed::new(decrypted))),
            None => Ok(decrypted),
        }
    }

    /// Returns a reader of the plain bytes for a plugin. If the pipeline decrypts, keys in the text are blanked.
    ///
    /// # Errors
    /// The errors of [`Pipeline::decode`].
    pub fn decode_to_read(
        &self,
        stored: Box<dyn Read + Send>,
        allowance: &MemoryAllowance,
    ) -> Result<Box<dyn Read + Send>, Error> {
        let plain = self.decode(stored, allowance)?;
        Ok(match self.decrypt {
            Some(_) => Box::new(Blanking::new(plain)),
            None => plain,
        })
    }

    /// Returns a reader of the plain bytes for a file in the data directory, which others can read. If the pipeline decrypts a text
    /// that holds keys, the reader fails with `Denied`: no such text belongs in a data directory.
    ///
    /// # Errors
    /// The errors of [`Pipeline::decode`].
    pub fn decode_to_keep(
        &self,
        stored: Box<dyn Read + Send>,
        allowance: &MemoryAllowance,
    ) -> Result<Box<dyn Read + Send>, Error> {
        let plain = self.decode(stored, allowance)?;
        Ok(match self.decrypt {
            Some(_) => Box::new(Refusing::new(plain)),
            None => plain,
        })
    }
}
