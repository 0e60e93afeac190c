//! `read`: directories of this machine.

use sandbox::Grants;

use crate::config::tree::Section;

/// Reads the directories into `open`.
pub(super) fn read(section: &Section<'_>, open: &mut Grants) {
    if let Some(read) = section.get("read").and_then(|value| value.paths()) {
        open.read = read;
    }
}
