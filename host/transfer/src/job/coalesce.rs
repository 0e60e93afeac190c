//! Ranges of one object that lie next to each other are read in one go.

use std::sync::Arc;

use super::unit::{Item, Task, Unit};

/// The widest gap between two ranges that is read rather than asked around, in bytes.
const GAP: u64 = 64 << 10;

/// The most stored bytes that are read in one go, unless a single range is longer: enough that a request's cost does not
/// count, and little enough that every worker gets some.
const SPAN: u64 = 16 << 20;

/// The most files in one go.
const FILES: usize = 1024;

/// Makes units of items, with neighbours in one.
pub(super) fn join(mut items: Vec<Item>) -> Vec<Unit> {
    items.sort_by(|one, other| {
        let place = |item: &Item| item.range.map_or(0, |range| range.offset);
        let origin = |item: &Item| Arc::as_ptr(&item.origin);
        origin(one)
            .cmp(&origin(other))
            .then_with(|| one.object.cmp(&other.object))
            .then_with(|| place(one).cmp(&place(other)))
            .then_with(|| one.ticket.index().cmp(&other.ticket.index()))
    });
    runs(items).into_iter().map(unit).collect()
}

/// Splits items that are in the order of their objects and ranges into runs that are read in one go.
pub(super) fn runs(items: Vec<Item>) -> Vec<Vec<Item>> {
    let mut runs: Vec<Vec<Item>> = Vec::new();
    for item in items {
        match runs.last_mut() {
            Some(run) if goes_with(run, &item) => run.push(item),
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

fn goes_with(run: &[Item], item: &Item) -> bool {
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
