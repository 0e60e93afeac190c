//! Blanks derived keys in the bytes that are read.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use aho_corasick::AhoCorasick;

use crate::error::{Error, Kind};
use crate::keys::Key;
use crate::sink::read_full;

/// The most keys that are blanked. A backup has two or three.
pub const MOST_KEYS: usize = 256;

/// How many bytes are searched at once.
const STEP: usize = 64 << 10;

/// The set of derived keys that a reader must not see.
///
/// The set matches the JSON text of the keys, wherever it occurs: [`Blanked::reader`] puts `*` in place of every byte of every
/// occurrence. So neither a range, nor a copy (`backup.info.copy`), nor a second value with the same text shows a key. Lengths and offsets
/// stay the same.
///
/// The set does not recognise a part of a key. So while the set is not empty, the caller must refuse ranges of objects that are stored
/// without encryption, because a range may begin or end within a key.
///
/// Blanking must be the last step of a pipeline, where the text is plain. The caller must not give out an unencrypted object in another
/// encoding, because the plugin could decode that itself.
#[derive(Clone, Default)]
pub struct Blanked {
    keys: Vec<Key>,
    search: Option<Arc<AhoCorasick>>,
    longest: usize,
}

// `Debug` is not derived, because the search automaton contains the keys.
impl fmt::Debug for Blanked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blanked of {} keys", self.keys.len())
    }
}

impl Blanked {
    /// Adds a derived key. A key that is in the set already counts once.
    ///
    /// # Errors
    /// `Invalid` if the key was not derived, `Limit` if there are more than [`MOST_KEYS`].
    pub fn add(&mut self, key: &Key) -> Result<(), Error> {
        let Some(text) = key.json() else {
            return Err(Error::new(Kind::Invalid, format!("the key `{}` was not derived", key.name)));
        };
        if self.keys.iter().any(|known| known.json() == Some(text)) {
            return Ok(());
        }
        if self.keys.len() == MOST_KEYS {
            return Err(Error::new(Kind::Limit, format!("at most {MOST_KEYS} keys can be derived")));
        }
        let texts = self.keys.iter().filter_map(Key::json).chain([text]);
        let search = AhoCorasick::new(texts.map(|text| text.expose()))
            .map_err(|error| Error::new(Kind::Failed, format!("cannot search for derived keys: {error}")))?;
        self.longest = self.longest.max(text.expose().len());
        self.search = Some(Arc::new(search));
        self.keys.push(key.clone());
        Ok(())
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns a reader of `plain` with `*` in place of the keys that the set has now.
    pub fn reader(&self, plain: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        self.filter(plain, false)
    }

    /// Returns a reader of `plain` that fails with `Denied` before the first byte of a key, for data that is written to files.
    pub fn refusing(&self, plain: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        self.filter(plain, true)
    }

    fn filter(&self, plain: Box<dyn Read + Send>, refuses: bool) -> Box<dyn Read + Send> {
        match &self.search {
            None => plain,
            Some(search) => Box::new(Blanking {
                plain,
                search: Arc::clone(search),
                longest: self.longest,
                raw: Vec::new(),
                covered: 0,
                clean: Vec::new(),
                given: 0,
                ended: false,
                failed: None,
                refuses,
            }),
        }
    }

    /// Blanks the keys in `text`.
    pub fn blank(&self, text: &mut [u8]) {
        if let Some(search) = &self.search {
            blank(search, text);
        }
    }
}

fn blank(search: &AhoCorasick, text: &mut [u8]) {
    let found: Vec<_> = search.find_overlapping_iter(&*text).map(|found| found.range()).collect();
    for range in found {
        text[range].fill(b'*');
    }
}

struct Blanking {
    plain: Box<dyn Read + Send>,
    search: Arc<AhoCorasick>,
    longest: usize,
    /// Bytes that were read and may be the beginning of a key.
    raw: Vec<u8>,
    /// How many bytes of `raw` belong to a key that began before them.
    covered: usize,
    /// Bytes whose keys are blanked.
    clean: Vec<u8>,
    /// How many bytes of `clean` were returned.
    given: usize,
    ended: bool,
    failed: Option<Error>,
    /// Whether to fail at a key instead of blanking it.
    refuses: bool,
}

impl Blanking {
    /// Reads more and moves bytes to `clean`: all except the last bytes, in which an incomplete key may begin.
    fn refill(&mut self) -> io::Result<()> {
        let held = self.raw.len();
        self.raw.resize(held + STEP, 0);
        let end = held + read_full(&mut *self.plain, &mut self.raw[held..])?;
        self.ended = end < self.raw.len();
        self.raw.truncate(end);
        let settled = if self.ended { end } else { end.saturating_sub(self.longest - 1) };
        self.clean.clear();
        self.clean.extend_from_slice(&self.raw[..settled]);
        self.given = 0;
        self.clean[..self.covered.min(settled)].fill(b'*');
        let mut covered = self.covered.saturating_sub(settled);
        for found in self.search.find_overlapping_iter(&self.raw) {
            if self.refuses {
                return Err(Error::new(Kind::Denied, "it contains a derived key").into());
            }
            if found.start() < settled {
                self.clean[found.start()..found.end().min(settled)].fill(b'*');
                covered = covered.max(found.end().saturating_sub(settled));
            }
        }
        self.covered = covered;
        self.raw.drain(..settled);
        Ok(())
    }
}

impl Read for Blanking {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        while self.given == self.clean.len() && !self.ended && !output.is_empty() {
            self.refill().inspect_err(|error| {
                (self.given, self.clean) = (0, Vec::new());
                self.failed = Some(Error::again(error));
            })?;
        }
        let length = output.len().min(self.clean.len() - self.given);
        output[..length].copy_from_slice(&self.clean[self.given..self.given + length]);
        self.given += length;
        Ok(length)
    }
}
