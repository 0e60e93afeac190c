//! Takes every known secret out of texts that people read: logs, reports, error texts, what programs print.
//!
//! A secret is found as it is, line by line where it has several, in base64 (standard and URL-safe, at any offset, padded
//! or not), in hexadecimal, and each of these also percent-encoded (any set of characters, either case of the digits, `+`
//! for a space) or with the backslashes of JSON and of Rust. It is not found where a text was cut within it, folded into
//! lines that it does not have, or encoded in a way that is not named here: redact first, cut and fold then. Of a secret of fewer
//! than [`ANYWHERE`] bytes every word that holds it would go, too: it is found where it is a word of its own, and one of fewer than
//! [`SHORTEST`] where it is a value.

pub mod forms;
#[cfg(test)]
mod tests;
mod views;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use crate::secret::Secret;

use forms::{Form, Stands};

/// What stands in place of a secret.
pub const REDACTED: &str = "<secret>";

/// A secret of fewer bytes is taken out only where it is a value (`=x`, `"x"`), and a line of a secret not at all: it cannot be told
/// from other text.
pub const SHORTEST: usize = 4;

/// A secret of fewer bytes is taken out only where it is no part of a longer word. One of so many is taken out everywhere.
pub const ANYWHERE: usize = 8;

/// How many bytes of secrets there may be in all: what is looked for takes some hundred times as much memory. A service
/// account of Google's has some 2,400.
pub const MOST_BYTES: usize = 64 << 10;

/// Why a secret cannot be taken out of texts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotRedact {
    /// There are more than [`MOST_BYTES`] of secrets.
    #[error("there are more than {} KiB of secrets to keep out of texts", MOST_BYTES >> 10)]
    TooMany,
    /// The search for secrets cannot be built. Says why.
    #[error("cannot look for secrets: {0}")]
    Search(String),
}

/// Knows every secret. Its clones share what they know; secrets can be added at any time, from any thread.
#[derive(Clone, Default)]
pub struct Redactor(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    secrets: Vec<Secret>,
    /// Looks for every form of every secret.
    search: Option<AhoCorasick>,
    /// For each pattern of `search`, where it is a secret.
    stands: Vec<Stands>,
}

impl Redactor {
    /// One that knows none.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on this one is taken out too.
    ///
    /// # Errors
    /// [`CannotRedact`]. The caller must then not use the secret, because it would not be redacted.
    pub fn add(&self, secret: &Secret) -> Result<(), CannotRedact> {
        let length = secret.expose().len();
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if length == 0 || known.secrets.contains(secret) {
            return Ok(());
        }
        if length + known.secrets.iter().map(|secret| secret.expose().len()).sum::<usize>() > MOST_BYTES {
            return Err(CannotRedact::TooMany);
        }
        let secrets = known.secrets.iter().chain([secret]);
        let forms: BTreeSet<Form> = secrets.flat_map(|secret| Form::of(secret.expose())).collect();
        let search = AhoCorasick::builder()
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(forms.iter().map(|form| &form.text))
            .map_err(|error| CannotRedact::Search(error.to_string()))?;
        known.search = Some(search);
        known.stands = forms.iter().map(|form| form.stands).collect();
        known.secrets.push(secret.clone());
        Ok(())
    }

    /// `text` with [`REDACTED`] in place of each secret.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut spans = self.spans(text.as_bytes());
        // A secret that is no UTF-8 may be found across the bytes of a character.
        for span in &mut spans {
            *span = text.floor_char_boundary(span.start)..text.ceil_char_boundary(span.end);
        }
        let mut redacted = String::new();
        let mut from = 0;
        for span in joined(spans) {
            redacted.push_str(&text[from..span.start]);
            redacted.push_str(REDACTED);
            from = span.end;
        }
        if from == 0 {
            return Cow::Borrowed(text);
        }
        redacted.push_str(&text[from..]);
        Cow::Owned(redacted)
    }

    /// The same for bytes that may not be UTF-8.
    pub fn redact_bytes<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let mut redacted = Vec::new();
        let mut from = 0;
        for span in joined(self.spans(text)) {
            redacted.extend_from_slice(&text[from..span.start]);
            redacted.extend_from_slice(REDACTED.as_bytes());
            from = span.end;
        }
        if from == 0 {
            return Cow::Borrowed(text);
        }
        redacted.extend_from_slice(&text[from..]);
        Cow::Owned(redacted)
    }

    /// Where secrets are, in any order.
    fn spans(&self, text: &[u8]) -> Vec<Range<usize>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(search) = &known.search else { return Vec::new() };
        let mut spans = Vec::new();
        views::each(text, |view| {
            for found in search.find_overlapping_iter(view.bytes()) {
                let stands = known.stands.get(found.pattern().as_usize()).copied();
                let stands = stands.unwrap_or(Stands::Anywhere);
                spans.extend(forms::found(view.bytes(), found.range(), stands).map(|range| view.of(range)));
            }
        });
        spans
    }
}

/// Sorted, and those that overlap as one.
fn joined(mut spans: Vec<Range<usize>>) -> Vec<Range<usize>> {
    spans.sort_unstable_by_key(|span| span.start);
    let mut joined: Vec<Range<usize>> = Vec::with_capacity(spans.len());
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.start < last.end => last.end = last.end.max(span.end),
            _ => joined.push(span),
        }
    }
    joined
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        write!(f, "Redactor of {} secrets", known.secrets.len())
    }
}
