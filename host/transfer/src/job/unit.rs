//! What waits in the queue.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use super::outcomes::OUTCOME;
use super::state::{Origin, State};
use super::{Action, Fetch, Unless, unpack};
use crate::budget::{Charge, PIECE};
use crate::digest::Digest;
use crate::error::{Error, Kind};
use crate::store::Range;
use crate::target::Target;
use foundation::rooted::RelativePath;

/// What one worker does in one go.
pub(crate) struct Unit {
    /// Plain bytes, about: the largest is done first.
    weight: u64,
    /// Of two that weigh the same the first is done first.
    first: u32,
    pub(crate) task: Task,
}

/// What is to be done.
pub(crate) enum Task {
    /// Files whose stored bytes are read in one go, in the order in which they lie in their object.
    Fetch(Vec<Item>),
    /// An archive.
    Unpack(Box<unpack::Item>),
}

impl Unit {
    pub(super) fn new(weight: u64, first: u32, task: Task) -> Self {
        Self { weight, first, task }
    }

    fn rank(&self) -> (u64, Reverse<u32>) {
        (self.weight, Reverse(self.first))
    }
}

impl PartialEq for Unit {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Unit {}

impl PartialOrd for Unit {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Unit {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

/// The place of an item in the queue. However the item ends, panics included, its job hears of it.
pub(crate) struct Ticket {
    state: Option<Arc<State>>,
    index: u32,
    /// For the item, its place in the queue and its outcome.
    charge: Option<Charge>,
}

impl Ticket {
    /// An item enters the queue of `state`, where there is room for it.
    pub(super) fn new(state: Arc<State>, index: u32, charge: Option<Charge>) -> Self {
        state.enter();
        Self { state: Some(state), index, charge }
    }

    /// For an item that is not in the queue yet.
    pub(super) fn none() -> Self {
        Self { state: None, index: 0, charge: None }
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// The item has ended so.
    pub(super) fn finish(mut self, ended: Result<Action, Error>) {
        if let Some(state) = self.state.take() {
            state.finish(self.index, ended, self.charge.take());
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(state) = self.state.take() {
            let error = if state.is_cancelled() {
                Error::cancelled()
            } else {
                Error::new(Kind::Failed, "a fault in the data plane: the item was lost")
            };
            state.finish(self.index, Err(error), self.charge.take());
        }
    }
}

/// A file to fetch whose every part was checked.
pub(crate) struct Item {
    pub(super) ticket: Ticket,
    pub(super) origin: Arc<Origin>,
    pub(super) object: String,
    pub(super) range: Option<Range>,
    pub(super) path: RelativePath,
    pub(super) at: Option<u64>,
    pub(super) size: u64,
    pub(super) digest: Option<Digest>,
    pub(super) mode: u32,
    pub(super) mtime: Option<u64>,
    pub(super) unless: Unless,
}

impl Item {
    /// Checks a file to fetch.
    ///
    /// # Errors
    /// `Invalid`, with what is wrong with it.
    pub(super) fn new(fetch: Fetch, origin: Arc<Origin>, target: &Target) -> Result<Self, Error> {
        let invalid = |why: &str| Err(Error::new(Kind::Invalid, why));
        let path =
            RelativePath::new(&fetch.path).map_err(|why| Error::new(Kind::Invalid, why.to_string()))?;
        target.file(&path)?;
        if let Some(digest) = &fetch.digest {
            digest.check_length()?;
        }
        match (fetch.unless, &fetch.digest, fetch.mtime, fetch.at) {
            (Unless::SameDigest, None, ..) => return invalid("`same-digest` needs a digest"),
            (Unless::SameSizeAndTime, _, None, _) => return invalid("`same-size-and-time` needs a time"),
            (Unless::SameSizeAndTime, _, _, Some(_)) => {
                return invalid("`same-size-and-time` is of whole files, not of a part from an offset on");
            }
            (Unless::Always | Unless::SameDigest | Unless::SameSizeAndTime | Unless::SameContent, ..) => {}
        }
        let length =
            |start: u64, length: u64| start.checked_add(length).and_then(|end| i64::try_from(end).ok());
        if length(fetch.at.unwrap_or(0), fetch.size).is_none() {
            return invalid("no file is so long");
        }
        if fetch.range.is_some_and(|range| length(range.offset, range.length).is_none()) {
            return invalid("no object is so long");
        }
        if fetch.mtime.is_some_and(|time| i64::try_from(time).is_err()) {
            return invalid("no file has such a time");
        }
        Ok(Self {
            ticket: Ticket::none(),
            origin,
            object: fetch.object,
            range: fetch.range,
            path,
            at: fetch.at,
            size: fetch.size,
            digest: fetch.digest,
            mode: fetch.mode.unwrap_or(target.modes.0) & target.modes.0,
            mtime: fetch.mtime,
            unless: fetch.unless,
        })
    }

    /// What it takes in memory, with its place in the queue and its outcome. Vectors double when they grow.
    pub(super) fn bytes(&self) -> u64 {
        let digest = self.digest.as_ref().map_or(0, |digest| digest.value.capacity() as u64 + PIECE);
        let strings = (self.object.capacity() + self.path.as_os_str().len()) as u64 + 2 * PIECE;
        2 * (size_of::<Self>() + size_of::<Unit>()) as u64 + strings + digest + PIECE + OUTCOME
    }

    /// Its number, and what was charged for it.
    pub(super) fn number(&mut self, index: u32, charge: Charge) {
        (self.ticket.index, self.ticket.charge) = (index, Some(charge));
    }

    /// The item as it enters the queue.
    pub(super) fn ticketed(mut self, state: &Arc<State>) -> Self {
        let (index, charge) = (self.ticket.index, self.ticket.charge.take());
        Self { ticket: Ticket::new(Arc::clone(state), index, charge), ..self }
    }
}
