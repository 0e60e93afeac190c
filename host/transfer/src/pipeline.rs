//! How stored bytes become plain bytes: decrypt, then decompress.

use std::io::Read;

use crate::budget::{PIECE, Room};
use crate::cipher::CipherFormat;
use crate::codec::Codec;
use crate::error::Error;
use crate::key_texts::{Blanking, Refusing, RefusingCompressed};
use crate::keys::Key;

/// Decryption and decompression of one origin. The default changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Pipeline {
    /// First.
    pub decrypt: Option<(Key, CipherFormat)>,
    /// Then.
    pub decompress: Option<Codec>,
}

impl Pipeline {
    /// What a copy of it takes on the heap: its key is copied with it.
    pub fn heap(&self) -> u64 {
        self.decrypt.as_ref().map_or(0, |(key, _)| key.heap() + 3 * PIECE)
    }

    /// Whether stored bytes are plain bytes already.
    pub fn is_plain(&self) -> bool {
        self.decrypt.is_none() && self.decompress.is_none()
    }

    /// Whether both decode in one way: with the same pass phrase, whatever it is called.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let with =
            |pipeline: &Self| pipeline.decrypt.as_ref().map(|(key, format)| (key.secret.clone(), *format));
        with(self) == with(other) && self.decompress == other.decompress
    }

    /// The plain bytes of `stored`. A stream that is truncated, damaged or goes on after its end is an error of kind
    /// `Corrupt` (inside the [`std::io::Error`]); to the very end means that every checksum of the codec was compared.
    ///
    /// A text that holds keys and that a key decrypts to its compressed form only is `Denied`: who reads it so could decompress it
    /// where nobody blanks anything.
    ///
    /// What the decoders need is taken from `room` before they need it.
    ///
    /// # Errors
    /// Where a decoder cannot be set up, or there is no room for it.
    pub fn decode(&self, stored: Box<dyn Read + Send>, room: &Room) -> Result<Box<dyn Read + Send>, Error> {
        let decrypted = match &self.decrypt {
            Some((key, format)) => crate::cipher::decrypt(stored, key, *format),
            None => stored,
        };
        match self.decompress {
            Some(codec) => codec.decode_within(decrypted, room),
            None if self.decrypt.is_some() => Ok(Box::new(RefusingCompressed::new(decrypted))),
            None => Ok(decrypted),
        }
    }

    /// The same for a plugin to read: in what a key decrypts, the keys are blanked that a text holds.
    ///
    /// # Errors
    /// As [`Pipeline::decode`].
    pub fn decode_to_read(
        &self,
        stored: Box<dyn Read + Send>,
        room: &Room,
    ) -> Result<Box<dyn Read + Send>, Error> {
        let plain = self.decode(stored, room)?;
        Ok(match self.decrypt {
            Some(_) => Box::new(Blanking::new(plain)),
            None => plain,
        })
    }

    /// The same for a file that is kept where others read it. What a key decrypts may itself be a text that holds keys: none of
    /// them belongs into a data directory, and each is an error of kind `Denied`.
    ///
    /// # Errors
    /// As [`Pipeline::decode`].
    pub fn decode_to_keep(
        &self,
        stored: Box<dyn Read + Send>,
        room: &Room,
    ) -> Result<Box<dyn Read + Send>, Error> {
        let plain = self.decode(stored, room)?;
        Ok(match self.decrypt {
            Some(_) => Box::new(Refusing::new(plain)),
            None => plain,
        })
    }
}
