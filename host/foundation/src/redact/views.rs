//! Decodes the encodings in a text, and maps positions in the decoded text back to the original.

use std::borrow::Cow;
use std::ops::Range;

use super::escapes::{Decoded, Encoding};

/// The original text or a decoded copy.
pub(super) struct View<'a> {
    bytes: Cow<'a, [u8]>,
    /// For each byte, the position in the original at which its encoding begins; then the position of the end. `None` for the original,
    /// and if no positions are kept.
    from: Option<Vec<usize>>,
    /// Whether positions are kept.
    is_mapped: bool,
}

impl View<'_> {
    /// Returns the bytes of the text or of the copy.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Converts a range in this view to the range in the original.
    pub(super) fn in_original(&self, range: Range<usize>) -> Range<usize> {
        match &self.from {
            None => range,
            Some(from) => from[range.start]..from[range.end],
        }
    }

    /// Returns a decoded copy of this view; `None` if the copy would be the same as this view or as the copy for another encoding.
    fn decoded(&self, encoding: Encoding) -> Option<View<'static>> {
        if !self.bytes.contains(&encoding.mark()) {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut from = Vec::with_capacity(if self.is_mapped { self.bytes.len() + 1 } else { 0 });
        let origin = |at: usize| self.from.as_ref().map_or(at, |from| from[at]);
        let mut at = 0;
        let mut differs = false;
        while at < self.bytes.len() {
            let plain = at + encoding.plain(&self.bytes[at..]);
            bytes.extend_from_slice(&self.bytes[at..plain]);
            if self.is_mapped {
                from.extend((at..plain).map(origin));
            }
            at = plain;
            let Some(&byte) = self.bytes.get(at) else { break };
            let escape = encoding.decode(&self.bytes[at..]);
            differs |= escape.is_some();
            let (decoded, length) = escape.unwrap_or((Decoded::Byte(byte), 1));
            match decoded {
                Decoded::Byte(byte) => bytes.push(byte),
                Decoded::Char(char) => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            if self.is_mapped {
                from.resize(bytes.len(), origin(at));
            }
            at += length;
        }
        if self.is_mapped {
            from.push(origin(at));
        }
        let from = Some(from).filter(|_| self.is_mapped);
        differs.then_some(View { bytes: Cow::Owned(bytes), from, is_mapped: self.is_mapped })
    }
}

/// Calls `look` with the text and with each decoded copy that differs from it: decoded from each encoding, and from each combination of two
/// encodings, one within the other. Takes time and memory in proportion to the text: at most 21 views, of which three exist at once, each
/// with 9 bytes per byte of text.
pub(super) fn each(text: &[u8], look: impl FnMut(&View<'_>)) {
    each_of(&View { bytes: Cow::Borrowed(text), from: None, is_mapped: true }, look);
}

/// Does the same with the bytes of each view, without their positions.
pub fn each_bytes(text: &[u8], mut look: impl FnMut(&[u8])) {
    each_of(&View { bytes: Cow::Borrowed(text), from: None, is_mapped: false }, |view| look(view.bytes()));
}

fn each_of(raw: &View<'_>, mut look: impl FnMut(&View<'_>)) {
    look(raw);
    for outer in Encoding::ALL.into_iter().filter_map(|encoding| raw.decoded(encoding)) {
        look(&outer);
        for inner in Encoding::ALL.into_iter().filter_map(|encoding| outer.decoded(encoding)) {
            look(&inner);
        }
    }
}
