//! Coalesces adjacent ranges in an object, so that one request reads them.

use std::sync::Arc;

use super::unit::{Item, Task, Unit};
use crate::store::Range;

/// The widest gap between two ranges that one request reads, in bytes. The bytes in the gap are read and dropped.
const GAP: u64 = 64 << 10;

/// The most stored bytes that one request reads, unless a single range is longer: enough that the cost of a request does not matter, and
/// few enough that every worker gets work.
const SPAN: u64 = 16 << 20;

/// The most files or pieces that one request reads.
const FILES: usize = 1024;

/// What may be read with one request together with its neighbours.
pub(super) trait Ranged {
    /// Returns the range of stored bytes; `None` for the whole object.
    fn range(&self) -> Option<Range>;

    /// Returns whether both are read from the same object in the same way.
    fn is_of_the_same_object(&self, other: &Self) -> bool;
}

impl Ranged for Item {
    fn range(&self) -> Option<Range> {
        self.range
    }

    fn is_of_the_same_object(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.origin, &other.origin) && self.object == other.object
    }
}

/// Sorts the items and makes a unit from each run of adjacent ranges.
pub(super) fn into_units(mut items: Vec<Item>) -> Vec<Unit> {
    items.sort_by(|one, other| {
        let place = |item: &Item| item.range.map_or(0, |range| range.offset);
        let origin = |item: &Item| Arc::as_ptr(&item.origin);
        origin(one)
            .cmp(&origin(other))
            .then_with(|| one.object.cmp(&other.object))
            .then_with(|| place(one).cmp(&place(other)))
            .then_with(|| one.ticket.index().cmp(&other.ticket.index()))
    });
    adjacent(items).into_iter().map(unit).collect()
}

/// Returns the range that one request reads for a run from `first` to `last`; `None` for the whole object.
pub(super) fn span<T: Ranged>(first: &T, last: &T) -> Option<Range> {
    let range = first.range()?;
    let end = last.range().unwrap_or(range);
    Some(Range { offset: range.offset, length: end.offset + end.length - range.offset })
}

/// Splits items into runs that one request reads. Neighbours are put together if their ranges ascend.
pub(super) fn adjacent<T: Ranged>(items: Vec<T>) -> Vec<Vec<T>> {
    let mut runs: Vec<Vec<T>> = Vec::new();
    for item in items {
        match runs.last_mut() {
            Some(run) if is_adjacent(run, &item) => run.push(item),
            _ => runs.push(vec![item]),
        }
    }
    runs
}

fn unit(items: Vec<Item>) -> Unit {
    let weight = items.iter().fold(0, |all: u64, item| all.saturating_add(item.size));
    let first = items.iter().map(|item| item.ticket.index()).min().unwrap_or(0);
    Unit::new(weight, first, Task::Fetch(items))
}

fn is_adjacent<T: Ranged>(run: &[T], item: &T) -> bool {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return false };
    let (Some(start), Some(before), Some(range)) = (first.range(), last.range(), item.range()) else {
        return false;
    };
    let end = before.offset + before.length;
    last.is_of_the_same_object(item)
        && run.len() < FILES
        && range.offset >= end
        && range.offset - end <= GAP
        && range.offset + range.length - start.offset <= SPAN
}
