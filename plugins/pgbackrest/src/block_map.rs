//! Parses the block map of a file that is stored in blocks (`blockMapNewRead` in pgBackRest's src/command/backup/blockMap.c).
//!
//! The map says for each block of the file, in order, which block of which super block it is, and has the block's checksum. A super block
//! is a part of an object: several blocks that were compressed and encrypted together. It may contain blocks that the file does not use.
//! All numbers in a map are little-endian base-128 integers.

use std::collections::HashMap;

/// The largest super block in bytes, besides one block (`repo-block-size-super-full` in pgBackRest's src/build/config/config.yaml, rounded
/// up to whole blocks in src/command/backup/blockIncr.c).
const LARGEST_SUPER_BLOCK: u64 = 16 << 20;

/// How many super blocks a file may use: as many as one assembly may have pieces.
const MOST_SUPER_BLOCKS: usize = 65_536;

/// How many runs of blocks a file may have: as many as one assembly may have extents.
const MOST_RUNS: usize = 524_288;

/// The end of an object, far beyond what a store allows.
const FARTHEST: u64 = 1 << 50;

/// The bit for the last reference, or the last super block of a reference.
const LAST: u64 = 1;
/// The bit of a new reference that a bundle follows, and of a known one that continues its last super block.
const BUNDLE_OR_CONTINUED: u64 = 2;
/// The bit of a reference that an offset follows, and of a continued super block that is the last of its reference.
const OFFSET_OR_LAST: u64 = 4;
/// The bit of a super block that a new plain size follows.
const NEW_PLAIN_SIZE: u64 = 2;
/// The bit of a super block of which only some blocks are used here.
const PARTIAL: u64 = 4;

/// What the manifest says of a file that is stored in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// The size of the file in bytes, at least 1.
    pub(crate) size: u64,
    /// The size of a block in bytes, at least 1.
    pub(crate) block: u32,
    /// The length of a checksum in bytes.
    pub(crate) checksum: u8,
    /// The number of backups to which the map may refer.
    pub(crate) references: usize,
}

/// Blocks that follow each other both in the super block and in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The offset of the first byte in the plain super block.
    pub(crate) from: u64,
    /// The offset of the first byte in the file.
    pub(crate) at: u64,
    /// The number of bytes.
    pub(crate) length: u64,
}

/// A super block, and the blocks of it that the file uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SuperBlock {
    /// The index of the backup in the list of backups.
    pub(crate) reference: usize,
    /// The bundle; 0 if the super block is in an object of the file's own.
    pub(crate) bundle: u64,
    /// The offset in the object.
    pub(crate) offset: u64,
    /// The stored size in bytes.
    pub(crate) stored: u64,
    /// The plain size in bytes.
    pub(crate) plain: u64,
    /// The blocks, in the order of the file. This is also their order in the super block.
    pub(crate) runs: Vec<Run>,
}

/// A block map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockMap {
    /// The super blocks in the order in which the file first uses them. Together, their runs cover every byte of the file once.
    pub(crate) super_blocks: Vec<SuperBlock>,
    /// The checksums of all blocks, one after the other.
    pub(crate) checksums: Vec<u8>,
}

/// What is known of a reference that was seen before.
#[derive(Clone, Copy, Debug)]
struct Seen {
    bundle: u64,
    /// The offset and the stored size of its last super block.
    offset: u64,
    stored: u64,
    /// The plain size of its last super block, which is also that of the next unless the map gives another.
    plain: u64,
    /// The number of the next block in its last super block.
    block: u64,
    /// The index of its last super block.
    super_block: usize,
}

impl BlockMap {
    /// Parses a map.
    ///
    /// # Errors
    /// The error says what is wrong with the map.
    pub(crate) fn parse(bytes: &[u8], shape: Shape) -> Result<Self, String> {
        let mut parser = Parser {
            rest: bytes,
            shape,
            blocks: shape.size.div_ceil(u64::from(shape.block)),
            next: 0,
            runs: 0,
            last_stored: None,
            map: Self { super_blocks: Vec::new(), checksums: Vec::new() },
        };
        let version = parser.number()?;
        if version != 0 {
            return Err(format!("has the version {version}, which is not known"));
        }
        let mut seen = HashMap::new();
        while !parser.reference(&mut seen)? {}
        if parser.next != parser.blocks {
            return Err(format!("has {} blocks instead of {}", parser.next, parser.blocks));
        }
        if !parser.rest.is_empty() {
            return Err(format!("goes on for {} bytes after its last block", parser.rest.len()));
        }
        Ok(parser.map)
    }
}

struct Parser<'a> {
    rest: &'a [u8],
    shape: Shape,
    /// The number of blocks in the file.
    blocks: u64,
    /// The number of the file's next block.
    next: u64,
    /// The number of runs so far.
    runs: usize,
    /// The stored size of the last super block in the map; `None` before the first.
    last_stored: Option<u64>,
    map: BlockMap,
}

impl Parser<'_> {
    /// Reads a number of at most 64 bits.
    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or("ends early")?;
            self.rest = rest;
            let digit = u64::from(byte & 0x7f);
            if shift == 63 && digit > 1 {
                break;
            }
            number |= digit << shift;
            if *byte < 0x80 {
                return Ok(number);
            }
        }
        Err("has a number of more than 64 bits".to_owned())
    }

    /// Reads a reference with its super blocks. Returns whether it is the last.
    fn reference(&mut self, seen: &mut HashMap<usize, Seen>) -> Result<bool, String> {
        let encoded = self.number()?;
        let count = self.shape.references;
        let reference = usize::try_from(encoded >> 3).ok().filter(|reference| *reference < count);
        let reference = reference.ok_or_else(|| {
            format!(
                "refers to the backup {} of the list, which has {count}",
                (encoded >> 3).saturating_add(1)
            )
        })?;
        let mut is_continued = false;
        let (mut state, mut offset) = match seen.get(&reference) {
            None => {
                let bundle = if encoded & BUNDLE_OR_CONTINUED != 0 { self.number()? } else { 0 };
                let offset = if encoded & OFFSET_OR_LAST != 0 { self.number()? } else { 0 };
                let plain = u64::from(self.shape.block);
                (Seen { bundle, offset, stored: 0, plain, block: 0, super_block: 0 }, offset)
            }
            Some(state) if encoded & BUNDLE_OR_CONTINUED != 0 => {
                is_continued = true;
                (*state, state.offset)
            }
            Some(state) => {
                let gap = if encoded & OFFSET_OR_LAST != 0 { self.number()? } else { 0 };
                (*state, state.offset.saturating_add(state.stored).saturating_add(gap))
            }
        };
        loop {
            let is_last = if is_continued {
                self.blocks_of(&mut state, true)?;
                is_continued = false;
                encoded & OFFSET_OR_LAST != 0
            } else {
                let encoded = self.number()?;
                self.super_block(reference, offset, encoded, &mut state)?;
                encoded & LAST != 0
            };
            self.last_stored = Some(state.stored);
            offset = offset.saturating_add(state.stored);
            if is_last {
                break;
            }
        }
        seen.insert(reference, state);
        Ok(encoded & LAST != 0)
    }

    /// Reads a super block that begins with `encoded`, at `offset` of its object.
    fn super_block(
        &mut self,
        reference: usize,
        offset: u64,
        encoded: u64,
        state: &mut Seen,
    ) -> Result<(), String> {
        let size = encoded >> 3;
        // Each size but the first is the difference to the size before.
        state.stored = match self.last_stored {
            None => size,
            Some(last) => {
                let difference = (size >> 1) as i64 ^ -((size & 1) as i64);
                last.checked_add_signed(difference).unwrap_or(0)
            }
        };
        if encoded & NEW_PLAIN_SIZE != 0 {
            let whole = self.number()?;
            let rest = if whole & 1 != 0 { self.number()? } else { 0 };
            state.plain = (whole >> 1).saturating_mul(u64::from(self.shape.block)).saturating_add(rest);
        }
        let most = LARGEST_SUPER_BLOCK + u64::from(self.shape.block);
        if state.plain == 0 || state.plain > most {
            return Err(format!("has a super block of {} plain bytes: 1 to {most} are allowed", state.plain));
        }
        if state.stored == 0 || offset.saturating_add(state.stored) > FARTHEST {
            return Err(format!(
                "has a super block of {} bytes at {offset}, where no object has it",
                state.stored
            ));
        }
        if self.map.super_blocks.len() == MOST_SUPER_BLOCKS {
            return Err(format!("has more than {MOST_SUPER_BLOCKS} super blocks"));
        }
        state.offset = offset;
        state.block = 0;
        state.super_block = self.map.super_blocks.len();
        self.map.super_blocks.push(SuperBlock {
            reference,
            bundle: state.bundle,
            offset,
            stored: state.stored,
            plain: state.plain,
            runs: Vec::new(),
        });
        self.blocks_of(state, encoded & PARTIAL != 0)
    }

    /// Reads the blocks that come next from the last super block of a reference. If `is_partial`, the map gives their number.
    fn blocks_of(&mut self, state: &mut Seen, is_partial: bool) -> Result<(), String> {
        let block = u64::from(self.shape.block);
        let available = state.plain.div_ceil(block);
        let mut count = available;
        if is_partial {
            let encoded = self.number()?;
            count = (encoded >> 1) + 1;
            if encoded & 1 != 0 {
                state.block = state.block.saturating_add(self.number()?);
            }
        }
        let (from, to) = (state.block, state.block.saturating_add(count));
        if to > available {
            return Err(format!("uses the block {to} of a super block that has {available}"));
        }
        if count > self.blocks - self.next {
            return Err(format!("has more than {} blocks", self.blocks));
        }
        let checksums = usize::try_from(count.saturating_mul(u64::from(self.shape.checksum))).ok();
        let (checksums, rest) =
            checksums.and_then(|length| self.rest.split_at_checked(length)).ok_or("ends early")?;
        self.rest = rest;
        self.map.checksums.extend_from_slice(checksums);
        let run = Run {
            from: from * block,
            at: self.next * block,
            length: (to * block).min(state.plain) - from * block,
        };
        self.next += count;
        state.block = to;
        // Only the last block of a super block and the last block of the file may be short.
        if run.at + run.length != (self.next * block).min(self.shape.size) {
            return Err(format!(
                "gives the block {} of the file {} bytes too many or too few",
                self.next,
                (run.at + run.length).abs_diff((self.next * block).min(self.shape.size))
            ));
        }
        if self.runs == MOST_RUNS {
            return Err(format!("has more than {MOST_RUNS} runs of blocks"));
        }
        self.runs += 1;
        if let Some(super_block) = self.map.super_blocks.get_mut(state.super_block) {
            super_block.runs.push(run);
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
