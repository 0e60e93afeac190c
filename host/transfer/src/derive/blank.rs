//! Keeps derived keys out of what is read.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use aho_corasick::AhoCorasick;

use crate::error::{Error, Kind};
use crate::keys::Key;
use crate::sink::read_full;

/// How many keys of one store are blanked at most. A backup has two or three.
pub const MOST_KEYS: usize = 256;

/// How many bytes are looked through at once.
const STEP: usize = 64 << 10;

/// The keys that a reader must not see.
///
/// It goes by their text, not by their place: whatever is read through [`Blanked::reader`] has `*` for every byte of every
/// occurrence of every key's JSON text, so that a range, a copy (`backup.info.copy`) or a second value with the same text
/// does not show what the first hides. Lengths and offsets stay.
///
/// A range is the caller's business: one that begins or ends within a key shows the part of it that is no whole key. So
/// while this is not empty, ranges of an object that is stored plain must be refused.
///
/// It must stand at the end of the pipeline, where the text is plain. The same bytes in stored form show the key to whoever
/// can decode them: an object that is not encrypted must not be given out in another form than the one that is blanked.
#[derive(Clone, Default)]
pub struct Blanked {
    keys: Vec<Key>,
    search: Option<Arc<AhoCorasick>>,
    longest: usize,
}

// The automaton of the search spells the keys.
impl fmt::Debug for Blanked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blanked of {} keys", self.keys.len())
    }
}

impl Blanked {
    /// Blanks this derived key as well. The same key twice counts once.
    ///
    /// # Errors
    /// `Invalid` for a key that was not derived, `Limit` for more than [`MOST_KEYS`].
    pub fn add(&mut self, key: &Key) -> Result<(), Error> {
        let Some(text) = key.text() else {
            return Err(Error::new(Kind::Invalid, format!("the key `{}` was not derived", key.name)));
        };
        if self.keys.iter().any(|known| known.text() == Some(text)) {
            return Ok(());
        }
        if self.keys.len() == MOST_KEYS {
            return Err(Error::new(Kind::Limit, format!("at most {MOST_KEYS} keys can be derived")));
        }
        let texts = self.keys.iter().filter_map(Key::text).chain([text]);
        let search = AhoCorasick::new(texts.map(|text| text.expose()))
            .map_err(|error| Error::new(Kind::Failed, format!("cannot look for derived keys: {error}")))?;
        self.longest = self.longest.max(text.expose().len());
        self.search = Some(Arc::new(search));
        self.keys.push(key.clone());
        Ok(())
    }

    /// Whether there is nothing to blank.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// `plain` with `*` in place of the keys, for those that are known now.
    pub fn reader(&self, plain: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        self.looking(plain, false)
    }

    /// `plain`, which fails with `Denied` before the first byte of a key: for what is written where others read it.
    pub fn refusing(&self, plain: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        self.looking(plain, true)
    }

    fn looking(&self, plain: Box<dyn Read + Send>, refuses: bool) -> Box<dyn Read + Send> {
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

    /// The same for text that is there as a whole.
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
    /// What was read and may be the beginning of a key, as it was read.
    raw: Vec<u8>,
    /// How many bytes of it belong to a key that began before it.
    covered: usize,
    /// What may be seen.
    clean: Vec<u8>,
    /// How much of that was given out.
    given: usize,
    ended: bool,
    failed: Option<Error>,
    /// Whether a key is an error rather than blanked.
    refuses: bool,
}

impl Blanking {
    /// Reads on and settles what can be settled: all but the last bytes, in which a key may begin that is not whole yet.
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
                return Err(Error::new(Kind::Denied, "a key that was derived stands in it").into());
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
