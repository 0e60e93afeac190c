//! Records of the items of jobs: each file that was fetched or put together, and each archive that was unpacked.

use std::sync::Arc;

use replica::CapabilityKind;
use transfer::job::{EndedItem, ItemKind, Observer};

use crate::calls::{self, Calls};
use crate::capability::stores::StoreName;
use crate::reporter::Reporter;

/// Makes the records of a job's items as they end.
pub(super) struct ItemRecords {
    reporter: Reporter,
    calls: Arc<Calls>,
}

impl ItemRecords {
    /// Returns a maker of records for this reporter; `None` if no event sink wants records.
    pub(super) fn of(reporter: &Reporter) -> Option<Self> {
        Some(Self { reporter: reporter.clone(), calls: Arc::clone(reporter.calls()?) })
    }
}

impl Observer for ItemRecords {
    fn ended(&self, item: &EndedItem<'_>) {
        let function = match item.of {
            ItemKind::File => "transfer.fetch",
            ItemKind::Archive => "transfer.unpack",
            ItemKind::Assembly(_) => "transfer.assemble",
        };
        let more = match item.of {
            ItemKind::Assembly(pieces @ 2..) => format!(" and {} more pieces", pieces - 1),
            ItemKind::File | ItemKind::Archive | ItemKind::Assembly(_) => String::new(),
        };
        let object = format!("{}: {}{more} -> {}", item.store, item.object, item.path);
        let answer = match item.ended {
            Ok(_) => "ok",
            Err(error) => error.kind.word(),
        };
        let of = (StoreName::of(item.store).capability(), function);
        calls::ended(&self.reporter, &self.calls, of, &object, answer, |call| {
            call.bytes_read = item.bytes_read;
            call.bytes_written = item.bytes_written;
            call.duration = item.duration;
        });
    }

    fn withdrawn(&self, items: usize) {
        let of = (CapabilityKind::Store, "transfer.withdrawn");
        let object = "items that were queued when their job was cancelled";
        calls::ended(&self.reporter, &self.calls, of, object, "cancelled", |call| call.calls = items as u64);
    }
}
