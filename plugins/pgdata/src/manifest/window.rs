//! Reads JSON text one value at a time, such as one item of a list. `serde_json` reads a value in memory several times as fast as a value
//! from a reader.

use std::io::Read;

use serde::Deserialize;

use super::ManifestError;

/// How many bytes are read at a time.
const READ: usize = 128 << 10;

/// The part of a text that was read but is not consumed yet.
pub(super) struct Window<R> {
    inner: R,
    buffer: Vec<u8>,
    /// The number of consumed bytes in the buffer.
    start: usize,
    ended: bool,
}

impl<R: Read> Window<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, buffer: Vec::with_capacity(2 * READ), start: 0, ended: false }
    }

    /// Returns the reader.
    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    /// Reads more of the text, if there is more.
    fn fill(&mut self) -> Result<(), ManifestError> {
        self.buffer.drain(..self.start);
        self.start = 0;
        // Reads until the chunk is full, because a reader may return a few bytes at a time.
        let read = self.inner.by_ref().take(READ as u64).read_to_end(&mut self.buffer)?;
        self.ended = read < READ;
        Ok(())
    }

    /// Returns the next byte that is not white space, without consuming it; `None` at the end.
    fn peek(&mut self) -> Result<Option<u8>, ManifestError> {
        loop {
            let rest = &self.buffer[self.start..];
            match rest.iter().position(|byte| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t')) {
                Some(at) => {
                    self.start += at;
                    return Ok(Some(rest[at]));
                }
                None if self.ended => return Ok(None),
                None => {
                    self.start = self.buffer.len();
                    self.fill()?;
                }
            }
        }
    }

    /// Consumes the next character, which must be one of `signs`.
    pub(super) fn one_of(&mut self, signs: &[u8]) -> Result<u8, ManifestError> {
        let found = self.peek()?;
        match found.filter(|sign| signs.contains(sign)) {
            Some(sign) => {
                self.start += 1;
                Ok(sign)
            }
            None => {
                let found = found.map_or("its end".to_owned(), |sign| format!("`{}`", sign.escape_ascii()));
                let expected = signs.escape_ascii();
                Err(ManifestError::Malformed(format!("{found} where one of `{expected}` belongs")))
            }
        }
    }

    /// Consumes the next character if it is `sign`. Returns whether the character was consumed.
    pub(super) fn takes(&mut self, sign: u8) -> Result<bool, ManifestError> {
        let is_next = self.peek()? == Some(sign);
        self.start += usize::from(is_next);
        Ok(is_next)
    }

    /// Consumes the next value, which must have at most `most` bytes.
    pub(super) fn value<'a, T: Deserialize<'a>>(&'a mut self, most: usize) -> Result<T, ManifestError> {
        let length = self.length(most)?;
        let text = &self.buffer[self.start..self.start + length];
        self.start += length;
        serde_json::from_slice(text).map_err(|error| ManifestError::Malformed(error.to_string()))
    }

    /// Returns the length of the next value.
    fn length(&mut self, most: usize) -> Result<usize, ManifestError> {
        self.peek()?;
        loop {
            let rest = &self.buffer[self.start..];
            let length = length_of(rest);
            if length.unwrap_or(rest.len()) > most {
                return Err(ManifestError::Malformed(format!("a value of more than {most} bytes")));
            }
            match length {
                Some(length) => return Ok(length),
                // The text has ended, so the rest is all there is.
                None if self.ended => return Ok(rest.len()),
                None => self.fill()?,
            }
        }
    }

    /// Fails if more text follows.
    pub(super) fn end(&mut self) -> Result<(), ManifestError> {
        match self.peek()? {
            None => Ok(()),
            Some(_) => Err(ManifestError::Malformed("something follows it".to_owned())),
        }
    }
}

/// Returns the length of the value that `text` begins with; `None` if its end is not in `text`. For text that is not a value, the length is
/// arbitrary.
fn length_of(text: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        match *text.get(at)? {
            b'"' => {
                at += string(&text[at..])?;
                if depth == 0 {
                    return Some(at);
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return Some(at + depth),
            b'}' | b']' => depth -= 1,
            b',' | b' ' | b'\n' | b'\r' | b'\t' if depth == 0 => return Some(at),
            _ => {}
        }
        at += 1;
    }
}

/// Returns the length of the string that `text` begins with; `None` if its end is not in `text`.
fn string(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match *text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_value_is_found() {
        for (text, length) in [
            ("7, 8", Some(1)),
            ("7", None),
            ("true}", Some(4)),
            (r#""a\"]}",1"#, Some(7)),
            (r#""a\\",1"#, Some(5)),
            (r#""a\"#, None),
            (r#"{"a":[1,{"b":"}"}]}, 1"#, Some(19)),
            (r#"{"a":[1"#, None),
            ("}", Some(0)),
            ("", None),
        ] {
            assert_eq!(length_of(text.as_bytes()), length, "{text}");
        }
    }

    #[test]
    fn values_are_read_whole_whatever_the_size_of_the_reads() {
        struct SmallReads<'a>(&'a [u8], usize);
        impl Read for SmallReads<'_> {
            fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
                let length = self.1.min(into.len()).min(self.0.len());
                into[..length].copy_from_slice(&self.0[..length]);
                self.0 = &self.0[length..];
                Ok(length)
            }
        }
        for size in [1, 2, 3, 100] {
            let mut window = Window::new(SmallReads(br#" [ {"a": "]\u0041"} , 17 ,"x"]  "#, size));
            assert_eq!(window.one_of(b"[").unwrap(), b'[');
            let value: std::collections::BTreeMap<String, String> = window.value(100).unwrap();
            assert_eq!(value["a"], "]A");
            assert_eq!(window.one_of(b",]").unwrap(), b',');
            assert_eq!(window.value::<u32>(100).unwrap(), 17);
            assert!(window.takes(b',').unwrap() && !window.takes(b',').unwrap());
            assert_eq!(window.value::<String>(3).unwrap(), "x");
            assert_eq!(window.one_of(b",]").unwrap(), b']');
            window.end().unwrap();
        }
    }

    #[test]
    fn a_value_is_not_read_beyond_its_bound() {
        let endless = (&b"\""[..]).chain(std::io::repeat(b'x'));
        let mut window = Window::new(endless);
        let error = window.value::<String>(1 << 20).unwrap_err();
        assert!(error.to_string().contains("more than 1048576 bytes"), "{error}");
        assert!(window.buffer.len() <= (1 << 20) + 2 * READ);
        assert!(Window::new(&b"\"12345\""[..]).value::<String>(6).is_err());
        assert!(Window::new(&b"\"12345\""[..]).value::<String>(7).is_ok());
    }
}
