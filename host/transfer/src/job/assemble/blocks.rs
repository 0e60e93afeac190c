//! Compares an existing file with the digests of the file and of its blocks.

use std::os::unix::fs::FileExt;

use twox_hash::xxhash3_128::Hasher as Xxh3;

use super::Item;
use super::set_mode_and_time;
use crate::digest::Hasher;
use crate::error::Error;
use crate::job::state::State;
use crate::job::worker::Worker;
use crate::job::{BlockDigests, Extent};
use crate::sink::file;
use crate::target::Place;

/// What is at the place of a file that is to be put together.
pub(super) enum Existing {
    /// No file, a file of which no block can be kept, or no digests of blocks.
    Missing,
    /// The same file. Its mode and time are set.
    Same,
    /// Another file, some blocks of which may be the same.
    Differs(SameBlocks),
}

/// The blocks that an existing file has in common with the file that is wanted.
pub(super) struct SameBlocks {
    /// The size of a block in bytes.
    size: u64,
    same: Vec<bool>,
}

impl SameBlocks {
    /// Returns whether every byte of an extent is in a block that is the same.
    pub(super) fn cover(&self, extent: &Extent) -> bool {
        let (first, last) = (extent.at / self.size, (extent.at + extent.length - 1) / self.size);
        let blocks = usize::try_from(first).ok().zip(usize::try_from(last).ok());
        let blocks = blocks.and_then(|(first, last)| self.same.get(first..=last));
        blocks.is_some_and(|blocks| blocks.iter().all(|same| *same))
    }
}

/// Compares the existing file with the item's digests.
///
/// # Errors
/// Fails if the existing file cannot be read, or if something other than a regular file is there; `Cancelled`.
pub(super) fn compare(
    worker: &mut Worker,
    job: &State,
    item: &Item,
    place: &Place,
) -> Result<Existing, Error> {
    let Some((existing, status)) = file::existing(&job.destination, &mut worker.directories, place)? else {
        return Ok(Existing::Missing);
    };
    let length = u64::try_from(status.st_size).unwrap_or(0);
    let has_further_names = status.st_nlink > 1;
    if length == item.size || item.blocks.is_some() {
        let mut whole = Hasher::new(item.digest.algorithm);
        let mut blocks = item.blocks.as_ref().map(|digests| Blocks::new(digests, item.size));
        let mut at = 0;
        while at < length.min(item.size) {
            job.fail_if_cancelled()?;
            let most =
                usize::try_from(length.min(item.size) - at).unwrap_or(usize::MAX).min(worker.buffer.len());
            let count = existing.read_at(&mut worker.buffer[..most], at)?;
            if count == 0 {
                break;
            }
            whole.update(&worker.buffer[..count]);
            if let Some(blocks) = &mut blocks {
                blocks.update(&worker.buffer[..count]);
            }
            job.read_without_writing(count as u64);
            at += count as u64;
        }
        if length == item.size && whole.finish() == item.digest {
            set_mode_and_time(&existing, &status, item.mode, item.mtime)?;
            return Ok(Existing::Same);
        }
        // A file with further names (hard links) is replaced, because writing into it would change the others.
        if let Some(blocks) = blocks.filter(|_| !has_further_names) {
            return Ok(Existing::Differs(blocks.finish()));
        }
    }
    Ok(Existing::Missing)
}

/// Computes the digests of blocks, and compares them.
struct Blocks<'a> {
    digests: &'a BlockDigests,
    /// The size of the whole file in bytes.
    size: u64,
    /// How many bytes were hashed.
    at: u64,
    hasher: Xxh3,
    same: Vec<bool>,
}

impl<'a> Blocks<'a> {
    fn new(digests: &'a BlockDigests, size: u64) -> Self {
        Self { digests, size, at: 0, hasher: Xxh3::new(), same: Vec::new() }
    }

    fn update(&mut self, mut bytes: &[u8]) {
        let block = u64::from(self.digests.size);
        while !bytes.is_empty() {
            let end = (self.at - self.at % block + block).min(self.size);
            let count = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(bytes.len());
            self.hasher.write(&bytes[..count]);
            bytes = &bytes[count..];
            self.at += count as u64;
            if self.at == end {
                let hasher = std::mem::replace(&mut self.hasher, Xxh3::new());
                self.same.push(self.is_next(hasher.finish_128()));
            }
        }
    }

    /// Returns whether `digest` is that of the next block.
    fn is_next(&self, digest: u128) -> bool {
        let length = self.digests.length as usize;
        let start = self.same.len() * length;
        let expected = self.digests.values.get(start..start + length);
        expected.is_some_and(|expected| digest.to_be_bytes().starts_with(expected))
    }

    fn finish(mut self) -> SameBlocks {
        let size = u64::from(self.digests.size);
        // Blocks beyond the end of the existing file, and a last block of which only a part exists, differ.
        self.same.resize(usize::try_from(self.size.div_ceil(size)).unwrap_or(usize::MAX), false);
        SameBlocks { size, same: self.same }
    }
}
