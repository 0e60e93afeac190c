//! Restoring: the component says which object becomes which file, the host moves the bytes and compares each with the
//! manifest's checksum meanwhile.

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
use crate::wal::{History, Segment, Way};

/// The SHA-1 of nothing.
const OF_NOTHING: [u8; 20] = crate::manifest::OF_NOTHING;

/// What is written first, and whole before anything else is: who looks at a data directory meanwhile (Patroni when it is started
/// again) learns from them of which version it is, and that it is a backup.
const FIRST: [&str; 2] = [PG_VERSION, BACKUP_LABEL];

/// How often the archive is looked at again for what came while the last was fetched.
const ROUNDS: usize = 100;

/// Restores what `plan` says.
///
/// # Errors
/// Why it did not.
pub(crate) fn all(options: &Options, plan: &Plan, datadir: &Datadir) -> Result<(), Failure> {
    let options = Options { wanted: Wanted::Label(plan.backup.clone()), ..options.clone() };
    // They were looked for in plan, and decide only which of several repositories it is.
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
    let mut way = Way::of(&chosen, options.wal, control.segment_size)?;
    let has = |name: &str| chosen.contents.has_file(&format!("pg_wal/{name}"));
    let (segments, histories) = match &mut way {
        None => (Vec::new(), Vec::new()),
        Some(way) => (way.more(&has)?, way.histories()?),
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
            restoring.is_archived(segment)?;
        }
    }
    for history in &histories {
        restoring.history(history, datadir)?;
    }
    match &mut way {
        None => restoring.finish().map(drop)?,
        Some(way) => restore_wal(way, restoring, segments, &has, (plan.bytes, plan.files), ROUNDS)?,
    }
    log::info!("restored {}", plan.backup);
    Ok(())
}

/// Fetches `segments`, then, on the way to where the source is, what was archived meanwhile, `rounds` times at most.
/// `expected` are the bytes and the files that were expected before.
pub(crate) fn restore_wal(
    way: &mut Way<'_>,
    mut restoring: Restoring<'_>,
    mut segments: Vec<Segment>,
    has: &dyn Fn(&str) -> bool,
    expected: (Option<u64>, Option<u64>),
    rounds: usize,
) -> Result<(), Failure> {
    let (mut bytes, mut files) = expected;
    for _ in 0..rounds {
        for segment in &segments {
            restoring.segment(way, segment)?;
        }
        restoring = restoring.finish()?;
        if !way.goes_on() {
            return Ok(());
        }
        progress::phase("write-ahead log");
        segments = way.more(has)?;
        if segments.is_empty() {
            return Ok(());
        }
        log::info!("WAL segments that were archived meanwhile: {}", segments.len());
        let fetched = segments.iter().filter(|segment| segment.archived.is_some()).count() as u64;
        bytes = bytes.map(|bytes| bytes.saturating_add(fetched * way.size.bytes()));
        files = files.map(|files| files.saturating_add(2 * fetched));
        progress::expect(bytes, files);
    }
    for segment in &segments {
        restoring.segment(way, segment)?;
    }
    restoring.finish()?;
    log::warn!(
        "WAL was archived as fast as it was restored, {rounds} times: what comes after {} the replica gets from the source",
        segments.last().map_or("the last", |segment| &segment.name)
    );
    Ok(())
}

/// Removes what is in the data directory and neither in the backup nor among the WAL.
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

/// The work for the host.
pub(crate) struct Restoring<'a> {
    chosen: &'a Chosen<Files>,
    job: Job,
    /// Where files of the backup come from that are objects of their own.
    origin: u32,
    /// Where those in bundles come from.
    bundles: u32,
    /// Where WAL comes from, by how it is compressed.
    archives: HashMap<&'static str, u32>,
    unless: Unless,
    /// The folder of the backups, and what names what is empty.
    folder: String,
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

    /// Waits for all that was added, and begins anew.
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

    /// A file without bytes, which the host makes without reading anything.
    fn nothing_at(&self, name: &str) -> Fetch {
        Fetch {
            origin: self.origin,
            object: self.nothing.clone(),
            range: Some(Range { offset: 0, length: 0 }),
            path: name.to_owned(),
            at: None,
            size: 0,
            digest: Some(sha1(&OF_NOTHING)),
            mode: self.chosen.head.file_mode,
            mtime: None,
            unless: self.unless,
        }
    }

    fn segment(&mut self, way: &Way<'_>, segment: &Segment) -> Result<(), Failure> {
        // What the backup itself has came with its files.
        let Some(archived) = &segment.archived else { return Ok(()) };
        let origin = self.archive(way, archived.codec)?;
        self.job.fetch(Fetch {
            origin,
            object: archived.object.clone(),
            range: None,
            path: format!("pg_wal/{}", segment.name),
            size: way.size.bytes(),
            digest: Some(sha1(&archived.digest)),
            ..self.nothing_at("")
        })?;
        self.is_archived(&segment.name)
    }

    /// Says that the file `name` of `pg_wal` is archived: a server that is promoted would do it again.
    fn is_archived(&mut self, name: &str) -> Result<(), Failure> {
        let item = self.nothing_at(&format!("pg_wal/archive_status/{name}.done"));
        self.job.fetch(item)
    }

    /// The place that WAL of this compression comes from.
    fn archive(&mut self, way: &Way<'_>, codec: Option<Codec>) -> Result<u32, Failure> {
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
        let pipeline = Repository::pipeline(way.archive.key()?, codec, Wrapping::Whole);
        let origin = self.job.origin(&self.chosen.repository.bucket, pipeline.as_ref())?;
        self.archives.insert(name, origin);
        Ok(origin)
    }

    fn history(&mut self, history: &History, datadir: &Datadir) -> Result<(), Failure> {
        let name = format!("pg_wal/{}", history.name);
        // What an interrupted run left.
        let path = datadir.place(&name)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.at(&path)?,
        }
        datadir.write(&name, &mut &history.text[..])?;
        self.is_archived(&history.name)
    }
}

fn sha1(value: &[u8; 20]) -> Digest {
    Digest { algorithm: Algorithm::Sha1, value: value.to_vec() }
}
