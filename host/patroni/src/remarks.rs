//! Remarks about single settings.

use foundation::printable::printable;
use serde::Serialize;

use crate::settings::Setting;

/// A remark about one setting in Patroni's configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Remark {
    /// The file's name.
    pub file: String,
    /// The line of the setting, counted from 1.
    pub line: usize,
    /// The setting, such as `postgresql.basebackup`.
    pub key: String,
    /// The remark.
    pub reason: String,
}

/// Remarks in the order in which they are made.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    not_carried: Vec<Remark>,
    notes: Vec<Remark>,
}

impl Remarks {
    /// Adds a remark for a setting that Understudy's configuration does not have, or has with another meaning.
    pub(crate) fn not_carried(&mut self, setting: &Setting<'_>, reason: impl Into<String>) {
        self.not_carried.push(Remark::new(setting, reason.into()));
    }

    /// Adds a remark for a setting that is carried over or stays with Patroni.
    pub(crate) fn note(&mut self, setting: &Setting<'_>, reason: impl Into<String>) {
        self.notes.push(Remark::new(setting, reason.into()));
    }

    /// Returns the remarks about settings that are not carried over, and the other remarks. Sorts both by file and line, and removes
    /// repetitions.
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
