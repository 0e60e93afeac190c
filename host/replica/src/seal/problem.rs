//! What the checks say: a problem ends the seal, a finding is told and the seal goes on.

use std::io;

use foundation::printable::printable_within;

use crate::Level;
use crate::outcome::Finding;
use crate::rule::Rule;

/// How many findings are told; what comes after is only counted.
pub(super) const FINDINGS: usize = 200;

/// How many characters of a restored text are shown.
const SHOWN: usize = 200;

/// How many characters of an error are shown: a path of any length, and why.
const SHOWN_OF_ERRORS: usize = 5000;

/// A check that did not pass.
#[derive(Debug)]
pub(super) struct Problem {
    /// Which check; `None` if the seal was cancelled.
    pub(super) check: Option<Rule>,
    /// What is wrong, in which file, and what to do.
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(check: Rule, message: impl Into<String>) -> Self {
        Self { check: Some(check), message: message.into() }
    }

    /// The end of a seal that was cancelled.
    pub(super) fn cancelled() -> Self {
        Self { check: None, message: "cancelled".to_owned() }
    }
}

/// Says during which check something could not be read or written.
pub(super) trait During<T> {
    /// The same with the error as a problem of `check`.
    fn during(self, check: Rule) -> Result<T, Problem>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, check: Rule) -> Result<T, Problem> {
        self.map_err(|error| Problem::new(check, shown_within(error.to_string().as_bytes(), SHOWN_OF_ERRORS)))
    }
}

/// What was found so far, bounded.
#[derive(Debug, Default)]
pub(super) struct Findings {
    told: Vec<Finding>,
    beyond: u64,
}

impl Findings {
    /// Something that came with the backup or could not be checked.
    pub(super) fn add(&mut self, check: Rule, message: impl Into<String>) {
        self.tell(Finding { check, level: Level::Warn, message: message.into() });
    }

    /// Something that the operator's configuration asked for, or that is no fault there.
    pub(super) fn done(&mut self, check: Rule, message: impl Into<String>) {
        self.tell(Finding { check, level: Level::Info, message: message.into() });
    }

    fn tell(&mut self, finding: Finding) {
        if self.told.len() < FINDINGS {
            self.told.push(finding);
        } else {
            self.beyond += 1;
        }
    }

    /// All of them, and how many more there were.
    pub(super) fn into_list(mut self) -> Vec<Finding> {
        if self.beyond > 0 {
            let message = format!("{} more findings are not listed", self.beyond);
            self.told.push(Finding { check: Rule::Findings, level: Level::Warn, message });
        }
        self.told
    }
}

/// Text from the restored data as a person may see it: no control characters, not endless.
pub(super) fn shown(text: &[u8]) -> String {
    shown_within(text, SHOWN)
}

/// The same with at most `most` characters.
pub(super) fn shown_within(text: &[u8], most: usize) -> String {
    let text = String::from_utf8_lossy(text);
    printable_within(&text, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_findings_end_with_how_many_more_there_were() {
        let mut findings = Findings::default();
        for number in 0..FINDINGS + 7 {
            findings.add(Rule::Modes, number.to_string());
        }
        let list = findings.into_list();
        assert_eq!(list.len(), FINDINGS + 1);
        assert_eq!(list[FINDINGS].message, "7 more findings are not listed");
    }

    #[test]
    fn restored_text_cannot_steer_a_terminal_and_is_cut() {
        assert_eq!(shown(b"a\x1b[2Jb\nc\xff"), "a\\u{1b}[2Jb\\nc\u{fffd}");
        assert_eq!(shown("é".repeat(SHOWN).as_bytes()), "é".repeat(SHOWN));
        assert_eq!(shown("é".repeat(SHOWN + 1).as_bytes()), "é".repeat(SHOWN) + "…");
    }
}
