//! The header block of a member (`pax(1)`, "ustar Interchange Format"; `tarCreateHeader` in PostgreSQL's src/port/tar.c).

use super::extended::Extended;
use super::{Kind, Member};

/// The size of a block in bytes. A header is one block; contents are padded with zeros to whole blocks.
pub const BLOCK: usize = 512;
pub(super) type Block = [u8; BLOCK];

/// Why a header is refused.
pub(super) enum Wrong {
    /// The block is not a valid header, for this reason.
    Header(&'static str),
    /// The header is valid, but the member is refused. The fields are the name of the member and the reason.
    Member(String, String),
}

/// Checks that a block is a ustar header.
pub(super) fn check(block: &Block) -> Result<(), Wrong> {
    let sum = octal(&block[148..156]).ok_or(Wrong::Header("its checksum is not a number"))?;
    if sum != checksum(block) {
        return Err(Wrong::Header("its checksum is wrong"));
    }
    if &block[257..265] != b"ustar\x0000" {
        return Err(Wrong::Header("it is not a ustar header"));
    }
    Ok(())
}

/// Parses a header. `extended` is the extended header that precedes the header. With `is_of_wal_g`, the name may begin with `/`. For the
/// top directory (`.` or `./`, with `is_of_wal_g` also `/`), the returned name is empty.
pub(super) fn parse(block: &Block, is_of_wal_g: bool, extended: Option<Extended>) -> Result<Member, Wrong> {
    check(block)?;
    let Extended { path, size: extended_size } = extended.unwrap_or_default();
    let full = match path {
        Some(path) => path,
        None => full_name(block)?,
    };
    let (name, directory_slash) = name(&full, is_of_wal_g)?;
    let refuse = |what: &str| Err(Wrong::Member(full.escape_debug().to_string(), what.to_owned()));
    let kind = match block[156] {
        b'0' | 0 => Kind::File,
        b'5' => Kind::Directory,
        b'1' => return refuse("that is a hard link"),
        b'2' => return refuse("that is a symbolic link; the host makes the links that are needed"),
        b'3' | b'4' => return refuse("that is a device"),
        b'6' => return refuse("that is a FIFO"),
        other => {
            return refuse(&format!(
                "of type `{}`, which pg_basebackup does not write",
                char::from(other).escape_debug()
            ));
        }
    };
    let Some(size) = extended_size.or_else(|| size(&block[124..136])) else {
        return refuse("whose size is not a number from 0 to 2^63 - 1");
    };
    match kind {
        Kind::Directory if size > 0 => refuse("that is a directory and has contents"),
        Kind::File if directory_slash => refuse("that is a file and is named as a directory"),
        _ => Ok(Member { name, kind, size }),
    }
}

/// Returns the name in a header.
fn full_name(block: &Block) -> Result<String, Wrong> {
    let (prefix, last) = (text(&block[345..500])?, text(&block[0..100])?);
    Ok(if prefix.is_empty() { last.to_owned() } else { format!("{prefix}/{last}") })
}

/// Returns the name in a header that is not parsed, for a message.
pub(super) fn name_for_message(block: &Block) -> String {
    full_name(block).unwrap_or_else(|_| "(a name that is not UTF-8)".to_owned())
}

/// Returns the name without a leading `./` and without a trailing `/`, and whether it had the trailing `/`. With `is_of_wal_g`, the
/// returned name has no leading `/` either. PostgreSQL writes a leading `./` for pg_wal/archive_status.
fn name(full: &str, is_of_wal_g: bool) -> Result<(String, bool), Wrong> {
    let name = match full.strip_prefix('/') {
        Some("") if is_of_wal_g => return Ok((String::new(), true)),
        Some(name) if is_of_wal_g => name,
        None if matches!(full, "./" | ".") => return Ok((String::new(), true)),
        _ => full.strip_prefix("./").unwrap_or(full),
    };
    let (name, slash) = name.strip_suffix('/').map_or((name, false), |name| (name, true));
    let refuse = |what: &str| Err(Wrong::Member(full.escape_debug().to_string(), what.to_owned()));
    if name.starts_with('/') {
        return refuse("whose name is absolute");
    }
    for part in name.split('/') {
        match part {
            "" | "." => return refuse("whose name has an empty part"),
            ".." => return refuse("whose name has `..` in it"),
            _ => {}
        }
    }
    Ok((name.to_owned(), slash))
}

/// Returns the text of a field: up to the first NUL, or all of it. Bytes after the NUL are ignored, because pg_basebackup writes
/// `00000002.history` over `00000002.history.tmp` and leaves the rest of the old name (src/bin/pg_basebackup/walmethods.c).
fn text(field: &[u8]) -> Result<&str, Wrong> {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let name = &field[..end];
    std::str::from_utf8(name).map_err(|_| {
        Wrong::Member(
            name.escape_ascii().to_string(),
            "whose name is not UTF-8: the sandbox allows only names in UTF-8".to_owned(),
        )
    })
}

/// Parses a size: octal, or from 8 GiB on in base 256 after a byte of 0x80.
pub(super) fn size(field: &[u8]) -> Option<u64> {
    let size = match field.split_first()? {
        (0x80, number) => {
            number.iter().try_fold(0u64, |all, byte| Some(all.checked_mul(256)? + u64::from(*byte)))?
        }
        _ => octal(field)?,
    };
    i64::try_from(size).is_ok().then_some(size)
}

/// Parses octal digits, with spaces before and spaces or NULs after them.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.trim_ascii_start();
    let end = digits.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(digits.len());
    if end == 0 || digits[end..].iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return None;
    }
    digits[..end].iter().try_fold(0u64, |all, digit| match digit {
        b'0'..=b'7' => Some(all.checked_mul(8)? + u64::from(digit - b'0')),
        _ => None,
    })
}

/// Returns the sum of the header's bytes, with spaces in place of its checksum.
pub(super) fn checksum(block: &Block) -> u64 {
    block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
        .sum()
}
