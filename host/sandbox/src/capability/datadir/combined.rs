//! Files that are combined from several objects: chains of backups, and files that are put together from parts.

use std::sync::Arc;

use ::transfer::chain::{Chain, IncrementFormat, Link};
use ::transfer::job::{Assembly, Fetch, Unpack};
use wasmtime::component::Resource;

use super::transfer::{FileListing, ITEMS, TransferJob};
use crate::answer::Answer;
use crate::capability::datadir::transfer::item_text;
use crate::state::State;

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
        let chain = chain.map_err(|error| self.error(error))?;
        Ok(self.table.push(FileChain(Arc::new(chain)))?)
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
    /// Adds one archive of a backup that is a link of a chain.
    ///
    /// # Errors
    /// The errors of [`State::fetch_files`].
    pub(crate) async fn unpack_link(
        &mut self,
        job: &Resource<TransferJob>,
        item: Unpack,
        files: Option<&Resource<FileListing>>,
        chain: &Resource<FileChain>,
        link: Link,
    ) -> Answer<()> {
        let chain = Arc::clone(&self.table.get(chain)?.0);
        self.unpack_in(job, item, files, Some((chain, link))).await
    }

    /// Adds files of a backup that is a link of a chain.
    ///
    /// # Errors
    /// The errors of [`State::fetch_files`].
    pub(crate) async fn fetch_link(
        &mut self,
        job: &Resource<TransferJob>,
        items: Vec<Fetch>,
        chain: &Resource<FileChain>,
        link: Link,
    ) -> Answer<()> {
        let chain = Arc::clone(&self.table.get(chain)?.0);
        self.fetch_in(job, items, Some((chain, link))).await
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
