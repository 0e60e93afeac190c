//! How items ended, until somebody takes it.

use std::collections::VecDeque;

use super::{Action, Outcome};
use crate::error::{Error, Kind};

/// The most outcomes of a job that wait to be taken; where every item is reported, adding more is refused.
pub const MOST_OUTCOMES: usize = 262_144;

/// The most outcomes with the text of an error that wait to be taken.
pub const MOST_MESSAGES: usize = 65_536;

/// What stands for an error whose text was one too many.
const DROPPED: &str = "it failed; too many failures wait to be taken for its text to be kept";

/// Outcomes that wait to be taken: at most [`MOST_OUTCOMES`], with at most [`MOST_MESSAGES`] texts.
pub(super) struct Outcomes {
    all: bool,
    waiting: VecDeque<(u32, Result<Action, Box<Error>>)>,
    messages: usize,
}

impl Outcomes {
    /// None yet. Where `all` is false only failures are kept.
    pub(super) fn new(all: bool) -> Self {
        Self { all, waiting: VecDeque::new(), messages: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether `more` items, besides those that are `queued`, can be reported.
    pub(super) fn has_room(&self, queued: usize, more: usize) -> bool {
        !self.all || self.waiting.len() + queued + more <= MOST_OUTCOMES
    }

    /// Keeps an outcome.
    pub(super) fn add(&mut self, index: u32, ended: Result<Action, Error>) {
        let ended = match ended {
            Ok(_) if !self.all => return,
            Ok(action) => Ok(action),
            Err(error) if self.messages < MOST_MESSAGES => {
                self.messages += 1;
                Err(Box::new(error))
            }
            // It counts in the status, and the first thousands of failures say enough.
            Err(_) if !self.all => return,
            Err(error) => Err(Box::new(Error::new(error.kind, String::new()))),
        };
        self.waiting.push_back((index, ended));
    }

    /// Takes the first `max` away.
    pub(super) fn take(&mut self, max: usize) -> Vec<Outcome> {
        let count = max.min(self.waiting.len());
        let taken = self.waiting.drain(..count).map(|(index, ended)| Outcome {
            index,
            ended: ended.map_err(|error| match error.message.is_empty() {
                true => Error::new(error.kind, DROPPED),
                false => {
                    self.messages = self.messages.saturating_sub(1);
                    *error
                }
            }),
        });
        taken.collect()
    }
}

impl Outcomes {
    /// What adding too many is refused with.
    pub(super) fn full() -> Error {
        Error::new(
            Kind::Limit,
            format!("a job keeps at most {MOST_OUTCOMES} outcomes: take some away before adding more items"),
        )
    }
}
