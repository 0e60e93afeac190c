//! Stores the files and directories of a manifest in memory, where they can be looked up by name and listed in the best order to fetch
//! them.

use std::cmp::Ordering;

use crate::manifest::{Contents, File};

/// The largest permitted number of files and directories. A million entries take some 140 MB of memory.
pub(crate) const MOST: u64 = 1_500_000;

/// How many files one allocation contains. A single list would need twice the memory while it grows.
const PIECE: usize = 1 << 14;

/// The files and directories of a manifest.
#[derive(Debug, Default)]
pub(crate) struct Files {
    pieces: Vec<Vec<File>>,
    count: usize,
    /// How many files are not below `pg_tblspc`. These files come first.
    in_data: usize,
    /// The directories in the order of the manifest, with those below `pg_tblspc` last.
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

/// Checks that another entry may be added to `count` files and directories.
///
/// # Errors
/// Fails if the limit is reached.
pub(crate) fn one_more(count: usize) -> Result<(), String> {
    if (count as u64) < MOST {
        Ok(())
    } else {
        Err(format!("is one too many: at most {MOST} files and directories are allowed"))
    }
}

impl Files {
    fn get(&self, at: usize) -> &File {
        &self.pieces[at / PIECE][at % PIECE]
    }

    /// Finds the file with this name.
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

    /// Returns whether there is a file with this name.
    pub(crate) fn has_file(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Returns whether the backup has a status file for the segment `name` in `pg_wal`. A backup of a cluster that was shut down may have
    /// status files.
    pub(crate) fn has_status(&self, name: &str) -> bool {
        ["done", "ready"].iter().any(|state| self.has_file(&format!("pg_wal/archive_status/{name}.{state}")))
    }

    /// Returns whether there is a directory with this name.
    pub(crate) fn has_directory(&self, name: &str) -> bool {
        let wanted = (is_in_tablespace(name), name);
        self.directories.binary_search_by(|known| (is_in_tablespace(known), &**known).cmp(&wanted)).is_ok()
    }

    /// Returns PostgreSQL's directories in the tablespaces, such as `PG_15_202209061`, with the OID of each tablespace.
    pub(crate) fn tablespace_folders(&self) -> impl Iterator<Item = (u32, &str)> {
        self.directories.iter().filter_map(|name| {
            let (oid, folder) = name.strip_prefix("pg_tblspc/")?.split_once('/')?;
            (!folder.contains('/')).then_some((oid.parse().ok()?, folder))
        })
    }

    /// Returns every file in the best order to fetch them: first separate objects, largest first, so that no large object starts when all
    /// others are done; then bundles from beginning to end; then empty files.
    pub(crate) fn in_best_order(&self) -> impl Iterator<Item = &File> {
        // There are at most `MOST` files, so the cast keeps the number.
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

    use restore::transfer::SHA1_OF_EMPTY;

    use super::*;
    use crate::manifest::Bundled;

    fn file(name: &str, size: u64, bundled: Option<(u64, u64)>) -> File {
        File {
            name: name.into(),
            size,
            mtime: None,
            digest: SHA1_OF_EMPTY,
            mode: None,
            reference: None,
            bundled: bundled.map(|(bundle, offset)| Bundled {
                bundle: NonZeroU64::new(bundle).unwrap(),
                offset,
                length: size,
            }),
            damage: None,
            blocks: None,
        }
    }

    #[test]
    fn large_objects_come_first_then_bundles_then_empty_files() {
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
    fn files_in_and_outside_of_tablespaces_are_found_by_name() {
        let mut files = Files::default();
        let (count, inside) = (3 * PIECE, "pg_tblspc/16384/PG_15_202209061");
        for number in 0..count {
            files.file(file(&format!("base/5/{number:06}"), 1, None)).unwrap();
        }
        // By name this file comes after the files below `pg_tblspc`, but in a manifest it comes before them.
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
    fn the_number_of_files_is_bounded() {
        assert_eq!(one_more(usize::try_from(MOST).unwrap() - 1), Ok(()));
        assert!(one_more(usize::try_from(MOST).unwrap()).unwrap_err().contains("1500000"));
        assert!(size_of::<File>() <= 112, "{}", size_of::<File>());
    }
}
