//! How stored bytes become plain bytes: decrypt, then decompress.

use std::io::{self, Read};

use crate::cipher::CipherFormat;
use crate::codec::Codec;
use crate::error::{Error, Kind};
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
    /// Whether stored bytes are plain bytes already.
    pub fn is_plain(&self) -> bool {
        self.decrypt.is_none() && self.decompress.is_none()
    }

    /// The plain bytes of `stored`. A stream that is truncated, damaged or goes on after its end is an error of kind
    /// `Corrupt` (inside the [`std::io::Error`]); to the very end means that every checksum of the codec was compared.
    ///
    /// # Errors
    /// Where a decoder cannot be set up.
    pub fn decode(&self, stored: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>, Error> {
        let decrypted = match &self.decrypt {
            Some((key, format)) => crate::cipher::decrypt(stored, key, *format),
            None => stored,
        };
        match self.decompress {
            Some(codec) => codec.decode(decrypted),
            None => Ok(decrypted),
        }
    }

    /// The same for a file that is kept where others read it. What a key decrypts may itself be a text that holds keys: one of
    /// pgBackRest's, none of which belongs into a data directory, is an error of kind `Denied`.
    ///
    /// # Errors
    /// As [`Pipeline::decode`].
    pub fn decode_to_keep(&self, stored: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>, Error> {
        let plain = self.decode(stored)?;
        Ok(match self.decrypt {
            Some(_) => Box::new(NoKeys { inner: plain, matched: Some(0) }),
            None => plain,
        })
    }
}

/// How every text begins in which pgBackRest keeps a key (`infoSave` in src/info/info.c).
const HOLDS_KEYS: &[u8] = b"[backrest]";

/// Fails where what it reads begins so.
struct NoKeys<R> {
    inner: R,
    /// How much of the beginning was the same so far; none once something was not.
    matched: Option<usize>,
}

impl<R: Read> Read for NoKeys<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        if let Some(matched) = self.matched {
            let expected = &HOLDS_KEYS[matched..];
            let compared = read.min(expected.len());
            self.matched = (into[..compared] == expected[..compared]).then_some(matched + compared);
            if self.matched == Some(HOLDS_KEYS.len()) {
                let message = "it is a text that holds keys, and none of the files of a data directory";
                return Err(Error::new(Kind::Denied, message).into());
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod keep {
    use super::*;

    fn read(text: &[u8], at_once: usize) -> Result<Vec<u8>, Error> {
        let mut reader = NoKeys { inner: text, matched: Some(0) };
        let (mut whole, mut buffer) = (Vec::new(), vec![0; at_once]);
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(whole),
                read => whole.extend_from_slice(&buffer[..read]),
            }
        }
    }

    #[test]
    fn a_text_that_holds_keys_is_not_kept_however_it_comes() {
        for at_once in [1, 3, 10, 100] {
            assert_eq!(read(b"[backrest]\nbackrest-format=5\n", at_once).unwrap_err().kind, Kind::Denied);
            for kept in [&b"[backrest"[..], b"x[backrest]", b"", b"15\n"] {
                assert_eq!(read(kept, at_once).as_deref(), Ok(kept));
            }
        }
    }
}
