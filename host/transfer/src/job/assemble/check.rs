//! Checks that the pieces of a file give every byte of it once.

use super::{MOST_EXTENTS, MOST_PIECES};
use crate::error::{Error, Kind};
use crate::job::{Assembly, BlockDigests, Extent};

/// The size of the smallest block that has a digest in bytes.
const SMALLEST_BLOCK: u32 = 512;

/// The longest digest of a block in bytes: XXH3 with 128 bits.
const LONGEST_DIGEST: u32 = 16;

/// Checks the pieces and the digests of the blocks.
///
/// # Errors
/// `Invalid` if the pieces do not give every byte once, or if the digests do not fit the file; `Limit` if there are too many.
pub(super) fn pieces(assembly: &Assembly) -> Result<(), Error> {
    let extents = assembly.pieces.iter().fold(0_usize, |all, piece| all.saturating_add(piece.extents.len()));
    if assembly.pieces.len() > MOST_PIECES || extents > MOST_EXTENTS {
        return Err(Error::new(
            Kind::Limit,
            format!(
                "it has {} pieces with {extents} extents: at most {MOST_PIECES} and {MOST_EXTENTS} are allowed",
                assembly.pieces.len()
            ),
        ));
    }
    if i64::try_from(assembly.size).is_err() {
        return Err(invalid("the file would end after the largest possible offset"));
    }
    if assembly.mtime.is_some_and(|time| i64::try_from(time).is_err()) {
        return Err(invalid("the modification time is later than any that a file can have"));
    }
    for piece in &assembly.pieces {
        if i64::try_from(piece.size).is_err() {
            return Err(invalid("a piece is larger than the largest possible file"));
        }
        let ends =
            |offset: u64, length: u64| offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
        if piece.range.is_some_and(|range| ends(range.offset, range.length).is_none()) {
            return Err(invalid("the range of a piece ends after the largest possible offset"));
        }
        let mut before = 0;
        for extent in &piece.extents {
            let end = ends(extent.offset, extent.length);
            let fits =
                extent.length > 0 && extent.offset >= before && end.is_some_and(|end| end <= piece.size);
            let Some(end) = end.filter(|_| fits) else {
                return Err(invalid(
                    "the extents of a piece overlap, do not ascend, or lie outside the piece",
                ));
            };
            before = end;
        }
    }
    let extents = assembly.pieces.iter().flat_map(|piece| piece.extents.iter().copied()).collect();
    if !covers_each_byte_once(extents, assembly.size) {
        return Err(invalid("the extents of all pieces do not give every byte of the file once"));
    }
    assembly.blocks.as_ref().map_or(Ok(()), |blocks| digests(blocks, assembly.size))
}

/// Returns whether the extents together give every byte of a file of `size` bytes once.
fn covers_each_byte_once(mut extents: Vec<Extent>, size: u64) -> bool {
    extents.sort_unstable_by_key(|extent| extent.at);
    let end = extents
        .iter()
        .try_fold(0_u64, |end, extent| (extent.at == end).then(|| end.checked_add(extent.length)).flatten());
    end == Some(size)
}

fn digests(blocks: &BlockDigests, size: u64) -> Result<(), Error> {
    if blocks.size < SMALLEST_BLOCK || !(1..=LONGEST_DIGEST).contains(&blocks.length) {
        return Err(invalid(&format!(
            "blocks have at least {SMALLEST_BLOCK} bytes, and their digests 1 to {LONGEST_DIGEST}"
        )));
    }
    let count = size.div_ceil(blocks.size.into());
    if blocks.values.len() as u64 != count * u64::from(blocks.length) {
        return Err(invalid("the digests are not those of all blocks of the file"));
    }
    Ok(())
}

fn invalid(why: &str) -> Error {
    Error::new(Kind::Invalid, why)
}
