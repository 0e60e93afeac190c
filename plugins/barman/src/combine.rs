//! Combines an incremental backup of PostgreSQL 17 with the backups that it depends on. Each of them may be a plain tree or archives. The
//! host takes each page from the newest backup that has the page, so nothing is staged.

use restore::missing;
use understudy::store::Object;
use understudy::transfer::{Chain, Fetch, IncrementFormat};
use understudy::{Datadir, Failure, cancelled, log};

use crate::chain::Link;
use crate::contents::Contents;
use crate::create::Transfer;
use crate::items;
use crate::manifest::Archived;
use crate::plan::Usable;
use crate::unpack;

/// How many items are made before they are added to the job.
const BATCH: usize = 4096;

/// Returns the failure for a chain in which the backup `id` is in archives of barman-cloud, which takes no incremental backups.
pub(crate) fn in_cloud(newest: &Link, id: &str) -> Failure {
    Failure::failed(format!(
        "{} is of an incremental backup, and the files of {id} are in archives of barman-cloud, which are not combined: choose \
         another with `backup`",
        newest.shown
    ))
}

/// Adds the files of the newest backup to the job, and then, from newer to older, those of each backup that it depends on. Waits for each
/// backup. Returns the manifests of archives, which are compared when everything is restored, and how many files the newest backup has if it
/// is a tree.
///
/// # Errors
/// Fails if a backup does not fit its manifest, if a page is in none of the backups, or with the error of the host. The error names the
/// file or the backup.
pub(crate) fn all(
    usable: &Usable,
    transfer: &mut Transfer<'_>,
    datadir: &Datadir,
) -> Result<(Vec<Archived>, Option<u64>), Failure> {
    let newest = &usable.newest;
    let mut chain = restore::chain::begin(IncrementFormat::Postgresql)?;
    let (mut listed, mut files) = (Vec::new(), None);
    let older = usable.older.iter().map(|older| (&older.link, &older.contents, false));
    for (link, contents, is_newest) in std::iter::once((newest, &usable.contents, true)).chain(older) {
        cancelled()?;
        let id = &link.backup.id;
        if !is_newest {
            log::info!("combining with {id}, on which the backup depends");
            chain.begin_older()?;
        }
        match contents {
            Contents::Tree { manifest } => {
                if is_newest {
                    items::directories(&link.backup, datadir)?;
                }
                let found = tree(usable, link, manifest.as_ref(), transfer, &mut chain)?;
                if is_newest {
                    files = Some(found);
                }
            }
            Contents::Server { archives, manifest } => {
                let manifest = manifest.as_ref();
                listed.extend(unpack::all(usable, link, archives, manifest, transfer, Some(&mut chain))?);
            }
            Contents::Cloud(_) => return Err(in_cloud(newest, id)),
        }
        // The files of a backup may begin only when those of all newer backups have ended.
        transfer.job.wait_until_idle()?;
    }
    match missing::of_chain(&mut chain)? {
        None => Ok((listed, files)),
        Some(some) => Err(Failure::failed(format!(
            "{} and the backups that it depends on do not contain all pages of {some}",
            newest.shown
        ))),
    }
}

/// Adds the files of a plain tree to the job, and returns how many the tree has. The host reads no file of an older backup that is not needed.
fn tree(
    usable: &Usable,
    link: &Link,
    manifest: Option<&Object>,
    transfer: &mut Transfer<'_>,
    chain: &mut Chain,
) -> Result<u64, Failure> {
    let origin = transfer.origin(None)?;
    let job = &mut transfer.job;
    let mut waiting: Vec<Fetch> = Vec::new();
    let files =
        items::of_tree(transfer.place, link, manifest, origin, &|oid| usable.restores(oid), &mut |item| {
            waiting.push(item);
            if waiting.len() < BATCH { Ok(()) } else { job.fetch_link(waiting.drain(..), chain) }
        })?;
    job.fetch_link(waiting, chain)?;
    Ok(files)
}
