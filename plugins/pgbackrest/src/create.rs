//! Restores a backup. The component says which object becomes which file. The host writes the files and compares each file with its
//! checksum from the manifest.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;

use postgres_formats::names::{BACKUP_LABEL, PG_VERSION};
use understudy::store::{Codec, Range};
use understudy::transfer::{Algorithm, Digest, Fetch, Job, Unless};
use understudy::{AtPath, Datadir, EntryKind, Failure, Plan, cancelled, log, progress};

use crate::choice::{Chosen, choose};
use crate::files::Files;
use crate::label::segment_of;
use crate::manifest::File;
use crate::options::{Options, Wanted};
use crate::plan::{Usable, usable};
use crate::repository::{Repository, Wrapping};
use crate::wal::{History, Segment, WalRoute};

/// The SHA-1 of an empty file.
const SHA1_OF_EMPTY: [u8; 20] = crate::manifest::SHA1_OF_EMPTY;

/// The files that are written completely before any other file. From these files, a Patroni that starts during the run
/// learns the version, and that the directory comes from a backup.
const FIRST: [&str; 2] = [PG_VERSION, BACKUP_LABEL];

/// How many times the archive is listed again for segments that were archived during the restore.
const ROUNDS: usize = 100;

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
    let mut route = WalRoute::of(&chosen, options.wal, control.segment_size)?;
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
    let mut restoring = restoring.finish()?;
    for name in &chosen.contents.directories {
        cancelled()?;
        datadir.create_dir(name)?;
    }
    datadir.create_dir("pg_wal/archive_status")?;
    for file in chosen.contents.in_best_order().filter(|file| !FIRST.contains(&&*file.name)) {
        restoring.file(file)?;
        if let Some(segment) = segment_of(&file.name)
            && !chosen.contents.has_status(segment)
        {
            restoring.mark_archived(segment)?;
        }
    }
    for history in &histories {
        restoring.history(history, datadir)?;
    }
    match &mut route {
        None => restoring.finish().map(drop)?,
        Some(route) => restore_wal(route, restoring, segments, &has, (plan.bytes, plan.files), ROUNDS)?,
    }
    log::info!("restored {}", plan.backup);
    Ok(())
}

/// Fetches `segments`. If the route follows the source, also fetches the segments that were archived during the restore, at most `rounds`
/// times. `expected` are the numbers of bytes and files that were reported as expected so far.
pub(crate) fn restore_wal(
    route: &mut WalRoute<'_>,
    mut restoring: Restoring<'_>,
    mut segments: Vec<Segment>,
    has: &dyn Fn(&str) -> bool,
    expected: (Option<u64>, Option<u64>),
    rounds: usize,
) -> Result<(), Failure> {
    let (mut bytes, mut files) = expected;
    for _ in 0..rounds {
        for segment in &segments {
            restoring.segment(route, segment)?;
        }
        restoring = restoring.finish()?;
        if !route.follows_source() {
            return Ok(());
        }
        progress::phase("write-ahead log");
        segments = route.next_segments(has)?;
        if segments.is_empty() {
            return Ok(());
        }
        log::info!("WAL segments that were archived meanwhile: {}", segments.len());
        let fetched = segments.iter().filter(|segment| segment.archived.is_some()).count() as u64;
        bytes = bytes.map(|bytes| bytes.saturating_add(fetched * route.size.bytes()));
        files = files.map(|files| files.saturating_add(2 * fetched));
        progress::expect(bytes, files);
    }
    for segment in &segments {
        restoring.segment(route, segment)?;
    }
    restoring.finish()?;
    log::warn!(
        "WAL was archived as fast as it was restored, {rounds} times: the replica gets the WAL after {} from the source",
        segments.last().map_or("the last", |segment| &segment.name)
    );
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
    /// The origin of files in bundles.
    bundles: u32,
    /// The origins of WAL, by compression.
    archives: HashMap<&'static str, u32>,
    unless: Unless,
    /// The folder with the backups.
    folder: String,
    /// The object name in the items for empty files. The host never reads this object.
    nothing: String,
}

impl<'a> Restoring<'a> {
    pub(crate) fn new(chosen: &'a Chosen<Files>, is_delta: bool) -> Result<Self, Failure> {
        let job = Job::new();
        let from = |wrapping| job.origin(&chosen.repository.bucket, chosen.pipeline(wrapping).as_ref());
        let origin = from(Wrapping::Whole)?;
        let bundles = if chosen.head.has_raw_bundles { from(Wrapping::Raw)? } else { origin };
        let folder = chosen.repository.backup("");
        Ok(Self {
            chosen,
            job,
            origin,
            bundles,
            archives: HashMap::new(),
            unless: if is_delta { Unless::SameDigest } else { Unless::Always },
            nothing: format!("{folder}/{}", chosen.backup.label),
            folder,
        })
    }

    /// Waits until all added items are done, and starts a new job.
    fn finish(self) -> Result<Self, Failure> {
        let (chosen, is_delta) = (self.chosen, self.unless == Unless::SameDigest);
        self.job.finish()?;
        Self::new(chosen, is_delta)
    }

    fn file(&mut self, file: &File) -> Result<(), Failure> {
        if file.size == 0 {
            return self.empty(&file.name, file);
        }
        let (mode, head) = (self.mode(file), &self.chosen.head);
        self.job.fetch(Fetch {
            origin: match head.wrapping(file) {
                Wrapping::Whole => self.origin,
                Wrapping::Raw => self.bundles,
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
        let item =
            Fetch { mode: self.mode(file), mtime: file.mtime.map(Into::into), ..self.nothing_at(name) };
        self.job.fetch(item)
    }

    /// Returns the item for an empty file, which the host creates without reading an object.
    fn nothing_at(&self, name: &str) -> Fetch {
        Fetch {
            origin: self.origin,
            object: self.nothing.clone(),
            range: Some(Range { offset: 0, length: 0 }),
            path: name.to_owned(),
            at: None,
            size: 0,
            digest: Some(sha1(&SHA1_OF_EMPTY)),
            mode: self.chosen.head.file_mode,
            mtime: None,
            unless: self.unless,
        }
    }

    fn segment(&mut self, route: &WalRoute<'_>, segment: &Segment) -> Result<(), Failure> {
        // A segment in the backup itself was restored with its files.
        let Some(archived) = &segment.archived else { return Ok(()) };
        let origin = self.archive(route, archived.codec)?;
        self.job.fetch(Fetch {
            origin,
            object: archived.object.clone(),
            range: None,
            path: format!("pg_wal/{}", segment.name),
            size: route.size.bytes(),
            digest: Some(sha1(&archived.digest)),
            ..self.nothing_at("")
        })?;
        self.mark_archived(&segment.name)
    }

    /// Marks the file `name` of `pg_wal` as archived. Otherwise a promoted server would archive it again.
    fn mark_archived(&mut self, name: &str) -> Result<(), Failure> {
        let item = self.nothing_at(&format!("pg_wal/archive_status/{name}.done"));
        self.job.fetch(item)
    }

    /// Returns the origin of WAL with this compression.
    fn archive(&mut self, route: &WalRoute<'_>, codec: Option<Codec>) -> Result<u32, Failure> {
        let name = match codec {
            None => "",
            Some(Codec::Gzip) => "gz",
            Some(Codec::Lz4) => "lz4",
            Some(Codec::Zstd) => "zst",
            Some(_) => "bz2",
        };
        if let Some(origin) = self.archives.get(name) {
            return Ok(*origin);
        }
        let pipeline = Repository::pipeline(route.archive.key()?, codec, Wrapping::Whole);
        let origin = self.job.origin(&self.chosen.repository.bucket, pipeline.as_ref())?;
        self.archives.insert(name, origin);
        Ok(origin)
    }

    fn history(&mut self, history: &History, datadir: &Datadir) -> Result<(), Failure> {
        let name = format!("pg_wal/{}", history.name);
        // An interrupted run left this file.
        let path = datadir.place(&name)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.at(&path)?,
        }
        datadir.write(&name, &mut &history.text[..])?;
        self.mark_archived(&history.name)
    }
}

fn sha1(value: &[u8; 20]) -> Digest {
    Digest { algorithm: Algorithm::Sha1, value: value.to_vec() }
}
