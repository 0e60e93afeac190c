//! The outcomes of items, kept until the caller takes them.

use std::collections::VecDeque;

use super::{Action, Outcome};
use crate::budget::{ALLOCATION_OVERHEAD, Charge};
use crate::error::{Error, Kind};

/// The most outcomes of a job that may wait to be taken. If every item is reported, adding more items is refused.
pub const MOST_OUTCOMES: usize = 262_144;

/// The most waiting outcomes that may have the text of an error.
pub const MOST_MESSAGES: usize = 65_536;

/// How many texts of errors are kept even if little memory is left, so that the cause can be reported.
const FEW: usize = 64;

/// The memory of an outcome without the text of an error: its slot in a queue that doubles when it grows.
pub(super) const OUTCOME: u64 = 2 * size_of::<Waiting>() as u64;

/// How many bytes of texts one call of [`Outcomes::take`] returns at most.
const TEXTS_AT_ONCE: usize = 16 << 20;

/// The text that replaces the dropped text of an error.
const DROPPED: &str =
    "it failed; its error text was dropped, because too many failures are waiting to be taken";

/// Outcomes that wait to be taken: at most [`MOST_OUTCOMES`], with at most [`MOST_MESSAGES`] texts.
pub(super) struct Outcomes {
    all: bool,
    waiting: VecDeque<Waiting>,
    messages: usize,
}

/// An outcome with its charge.
struct Waiting {
    index: u32,
    ended: Result<Action, Box<Error>>,
    _charge: Option<Charge>,
}

impl Outcomes {
    /// Makes an empty queue. If `all` is false, only failures are kept.
    pub(super) fn new(all: bool) -> Self {
        Self { all, waiting: VecDeque::new(), messages: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether there is room for the outcomes of the `queued` items and of `more` items.
    pub(super) fn has_room(&self, queued: usize, more: usize) -> bool {
        !self.all || self.waiting.len() + queued + more <= MOST_OUTCOMES
    }

    /// Adds an outcome. `charge` is the charge of its item, at least [`OUTCOME`] bytes. Beyond the first [`FEW`], texts of errors
    /// are kept only while a quarter of the memory is free, so that outcomes that are never taken do not block new items.
    pub(super) fn add(&mut self, index: u32, ended: Result<Action, Error>, mut charge: Option<Charge>) {
        let is_tight = charge.as_ref().is_some_and(Charge::leaves_less_than_a_quarter);
        let mut keep = |bytes: usize| {
            charge
                .as_mut()
                .is_none_or(|charge| charge.set(OUTCOME + bytes as u64, "the text of an error").is_ok())
        };
        let ended = match ended {
            Ok(_) if !self.all => return,
            Ok(action) => {
                keep(0);
                Ok(action)
            }
            Err(error)
                if self.messages < MOST_MESSAGES
                    && (!is_tight || self.messages < FEW)
                    && keep(
                        error.message.capacity() + size_of::<Error>() + 2 * ALLOCATION_OVERHEAD as usize,
                    ) =>
            {
                self.messages += 1;
                Err(Box::new(error))
            }
            // The status counts this failure, and thousands of other failures are reported.
            Err(_) if !self.all => return,
            Err(error) => {
                keep(size_of::<Error>());
                Err(Box::new(Error::new(error.kind, String::new())))
            }
        };
        self.waiting.push_back(Waiting { index, ended, _charge: charge });
    }

    /// Takes the oldest outcomes: at most `max`, with at most [`TEXTS_AT_ONCE`] bytes of text in all, but at least one outcome if any
    /// waits.
    pub(super) fn take(&mut self, max: usize) -> Vec<Outcome> {
        let mut texts = 0;
        let fits = |waiting: &&Waiting| {
            let before = texts;
            texts += waiting.ended.as_ref().err().map_or(0, |error| error.message.len());
            before == 0 || texts <= TEXTS_AT_ONCE
        };
        let count = self.waiting.iter().take(max).take_while(fits).count();
        let taken = self.waiting.drain(..count).map(|waiting| Outcome {
            index: waiting.index,
            ended: waiting.ended.map_err(|error| match error.message.is_empty() {
                true => Error::new(error.kind, DROPPED),
                false => {
                    self.messages = self.messages.saturating_sub(1);
                    *error
                }
            }),
        });
        let taken: Vec<_> = taken.collect();
        // The memory that the queue needed while it was long is no longer charged, so it must be freed.
        if self.waiting.capacity() > 1024 && self.waiting.len() < self.waiting.capacity() / 4 {
            self.waiting.shrink_to(self.waiting.capacity() / 2);
        }
        taken
    }
}

impl Outcomes {
    /// Returns the error for adding too many items.
    pub(super) fn full() -> Error {
        Error::new(
            Kind::Limit,
            format!("a job keeps at most {MOST_OUTCOMES} outcomes: take some away before adding more items"),
        )
    }
}
