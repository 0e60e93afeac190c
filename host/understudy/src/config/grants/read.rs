//! `read`: directories of this machine.

use sandbox::Grants;

use crate::config::tree::{Section, Value};

/// Reads the directories into `open`.
pub(super) fn read(section: &Section<'_>, open: &mut Grants) {
    // A grant that overlaps a place of the run is refused by policy.
    if let Some(read) = section.get("read").and_then(|value| value.paths(Value::unkept_path)) {
        open.read = read;
    }
}
