//! What a secret may look like.

use std::ops::Range;

use super::SHORTEST;

/// A text that is looked for.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct Form {
    /// The bytes that are looked for.
    pub text: Vec<u8>,
    /// Whether characters of base64 on either side may hold some of its bits too.
    pub within_base64: bool,
}

/// RFC 4648, section 4.
const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, section 5.
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Form {
    /// All that this secret may look like, before what [`views`](super::views) undoes.
    pub fn of(secret: &[u8]) -> Vec<Self> {
        let mut forms = Vec::new();
        let mut add = |text: Vec<u8>, within_base64| {
            if text.len() >= SHORTEST {
                forms.push(Self { text, within_base64 });
            }
        };
        // A file often ends with a line feed that is no part of the secret to whoever prints it.
        for whole in [secret, secret.trim_ascii()] {
            add(whole.to_vec(), false);
            // What is no UTF-8 is often printed with U+FFFD for what is not.
            add(String::from_utf8_lossy(whole).into_owned().into_bytes(), false);
            for alphabet in [STANDARD, URL_SAFE] {
                for offset in 0..3 {
                    add(base64(whole, offset, alphabet), true);
                }
            }
            add(hexadecimal(whole, b"0123456789abcdef"), false);
            add(hexadecimal(whole, b"0123456789ABCDEF"), false);
        }
        for line in secret.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii) {
            add(line.to_vec(), false);
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

/// Where `edges`, the found characters and the one on either side that may hold the rest of the secret's bits, padding
/// included.
pub fn with_edges(text: &[u8], found: Range<usize>, edges: bool) -> Range<usize> {
    if !edges {
        return found;
    }
    let of_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
    let before = text[..found.start].last().is_some_and(of_base64);
    let after = usize::from(text.get(found.end).is_some_and(of_base64));
    let padding = text[found.end + after..].iter().take(2).take_while(|&&byte| byte == b'=').count();
    found.start - usize::from(before)..found.end + after + padding
}
