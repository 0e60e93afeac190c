//! Blanks the keys in a text that is read, even if no key was derived from the text.

use std::io::{self, Read};

use super::FORMATS;

/// A reader that replaces every byte of a key with `*`, so the length of the text stays the same. Finds a key regardless of the chunks in
/// which the inner reader returns the text.
pub(crate) struct Blanking<R> {
    inner: R,
    at: At,
}

/// The position within a line.
#[derive(Clone, Copy)]
enum At {
    /// The line so far matches the first `matched` bytes of `line`. The line of every key of a format begins with `line`.
    Beginning { line: &'static [u8], matched: usize },
    /// In a line that holds no key.
    Line,
    /// In a key; `escaped` if the previous byte was a backslash that escapes this byte.
    Key { escaped: bool },
}

impl At {
    const LINE_BEGINS: Self = Self::Beginning { line: &[], matched: 0 };

    /// Returns the position after `byte`, which follows `matched` bytes that match the beginning of `line`.
    fn after(line: &'static [u8], matched: usize, byte: u8) -> Self {
        let goes_on = |other: &&'static [u8]| {
            other.get(..matched) == Some(&line[..matched]) && other.get(matched) == Some(&byte)
        };
        match FORMATS.iter().map(|format| format.line).find(goes_on) {
            None => Self::Line,
            Some(line) if matched + 1 == line.len() => Self::Key { escaped: false },
            Some(line) => Self::Beginning { line, matched: matched + 1 },
        }
    }
}

impl<R: Read> Blanking<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, at: At::LINE_BEGINS }
    }

    fn blank(&mut self, mut text: &mut [u8]) {
        while let Some(byte) = text.first().copied() {
            let (at, done) = match self.at {
                _ if byte == b'\n' => (At::LINE_BEGINS, 1),
                At::Line => (At::Line, text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len())),
                At::Beginning { line, matched } => (At::after(line, matched, byte), 1),
                At::Key { escaped: false } if byte == b'"' => (At::Line, 1),
                At::Key { escaped } => {
                    text[0] = b'*';
                    (At::Key { escaped: !escaped && byte == b'\\' }, 1)
                }
            };
            self.at = at;
            text = &mut text[done..];
        }
    }
}

impl<R: Read> Read for Blanking<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.blank(&mut buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that returns this many bytes per read.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(buffer.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    #[test]
    fn a_key_in_a_text_is_blanked_across_all_chunk_boundaries() {
        let text = "[cipher]\ncipher-pass=\"se\\\"cr\\\\\"\n\nxcipher-pass=\"seen\"\ncipher-passe=\"seen\"\n\
                    cipher-pass=\ncipher-pass=\"again\ncipher-pass=\"last";
        let blanked = "[cipher]\ncipher-pass=\"********\"\n\nxcipher-pass=\"seen\"\ncipher-passe=\"seen\"\n\
                       cipher-pass=\ncipher-pass=\"*****\ncipher-pass=\"****";
        for at_once in [1, 2, 3, 7, 16, 1000] {
            let mut read = String::new();
            Blanking::new(Pieces(text.as_bytes(), at_once)).read_to_string(&mut read).unwrap();
            assert_eq!(read, blanked, "{at_once} at once");
        }
    }

    #[test]
    fn a_text_without_keys_is_unchanged() {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(100_000).collect();
        let mut read = Vec::new();
        Blanking::new(bytes.as_slice()).read_to_end(&mut read).unwrap();
        assert!(read == bytes);
    }
}
