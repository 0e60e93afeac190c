//! Reports how each item of a job ended, as soon as it has ended.

use std::time::Duration;

use super::Action;
use crate::error::Error;

/// An item that has ended.
#[derive(Debug)]
pub struct EndedItem<'a> {
    /// What the item is.
    pub of: ItemKind,
    /// The name of its store ([`Store::name`](crate::store::Store::name)).
    pub store: &'a str,
    /// The object's key. For an assembly, the name of the store and the key are those of its first piece.
    pub object: &'a str,
    /// The path below the data directory, escaped; `.` for the data directory itself.
    pub path: &'a str,
    /// How many stored bytes were read for it; 0 if a file to fetch failed.
    pub bytes_read: u64,
    /// How many bytes were written for it; 0 if a file to fetch failed.
    pub bytes_written: u64,
    /// How long a worker worked on it.
    pub duration: Duration,
    /// How it ended.
    pub ended: &'a Result<Action, Error>,
}

/// What an item of a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// A file to fetch.
    File,
    /// An archive to unpack.
    Archive,
    /// A file that is put together from this number of pieces.
    Assembly(usize),
}

/// Receives the items of a job as they end, on the threads of the workers.
pub trait Observer: Send + Sync {
    /// Takes an item.
    fn ended(&self, item: &EndedItem<'_>);

    /// Takes the number of items that were still queued when the job was cancelled.
    fn withdrawn(&self, items: usize);
}
