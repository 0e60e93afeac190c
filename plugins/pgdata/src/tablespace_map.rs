//! `tablespace_map`, a line `OID PATH` for each tablespace (written by `do_pg_backup_start`, read by
//! `read_tablespace_map` in PostgreSQL's xlogrecovery.c). In a path a backslash stands before a line feed, a carriage
//! return and itself.

/// The longest `tablespace_map` that is read, in bytes.
pub const LIMIT: u64 = 16 << 20;

/// A tablespace and where it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Its object identifier.
    pub oid: u32,
    /// Its absolute path on the machine that the backup was taken from.
    pub location: String,
}

/// A `tablespace_map` that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TablespaceMapError {
    /// A line is not an oid and an absolute path.
    #[error("has a line `{0}` that is not an oid and an absolute path")]
    Malformed(String),
    /// The last line has no end.
    #[error("ends within a line")]
    Truncated,
    /// Two lines have one oid.
    #[error("names the tablespace {0} twice")]
    Twice(u32),
}

/// Reads the text of a `tablespace_map`.
///
/// # Errors
/// Where a line is not an oid and an absolute path, where an oid comes twice, or where the last line has no end.
pub fn parse(text: &str) -> Result<Vec<Mapped>, TablespaceMapError> {
    let mut map: Vec<Mapped> = Vec::new();
    let mut line = String::new();
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => line.push(characters.next().ok_or(TablespaceMapError::Truncated)?),
            '\n' | '\r' if line.is_empty() => {}
            '\n' | '\r' => {
                let mapped = mapped(&line)?;
                if map.iter().any(|known| known.oid == mapped.oid) {
                    return Err(TablespaceMapError::Twice(mapped.oid));
                }
                map.push(mapped);
                line.clear();
            }
            other => line.push(other),
        }
    }
    if line.is_empty() { Ok(map) } else { Err(TablespaceMapError::Truncated) }
}

fn mapped(line: &str) -> Result<Mapped, TablespaceMapError> {
    let malformed = || TablespaceMapError::Malformed(line.chars().take(200).collect());
    let (oid, location) = line.split_once(' ').ok_or_else(malformed)?;
    let oid = oid
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| oid.parse().ok())
        .flatten()
        .ok_or_else(malformed)?;
    if oid == 0 || !location.starts_with('/') || location.contains('\0') {
        return Err(malformed());
    }
    Ok(Mapped { oid, location: location.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(oid: u32, location: &str) -> Mapped {
        Mapped { oid, location: location.to_owned() }
    }

    #[test]
    fn a_path_keeps_its_spaces_and_what_is_escaped() {
        let map = parse("16384 /tmp/a b\n16385 /with\\\nline\\\\and backslash\n").unwrap();
        assert_eq!(map, [at(16384, "/tmp/a b"), at(16385, "/with\nline\\and backslash")]);
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn a_map_that_is_no_map_is_refused() {
        for text in [
            "16384\n",
            "x /a\n",
            "0 /a\n",
            "-1 /a\n",
            "4294967296 /a\n",
            "16384 a\n",
            "16384 /a",
            "1 /a\\",
            "1 /a\0\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert_eq!(parse("1 /a\n1 /b\n"), Err(TablespaceMapError::Twice(1)));
    }
}
