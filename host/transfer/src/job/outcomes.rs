//! How items ended, until somebody takes it.

use std::collections::VecDeque;

use super::{Action, Outcome};
use crate::budget::{Charge, PIECE};
use crate::error::{Error, Kind};

/// The most outcomes of a job that wait to be taken; where every item is reported, adding more is refused.
pub const MOST_OUTCOMES: usize = 262_144;

/// The most outcomes with the text of an error that wait to be taken.
pub const MOST_MESSAGES: usize = 65_536;

/// So many texts are kept also where little memory is left: somebody must be able to say what went wrong.
const FEW: usize = 64;

/// What an outcome takes in memory without the text of an error: its place in a queue that doubles when it grows.
pub(super) const OUTCOME: u64 = 2 * size_of::<Waiting>() as u64;

/// How many bytes of texts one call takes away.
const TEXTS: usize = 16 << 20;

/// What stands for an error whose text was one too many.
const DROPPED: &str = "it failed; too many failures wait to be taken for its text to be kept";

/// Outcomes that wait to be taken: at most [`MOST_OUTCOMES`], with at most [`MOST_MESSAGES`] texts.
pub(super) struct Outcomes {
    all: bool,
    waiting: VecDeque<Waiting>,
    messages: usize,
}

/// An outcome, with what is charged for it.
struct Waiting {
    index: u32,
    ended: Result<Action, Box<Error>>,
    _charge: Option<Charge>,
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

    /// Keeps an outcome. `charge` is what its item took, which covers [`OUTCOME`] bytes at least. All but
    /// [`FEW`] texts of errors are kept only while a quarter of the memory stays free: what nobody takes must not keep work from
    /// being added.
    pub(super) fn add(&mut self, index: u32, ended: Result<Action, Error>, mut charge: Option<Charge>) {
        let is_tight = charge.as_ref().is_some_and(Charge::leaves_too_little);
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
                    && keep(error.message.capacity() + size_of::<Error>() + 2 * PIECE as usize) =>
            {
                self.messages += 1;
                Err(Box::new(error))
            }
            // It counts in the status, and the first thousands of failures say enough.
            Err(_) if !self.all => return,
            Err(error) => {
                keep(size_of::<Error>());
                Err(Box::new(Error::new(error.kind, String::new())))
            }
        };
        self.waiting.push_back(Waiting { index, ended, _charge: charge });
    }

    /// Takes the first away: at most `max`, and no more than hold [`TEXTS`] bytes of text, but one where there is one.
    pub(super) fn take(&mut self, max: usize) -> Vec<Outcome> {
        let mut texts = 0;
        let fits = |waiting: &&Waiting| {
            let before = texts;
            texts += waiting.ended.as_ref().err().map_or(0, |error| error.message.len());
            before == 0 || texts <= TEXTS
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
        // What was a long queue is not charged any more.
        if self.waiting.capacity() > 1024 && self.waiting.len() < self.waiting.capacity() / 4 {
            self.waiting.shrink_to(self.waiting.capacity() / 2);
        }
        taken
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
