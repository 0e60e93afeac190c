//! Whatever a backup's info file holds: a key that comes out of it is what stands there, and once it is blanked it is
//! nowhere to be seen, however the bytes are read.

#![no_main]

use std::io::{Cursor, Read};

use libfuzzer_sys::fuzz_target;
use transfer::derive::{Blanked, LONGEST_VALUE, SHORTEST_VALUE, derive_key};

/// Gives the text in pieces of its own sizes.
struct Pieces(Cursor<Vec<u8>>, usize);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(self.1);
        self.0.read(&mut buffer[..length])
    }
}

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| {
    let (piece, parts) = input;
    // Between the parts stands what a reader looks for, or the search would not get past the first line.
    let text = parts.join(&b"\n[cipher]\ncipher-pass=\""[..]);
    let pieces = || Pieces(Cursor::new(text.clone()), usize::from(piece).max(1));
    let whole = derive_key(&*text, "cipher", "cipher-pass");
    assert_eq!(derive_key(pieces(), "cipher", "cipher-pass"), whole, "pieces make no difference");
    let Ok(key) = whole else { return };
    let line = text
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter_map(|line| line.strip_prefix(b"cipher-pass=\"")?.strip_suffix(b"\""))
        .find(|value| {
            let json = [&b"\""[..], value, b"\""].concat();
            derive_key(&*[b"[cipher]\ncipher-pass=", &*json].concat(), "cipher", "cipher-pass").as_ref()
                == Ok(&key)
        })
        .expect("the key stands in the text");
    assert!((SHORTEST_VALUE..=LONGEST_VALUE).contains(&line.len()));
    let mut blanked = Blanked::default();
    blanked.add(&key).expect("it was derived");
    let mut seen = Vec::new();
    blanked.reader(Box::new(pieces())).read_to_end(&mut seen).expect("memory does not fail");
    assert_eq!(seen.len(), text.len());
    assert!(line.iter().all(|byte| *byte == b'*') || !seen.windows(line.len()).any(|window| window == line));
    let mut at_once = text.clone();
    blanked.blank(&mut at_once);
    assert_eq!(seen, at_once);
});
