//! Fuzzes the derivation of a key from a backup's info file: the derived key is a value in the file, and after blanking the file does not
//! contain it, regardless of the pieces in which the file is read.

#![no_main]

use std::io::{Cursor, Read};

use libfuzzer_sys::fuzz_target;
use transfer::derive::{Blanked, LONGEST_VALUE, SHORTEST_VALUE, derive_key};

/// A reader of the text that returns at most this number of bytes at once.
struct Pieces(Cursor<Vec<u8>>, usize);

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(self.1);
        self.0.read(&mut buffer[..length])
    }
}

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| {
    let (piece, parts) = input;
    // The parts are joined by the section and the name of the key, without which the parser would hardly ever find a key.
    let text = parts.join(&b"\n[cipher]\ncipher-pass=\""[..]);
    let pieces = || Pieces(Cursor::new(text.clone()), usize::from(piece).max(1));
    let whole = derive_key(&*text, "cipher", "cipher-pass");
    assert_eq!(
        derive_key(pieces(), "cipher", "cipher-pass"),
        whole,
        "the size of the pieces makes no difference"
    );
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
        .expect("the text contains the key");
    assert!((SHORTEST_VALUE..=LONGEST_VALUE).contains(&line.len()));
    let mut blanked = Blanked::default();
    blanked.add(&key).expect("a derived key can be blanked");
    let mut seen = Vec::new();
    blanked.reader(Box::new(pieces())).read_to_end(&mut seen).expect("reading from memory does not fail");
    assert_eq!(seen.len(), text.len());
    assert!(line.iter().all(|byte| *byte == b'*') || !seen.windows(line.len()).any(|window| window == line));
    let mut at_once = text.clone();
    blanked.blank(&mut at_once);
    assert_eq!(seen, at_once);
});
