//! Decrypts OpenPGP messages (RFC 9580, and RFC 4880 before it) as GnuPG and WAL-G write them, in constant memory.
//!
//! A message consists of session keys, each encrypted for one recipient, and of a packet with the encrypted data. This packet contains
//! another one with the plain bytes, which may be compressed. Encrypted data are read only if they are protected against modification:
//! by a SHA-1 of the plain bytes at their end (version 1, "modification detection code"), or by authenticated encryption in chunks
//! (version 2, and GnuPG's own packet of type 20).
//!
//! The protection proves that the message is as its writer made it, and not who that was: everyone who has the public key can write such
//! a message. Signatures are skipped.

mod keys;
mod packets;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead, BufReader, Read};

use pgp::composed::PlainSessionKey;
use pgp::packet::{
    GnupgAeadDataConfig, PublicKeyEncryptedSessionKey, StreamDecryptor, SymEncryptedProtectedDataConfig,
};
use pgp::types::{Seipdv1ReadMode, Tag};

use crate::codec::{Codec, Windows};
use crate::error::{Error, Kind};
use crate::keys::Key;
use packets::{After, Body, Count, Packet, is_skipped};

pub use keys::OpenPgpKey;

/// A stream of packets.
type Source = Box<dyn BufRead + Send>;

/// The size of the buffers in bytes.
const BUFFER: usize = 32 << 10;

/// How many times the packet with the plain bytes may be compressed.
const MOST_COMPRESSIONS: u32 = 2;

/// How many session keys for one of our keys are kept until the encrypted data begin.
const MOST_SESSION_KEYS: usize = 4;

/// Returns a reader of the plain bytes of `stored`, which fails as [`super::decrypt`] says.
pub(super) fn decrypt(stored: Box<dyn Read + Send>, key: &Key, windows: &Windows) -> Box<dyn Read + Send> {
    Box::new(Decrypting::Waiting { stored, key: key.clone(), windows: windows.clone() })
}

enum Decrypting {
    /// Before the first read.
    Waiting {
        stored: Box<dyn Read + Send>,
        key: Key,
        windows: Windows,
    },
    Reading(Box<dyn Read + Send>),
    Failed(Error),
}

impl Decrypting {
    fn advance(&mut self, output: &mut [u8]) -> io::Result<usize> {
        loop {
            // An early return leaves this placeholder; `read` replaces it with the actual error.
            match std::mem::replace(self, Self::Failed(truncated())) {
                Self::Waiting { stored, key, windows } => {
                    let message = Box::new(BufReader::with_capacity(BUFFER, Stored(stored)));
                    *self = Self::Reading(Box::new(plain(message, &key, &windows)?));
                }
                Self::Reading(mut plain) => {
                    let length = plain.read(output)?;
                    *self = Self::Reading(plain);
                    return Ok(length);
                }
                Self::Failed(error) => return Err(error.into()),
            }
        }
    }
}

impl Read for Decrypting {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if output.is_empty() {
            return Ok(0);
        }
        self.advance(output).inspect_err(|error| *self = Self::Failed(Error::again(error)))
    }
}

/// The stored bytes, whose errors are an [`Error`] each, so that they differ from those of the library.
struct Stored(Box<dyn Read + Send>);

impl Read for Stored {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        self.0.read(output).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => Error::from(error).into(),
        })
    }
}

/// Reads a message to the beginning of its plain bytes.
fn plain(mut message: Source, key: &Key, windows: &Windows) -> Result<Body, Error> {
    let secret = key.openpgp()?;
    let (mut count, mut recipients, mut session_keys) = (Count::default(), Recipients::default(), Vec::new());
    loop {
        let Some(packet) = Packet::next(message)? else { return Err(truncated()) };
        let header = packet.header;
        match packet.tag() {
            Tag::PublicKeyEncryptedSessionKey => {
                let (bytes, rest) = packet.body.read_short()?;
                let encrypted = PublicKeyEncryptedSessionKey::try_from_reader(header, &*bytes)
                    .map_err(|_| damaged("a packet with a session key cannot be read"))?;
                recipients.add(&encrypted);
                if session_keys.len() < MOST_SESSION_KEYS {
                    session_keys
                        .extend(secret.session_key(&encrypted).map_err(|error| error.of(key_named(key)))?);
                }
                message = rest;
            }
            Tag::SymKeyEncryptedSessionKey => {
                recipients.pass_phrase = true;
                message = packet.body.read_short()?.1;
            }
            Tag::Marker | Tag::Padding => message = packet.body.read_short()?.1,
            tag @ (Tag::SymEncryptedProtectedData | Tag::GnupgAeadData) => {
                let source = protected(tag, packet.body.before(After::Nothing), &session_keys, windows)?;
                let Some(source) = source else { return Err(recipients.no_key(key)) };
                return literal(source, windows, MOST_COMPRESSIONS);
            }
            Tag::SymEncryptedData => {
                return Err(damaged(
                    "its encrypted data are not protected against modification, and therefore not read: encrypt with a program that \
                     protects them, such as gpg without `--disable-mdc`",
                ));
            }
            _ => return Err(damaged("it is no encrypted message")),
        }
        count.one_more()?;
    }
}

/// Returns a reader of the packets within encrypted data; `None` if none of the session keys fits the data.
fn protected(
    tag: Tag,
    mut body: Body,
    session_keys: &[PlainSessionKey],
    windows: &Windows,
) -> Result<Option<Source>, Error> {
    let unknown = |error: pgp::errors::Error| match error {
        pgp::errors::Error::IO { source, .. } if source.kind() != io::ErrorKind::UnexpectedEof => {
            Error::from(source)
        }
        error => damaged(&format!("its encrypted data cannot be read: {error}")),
    };
    let chunk = |size: pgp::crypto::aead::ChunkSize| {
        // Two chunks, and as many again while the library moves them.
        windows.add(4 * u64::from(size.as_byte_size()), "the chunks of an OpenPGP message")
    };
    let v3 = session_keys.iter().find_map(|key| match key {
        PlainSessionKey::V3_4 { sym_alg, key } => Some((*sym_alg, key)),
        PlainSessionKey::V5 { .. } | PlainSessionKey::V6 { .. } => None,
    });
    let v6 = session_keys.iter().find_map(|key| match key {
        PlainSessionKey::V6 { key } => Some(key),
        PlainSessionKey::V3_4 { .. } | PlainSessionKey::V5 { .. } => None,
    });
    let decryptor = if tag == Tag::GnupgAeadData {
        let config = GnupgAeadDataConfig::try_from_reader(&mut body).map_err(unknown)?;
        let Some((algorithm, key)) = v3 else { return Ok(None) };
        if algorithm != config.sym_alg || key.len() != config.sym_alg.key_size() {
            return Err(damaged("the session key is for another cipher"));
        }
        chunk(config.chunk_size)?;
        StreamDecryptor::gnupg_aead(
            config.sym_alg,
            config.aead,
            config.chunk_size,
            key.as_ref(),
            &config.iv,
            body,
        )
    } else {
        match SymEncryptedProtectedDataConfig::try_from_reader(&mut body).map_err(unknown)? {
            SymEncryptedProtectedDataConfig::V1 => {
                let Some((algorithm, key)) = v3 else { return Ok(None) };
                // The caller takes no file as complete before the reader has reached its end, where the protection is checked.
                StreamDecryptor::v1(algorithm, Seipdv1ReadMode::Streaming, key.as_ref(), body)
            }
            SymEncryptedProtectedDataConfig::V2 { sym_alg, aead, chunk_size, salt } => {
                let Some(key) = v6 else { return Ok(None) };
                if key.len() != sym_alg.key_size() {
                    return Err(damaged("the session key is for another cipher"));
                }
                chunk(chunk_size)?;
                StreamDecryptor::v2(sym_alg, aead, chunk_size, &salt, key.as_ref(), body)
            }
        }
    };
    Ok(Some(Box::new(Protected(decryptor.map_err(unknown)?))))
}

/// Encrypted data, whose reader fails with an [`Error`].
struct Protected(StreamDecryptor<Body>);

impl Protected {
    fn error(error: io::Error) -> io::Error {
        match error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
            true => error,
            false => Error::new(
                Kind::Corrupt,
                "the data of the OpenPGP message do not pass the check for modification: they are damaged, or were changed",
            )
            .into(),
        }
    }
}

impl Read for Protected {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        self.0.read(output).map_err(Self::error)
    }
}

impl BufRead for Protected {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf().map_err(Self::error)
    }

    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}

/// Reads the packets within encrypted data to the packet with the plain bytes, which may be compressed at most `compressions` times.
fn literal(mut source: Source, windows: &Windows, compressions: u32) -> Result<Body, Error> {
    let mut count = Count::default();
    loop {
        let Some(packet) = Packet::next(source)? else { return Err(truncated()) };
        match packet.tag() {
            Tag::LiteralData => {
                let mut body = packet.body.before(After::Skipped);
                let [_format, name] = [body.byte()?, body.byte()?];
                let mut name_and_date = vec![0; usize::from(name) + 4];
                body.exact(&mut name_and_date)?;
                return Ok(body);
            }
            Tag::CompressedData => {
                let Some(left) = compressions.checked_sub(1) else {
                    return Err(Error::new(
                        Kind::Limit,
                        format!(
                            "the data of the OpenPGP message are compressed more than {MOST_COMPRESSIONS} times"
                        ),
                    ));
                };
                // The length of compressed data may be unknown. Then nothing can follow them.
                let mut body = packet.body.before(After::Skipped);
                let codec = match body.byte()? {
                    0 => None,
                    1 => Some(Codec::Deflate),
                    2 => Some(Codec::Zlib),
                    3 => Some(Codec::Bzip2),
                    other => return Err(damaged(&format!("its compression {other} is not known"))),
                };
                let inner: Source = match codec {
                    Some(codec) => Box::new(BufReader::with_capacity(
                        BUFFER,
                        codec.decode_with(Box::new(body), windows)?,
                    )),
                    None => Box::new(body),
                };
                return literal(inner, windows, left);
            }
            tag if is_skipped(tag) => source = packet.body.read_short()?.1,
            _ => return Err(damaged("its data are neither plain nor compressed bytes")),
        }
        count.one_more()?;
    }
}

/// Those who can decrypt a message.
#[derive(Default)]
struct Recipients {
    /// The identifiers of the first keys.
    shown: Vec<String>,
    /// How many keys there are.
    keys: usize,
    /// Whether a pass phrase decrypts the message.
    pass_phrase: bool,
}

impl Recipients {
    fn add(&mut self, encrypted: &PublicKeyEncryptedSessionKey) {
        self.keys += 1;
        if self.shown.len() >= keys::SHOWN {
            return;
        }
        self.shown.push(match (encrypted.id(), encrypted.fingerprint()) {
            (Ok(id), _) if !id.is_wildcard() => keys::name(*id),
            (_, Ok(Some(fingerprint))) => keys::hexadecimal(fingerprint.as_bytes()),
            _ => "a hidden recipient".to_owned(),
        });
    }

    /// Returns the error for a message that the key does not decrypt.
    fn no_key(self, key: &Key) -> Error {
        let ours = key.openpgp().map(|keys| keys.names()).unwrap_or_default();
        let theirs = match (self.keys, self.pass_phrase) {
            (0, true) => "a pass phrase rather than a key".to_owned(),
            (0, false) => "nobody".to_owned(),
            (keys, _) if keys > self.shown.len() => format!("{} and others", self.shown.join(", ")),
            _ => self.shown.join(", "),
        };
        Error::new(
            Kind::Corrupt,
            format!(
                "the OpenPGP message is encrypted for {theirs}, and {} ({ours}) does not decrypt it: grant the key of a recipient",
                key_named(key)
            ),
        )
    }
}

fn key_named(key: &Key) -> String {
    format!("the key `{}`", key.name)
}

fn truncated() -> Error {
    Error::new(Kind::Corrupt, "the OpenPGP message is truncated")
}

fn damaged(how: &str) -> Error {
    Error::new(Kind::Corrupt, format!("the OpenPGP message cannot be decrypted: {how}"))
}
