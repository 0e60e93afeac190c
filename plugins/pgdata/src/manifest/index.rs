//! Stores the files of a manifest in little memory, so that restored files can be compared with the manifest.

use super::File;
use crate::checksum::Algorithm;

/// The files of a manifest by name. Each file takes 24 bytes in addition to its name and its checksum.
#[derive(Debug, Default)]
pub struct Index {
    names: String,
    checksums: Vec<u8>,
    files: Vec<Packed>,
    sorted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Packed {
    size: u64,
    name_start: u32,
    checksum_start: u32,
    name_length: u16,
    algorithm: Option<Algorithm>,
    seen: bool,
}

/// What a manifest says about one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its size in bytes.
    pub size: u64,
    /// The checksum; `None` if the backup was taken without checksums.
    pub checksum: Option<(Algorithm, &'a [u8])>,
}

/// Why a file does not match the manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The manifest lists the file twice.
    #[error("the manifest lists `{0}` twice")]
    ListedTwice(String),
    /// The manifest has more than 4 GiB of names, or a name longer than 64 KiB.
    #[error("the manifest's names do not fit into memory")]
    TooMany,
    /// The manifest does not list the file.
    #[error("`{0}` is not in the manifest")]
    NotListed(String),
    /// The file was seen before.
    #[error("`{0}` comes twice")]
    SeenTwice(String),
}

impl Index {
    /// Adds a file. All files must be added before the first is looked up.
    ///
    /// # Errors
    /// [`IndexError::TooMany`].
    pub fn add(&mut self, file: &File) -> Result<(), IndexError> {
        let start = |length: usize| u32::try_from(length).map_err(|_| IndexError::TooMany);
        let mut packed = Packed {
            size: file.size,
            name_start: start(self.names.len())?,
            checksum_start: start(self.checksums.len())?,
            name_length: u16::try_from(file.path.len()).map_err(|_| IndexError::TooMany)?,
            algorithm: None,
            seen: false,
        };
        self.names.push_str(&file.path);
        if let Some((algorithm, value)) = &file.checksum {
            packed.algorithm = Some(*algorithm);
            self.checksums.extend_from_slice(value);
        }
        self.files.push(packed);
        self.sorted = false;
        Ok(())
    }

    /// Sorts the files, so that they can be looked up.
    ///
    /// # Errors
    /// [`IndexError::ListedTwice`].
    pub fn sort(&mut self) -> Result<(), IndexError> {
        let names = &self.names;
        self.files.sort_unstable_by(|a, b| a.name(names).cmp(b.name(names)));
        for pair in self.files.windows(2) {
            if pair[0].name(names) == pair[1].name(names) {
                return Err(IndexError::ListedTwice(pair[0].name(names).to_owned()));
            }
        }
        self.sorted = true;
        Ok(())
    }

    /// Looks up the file `name` and marks it as seen.
    ///
    /// # Errors
    /// Fails if the file is not listed or was seen before.
    pub fn see(&mut self, name: &str) -> Result<Entry<'_>, IndexError> {
        let names = &self.names;
        let found = self.files.binary_search_by(|file| file.name(names).cmp(name));
        let (true, Ok(at)) = (self.sorted, found) else { return Err(IndexError::NotListed(name.to_owned())) };
        let file = &mut self.files[at];
        if std::mem::replace(&mut file.seen, true) {
            return Err(IndexError::SeenTwice(name.to_owned()));
        }
        let start = file.checksum_start as usize;
        let checksum =
            file.algorithm.map(|algorithm| (algorithm, &self.checksums[start..start + algorithm.size()]));
        Ok(Entry { size: file.size, checksum })
    }

    /// Returns the names of the files that were not seen.
    pub fn unseen(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter(|file| !file.seen).map(|file| file.name(&self.names))
    }
}

impl Packed {
    fn name(self, names: &str) -> &str {
        let start = self.name_start as usize;
        &names[start..start + usize::from(self.name_length)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> File {
        File {
            path: path.to_owned(),
            size: 7,
            checksum: Some((Algorithm::Crc32c, path.as_bytes()[..4].to_vec())),
        }
    }

    fn index(paths: &[&str]) -> Result<Index, IndexError> {
        let mut index = Index::default();
        for path in paths {
            index.add(&file(path))?;
        }
        index.sort()?;
        Ok(index)
    }

    #[test]
    fn a_file_is_found_once_and_unseen_files_are_listed() {
        let mut index = index(&["global/1262", "base/5/1259", "PG_VERSION"]).unwrap();
        let entry = index.see("base/5/1259").unwrap();
        assert_eq!((entry.size, entry.checksum), (7, Some((Algorithm::Crc32c, &b"base"[..]))));
        assert_eq!(index.see("base/5/1259"), Err(IndexError::SeenTwice("base/5/1259".to_owned())));
        assert_eq!(index.see("base/5"), Err(IndexError::NotListed("base/5".to_owned())));
        index.see("PG_VERSION").unwrap();
        assert_eq!(index.unseen().collect::<Vec<_>>(), ["global/1262"]);
    }

    #[test]
    fn a_file_that_is_listed_twice_is_refused() {
        assert_eq!(
            index(&["base/1", "base/2", "base/1"]).unwrap_err(),
            IndexError::ListedTwice("base/1".to_owned())
        );
    }

    #[test]
    fn a_million_files_fit_into_a_small_plugin() {
        assert!(size_of::<Packed>() <= 24, "{}", size_of::<Packed>());
    }
}
