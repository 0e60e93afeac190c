//! Removes every known secret from texts that people read: logs, reports, error messages and the output of programs.
//!
//! Finds a secret in these forms:
//! - verbatim;
//! - each line of a multi-line secret;
//! - in base64 (standard or URL-safe, at any offset, with or without padding);
//! - in hexadecimal;
//! - each of the above, percent-encoded (whichever characters are encoded, with upper-case or lower-case digits, with `+` for a space),
//!   with the backslash escapes of JSON or Rust, or with the character references of HTML or XML;
//! - the same with two of these encodings, one within the other.
//!
//! Does not find a secret that was truncated, wrapped across lines, or encoded in any other way. So redact first, then truncate and wrap.
//!
//! A short secret would also match inside ordinary words. So a secret of fewer than [`ANYWHERE`] bytes is redacted only as a whole word,
//! and a secret of fewer than [`SHORTEST`] bytes only as a value.

pub mod escapes;
pub mod forms;
#[cfg(test)]
mod tests;
pub mod views;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use crate::secret::Secret;

use forms::{Context, Form};

/// The text that replaces a secret.
pub const REDACTED: &str = "<secret>";

/// A secret of fewer bytes is redacted only if it is a value (`=x`, `"x"`), because it would also match inside ordinary text. A line of a
/// multi-line secret that has fewer bytes is not redacted. White space at either end of a secret does not count; but a secret that has at
/// least [`ANYWHERE`] bytes including this white space is redacted everywhere if the white space is there too.
pub const SHORTEST: usize = 4;

/// A secret of fewer bytes is redacted only if it is not part of a longer word; a secret of at least this many bytes, everywhere.
pub const ANYWHERE: usize = 8;

/// The most bytes that all secrets together may have; the search needs about a hundred times as much memory. The key of a Google service
/// account has about 2,400 bytes.
pub const MOST_BYTES: usize = 64 << 10;

/// Why a secret cannot be redacted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotRedact {
    /// The secrets together have more than [`MOST_BYTES`].
    #[error("there are more than {} KiB of secrets to keep out of texts", MOST_BYTES >> 10)]
    TooMany,
    /// The search for secrets cannot be built, for this reason.
    #[error("cannot look for secrets: {0}")]
    Search(String),
}

/// Redacts the secrets that were added. Clones share the secrets; a secret can be added at any time, from any thread.
#[derive(Clone, Default)]
pub struct Redactor(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    secrets: Vec<Secret>,
    /// Searches for every form of every secret.
    search: Option<AhoCorasick>,
    /// For each pattern of `search`, the contexts in which it is a secret.
    contexts: Vec<Context>,
}

impl Redactor {
    /// Creates a redactor without secrets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a secret, which is redacted from now on.
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
        known.contexts = forms.iter().map(|form| form.context).collect();
        known.secrets.push(secret.clone());
        Ok(())
    }

    /// Returns the text with [`REDACTED`] in place of each secret.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut spans = self.spans(text.as_bytes());
        // A match of a secret that is not UTF-8 may begin or end inside a character.
        for span in &mut spans {
            *span = text.floor_char_boundary(span.start)..text.ceil_char_boundary(span.end);
        }
        let mut redacted = String::new();
        let mut from = 0;
        for span in merged(spans) {
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

    /// Does the same as [`Redactor::redact`] for bytes that may not be UTF-8.
    pub fn redact_bytes<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let mut redacted = Vec::new();
        let mut from = 0;
        for span in merged(self.spans(text)) {
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

    /// Returns the ranges of the secrets in the text, in any order.
    fn spans(&self, text: &[u8]) -> Vec<Range<usize>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let Some(search) = &known.search else { return Vec::new() };
        let mut spans = Vec::new();
        views::each(text, |view| {
            for found in search.find_overlapping_iter(view.bytes()) {
                let context = known.contexts.get(found.pattern().as_usize()).copied();
                let context = context.unwrap_or(Context::Anywhere);
                spans.extend(
                    forms::found(view.bytes(), found.range(), context).map(|range| view.in_original(range)),
                );
            }
        });
        spans
    }
}

/// Sorts the spans and merges those that overlap.
fn merged(mut spans: Vec<Range<usize>>) -> Vec<Range<usize>> {
    spans.sort_unstable_by_key(|span| span.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.start < last.end => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    merged
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        write!(f, "Redactor of {} secrets", known.secrets.len())
    }
}
