//! Buffers between the thread that reads and decodes an archive and the one that writes its files.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{BUFFER, RING};
use crate::budget::{Budget, Charge};
use crate::error::{Error, Kind};

/// How many buffers a ring has however little memory there is. A batch that is still being made holds up to three.
pub(crate) const FEWEST_BUFFERS: usize = 4;

/// A few buffers that go round: filled by one thread, emptied by others, filled again.
pub(crate) struct Ring {
    memory: Budget,
    state: Mutex<Circulation>,
    moved: Condvar,
}

#[derive(Default)]
struct Circulation {
    made: usize,
    /// For the buffers beyond the fewest, which are charged with their worker.
    charges: Vec<Charge>,
    free: Vec<Box<[u8]>>,
    filled: VecDeque<Arc<Filled>>,
    /// How reading ended.
    ended: Option<Result<(), Error>>,
    /// Nobody reads any more.
    abandoned: bool,
}

/// A buffer with bytes in it; it goes back when the last piece of it is dropped.
pub(crate) struct Filled {
    bytes: Box<[u8]>,
    length: usize,
    ring: Arc<Ring>,
}

/// A piece of a buffer.
pub(crate) struct Piece {
    buffer: Arc<Filled>,
    start: usize,
    end: usize,
}

/// What opens the bytes that a ring is filled with; called on the thread that fills it.
pub(crate) type Open = Box<dyn FnOnce() -> Result<Box<dyn Read + Send>, Error> + Send>;

/// Filling a ring, for a thread of its own.
pub(crate) struct Filling {
    ring: Arc<Ring>,
    open: Open,
}

impl Filling {
    /// Will fill `ring`.
    pub(crate) fn new(ring: Arc<Ring>, open: Open) -> Self {
        Self { ring, open }
    }

    /// Fills the ring until the end of the bytes, an error, or nobody wants more.
    pub(crate) fn fill(self) {
        let Self { ring, open } = self;
        let ended = catch_unwind(AssertUnwindSafe(|| ring.fill_from(open)))
            .unwrap_or_else(|panic| Err(Error::of_panic(&*panic)));
        ring.end(ended);
    }

    /// There is no thread that could fill it.
    pub(crate) fn lost(self) {
        self.ring.end(Err(Error::new(Kind::Failed, "a fault in the data plane: a thread is gone")));
    }
}

impl Ring {
    /// One that grows as far as this budget lets it.
    pub(crate) fn within(memory: &Budget) -> Self {
        Self { memory: memory.clone(), state: Mutex::default(), moved: Condvar::new() }
    }

    fn fill_from(self: &Arc<Self>, open: Open) -> Result<(), Error> {
        let mut source = open()?;
        while let Some(mut bytes) = self.free() {
            let mut length = 0;
            let mut ended = Ok(false);
            while length < bytes.len() {
                match source.read(&mut bytes[length..]) {
                    Ok(0) => {
                        ended = Ok(true);
                        break;
                    }
                    Ok(count) => length += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        ended = Err(Error::from(error));
                        break;
                    }
                }
            }
            let filled = Arc::new(Filled { bytes, length, ring: Arc::clone(self) });
            if length > 0 {
                self.state().filled.push_back(filled);
                self.moved.notify_all();
            }
            if ended? {
                break;
            }
        }
        Ok(())
    }

    /// A buffer to fill; none where nobody wants more.
    fn free(&self) -> Option<Box<[u8]>> {
        let mut state = self.state();
        loop {
            if state.abandoned {
                return None;
            }
            if let Some(bytes) = state.free.pop() {
                return Some(bytes);
            }
            if state.made < RING / BUFFER && state.may_make(&self.memory) {
                state.made += 1;
                drop(state);
                return Some(vec![0; BUFFER].into_boxed_slice());
            }
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end(&self, ended: Result<(), Error>) {
        self.state().ended = Some(ended);
        self.moved.notify_all();
    }

    /// Says that nobody reads any more, and waits until nobody fills any more.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        state.abandoned = true;
        self.moved.notify_all();
        while state.ended.is_none() {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let unread = std::mem::take(&mut state.filled);
        // Each goes back on its own, which takes the lock.
        drop(state);
        drop(unread);
    }

    fn state(&self) -> MutexGuard<'_, Circulation> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Circulation {
    /// Whether there is memory for another buffer, which is taken then.
    fn may_make(&mut self, memory: &Budget) -> bool {
        if self.made < FEWEST_BUFFERS {
            return true;
        }
        let charge = memory.charge(BUFFER as u64, "a buffer");
        charge.map(|charge| self.charges.push(charge)).is_ok()
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.ring.state().free.push(bytes);
        self.ring.moved.notify_all();
    }
}

impl Piece {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer.bytes[self.start..self.end]
    }
}

/// Reads what a ring is filled with.
pub(crate) struct Reader<'a> {
    ring: Arc<Ring>,
    current: Option<Piece>,
    /// Something to do instead of waiting; false where there is nothing.
    meanwhile: Box<dyn Fn() -> bool + 'a>,
}

impl<'a> Reader<'a> {
    /// Reads `ring`, and does what `meanwhile` does instead of waiting.
    pub(crate) fn new(ring: Arc<Ring>, meanwhile: Box<dyn Fn() -> bool + 'a>) -> Self {
        Self { ring, current: None, meanwhile }
    }

    /// The next bytes, at most `most` of them, as they lie in their buffer; none at the end.
    pub(crate) fn piece(&mut self, most: usize) -> io::Result<Option<Piece>> {
        if self.current.as_ref().is_none_or(|piece| piece.start == piece.end) {
            self.current = None;
            self.current = self.filled()?;
        }
        let Some(current) = &mut self.current else { return Ok(None) };
        let start = current.start;
        current.start = current.end.min(start.saturating_add(most));
        Ok(Some(Piece { buffer: Arc::clone(&current.buffer), start, end: current.start }))
    }

    fn filled(&mut self) -> Result<Option<Piece>, Error> {
        loop {
            let mut state = self.ring.state();
            loop {
                if let Some(buffer) = state.filled.pop_front() {
                    let end = buffer.length;
                    return Ok(Some(Piece { buffer, start: 0, end }));
                }
                if let Some(ended) = &state.ended {
                    return ended.clone().map(|()| None);
                }
                drop(state);
                if (self.meanwhile)() {
                    break;
                }
                state = self.ring.state();
                if state.filled.is_empty() && state.ended.is_none() {
                    state = self.ring.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(piece) = self.piece(into.len())? else { return Ok(0) };
        let bytes = piece.bytes();
        into[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }
}
