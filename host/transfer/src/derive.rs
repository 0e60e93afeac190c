//! Keys that stand in an object's text, and what keeps them from the plugin.
//!
//! Said plainly: a derived key is kept from what *reads the object after it was derived*, in a log, a memory dump of the
//! guest, an error text. A component that never asks for the key to be derived and reads the object instead sees it,
//! unless the host blanks on its own account (`key_texts`).

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
pub use withheld::{Seen, Withheld};

/// The longest text that a key is looked for in, in bytes: a manifest has some 200 for each file of a cluster.
pub const MOST_TEXT: u64 = 4 << 30;

/// The longest value, in bytes of JSON text. Random keys have some 64.
pub const LONGEST_VALUE: usize = 4096;

/// The shortest value, in bytes of JSON text. What is shorter is no key, and blanking it would spoil other text.
pub const SHORTEST_VALUE: usize = 8;

/// The shortest value that is taken out of logs and reports, in bytes.
const SHORTEST_RANDOM: usize = 32;

/// How many different bytes such a value has at least.
const DIFFERENT: usize = 12;

/// Whether a derived key looks like one: long, of the letters of base64 or hexadecimal, and with all kinds of them. Whoever
/// may name any text as a key must not be able to take words, paths or names of hosts out of the operator's log; what is no
/// such key is kept from the component alone.
pub fn is_random(key: &Key) -> bool {
    let secret = key.secret.expose();
    let mut seen = [false; 256];
    secret.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    let has = |of: fn(&u8) -> bool| secret.iter().any(of);
    let all = |of: fn(&u8) -> bool| secret.iter().all(of);
    let hexadecimal = all(u8::is_ascii_hexdigit);
    let base64 = all(|byte| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte));
    let mixed = has(u8::is_ascii_uppercase) && has(u8::is_ascii_lowercase) && has(u8::is_ascii_digit);
    secret.len() >= SHORTEST_RANDOM
        && seen.iter().filter(|seen| **seen).count() >= DIFFERENT
        && (hexadecimal || (base64 && mixed))
}

/// The longest name of a section or of a value, in bytes.
const LONGEST_NAME: usize = 256;

/// Finds the line `name="..."` in the section `[section]` of INI text whose values are JSON. The text is read to its end, at most
/// [`MOST_TEXT`] of it, in memory that does not grow with it.
///
/// # Errors
/// `NotFound` where there is no such line, `Corrupt` where there are two or the value is not one JSON string, `Invalid`
/// for a section or name that no line can have, `Limit` beyond a bound; what the reader fails with.
pub fn derive_key(text: impl Read, section: &str, name: &str) -> Result<Key, Error> {
    derive_within(text, section, name, MOST_TEXT)
}

/// [`derive_key`] with a bound of one's own.
fn derive_within(mut text: impl Read, section: &str, name: &str, most: u64) -> Result<Key, Error> {
    let title = format!("`{name}` in [{section}]");
    for part in [section, name] {
        let fits = !part.is_empty() && part.len() <= LONGEST_NAME && !part.contains(['\n', '\r', '\0']);
        if !fits || part == name && part.contains('=') {
            return Err(Error::new(Kind::Invalid, format!("{title:.600} is no name of a value in INI text")));
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
                format!("{title} is looked for in at most {} of text", Bytes(most)),
            ));
        }
        finder.take(&buffer[..read]).map_err(|error| error.of(&title))?;
    }
    finder.end_of_line().map_err(|error| error.of(&title))?;
    let value = finder.value.ok_or_else(|| Error::new(Kind::NotFound, format!("the text has no {title}")))?;
    let (secret, text) = parse(&value).map_err(|error| error.of(&title))?;
    Ok(Key::derived(title, secret, text))
}

/// What is kept of a line: the longest that can matter. Of longer ones only the beginning is looked at.
const LONGEST_LINE: usize = LONGEST_NAME + 1 + LONGEST_VALUE + 2;

/// Goes through lines that come in pieces.
struct Finder {
    header: Vec<u8>,
    prefix: Vec<u8>,
    /// The line so far, as far as it is kept.
    line: Zeroizing<Vec<u8>>,
    /// Whether the line goes on beyond what is kept.
    too_long: bool,
    /// Whether the line is in the section.
    within: bool,
    /// What stands after `name=`.
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
                return Err(Error::new(Kind::Corrupt, "it is there twice"));
            }
        }
        self.line.clear();
        self.too_long = false;
        Ok(())
    }
}

/// The pass phrase that a JSON string means, and its exact text between the quotes.
fn parse(value: &[u8]) -> Result<(Secret, Secret), Error> {
    // What serde_json says of a value may quote it.
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
