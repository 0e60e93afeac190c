//! Restores a backup. The component says which object becomes which file and which archives are unpacked; the host does it.

use postgres_formats::names::BACKUP_LABEL;
use restore::pages;
use restore::transfer::{ROUNDS, STATUS_FOLDER, WalFiles, restore_wal};
use restore::wal::Segment;
use understudy::store::{Codec, Object};
use understudy::transfer::{Job, Unless};
use understudy::{Datadir, Failure, Plan, log, progress};

use crate::catalogue;
use crate::chain::Link;
use crate::combine;
use crate::contents::Contents;
use crate::info::Backup;
use crate::items;
use crate::names::pipeline;
use crate::options::{Options, Wanted};
use crate::place::Place;
use crate::plan::{self, usable};
use crate::unpack;
use crate::wal::{self, WalRoute};

/// Restores the backup of `plan`.
///
/// # Errors
/// The error says why the backup was not restored.
pub(crate) fn all(options: Options, plan: &Plan, datadir: &Datadir) -> Result<(), Failure> {
    let options = Options { wanted: Wanted::Id(plan.backup.clone()), ..options };
    let place = &options.place;
    let usable = usable(&options)?;
    if usable.plan != (Plan { bytes: None, files: None, ..plan.clone() }) {
        return Err(Failure::retry_later(format!(
            "{} was replaced since the plan was made: run again",
            usable.newest.shown
        )));
    }
    progress::expect(plan.bytes, plan.files);
    progress::phase("restoring");
    let newest = &usable.newest;
    let mut route = wal::route(place, newest, options.wal)?;
    let (segments, histories) = match &mut route {
        None => (Vec::new(), Vec::new()),
        Some(route) => (route.next_segments(&|_| false)?, route.histories()?),
    };
    let of_wal = route.as_ref().map(|route| route.amount_of(&segments, &histories)).unwrap_or_default();
    // Both files come first, for a Patroni that starts during the run (see the SDK's documentation).
    datadir.write_version(newest.backup.major)?;
    datadir.write(BACKUP_LABEL, &mut &newest.label.text[..])?;
    let mut transfer = Transfer::new(place, newest)?;
    if options.verify
        && let Some(files) = newest.pages.clone()?
    {
        pages::check(&mut transfer.job, files, newest.backup.begin, newest.backup.end)?;
    }
    let mut listed = Vec::new();
    let mut files = None;
    match &usable.contents {
        _ if !usable.older.is_empty() => (listed, files) = combine::all(&usable, &mut transfer, datadir)?,
        Contents::Tree { manifest } => {
            files = Some(tree(place, newest, manifest.as_ref(), &mut transfer, datadir)?);
        }
        Contents::Server { archives, manifest } => {
            listed.extend(unpack::all(&usable, newest, archives, manifest.as_ref(), &mut transfer, None)?);
        }
        Contents::Cloud(archives) => {
            listed.extend(unpack::all(&usable, newest, archives, None, &mut transfer, None)?)
        }
    }
    if let (Some(files), Some(planned)) = (files, plan.files) {
        let with_wal = plan::written(files).saturating_add(of_wal.files);
        if with_wal < planned {
            return Err(Failure::retry_later(format!(
                "{} is of a backup that had {planned} files and files of WAL when it was planned, and now has {with_wal}: run again",
                newest.shown
            )));
        }
    }
    datadir.create_dir(STATUS_FOLDER)?;
    for history in &histories {
        transfer.wal.history(&mut transfer.job, history, datadir)?;
    }
    match &mut route {
        None => transfer.finish()?,
        Some(route) => {
            let mut fetch = |route: &WalRoute<'_>, segments: &[Segment]| transfer.segments(route, segments);
            restore_wal(route, segments, &|_| false, (plan.bytes, plan.files), ROUNDS, &mut fetch)?;
        }
    }
    for listed in &mut listed {
        listed.check_complete(place)?;
    }
    unpack::check_restored(&usable, place, datadir)?;
    for link in std::iter::once(newest).chain(usable.older.iter().map(|older| &older.link)) {
        check_unchanged(place, link)?;
    }
    log::info!("restored {}", plan.backup);
    Ok(())
}

/// Checks that Barman has neither deleted nor replaced the backup while it was read.
///
/// # Errors
/// [`Failure::Failed`] if it was deleted, [`Failure::RetryLater`] if it was replaced; the errors of [`catalogue::find`].
pub(crate) fn check_unchanged(place: &Place, link: &Link) -> Result<(), Failure> {
    let Link { backup, shown, .. } = link;
    let gone = |what: &str| {
        Err(Failure::failed(format!(
            "{shown} {what} during the restore, so that files may be missing: choose another with `backup`, or run again without it"
        )))
    };
    let changed =
        |what: &str| Err(Failure::retry_later(format!("{shown} {what} during the restore: run again")));
    let Some(entry) = catalogue::find(place, &backup.id)? else {
        return gone("was removed");
    };
    if catalogue::deletion(place, &backup.id)?.is_some() {
        return gone("was marked as that of a backup that barman deletes");
    }
    let now = entry.record.backup(&backup.id).map_err(|why| place.failed(&entry.key, why))?;
    // The size may be computed again. The control file says of which cluster a tree is.
    let now = Backup {
        least_bytes: backup.least_bytes,
        system_identifier: now.system_identifier.or(backup.system_identifier),
        ..now
    };
    if now == *backup { Ok(()) } else { changed("was replaced") }
}

/// Returns the version as the file `PG_VERSION` has it.
pub(crate) fn version_file(link: &Link) -> Vec<u8> {
    format!("{}\n", link.backup.major).into_bytes()
}

/// Adds the files of a tree to the job. Returns how many the tree has.
fn tree(
    place: &Place,
    link: &Link,
    manifest: Option<&Object>,
    transfer: &mut Transfer<'_>,
    datadir: &Datadir,
) -> Result<u64, Failure> {
    items::directories(&link.backup, datadir)?;
    let origin = transfer.origin(None)?;
    items::of_tree(place, link, manifest, origin, &|_| true, &mut |item| transfer.job.fetch(item))
}

/// The transfer job that the host runs.
pub(crate) struct Transfer<'a> {
    pub(crate) place: &'a Place,
    folder: String,
    pub(crate) job: Job,
    /// The items for WAL.
    wal: WalFiles,
}

impl<'a> Transfer<'a> {
    fn new(place: &'a Place, newest: &Link) -> Result<Self, Failure> {
        Self::below(place, place.backup(&newest.backup.id))
    }

    fn below(place: &'a Place, folder: String) -> Result<Self, Failure> {
        let mut job = Job::new();
        let origin = job.origin_of(&place.at.bucket, None, || pipeline(None))?;
        let wal = WalFiles::new(origin, folder.clone(), None, Unless::Always);
        Ok(Self { place, folder, job, wal })
    }

    /// Returns the origin of objects with this compression.
    pub(crate) fn origin(&mut self, codec: Option<Codec>) -> Result<u32, Failure> {
        Ok(self.job.origin_of(&self.place.at.bucket, codec, || pipeline(codec))?)
    }

    /// Waits until all added items are done, and starts a new job.
    fn finish(&mut self) -> Result<(), Failure> {
        let next = Self::below(self.place, self.folder.clone())?;
        std::mem::replace(self, next).job.finish().map(drop)
    }

    /// Adds `segments`, and waits until all added items are done.
    fn segments(&mut self, route: &WalRoute<'_>, segments: &[Segment]) -> Result<(), Failure> {
        for segment in segments {
            self.wal.segment(&mut self.job, route, segment)?;
        }
        self.finish()
    }
}
