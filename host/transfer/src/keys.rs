//! Keys by name: the host holds them, the plugin only points at them.

#[cfg(test)]
mod tests;

use sha1::{Digest as _, Sha1};

use crate::error::{Error, Kind};
use crate::secret::Secret;

/// How many literal bytes [`sha1_of`] takes in all.
pub const MOST_LITERAL_BYTES: usize = 16 << 20;

/// A key. Cheap to compare, never shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The operator's name, or how it was derived; for messages.
    pub name: String,
    /// The pass phrase.
    pub secret: Secret,
    /// For a derived key, its exact JSON text between the quotes.
    text: Option<Secret>,
}

impl Key {
    /// A key that the operator granted.
    pub fn named(name: impl Into<String>, secret: Secret) -> Self {
        Self { name: name.into(), secret, text: None }
    }

    /// A key that stood in an object as a JSON string: `text` is what was between its quotes, `secret` what that means.
    pub(crate) fn derived(name: String, secret: Secret, text: Secret) -> Self {
        Self { name, secret, text: Some(text) }
    }

    /// A derived key's exact JSON text.
    pub(crate) fn text(&self) -> Option<&Secret> {
        self.text.as_ref()
    }

    /// Whether it was derived from an object's text rather than granted.
    pub fn is_derived(&self) -> bool {
        self.text.is_some()
    }
}

/// A piece of a text whose checksum is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Part<'a> {
    /// Bytes that the plugin has.
    Literal(&'a [u8]),
    /// A derived key, which stands in the text where the plugin sees `*`: the exact JSON text between the quotes.
    Secret(&'a Key),
}

/// SHA-1 of the parts joined, for text whose checksum covers a blanked value.
///
/// The answer tells the plugin something about the key: it can compare guesses with it, offline, as fast as SHA-1 is
/// computed. That is harmless for what pgBackRest derives (48 random bytes in base64) and would not be for a word that a
/// person chose; hence a key that the operator granted is refused.
///
/// # Errors
/// `Denied` for a key that was not derived, `Limit` for more than [`MOST_LITERAL_BYTES`] of literal bytes.
pub fn sha1_of(parts: &[Part<'_>]) -> Result<[u8; 20], Error> {
    let mut literal = 0_usize;
    let mut hash = Sha1::new();
    for part in parts {
        match part {
            Part::Literal(bytes) => {
                literal = literal.saturating_add(bytes.len());
                if literal > MOST_LITERAL_BYTES {
                    return Err(Error::new(
                        Kind::Limit,
                        format!("sha1-of takes at most {MOST_LITERAL_BYTES} literal bytes in all"),
                    ));
                }
                hash.update(bytes);
            }
            Part::Secret(key) => match &key.text {
                Some(text) => hash.update(text.expose()),
                None => {
                    return Err(Error::new(
                        Kind::Denied,
                        format!("sha1-of takes derived keys only, and `{}` was granted by name", key.name),
                    ));
                }
            },
        }
    }
    Ok(hash.finalize().into())
}
