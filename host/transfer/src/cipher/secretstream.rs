//! Decrypts libsodium's secretstream (XChaCha20-Poly1305) as WAL-G writes it: a header of 24 bytes, then messages of 8192 plain bytes, each
//! with 17 bytes of overhead, and a shorter last message with the tag `final` (WAL-G's `internal/crypto/libsodium/writer.go`).
//!
//! Every message is authenticated, and the last one is marked, so damaged and truncated data are recognized.

use std::io::{self, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dryoc::classic::crypto_secretstream_xchacha20poly1305::{
    Header, State, crypto_secretstream_xchacha20poly1305_init_pull as init_pull,
    crypto_secretstream_xchacha20poly1305_pull as pull,
};
use dryoc::constants::CRYPTO_SECRETSTREAM_XCHACHA20POLY1305_TAG_FINAL as FINAL;
use zeroize::Zeroizing;

use crate::error::{Error, Kind};
use crate::keys::Key;
use crate::sink::read_full;

/// The plain size of every message but the last in bytes (`chunkSize` in WAL-G's `crypter.go`).
const MESSAGE: usize = 8192;

/// By how many bytes an encrypted message is longer than a plain one.
const OVERHEAD: usize = 17;

/// The size of a key in bytes.
const KEY: usize = 32;

/// The shortest text that WAL-G takes for a key as it is (`minimalKeyLength`).
const SHORTEST_TEXT: usize = 25;

/// How the operator's text contains the key (WAL-G's `WALG_LIBSODIUM_KEY_TRANSFORM`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum KeyText {
    /// The first 32 bytes of the text are the key. A text of 25 to 31 bytes is filled up with zeros.
    Plain,
    /// The text is the key in hexadecimal.
    Hex,
    /// The text is the key in base64.
    Base64,
}

/// Returns a reader of the plain bytes of `stored`, which fails as [`super::decrypt`] says.
pub(super) fn decrypt(stored: Box<dyn Read + Send>, key: &Key, text: KeyText) -> Box<dyn Read + Send> {
    Box::new(Decrypting {
        source: stored,
        key: key.clone(),
        text,
        state: None,
        stored: vec![0; MESSAGE + OVERHEAD],
        plain: vec![0; MESSAGE],
        start: 0,
        end: 0,
        ended: false,
        failed: None,
    })
}

struct Decrypting {
    source: Box<dyn Read + Send>,
    key: Key,
    text: KeyText,
    /// `None` until the header has been read.
    state: Option<State>,
    stored: Vec<u8>,
    plain: Vec<u8>,
    /// The range of `plain` that is not returned yet.
    start: usize,
    end: usize,
    ended: bool,
    failed: Option<Error>,
}

impl Decrypting {
    fn begin(&mut self) -> Result<State, Error> {
        let mut header = Header::default();
        if read_full(&mut self.source, &mut header)? < header.len() {
            return Err(truncated());
        }
        let key = key_of(&self.key, self.text)?;
        let mut state = State::new();
        init_pull(&mut state, &header, &key);
        Ok(state)
    }

    fn refill(&mut self) -> Result<(), Error> {
        let mut state = match self.state.take() {
            Some(state) => state,
            None => self.begin()?,
        };
        let read = read_full(&mut self.source, &mut self.stored)?;
        if read < OVERHEAD {
            return Err(truncated());
        }
        let mut tag = 0;
        let length = pull(&mut state, &mut self.plain, &mut tag, &self.stored[..read], None)
            .map_err(|_| self.damaged())?;
        self.ended = tag == FINAL;
        match (self.ended, read == self.stored.len()) {
            (false, false) => return Err(truncated()),
            (true, true) if read_full(&mut self.source, &mut self.stored[..1])? > 0 => {
                return Err(Error::new(Kind::Corrupt, "bytes follow the last message of the secretstream"));
            }
            _ => {}
        }
        self.state = Some(state);
        (self.start, self.end) = (0, length);
        Ok(())
    }

    fn damaged(&self) -> Error {
        Error::new(
            Kind::Corrupt,
            format!(
                "a message of the secretstream cannot be decrypted with the key `{}`: the key is wrong, or the stored bytes are damaged",
                self.key.name
            ),
        )
    }
}

impl Read for Decrypting {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        while self.start == self.end && !self.ended && !output.is_empty() {
            if let Err(error) = self.refill() {
                (self.start, self.end) = (0, 0);
                self.failed = Some(error.clone());
                return Err(error.into());
            }
        }
        let length = output.len().min(self.end - self.start);
        output[..length].copy_from_slice(&self.plain[self.start..self.start + length]);
        self.start += length;
        Ok(length)
    }
}

fn truncated() -> Error {
    Error::new(Kind::Corrupt, "the secretstream is truncated, or not one")
}

/// Returns the key that the operator's text contains (WAL-G's `keytransform.go`).
///
/// # Errors
/// `Invalid` if the text is not a key of this form. The message does not contain the text.
fn key_of(key: &Key, text: KeyText) -> Result<Zeroizing<[u8; KEY]>, Error> {
    let given = key.text()?.expose();
    let invalid = |what: &str| Error::new(Kind::Invalid, format!("the key `{}` {what}", key.name));
    let bytes = match text {
        KeyText::Plain if given.len() < SHORTEST_TEXT => {
            return Err(invalid(&format!("has fewer than {SHORTEST_TEXT} bytes")));
        }
        KeyText::Plain => {
            let mut bytes = Zeroizing::new(Vec::with_capacity(KEY));
            bytes.extend_from_slice(&given[..given.len().min(KEY)]);
            bytes.resize(KEY, 0);
            bytes
        }
        KeyText::Hex => Zeroizing::new(hexadecimal(given).ok_or_else(|| invalid("is not hexadecimal"))?),
        KeyText::Base64 => {
            Zeroizing::new(STANDARD.decode(given).map_err(|_| invalid("is not valid base64"))?)
        }
    };
    let mut fixed = Zeroizing::new([0; KEY]);
    if bytes.len() != KEY {
        return Err(invalid(&format!("has {} bytes, and a key of libsodium has {KEY}", bytes.len())));
    }
    fixed.copy_from_slice(&bytes);
    Ok(fixed)
}

/// Decodes hexadecimal digits of either case; `None` if the text has anything else, or an odd number of them.
fn hexadecimal(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_chunks::<2>();
    // A key has 32 bytes, so the vector does not grow for any valid text, and no copy of a key stays in memory.
    let mut bytes = Vec::with_capacity(pairs.len());
    for [high, low] in pairs {
        bytes.push(digit(*high)? << 4 | digit(*low)?);
    }
    rest.is_empty().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use dryoc::classic::crypto_secretstream_xchacha20poly1305::{
        crypto_secretstream_xchacha20poly1305_init_push as init_push,
        crypto_secretstream_xchacha20poly1305_push as push,
    };
    use dryoc::constants::CRYPTO_SECRETSTREAM_XCHACHA20POLY1305_TAG_MESSAGE as MESSAGE_TAG;
    use foundation::secret::Secret;

    use super::*;
    use crate::cipher::CipherFormat;

    const TEXT: &str = "0123456789abcdef0123456789abcdef";

    fn key(text: &str) -> Key {
        Key::named("repo", Secret::new(text.as_bytes().to_vec()))
    }

    /// Encrypts as WAL-G does. `is_final` is whether the last message is marked.
    fn encrypted(plain: &[u8], is_final: bool) -> Vec<u8> {
        let (mut state, mut header) = (State::new(), Header::default());
        let mut fixed = [0; KEY];
        fixed.copy_from_slice(TEXT.as_bytes());
        init_push(&mut state, &mut header, &fixed);
        let mut stored = header.to_vec();
        let full = plain.len() / MESSAGE * MESSAGE;
        let mut message = |bytes: &[u8], tag: u8| {
            let mut out = vec![0; bytes.len() + OVERHEAD];
            push(&mut state, &mut out, bytes, None, tag).unwrap();
            stored.extend(out);
        };
        plain[..full].chunks(MESSAGE).for_each(|bytes| message(bytes, MESSAGE_TAG));
        message(&plain[full..], if is_final { FINAL } else { MESSAGE_TAG });
        stored
    }

    fn decrypted(stored: Vec<u8>, text: &str, format: CipherFormat) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        let windows = crate::codec::Windows::new(&crate::budget::MemoryAllowance::unlimited());
        super::super::decrypt(Box::new(io::Cursor::new(stored)), &key(text), format, &windows)
            .read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn messages_of_every_length_are_decrypted() {
        for length in [0, 1, MESSAGE - 1, MESSAGE, MESSAGE + 1, 3 * MESSAGE, 100_000] {
            let plain: Vec<u8> = (0..length).map(|at| at as u8).collect();
            assert_eq!(decrypted(encrypted(&plain, true), TEXT, CipherFormat::Secretstream).unwrap(), plain);
        }
    }

    #[test]
    fn the_key_may_be_given_in_hexadecimal_and_in_base64() {
        let hex: String = TEXT.bytes().map(|byte| format!("{byte:02X}")).collect();
        let stored = encrypted(b"plain", true);
        assert_eq!(decrypted(stored.clone(), &hex, CipherFormat::SecretstreamHex).unwrap(), b"plain");
        let base64 = STANDARD.encode(TEXT);
        assert_eq!(decrypted(stored.clone(), &base64, CipherFormat::SecretstreamBase64).unwrap(), b"plain");
        for (text, format, why) in [
            ("too short", CipherFormat::Secretstream, "fewer than 25"),
            ("xyz", CipherFormat::SecretstreamHex, "not hexadecimal"),
            (&hex[1..], CipherFormat::SecretstreamHex, "not hexadecimal"),
            (&hex[2..], CipherFormat::SecretstreamHex, "31 bytes"),
            ("!", CipherFormat::SecretstreamBase64, "not valid base64"),
        ] {
            let error = decrypted(stored.clone(), text, format).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains(text), "{error}");
        }
        // A longer text is cut, and a shorter one is filled up.
        let longer = format!("{TEXT}and more");
        assert_eq!(decrypted(stored, &longer, CipherFormat::Secretstream).unwrap(), b"plain");
        assert_eq!(key_of(&key(&TEXT[..25]), KeyText::Plain).unwrap()[24..27], [b'8', 0, 0]);
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let plain = vec![7; MESSAGE + 100];
        let stored = encrypted(&plain, true);
        for at in [0, 24, 30, MESSAGE, stored.len() - 1] {
            let mut damaged = stored.clone();
            damaged[at] ^= 1;
            assert!(decrypted(damaged, TEXT, CipherFormat::Secretstream).is_err(), "{at}");
        }
        for length in [0, 10, 24, 30, 24 + MESSAGE + OVERHEAD, stored.len() - 1] {
            let error = decrypted(stored[..length].to_vec(), TEXT, CipherFormat::Secretstream).unwrap_err();
            assert!(Error::again(&error).kind == Kind::Corrupt, "{length}: {error}");
        }
        assert!(decrypted(encrypted(&plain, false), TEXT, CipherFormat::Secretstream).is_err());
        let followed = [&encrypted(b"", true)[..], b"more"].concat();
        assert!(decrypted(followed, TEXT, CipherFormat::Secretstream).is_err());
        let error = decrypted(stored, &TEXT.replace('0', "1"), CipherFormat::Secretstream).unwrap_err();
        assert!(error.to_string().contains("key `repo`"), "{error}");
    }
}
