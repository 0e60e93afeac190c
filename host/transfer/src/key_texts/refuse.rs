//! Readers that fail if a text holds keys.

use std::io::{self, Read};

use super::{Begins, LONGEST, judge};
use crate::codec::Codec;
use crate::error::{Error, Kind};

/// How many bytes of a compressed text are decompressed to recognise it: the largest block of bzip2, which must be complete before
/// it can be decompressed, and its header. The other formats yield the first bytes of a text after a few hundred compressed bytes.
const HEAD: usize = (900 << 10) + 4096;

/// A reader that fails with `Denied` if the text may hold keys. It fails as soon as it has read the bytes that identify the text.
pub(crate) struct Refusing<R> {
    inner: R,
    /// The beginning of the text; `None` once it is clear that the text holds no keys.
    beginning: Option<Vec<u8>>,
}

impl<R: Read> Refusing<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, beginning: Some(Vec::new()) }
    }
}

impl<R: Read> Read for Refusing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        if let Some(beginning) = &mut self.beginning {
            beginning.extend_from_slice(&into[..read.min(LONGEST - beginning.len())]);
            match judge(beginning) {
                Begins::WithKeys => {
                    let message =
                        "it is a text that holds keys, which must not be written into a data directory";
                    return Err(Error::new(Kind::Denied, message).into());
                }
                Begins::Without => self.beginning = None,
                Begins::Unclear => {}
            }
        }
        Ok(read)
    }
}

/// A reader that fails with `Denied` if the data are a compressed text that holds keys. Anything else passes, compressed or not.
pub(crate) struct RefusingCompressed<R> {
    inner: R,
    /// The bytes that were read for the check and not returned yet.
    head: io::Cursor<Vec<u8>>,
    checked: bool,
}

impl<R: Read> RefusingCompressed<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, head: io::Cursor::default(), checked: false }
    }

    fn check(&mut self) -> io::Result<()> {
        let mut head = Vec::new();
        self.inner.by_ref().take(16).read_to_end(&mut head)?;
        if let Some(codec) = compressed_with(&head) {
            self.inner.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
            if begins_with_keys(codec, &head)? {
                let message = format!(
                    "it is a text that holds keys, compressed with {}: it can be read only with `decompress`",
                    codec.name()
                );
                return Err(Error::new(Kind::Denied, message).into());
            }
        }
        self.head = io::Cursor::new(head);
        self.checked = true;
        Ok(())
    }
}

/// Recognises the codec by the magic number, among the codecs that the known tools use. Zlib has no magic number, and no known tool
/// uses it.
fn compressed_with(head: &[u8]) -> Option<Codec> {
    match head {
        [0x1f, 0x8b, 8, ..] => Some(Codec::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Codec::Zstd),
        [0x04, 0x22, 0x4d, 0x18, ..] => Some(Codec::Lz4),
        [b'B', b'Z', b'h', b'1'..=b'9', ..] => Some(Codec::Bzip2),
        _ => None,
    }
}

/// Returns whether the data that begin with `head` are a text with keys when they are decompressed.
fn begins_with_keys(codec: Codec, head: &[u8]) -> Result<bool, Error> {
    let mut plain = codec.decode(Box::new(io::Cursor::new(head.to_vec())))?;
    let mut beginning = [0; LONGEST];
    let mut length = 0;
    while length < beginning.len() {
        match plain.read(&mut beginning[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The stream is damaged, or `head` ends within it.
            Err(_) => break,
        }
    }
    Ok(judge(&beginning[..length]) == Begins::WithKeys)
}

impl<R: Read> Read for RefusingCompressed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.checked {
            self.check()?;
        }
        match self.head.read(into)? {
            0 => self.inner.read(into),
            read => Ok(read),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Compresses `text` with `program`.
    fn compressed(program: &str, text: &[u8]) -> Vec<u8> {
        let mut child =
            Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let text = text.to_vec();
        let writing = std::thread::spawn(move || io::Write::write_all(&mut stdin, &text));
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap().unwrap();
        output.stdout
    }

    fn read(stored: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        RefusingCompressed::new(stored).read_to_end(&mut plain).map(|_| plain)
    }

    #[test]
    fn a_compressed_text_that_holds_keys_is_refused_and_others_pass() {
        let mut text = b"[backrest]\nbackrest-format=5\n".to_vec();
        // Makes the text longer than a block of bzip2, with bytes that cannot be compressed.
        let mut noise = fastrand::Rng::with_seed(1);
        text.extend(std::iter::repeat_with(|| noise.u8(..)).take(2 << 20));
        for program in ["gzip", "zstd", "lz4", "bzip2"] {
            for length in [30, text.len()] {
                let error = read(&compressed(program, &text[..length])).unwrap_err();
                assert!(error.to_string().contains("holds keys"), "{program}: {error}");
            }
            let other = compressed(program, &text[1..]);
            assert!(read(&other).unwrap() == other, "{program}");
        }
    }

    #[test]
    fn data_that_only_look_compressed_pass() {
        for stored in [
            &b"BZh9 is how it begins"[..],
            &[0x1f, 0x8b, 8, 0],
            b"",
            b"[backrest]",
            &[0x28, 0xb5, 0x2f, 0xfd],
        ] {
            assert_eq!(read(stored).unwrap(), stored);
        }
    }
}
