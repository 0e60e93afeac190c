//! The results of the checks: a problem ends the seal, a finding is only reported.

use std::io;

use foundation::printable::printable_within;

use crate::Level;
use crate::outcome::Finding;
use crate::rule::Rule;

/// The most findings that are reported; further findings are only counted.
pub(super) const FINDINGS: usize = 200;

/// The most characters of a restored text that are shown.
const SHOWN: usize = 200;

/// The most characters of an error that are shown: enough for a path of any length and the reason.
const SHOWN_OF_ERRORS: usize = 5000;

/// A check that did not pass.
#[derive(Debug)]
pub(super) struct Problem {
    /// The check that did not pass; `None` if the seal was cancelled.
    pub(super) check: Option<Rule>,
    /// What is wrong, in which file, and what to do.
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(check: Rule, message: impl Into<String>) -> Self {
        Self { check: Some(check), message: message.into() }
    }

    /// Returns the problem of a seal that was cancelled.
    pub(super) fn cancelled() -> Self {
        Self { check: None, message: "cancelled".to_owned() }
    }
}

/// Adds to an I/O error the check during which it happened.
pub(super) trait During<T> {
    /// Returns the result with the error as a problem of `check`.
    fn during(self, check: Rule) -> Result<T, Problem>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, check: Rule) -> Result<T, Problem> {
        self.map_err(|error| Problem::new(check, shown_within(error.to_string().as_bytes(), SHOWN_OF_ERRORS)))
    }
}

/// The findings so far, bounded.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    beyond: u64,
}

impl Findings {
    /// Adds a warning: something that came with the backup or could not be checked.
    pub(super) fn add(&mut self, check: Rule, message: impl Into<String>) {
        self.push(Finding { check, level: Level::Warn, message: message.into() });
    }

    /// Adds an informational finding, about something that the operator's configuration requests or that is not a fault.
    pub(super) fn add_info(&mut self, check: Rule, message: impl Into<String>) {
        self.push(Finding { check, level: Level::Info, message: message.into() });
    }

    fn push(&mut self, finding: Finding) {
        if self.list.len() < FINDINGS {
            self.list.push(finding);
        } else {
            self.beyond += 1;
        }
    }

    /// Returns the findings, with a last one that says how many more there were.
    pub(super) fn into_list(mut self) -> Vec<Finding> {
        if self.beyond > 0 {
            let message = format!("{} more findings are not listed", self.beyond);
            self.list.push(Finding { check: Rule::Findings, level: Level::Warn, message });
        }
        self.list
    }
}

/// Returns text from the restored data for a message, without control characters and truncated.
pub(super) fn shown(text: &[u8]) -> String {
    shown_within(text, SHOWN)
}

/// Returns the text as [`shown`] does, with at most `most` characters.
pub(super) fn shown_within(text: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(text);
    printable_within(&text, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_findings_end_with_the_number_of_those_not_listed() {
        let mut findings = Findings::default();
        for number in 0..FINDINGS + 7 {
            findings.add(Rule::Modes, number.to_string());
        }
        let list = findings.into_list();
        assert_eq!(list.len(), FINDINGS + 1);
        assert_eq!(list[FINDINGS].message, "7 more findings are not listed");
    }

    #[test]
    fn restored_text_has_no_control_characters_and_is_cut() {
        assert_eq!(shown(b"a\x1b[2Jb\nc\xff"), "a\\u{1b}[2Jb\\nc\u{fffd}");
        assert_eq!(shown("é".repeat(SHOWN).as_bytes()), "é".repeat(SHOWN));
        assert_eq!(shown("é".repeat(SHOWN + 1).as_bytes()), "é".repeat(SHOWN) + "…");
    }
}
