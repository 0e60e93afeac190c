//! The texts as which a secret may appear.

use std::ops::Range;

use super::{ANYWHERE, SHORTEST};

/// A text to search for: a secret, or an encoding of it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Form {
    /// The bytes to search for.
    pub text: Vec<u8>,
    /// The contexts in which these bytes are the secret.
    pub context: Context,
}

/// The contexts in which a form is a secret, and not part of another text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Context {
    /// In every context.
    Anywhere,
    /// In every context; a base64 character on either side may also hold bits of the secret.
    WithinBase64,
    /// If the form is not part of a longer word.
    AsWord,
    /// If the form is a value: between quotation marks, after `=` or `:`, or the whole text.
    AsValue,
}

impl Context {
    /// Returns the contexts in which a secret of `length` bytes is unlikely to be part of another text.
    fn for_length(length: usize) -> Self {
        match length {
            ANYWHERE.. => Self::Anywhere,
            SHORTEST.. => Self::AsWord,
            _ => Self::AsValue,
        }
    }
}

/// The standard alphabet (RFC 4648, section 4).
const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The URL-safe alphabet (RFC 4648, section 5).
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Form {
    /// Returns every form of this secret, except the encodings that [`views`](super::views) decodes.
    pub fn of(secret: &[u8]) -> Vec<Self> {
        let mut forms = Vec::new();
        let trimmed = secret.trim_ascii();
        if (1..SHORTEST).contains(&trimmed.len()) {
            // The encodings of so short a secret could be part of any word.
            forms.push(Self { text: trimmed.to_vec(), context: Context::AsValue });
            // A secret with this much white space cannot be part of a word.
            if secret.len() >= ANYWHERE {
                forms.push(Self { text: secret.to_vec(), context: Context::Anywhere });
            }
            return forms;
        }
        let mut add = |text: Vec<u8>, encoded: Option<Context>| {
            if text.len() >= SHORTEST {
                let context = encoded.unwrap_or(Context::for_length(text.len()));
                forms.push(Self { text, context });
            }
        };
        // A secret read from a file often ends with a line feed, which is often not printed with it.
        for whole in [secret, trimmed] {
            add(whole.to_vec(), None);
            // Programs often print U+FFFD in place of bytes that are not UTF-8.
            add(String::from_utf8_lossy(whole).into_owned().into_bytes(), None);
            for alphabet in [STANDARD, URL_SAFE] {
                for offset in 0..3 {
                    add(base64(whole, offset, alphabet), Some(Context::WithinBase64));
                }
            }
            add(hexadecimal(whole, b"0123456789abcdef"), Some(Context::Anywhere));
            add(hexadecimal(whole, b"0123456789ABCDEF"), Some(Context::Anywhere));
        }
        for line in secret.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii) {
            add(line.to_vec(), None);
        }
        forms
    }
}

/// Returns the base64 characters that consist only of bits of `secret`, if `secret` begins at `offset` (modulo 3) in the encoded bytes.
fn base64(secret: &[u8], offset: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let bit = |at: usize| secret[at / 8] >> (7 - at % 8) & 1;
    // The bit of the secret at which the first such character begins.
    let first = [0, 4, 2][offset % 3];
    (first..)
        .step_by(6)
        .take_while(|at| at + 6 <= secret.len() * 8)
        .map(|at| alphabet[usize::from((at..at + 6).fold(0, |value, at| value << 1 | bit(at)))])
        .collect()
}

fn hexadecimal(secret: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    secret.iter().flat_map(|byte| [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]).collect()
}

/// Returns the range of the secret that was found as a form; `None` if the context shows that the form is part of another text.
pub fn found(text: &[u8], found: Range<usize>, context: Context) -> Option<Range<usize>> {
    let before = text[..found.start].last().copied();
    let after = text.get(found.end).copied();
    let is_secret = match context {
        Context::Anywhere => true,
        Context::WithinBase64 => return Some(with_edges(text, found)),
        Context::AsWord => {
            let inside = |outer: Option<u8>, edge: Option<&u8>| {
                outer.is_some_and(is_in_word) && edge.is_some_and(|edge| is_in_word(*edge))
            };
            !inside(before, text[found.clone()].first()) && !inside(after, text[found.clone()].last())
        }
        Context::AsValue => match before {
            None => {
                after.is_none_or(|after| after.is_ascii_whitespace())
                    && text[found.end..].trim_ascii().is_empty()
            }
            Some(quote @ (b'"' | b'\'' | b'`')) => after == Some(quote),
            Some(b'=' | b':') => {
                after.is_none_or(|after| after.is_ascii_whitespace() || b"\"'`,;&@)]}".contains(&after))
            }
            Some(_) => false,
        },
    };
    is_secret.then_some(found)
}

/// Returns whether a byte may be part of a word, in any language.
fn is_in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// Returns the range `found`, extended by the character on either side that may hold bits of the secret, and by the padding.
fn with_edges(text: &[u8], found: Range<usize>) -> Range<usize> {
    let of_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    let before = text[..found.start].last().is_some_and(of_base64);
    let after = usize::from(text.get(found.end).is_some_and(of_base64));
    let padding = text[found.end + after..].iter().take(2).take_while(|&&byte| byte == b'=').count();
    found.start - usize::from(before)..found.end + after + padding
}
