//! `disk`: how much the method may write.

use sandbox::{DiskBudget, Grants};

use crate::config::keys::{Key, names};
use crate::config::tree::Section;

/// The keys of `disk`.
pub(in crate::config) const KEYS: &[Key] = &[
    Key::new(
        "bytes",
        "size",
        "no bound",
        "by how many bytes all files together may grow. Removing files does not reduce the count",
    ),
    Key::new(
        "files",
        "whole number, at least 1",
        "no bound",
        "how many files, directories and links may be created",
    ),
    Key::new("keep_free", "size", "none", "how many bytes must stay free on the file system"),
];

/// Reads `disk` into `open`.
pub(super) fn read(section: &Section<'_>, open: &mut Grants) {
    open.disk = section.get("disk").and_then(|value| {
        if let Some(text) = value.raw().as_str() {
            value.problem(format_args!(
                "must be a table, not a string: write disk = {{ bytes = {text:?} }}, with a whole number and one of B, kB, MB, GB, \
                 TB, KiB, MiB, GiB, TiB"
            ));
            return None;
        }
        value.section(names(KEYS)).map(read_disk)
    });
}

fn read_disk(section: Section<'_>) -> DiskBudget {
    let budget = DiskBudget {
        bytes: section.get("bytes").and_then(|value| value.nonzero_size()),
        files: section.get("files").and_then(|value| value.count(1)),
        keep_free: section.get("keep_free").and_then(|value| value.size()),
    };
    section.finish();
    budget
}
