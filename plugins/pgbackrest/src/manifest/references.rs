//! The labels of the backups that contain files of a backup.

use std::collections::HashMap;

use crate::label::is_label;

/// The largest permitted number of backups on which a backup is built.
const MOST: usize = 20_000;

/// A list of unique labels. A file stores the index of its label, because there may be a million files but few labels.
#[derive(Debug, Default)]
pub(crate) struct References {
    labels: Vec<Box<str>>,
    numbers: HashMap<Box<str>, u16>,
    /// The index that was looked up last. Most files are in the same backup as the file before.
    last: usize,
}

impl References {
    /// Returns the label with this index.
    pub(crate) fn get(&self, number: impl Into<usize>) -> Option<&str> {
        self.labels.get(number.into()).map(AsRef::as_ref)
    }

    /// Returns the index of a label; `None` if the label is not in the list.
    pub(crate) fn position(&self, label: &str) -> Option<usize> {
        self.numbers.get(label).map(|number| usize::from(*number))
    }

    /// Reads the labels of a list such as `20261126-043406F,20261126-043406F_20261126-043412I`.
    ///
    /// # Errors
    /// Fails if a label is invalid or repeated, or if there are too many labels.
    pub(super) fn of_list(list: &str) -> Result<Self, String> {
        let mut references = Self::default();
        for (at, label) in list.split(',').enumerate() {
            if usize::from(references.number(label)?) != at {
                return Err(format!("is in the backup {label} twice"));
            }
        }
        Ok(references)
    }

    /// Returns the number of labels.
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns every label.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.labels.iter().map(AsRef::as_ref)
    }

    /// Returns the index of the label `text`. Adds the label if it is new.
    ///
    /// # Errors
    /// Fails if `text` is not a label, or if there are too many labels.
    pub(super) fn number(&mut self, text: &str) -> Result<u16, String> {
        if self.labels.get(self.last).is_none_or(|label| **label != *text) {
            self.last = usize::from(self.find_or_add(text)?);
        }
        u16::try_from(self.last).map_err(|_| too_many())
    }

    fn find_or_add(&mut self, text: &str) -> Result<u16, String> {
        if let Some(number) = self.numbers.get(text) {
            return Ok(*number);
        }
        if !is_label(text) {
            let shown: String = text.escape_debug().take(80).collect();
            return Err(format!("is in `{shown}`, which is not a label"));
        }
        let number = u16::try_from(self.labels.len()).map_err(|_| too_many())?;
        if self.labels.len() == MOST {
            return Err(too_many());
        }
        self.labels.push(text.into());
        self.numbers.insert(text.into(), number);
        Ok(number)
    }
}

fn too_many() -> String {
    format!("is in one more than {MOST} backups")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_keeps_its_index_and_the_number_of_labels_is_bounded() {
        let label = |number: usize| format!("20261126-{number:06}F");
        let mut references = References::default();
        for round in 0..2 {
            for number in 0..MOST {
                assert_eq!(references.number(&label(number)), Ok(number as u16), "{round}");
            }
        }
        assert_eq!((references.get(7_usize), references.iter().count()), (Some(label(7).as_str()), MOST));
        assert!(references.number(&label(MOST)).unwrap_err().contains("more than 20000 backups"));
        assert!(references.number("../x").unwrap_err().contains("not a label"));
    }
}
