//! Coalesces adjacent ranges in an object, so that one request reads them.

use std::sync::Arc;

use super::unit::{Item, Task, Unit};

/// The widest gap between two ranges that one request reads, in bytes. The bytes in the gap are read and dropped.
const GAP: u64 = 64 << 10;

/// The most stored bytes that one request reads, unless a single range is longer: enough that the cost of a request does not matter, and
/// few enough that every worker gets work.
const SPAN: u64 = 16 << 20;

/// The most files that one request reads.
const FILES: usize = 1024;

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

/// Splits items, which are sorted by object and range, into runs that one request reads.
pub(super) fn adjacent(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut runs: Vec<Vec<Item>> = Vec::new();
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

fn is_adjacent(run: &[Item], item: &Item) -> bool {
    let (Some(first), Some(last)) = (run.first(), run.last()) else { return false };
    let (Some(start), Some(before), Some(range)) = (first.range, last.range, item.range) else {
        return false;
    };
    let end = before.offset + before.length;
    Arc::ptr_eq(&last.origin, &item.origin)
        && last.object == item.object
        && run.len() < FILES
        && range.offset >= end
        && range.offset - end <= GAP
        && range.offset + range.length - start.offset <= SPAN
}
