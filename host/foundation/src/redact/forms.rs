//! What a secret may look like.

use std::ops::Range;

use super::{ANYWHERE, SHORTEST};

/// A text that is looked for.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Form {
    /// The bytes that are looked for.
    pub text: Vec<u8>,
    /// Where they are the secret.
    pub stands: Stands,
}

/// Where a form is a secret, and not a part of some other text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stands {
    /// Everywhere.
    Anywhere,
    /// Everywhere; characters of base64 on either side may hold some of its bits too.
    WithinBase64,
    /// Where it is no part of a longer word.
    AsWord,
    /// Where it is a value: between quotation marks, behind `=` or `:`, or the whole text.
    AsValue,
}

impl Stands {
    /// How a text of this many bytes can be told from other text.
    fn of(length: usize) -> Self {
        match length {
            ANYWHERE.. => Self::Anywhere,
            SHORTEST.. => Self::AsWord,
            _ => Self::AsValue,
        }
    }
}

/// RFC 4648, section 4.
const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, section 5.
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Form {
    /// All that this secret may look like, before what [`views`](super::views) undoes.
    pub fn of(secret: &[u8]) -> Vec<Self> {
        let mut forms = Vec::new();
        if (1..SHORTEST).contains(&secret.trim_ascii().len()) {
            // Its encoded forms could be a part of any word.
            return vec![Self { text: secret.trim_ascii().to_vec(), stands: Stands::AsValue }];
        }
        let mut add = |text: Vec<u8>, encoded: Option<Stands>| {
            if text.len() >= SHORTEST {
                let stands = encoded.unwrap_or(Stands::of(text.len()));
                forms.push(Self { text, stands });
            }
        };
        // A file often ends with a line feed that is no part of the secret to whoever prints it.
        for whole in [secret, secret.trim_ascii()] {
            add(whole.to_vec(), None);
            // What is no UTF-8 is often printed with U+FFFD for what is not.
            add(String::from_utf8_lossy(whole).into_owned().into_bytes(), None);
            for alphabet in [STANDARD, URL_SAFE] {
                for offset in 0..3 {
                    add(base64(whole, offset, alphabet), Some(Stands::WithinBase64));
                }
            }
            add(hexadecimal(whole, b"0123456789abcdef"), Some(Stands::Anywhere));
            add(hexadecimal(whole, b"0123456789ABCDEF"), Some(Stands::Anywhere));
        }
        for line in secret.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii) {
            add(line.to_vec(), None);
        }
        forms
    }
}

/// The characters that hold nothing but bits of `secret` where it stands `offset` bytes (modulo 3) into what is encoded.
fn base64(secret: &[u8], offset: usize, alphabet: &[u8; 64]) -> Vec<u8> {
    let bit = |at: usize| secret[at / 8] >> (7 - at % 8) & 1;
    // Where the first whole character begins, in bits of the secret.
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

/// Where the secret is that was found as a form which `stands` so; `None` if what was found is a part of something else.
pub fn found(text: &[u8], found: Range<usize>, stands: Stands) -> Option<Range<usize>> {
    let before = text[..found.start].last().copied();
    let after = text.get(found.end).copied();
    let stands_alone = match stands {
        Stands::Anywhere => true,
        Stands::WithinBase64 => return Some(with_edges(text, found)),
        Stands::AsWord => {
            let inside = |outer: Option<u8>, edge: Option<&u8>| {
                outer.is_some_and(of_a_word) && edge.is_some_and(|edge| of_a_word(*edge))
            };
            !inside(before, text[found.clone()].first()) && !inside(after, text[found.clone()].last())
        }
        Stands::AsValue => match before {
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
    stands_alone.then_some(found)
}

/// Whether a byte is part of a word in some language.
fn of_a_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// The found characters and the one on either side that may hold the rest of the secret's bits, padding included.
fn with_edges(text: &[u8], found: Range<usize>) -> Range<usize> {
    let of_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    let before = text[..found.start].last().is_some_and(of_base64);
    let after = usize::from(text.get(found.end).is_some_and(of_base64));
    let padding = text[found.end + after..].iter().take(2).take_while(|&&byte| byte == b'=').count();
    found.start - usize::from(before)..found.end + after + padding
}
