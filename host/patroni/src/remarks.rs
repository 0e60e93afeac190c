//! What is said of single settings.

use foundation::printable::printable;
use serde::Serialize;

use crate::settings::Setting;

/// Something about one setting of Patroni.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Remark {
    /// The file's name.
    pub file: String,
    /// The line of the setting, the first of which is 1.
    pub line: usize,
    /// The setting, such as `postgresql.basebackup`.
    pub key: String,
    /// What is said of it.
    pub reason: String,
}

/// Remarks in the order in which they are made.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    not_carried: Vec<Remark>,
    notes: Vec<Remark>,
}

impl Remarks {
    /// Notes that a setting is not in Understudy's configuration, or not as Patroni has it.
    pub(crate) fn not_carried(&mut self, setting: &Setting<'_>, reason: impl Into<String>) {
        self.not_carried.push(Remark::new(setting, reason.into()));
    }

    /// Notes something about a setting that is carried over, or that stays with Patroni.
    pub(crate) fn note(&mut self, setting: &Setting<'_>, reason: impl Into<String>) {
        self.notes.push(Remark::new(setting, reason.into()));
    }

    /// Returns what is not carried over and the notes, each by file and line, without repetitions.
    pub(crate) fn finish(self) -> (Vec<Remark>, Vec<Remark>) {
        let sorted = |mut remarks: Vec<Remark>| {
            remarks.sort();
            remarks.dedup();
            remarks
        };
        (sorted(self.not_carried), sorted(self.notes))
    }
}

impl Remark {
    fn new(setting: &Setting<'_>, reason: String) -> Self {
        Self {
            file: printable(setting.file()).into_owned(),
            line: setting.line(),
            key: printable(&setting.path).into_owned(),
            reason: printable(&reason).into_owned(),
        }
    }
}
