//! Units of work and the items in them.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use super::outcomes::OUTCOME;
use super::state::{Origin, State};
use super::{Action, Fetch, Overwrite, assemble, unpack};
use crate::budget::{ALLOCATION_OVERHEAD, Charge};
use crate::chain::ChainUse;
use crate::digest::Digest;
use crate::error::{Error, Kind};
use crate::store::Range;
use crate::target::Target;
use foundation::rooted::RelativePath;

/// A unit of work: one worker processes it as a whole.
pub(crate) struct Unit {
    /// About how many plain bytes the unit has. The largest unit is processed first.
    weight: u64,
    /// The number of the first item. If two units have the same weight, the unit with the lower number is processed first.
    first: u32,
    pub(crate) task: Task,
}

/// The task of a unit.
pub(crate) enum Task {
    /// Files that one request reads, in the order of their ranges in the object.
    Fetch(Vec<Item>),
    /// An archive.
    Unpack(Box<unpack::Item>),
    /// A file that is put together from parts of several objects.
    Assemble(Box<assemble::Item>),
}

impl Unit {
    pub(super) fn new(weight: u64, first: u32, task: Task) -> Self {
        Self { weight, first, task }
    }

    /// Returns how many items the unit has.
    pub(super) fn items(&self) -> usize {
        match &self.task {
            Task::Fetch(items) => items.len(),
            Task::Unpack(_) | Task::Assemble(_) => 1,
        }
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

/// The slot of an item in the queue. Dropping the ticket reports the end of the item to the job, even after a panic.
pub(crate) struct Ticket {
    state: Option<Arc<State>>,
    index: u32,
    /// The charge for the item, its slot in the queue and its outcome.
    charge: Option<Charge>,
}

impl Ticket {
    /// Makes a ticket, and counts its item as queued in `state`. The caller has already reserved the slot in the queue.
    pub(super) fn new(state: Arc<State>, index: u32, charge: Option<Charge>) -> Self {
        state.enter();
        Self { state: Some(state), index, charge }
    }

    /// Makes a ticket for an item that is not queued yet.
    pub(super) fn none() -> Self {
        Self { state: None, index: 0, charge: None }
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Reports how the item ended.
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

/// A file to fetch, after validation.
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
    pub(super) overwrite: Overwrite,
    /// The chain that the file belongs to.
    pub(super) chain: Option<ChainUse>,
}

impl Item {
    /// Validates a file to fetch.
    ///
    /// # Errors
    /// `Invalid`; the message says what is wrong.
    pub(super) fn new(fetch: Fetch, origin: Arc<Origin>, target: &Target) -> Result<Self, Error> {
        let invalid = |why: &str| Err(Error::new(Kind::Invalid, why));
        let path =
            RelativePath::new(&fetch.path).map_err(|why| Error::new(Kind::Invalid, why.to_string()))?;
        target.file(&path)?;
        if let Some(digest) = &fetch.digest {
            digest.check_length()?;
        }
        match (fetch.overwrite, &fetch.digest, fetch.mtime, fetch.at) {
            (Overwrite::UnlessSameDigest, None, ..) => return invalid("`same-digest` needs a digest"),
            (Overwrite::UnlessSameSizeAndTime, _, None, _) => {
                return invalid("`same-size-and-time` needs a modification time");
            }
            (Overwrite::UnlessSameSizeAndTime, _, _, Some(_)) => {
                return invalid(
                    "`same-size-and-time` applies to whole files only, not to a part at an offset",
                );
            }
            (
                Overwrite::Always
                | Overwrite::UnlessSameDigest
                | Overwrite::UnlessSameSizeAndTime
                | Overwrite::UnlessSameContent,
                ..,
            ) => {}
        }
        let length =
            |start: u64, length: u64| start.checked_add(length).and_then(|end| i64::try_from(end).ok());
        if length(fetch.at.unwrap_or(0), fetch.size).is_none() {
            return invalid("the file would end after the largest possible offset");
        }
        if fetch.range.is_some_and(|range| length(range.offset, range.length).is_none()) {
            return invalid("the range ends after the largest possible offset");
        }
        if fetch.mtime.is_some_and(|time| i64::try_from(time).is_err()) {
            return invalid("the modification time is later than any that a file can have");
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
            overwrite: fetch.overwrite,
            chain: None,
        })
    }

    /// Makes the item a file of a chain.
    pub(super) fn in_chain(self, chain: ChainUse) -> Self {
        Self { chain: Some(chain), ..self }
    }

    /// Returns the memory of the item, its slot in the queue and its outcome. Vectors double when they grow.
    pub(super) fn bytes(&self) -> u64 {
        let digest =
            self.digest.as_ref().map_or(0, |digest| digest.value.capacity() as u64 + ALLOCATION_OVERHEAD);
        let strings = (self.object.capacity() + self.path.as_os_str().len()) as u64 + 2 * ALLOCATION_OVERHEAD;
        2 * (size_of::<Self>() + size_of::<Unit>()) as u64 + strings + digest + ALLOCATION_OVERHEAD + OUTCOME
    }

    /// Sets the item's number and charge.
    pub(super) fn number(&mut self, index: u32, charge: Charge) {
        (self.ticket.index, self.ticket.charge) = (index, Some(charge));
    }

    /// Gives the item a ticket that reports to `state`.
    pub(super) fn ticketed(mut self, state: &Arc<State>) -> Self {
        let (index, charge) = (self.ticket.index, self.ticket.charge.take());
        Self { ticket: Ticket::new(Arc::clone(state), index, charge), ..self }
    }
}
