//! `tablespace_map`, from which the *server* makes the links of `pg_tblspc` when it starts from a backup: written by
//! `do_pg_backup_start` (`src/backend/access/transam/xlog.c`), read by `read_tablespace_map`
//! (`src/backend/access/transam/xlogrecovery.c`). Each line has an object identifier, one space and a path; a backslash
//! escapes the byte after it.

use std::collections::BTreeSet;

use crate::shown;

/// The longest `tablespace_map` that is read, in bytes.
pub const LIMIT: u64 = 16 << 20;

/// The longest line without its backslashes in bytes (`MAXPGPATH` without its NUL). PostgreSQL truncates longer lines.
const LONGEST_LINE: usize = 1023;

/// A tablespace, with its directory at the time of the backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped<L = Vec<u8>> {
    /// The object identifier of the tablespace, from 1 on.
    pub oid: u32,
    /// The path of the directory on the machine that was backed up.
    pub location: L,
}

/// A `tablespace_map` that PostgreSQL would refuse or misread, or that no plan can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TablespaceMapError {
    /// An entry is not an object identifier, a space and a path.
    #[error("has an entry {entry}, `{line}`, that is not an object identifier, a space and a path")]
    Entry {
        /// The number of the entry, counted from 1.
        entry: usize,
        /// The entry, shortened.
        line: String,
    },
    /// An entry is longer than the longest entry that PostgreSQL reads.
    #[error("has an entry {0} that is longer than the {LONGEST_LINE} bytes that PostgreSQL reads")]
    Long(usize),
    /// The last line has no line feed.
    #[error("has a last line that is cut off")]
    Truncated,
    /// Two entries have the same object identifier.
    #[error("names the tablespace {0} twice")]
    Twice(u32),
    /// A location is not an absolute path.
    #[error("gives the tablespace {0} a location that is not an absolute path")]
    Relative(u32),
    /// A location is not UTF-8, so that no plan can name it.
    #[error("gives the tablespace {0} a location that is not UTF-8")]
    NotUtf8(u32),
}

/// Parses all entries. Like PostgreSQL, accepts any path as a location.
///
/// # Errors
/// Every [`TablespaceMapError`] except [`TablespaceMapError::Relative`] and [`TablespaceMapError::NotUtf8`].
pub fn parse(contents: &[u8]) -> Result<Vec<Mapped>, TablespaceMapError> {
    let mut entries: Vec<Mapped> = Vec::new();
    let mut known = BTreeSet::new();
    let mut line = Vec::new();
    let mut after_backslash = false;
    for &byte in contents {
        if after_backslash {
            line.push(byte);
            after_backslash = false;
        } else if byte == b'\\' {
            after_backslash = true;
        } else if byte != b'\n' && byte != b'\r' {
            line.push(byte);
        } else if !line.is_empty() {
            let entry = entry(&line, entries.len() + 1)?;
            if !known.insert(entry.oid) {
                return Err(TablespaceMapError::Twice(entry.oid));
            }
            entries.push(entry);
            line.clear();
        }
    }
    if after_backslash || !line.is_empty() {
        return Err(TablespaceMapError::Truncated);
    }
    Ok(entries)
}

/// Parses all entries for a plan, which needs absolute paths in UTF-8. PostgreSQL writes only absolute paths: `CREATE TABLESPACE`
/// accepts no others (`src/backend/commands/tablespace.c`), and tablespaces that lie in `pg_tblspc` itself are not written.
///
/// # Errors
/// Every [`TablespaceMapError`].
pub fn parse_absolute(contents: &[u8]) -> Result<Vec<Mapped<String>>, TablespaceMapError> {
    let absolute = |Mapped { oid, location }: Mapped| {
        if !location.starts_with(b"/") {
            return Err(TablespaceMapError::Relative(oid));
        }
        let location = String::from_utf8(location).map_err(|_| TablespaceMapError::NotUtf8(oid))?;
        Ok(Mapped { oid, location })
    };
    parse(contents)?.into_iter().map(absolute).collect()
}

fn entry(line: &[u8], number: usize) -> Result<Mapped, TablespaceMapError> {
    if line.len() > LONGEST_LINE {
        return Err(TablespaceMapError::Long(number));
    }
    read_entry(line).ok_or_else(|| TablespaceMapError::Entry { entry: number, line: shown(line) })
}

fn read_entry(line: &[u8]) -> Option<Mapped> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let (digits, location) = (&line[..space], &line[space + 1..]);
    digits.iter().all(u8::is_ascii_digit).then_some(())?;
    let oid = std::str::from_utf8(digits).ok()?.parse().ok().filter(|oid| *oid != 0)?;
    (!location.is_empty() && !location.contains(&0)).then(|| Mapped { oid, location: location.to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(u32, String)>, TablespaceMapError> {
        parse(text.as_bytes()).map(|entries| {
            entries
                .into_iter()
                .map(|entry| (entry.oid, String::from_utf8_lossy(&entry.location).into_owned()))
                .collect()
        })
    }

    fn at(oid: u32, location: &str) -> Mapped<String> {
        Mapped { oid, location: location.to_owned() }
    }

    #[test]
    fn entries_are_read_as_postgresql_reads_them() {
        assert_eq!(read(""), Ok(vec![]));
        assert_eq!(
            read("16384 /fast\n16385 /with space \r\n\n16386  /leading\n"),
            Ok(vec![(16384, "/fast".into()), (16385, "/with space ".into()), (16386, " /leading".into())])
        );
    }

    #[test]
    fn a_backslash_escapes_the_next_byte() {
        assert_eq!(
            read("1 /a\\\nb\n2 /c\\\\d\n3 /e\\\rf\\g\n"),
            Ok(vec![(1, "/a\nb".into()), (2, "/c\\d".into()), (3, "/e\rfg".into())])
        );
    }

    #[test]
    fn rule_30_what_postgresql_would_not_read_is_refused() {
        for text in [
            "/path\n",
            "16384\n",
            "16384 \n",
            " /path\n",
            "x /path\n",
            "0 /p\n",
            "-1 /p\n",
            "+1 /p\n",
            "4294967296 /p\n",
            "1 /a\0\n",
        ] {
            assert!(matches!(read(text), Err(TablespaceMapError::Entry { entry: 1, .. })), "{text:?}");
        }
        assert_eq!(read("1 /a"), Err(TablespaceMapError::Truncated));
        assert_eq!(read("1 /a\\"), Err(TablespaceMapError::Truncated));
        assert_eq!(read("1 /a\\\n"), Err(TablespaceMapError::Truncated));
        assert_eq!(read("1 /a\n1 /b\n"), Err(TablespaceMapError::Twice(1)));
    }

    #[test]
    fn an_entry_that_postgresql_would_truncate_is_refused() {
        let map = |length: usize| format!("1 /{}\n", "a".repeat(length)).into_bytes();
        assert_eq!(parse(&map(1020)).map(|entries| entries.len()), Ok(1));
        assert_eq!(parse_absolute(&map(1020)).map(|entries| entries.len()), Ok(1));
        assert_eq!(parse(&map(1021)), Err(TablespaceMapError::Long(1)));
        assert_eq!(parse_absolute(&map(1021)), Err(TablespaceMapError::Long(1)));
    }

    #[test]
    fn a_plan_names_absolute_paths_in_utf_8() {
        let map = b"16384 /tmp/a b\n16385 /with\\\nline\\\\and backslash\n";
        let read = [at(16384, "/tmp/a b"), at(16385, "/with\nline\\and backslash")];
        assert_eq!(parse_absolute(map).unwrap(), read);
        for (map, error) in [
            (&b"16384 a\n"[..], TablespaceMapError::Relative(16384)),
            (b"16384  /a\n", TablespaceMapError::Relative(16384)),
            (b"16384 /f\xFCr\n", TablespaceMapError::NotUtf8(16384)),
        ] {
            assert!(parse(map).is_ok());
            assert_eq!(parse_absolute(map), Err(error));
        }
    }
}
