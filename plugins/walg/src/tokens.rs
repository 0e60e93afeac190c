//! Bounds the memory that a JSON document from a storage can take. A parser keeps one text or number at a time, so no text and no number
//! may be long.

use std::io::{self, Read};

use understudy::Failure;

/// The longest permitted text or number of a document, in bytes. The longest that WAL-G writes is a path, of which each byte may be
/// written with six.
pub(crate) const LONGEST: usize = 64 << 10;

/// A reader of a JSON document that fails at a long text or number, and after too many bytes. It does not check the JSON otherwise.
#[derive(Debug)]
pub(crate) struct Tokens<R> {
    inner: R,
    /// The document's name in messages.
    shown: String,
    is_in_text: bool,
    is_escaped: bool,
    /// The length of the current text or number so far.
    length: usize,
    /// How many more bytes may be read.
    left: u64,
}

impl<R: Read> Tokens<R> {
    /// Makes a reader of `inner`, the document that messages call `shown`, of at most `limit` bytes.
    pub(crate) fn new(inner: R, shown: &str, limit: u64) -> Self {
        Self { inner, shown: shown.to_owned(), is_in_text: false, is_escaped: false, length: 0, left: limit }
    }

    fn check(&mut self, byte: u8) -> io::Result<()> {
        self.length += 1;
        if self.is_in_text {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => (self.is_in_text, self.length) = (false, 0),
                _ => {}
            }
        } else {
            match byte {
                b'"' => (self.is_in_text, self.length) = (true, 0),
                b'{' | b'}' | b'[' | b']' | b':' | b',' | b' ' | b'\t' | b'\r' | b'\n' => self.length = 0,
                _ => {}
            }
        }
        if self.length > LONGEST {
            let shown = &self.shown;
            return Err(Failure::failed(format!(
                "{shown} has a text or number of more than {LONGEST} bytes"
            ))
            .into());
        }
        Ok(())
    }
}

impl<R: Read> Read for Tokens<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        let Some(left) = self.left.checked_sub(read as u64) else {
            let shown = &self.shown;
            return Err(Failure::failed(format!("{shown} is larger than any that WAL-G writes")).into());
        };
        self.left = left;
        for byte in into.iter().take(read) {
            self.check(*byte)?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(document: &str, limit: u64) -> Result<u64, String> {
        let mut tokens = Tokens::new(document.as_bytes(), "doc", limit);
        io::copy(&mut tokens, &mut io::sink()).map_err(|error| Failure::from(error).to_string())
    }

    #[test]
    fn a_text_or_number_may_be_as_long_as_the_limit() {
        let most = "a".repeat(LONGEST - 1);
        for document in [
            format!("{{\"{most}\":\"{most}\",\"x\":[\"{most}\", {}]}}", "1".repeat(LONGEST)),
            format!("\"{}\"", "\\\"".repeat(LONGEST / 2 - 1)),
            "[1,".repeat(LONGEST),
        ] {
            assert_eq!(read(&document, u64::MAX), Ok(document.len() as u64));
        }
        for document in [
            format!("{{\"{most}aa\":1}}"),
            format!("{{\"x\":{}}}", "1".repeat(LONGEST + 1)),
            // An escaped quotation mark does not end a text.
            format!("\"{}", "\\\"".repeat(LONGEST / 2 + 1)),
            format!("\"\\\\\"{}", "x".repeat(LONGEST + 1)),
        ] {
            assert!(read(&document, u64::MAX).unwrap_err().contains("text or number"), "{}", &document[..20]);
        }
    }

    #[test]
    fn a_document_may_be_as_large_as_the_limit() {
        assert_eq!(read("[1,2]", 5), Ok(5));
        assert!(read("[1,2] ", 5).unwrap_err().contains("doc is larger"));
    }
}
