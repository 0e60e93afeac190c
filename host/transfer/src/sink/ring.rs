//! A ring of buffers between the thread that reads and decodes an archive and the threads that write its files.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{BUFFER, RING};
use crate::budget::{Budget, Charge};
use crate::error::{Error, Kind};

/// The fewest buffers of a ring, even if memory is short. An unfinished batch holds up to three.
pub(crate) const FEWEST_BUFFERS: usize = 4;

/// A ring of buffers: one thread fills them, others empty them, and then they are filled again.
pub(crate) struct Ring {
    memory: Budget,
    state: Mutex<RingState>,
    changed: Condvar,
}

#[derive(Default)]
struct RingState {
    made: usize,
    /// The charge for the buffers beyond the fewest; the fewest buffers are part of the worker's own charge.
    charges: Vec<Charge>,
    free: Vec<Box<[u8]>>,
    filled: VecDeque<Arc<Filled>>,
    /// How reading ended.
    ended: Option<Result<(), Error>>,
    /// Whether the reader has stopped.
    abandoned: bool,
}

/// A filled buffer. It returns to the ring when its last piece is dropped.
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

/// Opens the source of a ring's bytes; called on the thread that fills the ring.
pub(crate) type Open = Box<dyn FnOnce() -> Result<Box<dyn Read + Send>, Error> + Send>;

/// The task that fills a ring. It needs a separate thread.
pub(crate) struct Filling {
    ring: Arc<Ring>,
    open: Open,
}

impl Filling {
    /// Makes the task for `ring`.
    pub(crate) fn new(ring: Arc<Ring>, open: Open) -> Self {
        Self { ring, open }
    }

    /// Fills the ring until the source ends or fails, or the reader has stopped.
    pub(crate) fn fill(self) {
        let Self { ring, open } = self;
        let ended = catch_unwind(AssertUnwindSafe(|| ring.fill_from(open)))
            .unwrap_or_else(|panic| Err(Error::of_panic(&*panic)));
        ring.end(ended);
    }

    /// Ends the ring with an error, because its thread does not run any more.
    pub(crate) fn fail(self) {
        self.ring.end(Err(Error::new(Kind::Failed, "a fault in the data plane: a thread is gone")));
    }
}

impl Ring {
    /// Makes a ring that grows as far as this budget allows.
    pub(crate) fn within(memory: &Budget) -> Self {
        Self { memory: memory.clone(), state: Mutex::default(), changed: Condvar::new() }
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
                self.changed.notify_all();
            }
            if ended? {
                break;
            }
        }
        Ok(())
    }

    /// Waits for a free buffer; `None` if the reader has stopped.
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
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn end(&self, ended: Result<(), Error>) {
        self.state().ended = Some(ended);
        self.changed.notify_all();
    }

    /// Stops reading, and waits until filling has ended.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        state.abandoned = true;
        self.changed.notify_all();
        while state.ended.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let unread = std::mem::take(&mut state.filled);
        // Dropping a buffer takes the lock.
        drop(state);
        drop(unread);
    }

    fn state(&self) -> MutexGuard<'_, RingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RingState {
    /// Returns whether there is memory for another buffer, and charges it.
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
        self.ring.changed.notify_all();
    }
}

impl Piece {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer.bytes[self.start..self.end]
    }
}

/// Reads the bytes of a ring.
pub(crate) struct Reader<'a> {
    ring: Arc<Ring>,
    current: Option<Piece>,
    /// Does other work instead of waiting; returns false if there is none.
    meanwhile: Box<dyn Fn() -> bool + 'a>,
}

impl<'a> Reader<'a> {
    /// Makes a reader of `ring` that calls `meanwhile` instead of waiting.
    pub(crate) fn new(ring: Arc<Ring>, meanwhile: Box<dyn Fn() -> bool + 'a>) -> Self {
        Self { ring, current: None, meanwhile }
    }

    /// Returns the next bytes, at most `most`, without copying them; `None` at the end.
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
                    state = self.ring.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
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
