//! Finds the objects with the longest keys. Stores limit the length of keys in bytes or in characters. So a store that accepts the longest
//! keys accepts all others too.

use super::File;

/// The files whose objects have the longest keys.
#[derive(Debug, Default)]
pub(crate) struct Longest {
    by_bytes: Option<(usize, File)>,
    by_characters: Option<(usize, File)>,
}

impl Longest {
    /// Adds a file from the backup with this label. Ignores empty files and files in bundles, because they are not separate objects.
    pub(super) fn add(&mut self, label: &str, file: &File) {
        if file.size == 0 || file.bundled.is_some() {
            return;
        }
        let root = label.len() + crate::names::root_of(&file.name).len();
        let bytes = root + file.name.len();
        let characters = if file.name.is_ascii() { bytes } else { root + file.name.encode_utf16().count() };
        for (longest, length) in [(&mut self.by_bytes, bytes), (&mut self.by_characters, characters)] {
            if longest.as_ref().is_none_or(|(most, _)| length > *most) {
                *longest = Some((length, file.clone()));
            }
        }
    }

    /// Returns the file whose key has the most bytes, and the file whose key has the most characters if that is another file.
    pub(crate) fn files(&self) -> impl Iterator<Item = &File> {
        let by_bytes = self.by_bytes.as_ref().map(|(_, file)| file);
        let by_characters = self.by_characters.as_ref().map(|(_, file)| file);
        by_bytes.into_iter().chain(by_characters.filter(move |file| Some(*file) != by_bytes))
    }
}
