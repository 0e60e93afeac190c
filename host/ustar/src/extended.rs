//! The extended header of a member (`pax(1)`, "pax Header Block"), as Go's archive/tar and Python's tarfile write it.

use super::header::{Block, Wrong, check, size as size_of};

/// The largest permitted extended header in bytes. Its longest text is a path.
const LIMIT: u64 = 64 << 10;

/// What an extended header says of the member that follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extended {
    /// The name; `None` if the header of the member has it.
    pub(super) path: Option<String>,
    /// The size in bytes; `None` if the header of the member has it.
    pub(super) size: Option<u64>,
}

/// Returns the size of the contents of an extended header; `None` if `block` is another header.
pub(super) fn size(block: &Block) -> Result<Option<u64>, Wrong> {
    check(block)?;
    if block[156] != b'x' {
        return Ok(None);
    }
    match size_of(&block[124..136]) {
        Some(size) if (1..=LIMIT).contains(&size) => Ok(Some(size)),
        _ => Err(Wrong::Header("its extended header is empty or too large, or its size is not a number")),
    }
}

impl Extended {
    /// Parses the contents: records of the form `LENGTH KEY=VALUE` and a line feed, where LENGTH counts the whole record.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, &'static str> {
        let mut extended = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or("its extended header is damaged")?;
            match key {
                "path" if extended.path.is_none() && !value.contains('\0') => {
                    extended.path = Some(value.to_owned())
                }
                "size" if extended.size.is_none() => {
                    let size = digits(value).filter(|size| i64::try_from(*size).is_ok());
                    extended.size = Some(
                        size.ok_or("its extended header has a size that is not a number from 0 to 2^63 - 1")?,
                    );
                }
                "path" | "size" => {
                    return Err(
                        "its extended header has a name with a NUL byte, more than one name, or more than one size",
                    );
                }
                key if key.starts_with("GNU.sparse.") => {
                    return Err("its extended header is that of a sparse file");
                }
                // Times, owners and comments.
                _ => {}
            }
            bytes = rest;
        }
        Ok(extended)
    }
}

/// Splits the first record into its key, its value, and the bytes that follow.
fn record(bytes: &[u8]) -> Option<(&str, &str, &[u8])> {
    let space = bytes.iter().take(6).position(|byte| *byte == b' ')?;
    let length = digits(std::str::from_utf8(bytes.get(..space)?).ok()?)?;
    let (record, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    let text = std::str::from_utf8(record.get(space + 1..)?).ok()?;
    let (key, value) = text.strip_suffix('\n')?.split_once('=')?;
    Some((key, value, rest))
}

/// Parses a number of decimal digits only, which `parse` would also accept after a sign.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_and_the_size_are_read_and_other_records_are_passed_over() {
        let bytes =
            "18 uid=1000680000\n28 path=/base/5/t\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}\n19 size=9663676416\n";
        let extended = Extended::parse(bytes.as_bytes()).unwrap();
        assert_eq!(extended.path.as_deref(), Some("/base/5/t\u{fc}\u{fc}\u{fc}\u{fc}\u{fc}"));
        assert_eq!(extended.size, Some(9 << 30));
    }

    #[test]
    fn a_damaged_extended_header_is_refused() {
        for bytes in [
            "x",
            "8 size=1\n",
            "11 size=-1\n",
            "9 path=a\n9 path=a\n",
            "0 path=a\n",
            "9999999 a=b\n",
            "+11 path=a\n",
            "11 size=+5\n",
            "9 path=a ",
            "29 GNU.sparse.name=path/to/x\n",
            "11 path=a\0\n",
        ] {
            assert!(Extended::parse(bytes.as_bytes()).is_err(), "{bytes:?}");
        }
    }
}
