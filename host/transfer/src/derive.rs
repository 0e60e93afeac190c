//! Derived keys: keys that the host extracts from the text of an object, and then hides from the plugin.
//!
//! - [`Blanked`] is the set of derived keys. Reads blank these keys, and writes refuse them.
//! - [`Withheld`] adds the objects that the keys were derived from, and says how these may still be read.
//!
//! A derived key is hidden from reads *after* it was derived, so that it does not get into a log, an error or the memory of the
//! guest. A component that reads the object earlier sees the key, unless the host knows the format of the text and always blanks the key
//! (`key_texts`).

mod blank;
#[cfg(test)]
mod tests;
mod withheld;

use std::io::{self, Read};

use zeroize::Zeroizing;

use crate::error::{Error, Kind};
use crate::keys::Key;
use foundation::secret::Secret;
use foundation::units::Bytes;

pub use blank::{Blanked, MOST_KEYS};
pub use withheld::{ObjectIdentity, Withheld};

/// The longest text that is searched for a key, in bytes. A manifest has about 200 bytes for each file of a cluster.
pub const MOST_TEXT: u64 = 4 << 30;

/// The longest value, in bytes of JSON text. Random keys have about 64.
pub const LONGEST_VALUE: usize = 4096;

/// The shortest value, in bytes of JSON text. Blanking a shorter one would damage other text.
pub const SHORTEST_VALUE: usize = 8;

/// The shortest key that is redacted from logs and reports, in bytes.
const SHORTEST_RANDOM: usize = 32;

/// The fewest distinct bytes of such a key.
const FEWEST_DISTINCT: usize = 12;

/// Returns whether a derived key looks random: long, in base64 or hexadecimal, and with all kinds of characters. Only such keys are
/// redacted from the operator's log. Otherwise a component could have words, paths or host names redacted by deriving them as keys.
/// Other keys are hidden from the component only.
pub fn is_random(key: &Key) -> bool {
    let Ok(secret) = key.text().map(Secret::expose) else { return false };
    let mut seen = [false; 256];
    secret.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    let has = |of: fn(&u8) -> bool| secret.iter().any(of);
    let all = |of: fn(&u8) -> bool| secret.iter().all(of);
    let hexadecimal = all(u8::is_ascii_hexdigit);
    let base64 = all(|byte| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte));
    let mixed = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit);
    secret.len() >= SHORTEST_RANDOM
        && seen.iter().filter(|seen| **seen).count() >= FEWEST_DISTINCT
        && (hexadecimal || (base64 && mixed))
}

/// The longest name of a section or of a value in bytes.
const LONGEST_NAME: usize = 256;

/// Derives a key from the line `name="..."` in the section `[section]` of INI text whose values are JSON. Reads the text to its
/// end, up to [`MOST_TEXT`] bytes, in constant memory.
///
/// # Errors
/// `NotFound` if there is no such line; `Corrupt` if there are two, or the value is not one JSON string; `Invalid` if no line can
/// have such a section or name, or the value is too short or long; `Limit` if the text or a line is too long; errors of the reader.
pub fn derive_key(text: impl Read, section: &str, name: &str) -> Result<Key, Error> {
    derive_within(text, section, name, MOST_TEXT)
}

/// Derives a key as [`derive_key`] does, with a bound other than [`MOST_TEXT`].
fn derive_within(mut text: impl Read, section: &str, name: &str, most: u64) -> Result<Key, Error> {
    let title = format!("`{name}` in [{section}]");
    for part in [section, name] {
        let fits = !part.is_empty() && part.len() <= LONGEST_NAME && !part.contains(['\n', '\r', '\0']);
        if !fits || part == name && part.contains('=') {
            return Err(Error::new(
                Kind::Invalid,
                format!("{title:.600} is not a name of a value in INI text"),
            ));
        }
    }
    let mut finder = Finder {
        header: format!("[{section}]").into_bytes(),
        prefix: format!("{name}=").into_bytes(),
        line: Zeroizing::new(Vec::with_capacity(LONGEST_LINE)),
        too_long: false,
        within: false,
        value: None,
    };
    let mut buffer = Zeroizing::new(vec![0; 64 << 10]);
    let mut total = 0_u64;
    loop {
        let read = match text.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        total += read as u64;
        if total > most {
            return Err(Error::new(
                Kind::Limit,
                format!("{title} is searched in at most {} of text", Bytes(most)),
            ));
        }
        finder.take(&buffer[..read]).map_err(|error| error.of(&title))?;
    }
    finder.end_of_line().map_err(|error| error.of(&title))?;
    let value = finder.value.ok_or_else(|| Error::new(Kind::NotFound, format!("the text has no {title}")))?;
    let (secret, text) = parse(&value).map_err(|error| error.of(&title))?;
    Ok(Key::derived(title, secret, text))
}

/// The most bytes of a line that are kept. If the beginning of a longer line matches, the value in that line is too long.
const LONGEST_LINE: usize = LONGEST_NAME + 1 + LONGEST_VALUE + 2;

/// Searches lines that arrive in chunks.
struct Finder {
    header: Vec<u8>,
    prefix: Vec<u8>,
    /// The kept part of the current line.
    line: Zeroizing<Vec<u8>>,
    /// Whether the current line is longer than the kept part.
    too_long: bool,
    /// Whether the current line is in the section.
    within: bool,
    /// The text after `name=`.
    value: Option<Zeroizing<Vec<u8>>>,
}

impl Finder {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            self.add(&bytes[..end]);
            self.end_of_line()?;
            bytes = &bytes[end + 1..];
        }
        self.add(bytes);
        Ok(())
    }

    fn add(&mut self, bytes: &[u8]) {
        let room = LONGEST_LINE - self.line.len();
        self.too_long |= bytes.len() > room;
        self.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end_of_line(&mut self) -> Result<(), Error> {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        if line.first() == Some(&b'[') {
            self.within = !self.too_long && line == self.header;
        } else if let (true, Some(value)) = (self.within, line.strip_prefix(&*self.prefix)) {
            if self.too_long {
                return Err(Error::new(
                    Kind::Limit,
                    format!("its value is longer than the {LONGEST_VALUE} bytes that a key may have"),
                ));
            }
            if self.value.replace(Zeroizing::new(value.to_vec())).is_some() {
                return Err(Error::new(Kind::Corrupt, "it occurs twice"));
            }
        }
        self.line.clear();
        self.too_long = false;
        Ok(())
    }
}

/// Returns the pass phrase that a JSON string encodes, and its exact text between the quotes.
fn parse(value: &[u8]) -> Result<(Secret, Secret), Error> {
    // This error replaces the error of serde_json, which could quote the value.
    let not_a_string = || Error::new(Kind::Corrupt, "its value is not one JSON string");
    let text =
        value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).ok_or_else(not_a_string)?;
    let secret: String = serde_json::from_slice(value).map_err(|_| not_a_string())?;
    if !(SHORTEST_VALUE..=LONGEST_VALUE).contains(&text.len()) {
        return Err(Error::new(
            Kind::Invalid,
            format!("its value has {} bytes; a key has {SHORTEST_VALUE} to {LONGEST_VALUE}", text.len()),
        ));
    }
    Ok((Secret::new(secret.into_bytes()), Secret::new(text)))
}
