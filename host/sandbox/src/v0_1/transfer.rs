//! `transfer`: jobs for the data plane, listings and chains.

use ::transfer::chain::IncrementFormat;
use ::transfer::digest::Digest;
use ::transfer::job::{Action, Assembly, BlockDigests, Extent, Fetch, Overwrite, Piece, Status, Unpack};
use ::transfer::listing::Listed;
use ::transfer::pages::PageChecks;
use ::transfer::pipeline::Pipeline;
use replica::Lsn;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::DynPollable;

use super::digests::algorithm;
use super::interfaces::transfer;
use super::store::range;
use super::types::error;
use crate::answer::Answer;
use crate::capability::datadir::combined::FileChain;
use crate::capability::datadir::transfer::{FileListing, Outcome, TransferJob};
use crate::capability::stores::Bucket;
use crate::state::State;

impl transfer::HostJob for State {
    async fn new(&mut self, report_all: bool) -> wasmtime::Result<Resource<TransferJob>> {
        self.new_job(report_all)
    }

    async fn add_origin(
        &mut self,
        job: Resource<TransferJob>,
        bucket: Resource<Bucket>,
        via: Option<Resource<Pipeline>>,
    ) -> Answer<u32> {
        self.add_origin_to(&job, &bucket, via.as_ref())
    }

    async fn check_pages(&mut self, job: Resource<TransferJob>, by: transfer::PageChecks) -> Answer<()> {
        let checks = PageChecks {
            page_size: by.page_size,
            segment_pages: by.segment_pages,
            start: Lsn(by.start_lsn),
            stop: Lsn(by.stop_lsn),
        };
        self.check_pages_of(&job, checks)
    }

    async fn fetch(&mut self, job: Resource<TransferJob>, items: Vec<transfer::Fetch>) -> Answer<()> {
        self.fetch_files(&job, items.into_iter().map(fetch).collect()).await
    }

    async fn unpack(
        &mut self,
        job: Resource<TransferJob>,
        item: transfer::Unpack,
        files: Option<Resource<FileListing>>,
    ) -> Answer<()> {
        self.unpack_archive(&job, unpack(item), files.as_ref()).await
    }

    async fn unpack_link(
        &mut self,
        job: Resource<TransferJob>,
        item: transfer::Unpack,
        files: Option<Resource<FileListing>>,
        in_chain: Resource<FileChain>,
    ) -> Answer<()> {
        self.unpack_link(&job, unpack(item), files.as_ref(), &in_chain).await
    }

    async fn fetch_link(
        &mut self,
        job: Resource<TransferJob>,
        items: Vec<transfer::Fetch>,
        in_chain: Resource<FileChain>,
    ) -> Answer<()> {
        let items = items.into_iter().map(fetch).collect();
        self.fetch_link(&job, items, &in_chain).await
    }

    async fn assemble(&mut self, job: Resource<TransferJob>, item: transfer::Assembly) -> Answer<()> {
        self.assemble_file(&job, assembly(item)).await
    }

    async fn wait(
        &mut self,
        job: Resource<TransferJob>,
        at_most_ms: u32,
    ) -> wasmtime::Result<transfer::Status> {
        self.wait_for_job(&job, at_most_ms).await.map(status)
    }

    async fn outcomes(
        &mut self,
        job: Resource<TransferJob>,
        max: u32,
    ) -> wasmtime::Result<Vec<transfer::Outcome>> {
        Ok(self.outcomes_of(&job, max)?.into_iter().map(outcome).collect())
    }

    async fn subscribe(&mut self, job: Resource<TransferJob>) -> wasmtime::Result<Resource<DynPollable>> {
        self.subscribe_to_job(&job)
    }

    async fn cancel(&mut self, job: Resource<TransferJob>) -> wasmtime::Result<()> {
        self.cancel_job(&job).await
    }

    async fn drop(&mut self, job: Resource<TransferJob>) -> wasmtime::Result<()> {
        self.drop_job(job).await
    }
}

impl transfer::HostListing for State {
    async fn new(&mut self) -> wasmtime::Result<Resource<FileListing>> {
        self.new_listing()
    }

    async fn add(&mut self, listing: Resource<FileListing>, files: Vec<transfer::Listed>) -> Answer<()> {
        self.list_files(&listing, files.into_iter().map(listed).collect())
    }

    async fn tolerate(&mut self, listing: Resource<FileListing>, paths: Vec<String>) -> Answer<()> {
        self.tolerate_files(&listing, paths)
    }

    async fn missing(&mut self, listing: Resource<FileListing>, max: u32) -> wasmtime::Result<Vec<String>> {
        self.missing_files(&listing, max)
    }

    async fn drop(&mut self, listing: Resource<FileListing>) -> wasmtime::Result<()> {
        self.drop_handle(listing)
    }
}

impl transfer::HostChain for State {
    async fn begin(
        &mut self,
        format: transfer::IncrementFormat,
        page_size: u32,
    ) -> Answer<Resource<FileChain>> {
        let format = match format {
            transfer::IncrementFormat::Postgresql => IncrementFormat::Postgresql,
            transfer::IncrementFormat::WalG => IncrementFormat::WalG,
        };
        self.begin_chain(format, page_size)
    }

    async fn want(&mut self, chain: Resource<FileChain>, paths: Vec<String>) -> Answer<()> {
        self.want_files(&chain, paths)
    }

    async fn begin_older(&mut self, chain: Resource<FileChain>) -> Answer<()> {
        self.begin_older_backup(&chain)
    }

    async fn missing(&mut self, chain: Resource<FileChain>, max: u32) -> wasmtime::Result<Vec<String>> {
        self.incomplete_files(&chain, max)
    }

    async fn drop(&mut self, chain: Resource<FileChain>) -> wasmtime::Result<()> {
        self.drop_handle(chain)
    }
}

impl transfer::Host for State {}

fn assembly(item: transfer::Assembly) -> Assembly {
    let extent =
        |extent: transfer::Extent| Extent { offset: extent.offset, at: extent.at, length: extent.length };
    let piece = |piece: transfer::Piece| Piece {
        origin: piece.origin,
        object: piece.object,
        range: piece.range.map(range),
        size: piece.size,
        extents: piece.extents.into_iter().map(extent).collect(),
    };
    let blocks = |blocks: transfer::BlockDigests| BlockDigests {
        size: blocks.size,
        length: blocks.length,
        values: blocks.values,
    };
    Assembly {
        path: item.path,
        size: item.size,
        digest: digest(item.digest),
        mode: item.mode,
        mtime: item.mtime,
        keep_same: item.keep_same,
        blocks: item.blocks.map(blocks),
        pieces: item.pieces.into_iter().map(piece).collect(),
    }
}

fn fetch(item: transfer::Fetch) -> Fetch {
    Fetch {
        origin: item.origin,
        object: item.object,
        range: item.range.map(range),
        path: item.path,
        at: item.at,
        size: item.size,
        digest: item.digest.map(digest),
        mode: item.mode,
        mtime: item.mtime,
        overwrite: match item.unless {
            transfer::Unless::Always => Overwrite::Always,
            transfer::Unless::SameContent => Overwrite::UnlessSameContent,
            transfer::Unless::SameDigest => Overwrite::UnlessSameDigest,
            transfer::Unless::SameSizeAndTime => Overwrite::UnlessSameSizeAndTime,
        },
    }
}

fn unpack(item: transfer::Unpack) -> Unpack {
    Unpack {
        origin: item.origin,
        object: item.object,
        path: item.path,
        limit: item.limit,
        skip: item.skip,
        refuse: item.refuse,
    }
}

fn listed(file: transfer::Listed) -> Listed {
    Listed { path: file.path, size: file.size, digest: file.digest.map(digest) }
}

fn digest(digest: transfer::Digest) -> Digest {
    Digest { algorithm: algorithm(digest.algorithm), value: digest.value }
}

fn status(status: Status) -> transfer::Status {
    transfer::Status {
        queued: status.queued,
        done: status.done,
        failed: status.failed,
        bytes: status.bytes,
        idle: status.idle,
    }
}

fn outcome(outcome: Outcome) -> transfer::Outcome {
    let ended = match outcome.ended {
        Ok(Action::Written) => Ok(transfer::Action::Written),
        Ok(Action::Kept) => Ok(transfer::Action::Kept),
        Err(refused) => Err(error(refused)),
    };
    transfer::Outcome { index: outcome.index, ended }
}
