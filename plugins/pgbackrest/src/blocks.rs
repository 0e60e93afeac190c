//! Puts together files that are stored in blocks: reads a file's block map, and says which part of which object becomes which part of the
//! file (pgBackRest's src/command/restore/blockDelta.c and src/command/restore/file.c).
//!
//! A super block is stored raw: the blocks one after the other, compressed, then encrypted. The block map is encrypted but not compressed.
//! pgBackRest 2.45, whose block incremental backup was a beta, divided super blocks into chunks with their own lengths. Those are refused.

use std::io::Read;

use understudy::store::Range;
use understudy::transfer::{Assembly, BlockDigests, Extent, Piece};
use understudy::{AtPath, Error, Failure};

use crate::block_map::{BlockMap, Shape, SuperBlock};
use crate::choice::Chosen;
use crate::manifest::{Blocks, File};
use crate::names::shown;
use crate::repository::{Repository, Wrapping};

/// What to do about a map that cannot be used.
const OTHERWISE: &str = "choose another with `backup`, or take a new full backup";

/// A file that is stored in blocks, with its map.
#[derive(Debug)]
pub(crate) struct BlockFile<'a, C> {
    chosen: &'a Chosen<C>,
    file: &'a File,
    blocks: &'a Blocks,
    map: BlockMap,
}

impl<'a, C> BlockFile<'a, C> {
    /// Reads the map of `file`.
    ///
    /// # Errors
    /// Fails if the map cannot be read, contradicts itself or the manifest, or refers to blocks that cannot be restored.
    pub(crate) fn open(chosen: &'a Chosen<C>, file: &'a File, blocks: &'a Blocks) -> Result<Self, Failure> {
        let head = &chosen.head;
        let (repository, object) = (&chosen.repository, chosen.repository.backup(&head.object(file)));
        let bad = |what: String| {
            let (name, object) = (shown(&file.name, 200), repository.shown(&object));
            Failure::failed(format!("the block map of {name} in {object} {what}: {OTHERWISE}"))
        };
        let range = Range { offset: blocks.map_at, length: u64::from(blocks.map_length) };
        let pipeline = Repository::pipeline(chosen.key.as_ref(), None, Wrapping::Raw);
        let stream = repository.bucket.read(&object, Some(range), pipeline.as_ref());
        let stream = stream.map_err(|error| missing(error, &|| bad("is missing".to_owned())))?;
        let mut bytes = Vec::new();
        // The host ends the stream at the end of the range, and decrypted text is shorter than encrypted text.
        stream.take(range.length).read_to_end(&mut bytes).at(repository.shown(&object))?;
        let shape = Shape {
            size: file.size,
            block: blocks.block,
            checksum: blocks.checksum,
            references: head.block_references.len(),
        };
        let map = BlockMap::parse(&bytes, shape).map_err(&bad)?;
        let this = Self { chosen, file, blocks, map };
        this.check().map_err(bad)?;
        Ok(this)
    }

    /// Checks the places of the super blocks.
    fn check(&self) -> Result<(), String> {
        let head = &self.chosen.head;
        let holder = head.block_references.position(head.holder(self.file));
        let begin = self.file.bundled.map_or(0, |bundled| bundled.offset);
        let bundle = self.file.bundled.map_or(0, |bundled| bundled.bundle.get());
        for super_block in &self.map.super_blocks {
            let label = head.block_references.get(super_block.reference).unwrap_or_default();
            if holder.is_none_or(|holder| super_block.reference > holder) {
                return Err(format!("refers to the backup {label}, which is newer than the map"));
            }
            let end = super_block.offset + super_block.stored;
            let is_inside =
                super_block.bundle == bundle && super_block.offset >= begin && end <= self.blocks.map_at;
            if holder == Some(super_block.reference) && !is_inside {
                return Err(format!(
                    "points to the bytes {} to {end} of {}, which are not in the part with the file",
                    super_block.offset,
                    self.object_of(super_block, label)
                ));
            }
            if self.chosen.info.has_chunks(label) {
                return Err(format!(
                    "refers to blocks in the backup {label}, which the beta of block incremental backup in pgBackRest 2.45 wrote in \
                     a form of its own"
                ));
            }
            let is_plain = self.chosen.key.is_none() && head.compression().codec.is_none();
            if is_plain && super_block.stored != super_block.plain {
                return Err(format!(
                    "gives a super block in {} {} stored and {} plain bytes, though nothing is compressed",
                    self.object_of(super_block, label),
                    super_block.stored,
                    super_block.plain
                ));
            }
        }
        Ok(())
    }

    /// Returns the object with `super_block`, relative to the folder of the backups. `label` is the label of its backup.
    fn object_of(&self, super_block: &SuperBlock, label: &str) -> String {
        self.chosen.head.block_object(label, super_block.bundle, &self.file.name)
    }

    /// Returns the item that puts the file together. `origin` is the origin of raw objects, and `mode` are the permission bits of the file.
    /// If `is_delta`, an existing file is kept as far as its blocks are the same.
    pub(crate) fn assembly(
        self,
        origin: u32,
        mode: Option<u32>,
        digest: understudy::transfer::Digest,
        is_delta: bool,
    ) -> Assembly {
        let folder = self.chosen.repository.backup("");
        let piece = |super_block: &SuperBlock| {
            let label = self.chosen.head.block_references.get(super_block.reference).unwrap_or_default();
            let extents = super_block.runs.iter();
            let extents = extents.map(|run| Extent { offset: run.from, at: run.at, length: run.length });
            Piece {
                origin,
                object: format!("{folder}/{}", self.object_of(super_block, label)),
                range: Some(Range { offset: super_block.offset, length: super_block.stored }),
                size: super_block.plain,
                extents: extents.collect(),
            }
        };
        let pieces = self.map.super_blocks.iter().map(piece).collect();
        let digests = BlockDigests {
            size: self.blocks.block,
            length: u32::from(self.blocks.checksum),
            values: self.map.checksums,
        };
        Assembly {
            path: self.file.name.to_string(),
            size: self.file.size,
            digest,
            mode,
            mtime: self.file.mtime.map(Into::into),
            keep_same: is_delta,
            blocks: is_delta.then_some(digests),
            pieces,
        }
    }

    /// Reads the whole file into memory. Only for a small file.
    ///
    /// # Errors
    /// The error of the store, or of the codec.
    pub(crate) fn contents(&self) -> Result<Vec<u8>, Failure> {
        let mut bytes = vec![0; usize::try_from(self.file.size).unwrap_or(0)];
        let pipeline = self.chosen.pipeline(Wrapping::Raw);
        for super_block in &self.map.super_blocks {
            let label = self.chosen.head.block_references.get(super_block.reference).unwrap_or_default();
            let object = self.chosen.repository.backup(&self.object_of(super_block, label));
            let shown = self.chosen.repository.shown(&object);
            let range = Range { offset: super_block.offset, length: super_block.stored };
            let gone = || Failure::failed(format!("{shown} is missing: the backup {label} was removed"));
            let stream = self
                .chosen
                .repository
                .bucket
                .read(&object, Some(range), pipeline.as_ref())
                .map_err(|error| missing(error, &gone))?;
            let end = super_block.runs.last().map_or(0, |run| run.from + run.length);
            let mut plain = Vec::new();
            stream.take(end).read_to_end(&mut plain).at(&shown)?;
            for run in &super_block.runs {
                let from = slice(&plain, run.from, run.length);
                let into =
                    usize::try_from(run.at).ok().and_then(|at| bytes.get_mut(at..)?.get_mut(..from?.len()));
                let (Some(from), Some(into)) = (from, into) else {
                    return Err(Failure::failed(format!("a super block in {shown} ends early: {OTHERWISE}")));
                };
                into.copy_from_slice(from);
            }
        }
        Ok(bytes)
    }
}

fn slice(bytes: &[u8], from: u64, length: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(from).ok()?..)?.get(..usize::try_from(length).ok()?)
}

fn missing(error: Error, failure: &dyn Fn() -> Failure) -> Failure {
    match error {
        Error::NotFound(_) => failure(),
        error => error.into(),
    }
}
