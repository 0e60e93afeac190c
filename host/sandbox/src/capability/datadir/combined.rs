//! Files that are combined from several objects: chains of backups, and files that are put together from parts.

use std::sync::Arc;

use ::transfer::chain::{Chain, IncrementFormat};
use ::transfer::error::Kind;
use ::transfer::job::{Assembly, Fetch, Unpack};
use wasmtime::component::Resource;

use super::transfer::{FileListing, ITEMS, TransferJob};
use crate::answer::Answer;
use crate::capability::datadir::transfer::item_text;
use crate::state::State;
use crate::text::printable;

/// How many chains a component may make in one call.
const CHAINS: usize = 64;

/// A chain that a component holds. All archives of its backups share it.
#[expect(unreachable_pub, reason = "the bindings export it again")]
pub struct FileChain(Arc<Chain>);

/// Functions of the resource `chain`.
impl State {
    /// Makes an empty chain.
    ///
    /// # Errors
    /// `Invalid` if PostgreSQL has no pages of this size.
    pub(crate) fn begin_chain(
        &mut self,
        format: IncrementFormat,
        page_size: u32,
    ) -> Answer<Resource<FileChain>> {
        let chain = Chain::within(&self.files.bounds.memory, format, page_size);
        let chain = Arc::new(chain.map_err(|error| self.error(error))?);
        if self.job.chains.len() == CHAINS {
            return Err(self
                .fails(Kind::Limit, &format!("a component makes at most {CHAINS} chains"))
                .into());
        }
        self.job.chains.push(Arc::clone(&chain));
        Ok(self.table.push(FileChain(chain))?)
    }

    /// Ends the current backup of a chain and begins the next older one.
    ///
    /// # Errors
    /// The error of the chain.
    pub(crate) fn begin_older_backup(&mut self, chain: &Resource<FileChain>) -> Answer<()> {
        Ok(self.table.get(chain)?.0.begin_older().map_err(|error| self.error(error))?)
    }

    /// Returns why the data directory is not whole although the component reports success; `None` if every chain that it made is complete.
    pub(crate) fn incomplete_chain(&self) -> Option<String> {
        let path = self.job.chains.iter().find_map(|chain| chain.missing(1).pop())?;
        Some(format!(
            "the method says that the replica is complete, but {} is not: no backup of its chain that was read has the whole file",
            printable(&path, 256)
        ))
    }

    /// Adds files that the newest backup takes from an older one.
    ///
    /// # Errors
    /// `Limit` if there are too many files; otherwise the error of the chain.
    pub(crate) fn want_files(&mut self, chain: &Resource<FileChain>, paths: Vec<String>) -> Answer<()> {
        let chain = &self.table.get(chain)?.0;
        self.check_count(&paths)?;
        Ok(chain.want(paths).map_err(|error| self.error(error))?)
    }

    /// Returns up to `max` of the files that are not complete.
    pub(crate) fn incomplete_files(
        &mut self,
        chain: &Resource<FileChain>,
        max: u32,
    ) -> wasmtime::Result<Vec<String>> {
        Ok(self.table.get(chain)?.0.missing((max as usize).min(ITEMS)))
    }
}

/// Functions of the resource `job`.
impl State {
    /// Adds one archive of the current backup of a chain.
    ///
    /// # Errors
    /// The errors of [`State::fetch_files`].
    pub(crate) async fn unpack_link(
        &mut self,
        job: &Resource<TransferJob>,
        item: Unpack,
        files: Option<&Resource<FileListing>>,
        chain: &Resource<FileChain>,
    ) -> Answer<()> {
        let chain = Arc::clone(&self.table.get(chain)?.0);
        self.unpack_in(job, item, files, Some(chain)).await
    }

    /// Adds files of the current backup of a chain.
    ///
    /// # Errors
    /// The errors of [`State::fetch_files`].
    pub(crate) async fn fetch_link(
        &mut self,
        job: &Resource<TransferJob>,
        items: Vec<Fetch>,
        chain: &Resource<FileChain>,
    ) -> Answer<()> {
        let chain = Arc::clone(&self.table.get(chain)?.0);
        self.fetch_in(job, items, Some(chain)).await
    }

    /// Adds one file that is put together from parts of several objects.
    ///
    /// # Errors
    /// The errors of [`State::fetch_files`].
    pub(crate) async fn assemble_file(&mut self, job: &Resource<TransferJob>, item: Assembly) -> Answer<()> {
        let first = item.pieces.first();
        let capability = self.opens_origin(job, first.map(|piece| piece.origin));
        let call = self.reporter.call(capability, "transfer.assemble", || {
            item_text(first.map_or("", |piece| &piece.object), &item.path)
        });
        let answer: Answer<()> = async move {
            let work = self.writable_job(job)?;
            let held = self.table.get(job)?;
            self.check_path(&item.path)?;
            for piece in &item.pieces {
                self.check_object(held, piece.origin, &piece.object)?;
            }
            let adds = Arc::clone(&work);
            self.while_reporting(&work, async move { adds.assemble(item).await }).await
        }
        .await;
        call.end_unless_ok(answer)
    }
}
