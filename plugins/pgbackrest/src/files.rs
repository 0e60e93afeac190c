//! The files and directories of a manifest in memory, to be found by name and gone through in the order in which they are
//! best fetched.

use std::cmp::Ordering;

use crate::manifest::{Contents, File};

/// The most files and directories that are restored. A million need some 140 MB of memory.
pub(crate) const MOST: u64 = 1_500_000;

/// How many files are kept in one piece of memory: a list that grew as a whole would be there twice meanwhile.
const PIECE: usize = 1 << 14;

/// What a manifest lists.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pieces: Vec<Vec<File>>,
    count: usize,
    /// How many of them are not below `pg_tblspc`; those come first.
    in_data: usize,
    /// In the order of the manifest: what is below `pg_tblspc` last.
    pub(crate) directories: Vec<Box<str>>,
}

impl Contents for Files {
    fn file(&mut self, file: File) -> Result<(), String> {
        one_more(self.count + self.directories.len())?;
        if !is_in_tablespace(&file.name) {
            self.in_data += 1;
        }
        if self.count.is_multiple_of(PIECE) {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        if let Some(piece) = self.pieces.last_mut() {
            piece.push(file);
        }
        self.count += 1;
        Ok(())
    }

    fn directory(&mut self, name: &str) -> Result<(), String> {
        one_more(self.count + self.directories.len())?;
        self.directories.push(name.into());
        Ok(())
    }
}

/// Whether there may be one more than `count` files and directories.
///
/// # Errors
/// Where there may not.
pub(crate) fn one_more(count: usize) -> Result<(), String> {
    if (count as u64) < MOST {
        Ok(())
    } else {
        Err(format!("is of one more than {MOST} files and directories"))
    }
}

impl Files {
    fn get(&self, at: usize) -> &File {
        &self.pieces[at / PIECE][at % PIECE]
    }

    /// The file of that name.
    pub(crate) fn find(&self, name: &str) -> Option<&File> {
        let (mut from, mut to) =
            if is_in_tablespace(name) { (self.in_data, self.count) } else { (0, self.in_data) };
        while from < to {
            let middle = from.midpoint(to);
            let file = self.get(middle);
            match file.name.as_ref().cmp(name) {
                Ordering::Equal => return Some(file),
                Ordering::Less => from = middle + 1,
                Ordering::Greater => to = middle,
            }
        }
        None
    }

    /// Whether there is a file of that name.
    pub(crate) fn has_file(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Whether it says itself if the segment `name` of `pg_wal` is archived, as a cluster does that was shut down.
    pub(crate) fn has_status(&self, name: &str) -> bool {
        ["done", "ready"].iter().any(|state| self.has_file(&format!("pg_wal/archive_status/{name}.{state}")))
    }

    /// Whether there is a directory of that name.
    pub(crate) fn has_directory(&self, name: &str) -> bool {
        let wanted = (is_in_tablespace(name), name);
        self.directories.binary_search_by(|known| (is_in_tablespace(known), &**known).cmp(&wanted)).is_ok()
    }

    /// PostgreSQL's folders in the tablespaces, by the tablespaces' oids: `PG_15_202209061`.
    pub(crate) fn tablespace_folders(&self) -> impl Iterator<Item = (u32, &str)> {
        self.directories.iter().filter_map(|name| {
            let (oid, folder) = name.strip_prefix("pg_tblspc/")?.split_once('/')?;
            (!folder.contains('/')).then_some((oid.parse().ok()?, folder))
        })
    }

    /// Every file, in the order in which they are best fetched: objects of their own from the largest on, so that no long
    /// one begins when the rest is done; then bundles from their beginning to their end; then what is empty.
    pub(crate) fn in_best_order(&self) -> impl Iterator<Item = &File> {
        // There are at most `MOST`.
        let mut order: Vec<u32> = (0..self.count as u32).collect();
        order.sort_unstable_by(|one, other| {
            let (one, other) = (self.get(*one as usize), self.get(*other as usize));
            let class = |file: &File| (file.size == 0, file.bundled.is_some());
            let place =
                |file: &File| file.bundled.map(|bundled| (file.reference, bundled.bundle, bundled.offset));
            class(one)
                .cmp(&class(other))
                .then_with(|| place(one).cmp(&place(other)))
                .then_with(|| other.size.cmp(&one.size))
        });
        order.into_iter().map(|at| self.get(at as usize))
    }
}

fn is_in_tablespace(name: &str) -> bool {
    name.starts_with("pg_tblspc/")
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::manifest::{Bundled, OF_NOTHING};

    fn file(name: &str, size: u64, bundled: Option<(u64, u64)>) -> File {
        File {
            name: name.into(),
            size,
            mtime: None,
            digest: OF_NOTHING,
            mode: None,
            reference: None,
            bundled: bundled.map(|(bundle, offset)| Bundled {
                bundle: NonZeroU64::new(bundle).unwrap(),
                offset,
                length: size,
            }),
            damage: None,
        }
    }

    #[test]
    fn large_objects_come_first_then_bundles_from_their_beginning_then_what_is_empty() {
        let mut files = Files::default();
        for file in [
            file("a", 0, None),
            file("b", 5, Some((2, 7))),
            file("c", 10, None),
            file("d", 5, Some((2, 0))),
            file("e", 30, None),
            file("f", 5, Some((1, 9))),
        ] {
            files.file(file).unwrap();
        }
        let order: String = files.in_best_order().map(|file| &*file.name).collect();
        assert_eq!(order, "ecfdba");
    }

    #[test]
    fn a_file_is_found_by_its_name_on_either_side_of_the_tablespaces() {
        let mut files = Files::default();
        let (count, inside) = (3 * PIECE, "pg_tblspc/16384/PG_15_202209061");
        for number in 0..count {
            files.file(file(&format!("base/5/{number:06}"), 1, None)).unwrap();
        }
        // After what is below `pg_tblspc` by its name, before it in a manifest.
        files.file(file("pg_xact/0000", 1, None)).unwrap();
        files.file(file(&format!("{inside}/5/16385"), 1, None)).unwrap();
        for name in ["base", "pg_xact", inside] {
            files.directory(name).unwrap();
        }
        let last = format!("base/5/{:06}", count - 1);
        for name in ["base/5/000000", &last, "pg_xact/0000", &format!("{inside}/5/16385")] {
            assert!(files.has_file(name), "{name}");
        }
        for name in ["", "base/5/0", "base/6", "pg_tblspc/16384/PG_15_202209061/5/1", "pg_xact/0001"] {
            assert!(!files.has_file(name), "{name}");
        }
        assert!(files.has_directory("base") && files.has_directory("pg_xact") && files.has_directory(inside));
        assert!(!files.has_directory("bas") && !files.has_directory("pg_tblspc/16384"));
    }

    #[test]
    fn there_are_not_more_than_fit_into_memory() {
        assert_eq!(one_more(usize::try_from(MOST).unwrap() - 1), Ok(()));
        assert!(one_more(usize::try_from(MOST).unwrap()).unwrap_err().contains("1500000"));
        assert!(size_of::<File>() <= 112, "{}", size_of::<File>());
    }
}
