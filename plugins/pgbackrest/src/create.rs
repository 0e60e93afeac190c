//! Restores a backup. The component says which object becomes which file. The host writes the files and compares each file with its
//! checksum from the manifest.

use std::collections::BTreeSet;

use postgres_formats::names::{BACKUP_LABEL, PG_VERSION};
use restore::transfer::{ROUNDS, STATUS_FOLDER, WalFiles, restore_wal};
use restore::wal::{History, Segment};
use understudy::store::Range;
use understudy::transfer::{Algorithm, Digest, Fetch, Job, Unless};
use understudy::{Datadir, EntryKind, Failure, Plan, cancelled, log, progress};

use crate::blocks::BlockFile;
use crate::choice::{Chosen, choose};
use crate::files::Files;
use crate::label::segment_of;
use crate::manifest::File;
use crate::options::{Options, Wanted};
use crate::plan::{Usable, usable};
use crate::repository::Wrapping;
use crate::wal::{self, WalRoute};

/// The files that are written completely before any other file. From these files, a Patroni that starts during the run
/// learns the version, and that the directory comes from a backup.
const FIRST: [&str; 2] = [PG_VERSION, BACKUP_LABEL];

/// Restores the backup of `plan`.
///
/// # Errors
/// The error says why the backup was not restored.
pub(crate) fn all(options: &Options, plan: &Plan, datadir: &Datadir) -> Result<(), Failure> {
    let options = Options { wanted: Wanted::Label(plan.backup.clone()), ..options.clone() };
    // `plan` has checked the objects already. They are checked again only if several repositories are named, to choose the same one.
    let looks_for_objects = options.repositories.len() > 1;
    let (chosen, Usable { plan: now, control }) =
        choose(&options, &mut Files::default, &|chosen| usable(chosen, looks_for_objects))?;
    let as_planned = (now.system_identifier, now.start_lsn, now.stop_lsn, &now.tablespaces)
        == (plan.system_identifier, plan.start_lsn, plan.stop_lsn, &plan.tablespaces);
    if !as_planned {
        return Err(Failure::retry_later(format!(
            "{} was replaced since the plan was made: run again",
            chosen.shown
        )));
    }
    progress::expect(plan.bytes, plan.files);
    let mut route = wal::route(&chosen, options.wal, control.segment_size)?;
    let has = |name: &str| chosen.contents.has_file(&format!("pg_wal/{name}"));
    let (segments, histories) = match &mut route {
        None => (Vec::new(), Vec::new()),
        Some(route) => (route.next_segments(&has)?, route.histories()?),
    };
    if options.is_delta {
        progress::phase("removing what the backup does not have");
        remove_others(&chosen, &segments, &histories, datadir)?;
    }
    progress::phase("restoring");
    let mut restoring = Restoring::new(&chosen, options.is_delta)?;
    for file in FIRST.iter().filter_map(|name| chosen.contents.find(name)) {
        restoring.file(file)?;
    }
    restoring.finish()?;
    for name in &chosen.contents.directories {
        cancelled()?;
        datadir.create_dir(name)?;
    }
    datadir.create_dir(STATUS_FOLDER)?;
    for file in chosen.contents.in_best_order().filter(|file| !FIRST.contains(&&*file.name)) {
        restoring.file(file)?;
        if let Some(segment) = segment_of(&file.name)
            && !chosen.contents.has_status(segment)
        {
            restoring.wal.mark_archived(&mut restoring.job, segment)?;
        }
    }
    for history in &histories {
        restoring.wal.history(&mut restoring.job, history, datadir)?;
    }
    match &mut route {
        None => restoring.finish()?,
        Some(route) => {
            let mut fetch = |route: &WalRoute<'_>, segments: &[Segment]| restoring.segments(route, segments);
            restore_wal(route, segments, &has, (plan.bytes, plan.files), ROUNDS, &mut fetch)?;
        }
    }
    log::info!("restored {}", plan.backup);
    Ok(())
}

/// Removes all entries from the data directory that are neither in the backup nor in the restored WAL.
fn remove_others(
    chosen: &Chosen<Files>,
    segments: &[Segment],
    histories: &[History],
    datadir: &Datadir,
) -> Result<(), Failure> {
    let wal: BTreeSet<&str> = segments
        .iter()
        .map(|segment| segment.name.as_str())
        .chain(histories.iter().map(|history| history.name.as_str()))
        .collect();
    let is_wal = |name: &str| {
        let Some(name) = name.strip_prefix("pg_wal/") else { return false };
        match name.strip_prefix("archive_status/") {
            None => wal.contains(name),
            Some(status) => status.strip_suffix(".done").is_some_and(|name| {
                let path = format!("pg_wal/{name}");
                wal.contains(name) || (segment_of(&path).is_some() && chosen.contents.has_file(&path))
            }),
        }
    };
    let folders: Vec<_> = chosen.contents.tablespace_folders().collect();
    datadir.remove_others(&folders, &mut |name, kind| match kind {
        EntryKind::Directory => chosen.contents.has_directory(name) || name == "pg_wal/archive_status",
        EntryKind::File => chosen.contents.has_file(name) || is_wal(name),
        EntryKind::Other => false,
    })
}

/// The transfer job that the host runs.
pub(crate) struct Restoring<'a> {
    chosen: &'a Chosen<Files>,
    job: Job,
    /// The origin of the backup's files that are separate objects.
    origin: u32,
    /// The origin of objects in raw form: files in raw bundles, and blocks.
    raw: u32,
    /// The items for empty files and for WAL.
    wal: WalFiles,
    unless: Unless,
    /// The folder with the backups.
    folder: String,
}

impl<'a> Restoring<'a> {
    pub(crate) fn new(chosen: &'a Chosen<Files>, is_delta: bool) -> Result<Self, Failure> {
        let job = Job::new();
        let from = |wrapping| job.origin(&chosen.repository.bucket, chosen.pipeline(wrapping).as_ref());
        let origin = from(Wrapping::Whole)?;
        let has_raw = chosen.head.has_raw_bundles || !chosen.head.block_holders.is_empty();
        let raw = if has_raw { from(Wrapping::Raw)? } else { origin };
        let folder = chosen.repository.backup("");
        let unless = if is_delta { Unless::SameDigest } else { Unless::Always };
        let nothing = format!("{folder}/{}", chosen.backup.label);
        let wal = WalFiles::new(origin, nothing, chosen.head.file_mode, unless);
        Ok(Self { chosen, job, origin, raw, wal, unless, folder })
    }

    /// Waits until all added items are done, and starts a new job.
    fn finish(&mut self) -> Result<(), Failure> {
        let next = Self::new(self.chosen, self.unless == Unless::SameDigest)?;
        std::mem::replace(self, next).job.finish().map(drop)
    }

    /// Adds `segments`, and waits until all added items are done.
    pub(crate) fn segments(&mut self, route: &WalRoute<'_>, segments: &[Segment]) -> Result<(), Failure> {
        for segment in segments {
            self.wal.segment(&mut self.job, route, segment)?;
        }
        self.finish()
    }

    fn file(&mut self, file: &File) -> Result<(), Failure> {
        if file.size == 0 {
            return self.empty(&file.name, file);
        }
        if let Some(blocks) = &file.blocks {
            cancelled()?;
            let is_delta = self.unless == Unless::SameDigest;
            let file_in_blocks = BlockFile::open(self.chosen, file, blocks)?;
            let item = file_in_blocks.assembly(self.raw, self.mode(file), sha1(&file.digest), is_delta);
            return self.job.assemble(&item);
        }
        let (mode, head) = (self.mode(file), &self.chosen.head);
        self.job.fetch(Fetch {
            origin: match head.wrapping(file) {
                Wrapping::Whole => self.origin,
                Wrapping::Raw => self.raw,
            },
            object: format!("{}/{}", self.folder, head.object(file)),
            range: file.bundled.map(|bundled| Range { offset: bundled.offset, length: bundled.length }),
            path: file.name.to_string(),
            at: None,
            size: file.size,
            digest: Some(sha1(&file.digest)),
            mode,
            mtime: file.mtime.map(Into::into),
            unless: self.unless,
        })
    }

    fn mode(&self, file: &File) -> Option<u32> {
        file.mode.map(u32::from).or(self.chosen.head.file_mode)
    }

    fn empty(&mut self, name: &str, file: &File) -> Result<(), Failure> {
        let item = Fetch { mode: self.mode(file), mtime: file.mtime.map(Into::into), ..self.wal.empty(name) };
        self.job.fetch(item)
    }
}

fn sha1(value: &[u8; 20]) -> Digest {
    Digest { algorithm: Algorithm::Sha1, value: value.to_vec() }
}
