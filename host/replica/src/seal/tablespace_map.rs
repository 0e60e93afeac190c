//! The reader of `tablespace_map`, from which the *server* makes the links of `pg_tblspc` when it starts from a backup.
//! Written by PostgreSQL's `do_pg_backup_start`, read by `read_tablespace_map` (`src/backend/access/transam/xlogrecovery.c`):
//! an object identifier, one space and a path on each line; a backslash makes the byte after it stand for itself.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// The longest file that is read, in bytes.
pub(super) const LONGEST: u64 = 1 << 20;

/// The longest line after its backslashes are gone (`MAXPGPATH` less its NUL); PostgreSQL cuts off what is longer.
const LONGEST_LINE: usize = 1023;

/// An entry: where the tablespace was when it was backed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) oid: u32,
    pub(super) location: PathBuf,
}

/// A tablespace_map that PostgreSQL would not read, or would read as something else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("entry {0} is not an object identifier, a space and a path")]
    Entry(usize),
    #[error("entry {0} is longer than the {LONGEST_LINE} bytes that PostgreSQL reads")]
    Long(usize),
    #[error("its last line is cut off")]
    Cut,
    #[error("it names the tablespace {0} twice")]
    Twice(u32),
}

/// Reads the file's bytes.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Entry>, Unreadable> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut known = BTreeSet::new();
    let mut line = Vec::new();
    let mut after_backslash = false;
    for &byte in bytes {
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
                return Err(Unreadable::Twice(entry.oid));
            }
            entries.push(entry);
            line.clear();
        }
    }
    if after_backslash || !line.is_empty() {
        return Err(Unreadable::Cut);
    }
    Ok(entries)
}

fn entry(line: &[u8], number: usize) -> Result<Entry, Unreadable> {
    if line.len() > LONGEST_LINE {
        return Err(Unreadable::Long(number));
    }
    let space = line.iter().position(|byte| *byte == b' ').ok_or(Unreadable::Entry(number))?;
    let (digits, location) = (&line[..space], &line[space + 1..]);
    let oid =
        std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let oid = oid.and_then(|digits| digits.parse::<u32>().ok()).filter(|oid| *oid != 0);
    match oid {
        Some(oid) if !location.is_empty() && !location.contains(&0) => {
            Ok(Entry { oid, location: PathBuf::from(OsString::from_vec(location.to_vec())) })
        }
        _ => Err(Unreadable::Entry(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<(u32, String)>, Unreadable> {
        parse(text.as_bytes()).map(|entries| {
            entries
                .into_iter()
                .map(|entry| (entry.oid, entry.location.to_string_lossy().into_owned()))
                .collect()
        })
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
    fn a_backslash_makes_the_next_byte_stand_for_itself() {
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
            "4294967296 /p\n",
        ] {
            assert_eq!(read(text), Err(Unreadable::Entry(1)), "{text:?}");
        }
        assert_eq!(read("1 /a"), Err(Unreadable::Cut));
        assert_eq!(read("1 /a\\\n"), Err(Unreadable::Cut));
        assert_eq!(read("1 /a\n1 /b\n"), Err(Unreadable::Twice(1)));
        assert_eq!(read(&format!("1 /{}\n", "a".repeat(1020))).map(|entries| entries.len()), Ok(1));
        assert_eq!(read(&format!("1 /{}\n", "a".repeat(1021))), Err(Unreadable::Long(1)));
    }
}
