//! `log`: how much the method may log and print.

use sandbox::{Grants, LogBudget};

use crate::config::keys::{Key, names};
use crate::config::tree::Section;

/// The keys of `log`.
pub(in crate::config) const KEYS: &[Key] = &[
    Key::new(
        "bytes",
        "size",
        "`\"4MiB\"`",
        "how many bytes all lines together may have. A line has at most 4096 characters",
    ),
    Key::new("lines", "whole number, at least 1", "`10000`", "how many lines there may be"),
];

/// Reads the budget into `open`.
pub(super) fn read(section: &Section<'_>, open: &mut Grants) {
    if let Some(budget) = section.get("log").and_then(|value| value.section(names(KEYS))).map(read_log) {
        open.log = budget;
    }
}

fn read_log(section: Section<'_>) -> LogBudget {
    let default = LogBudget::default();
    let budget = LogBudget {
        bytes: section.get("bytes").and_then(|value| value.nonzero_size()).unwrap_or(default.bytes),
        lines: section.get("lines").and_then(|value| value.count(1)).unwrap_or(default.lines),
    };
    section.finish();
    budget
}
