//! Restoring: the component says which object becomes which file, the host moves the bytes and compares each with the
//! manifest's checksum meanwhile.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::ErrorKind;

use understudy::store::{Codec, Range};
use understudy::transfer::{Algorithm, Digest, Fetch, Job, Unless};
use understudy::{AtPath, Datadir, EntryKind, Failure, Plan, cancelled, log, progress};

use crate::choice::{Chosen, choose};
use crate::control;
use crate::files::Files;
use crate::manifest::File;
use crate::options::{Options, Wal, Wanted};
use crate::plan::{check_kind, describe};
use crate::repository::Repository;
use crate::wal::{History, Segment, Way};

/// The SHA-1 of nothing.
const OF_NOTHING: [u8; 20] = crate::manifest::OF_NOTHING;

/// How often the archive is looked at again for what came while the last was fetched.
const ROUNDS: usize = 100;

/// Restores what `plan` says.
///
/// # Errors
/// Why it did not.
pub(crate) fn all(options: &Options, plan: &Plan, datadir: &Datadir) -> Result<(), Failure> {
    let options = Options { wanted: Wanted::Label(plan.backup.clone()), ..options.clone() };
    let chosen = choose(&options, &mut Files::default)?;
    check_kind(&chosen)?;
    let now = describe(&chosen)?;
    let as_planned = (now.system_identifier, now.start_lsn, now.stop_lsn, &now.tablespaces)
        == (plan.system_identifier, plan.start_lsn, plan.stop_lsn, &plan.tablespaces);
    if !as_planned {
        return Err(Failure::retry_later(format!(
            "{} was replaced since the plan was made: run again",
            chosen.shown
        )));
    }
    progress::expect(plan.bytes, plan.files);
    let segment_size = match options.wal {
        Wal::None => Err(Failure::failed("no WAL is restored")),
        Wal::Consistent | Wal::Latest => control::read(&chosen)?.segment_size,
    };
    let mut way = Way::of(&chosen, options.wal, segment_size)?;
    let has = |name: &str| chosen.contents.has_file(&format!("pg_wal/{name}"));
    let (mut segments, histories) = match &mut way {
        None => (Vec::new(), Vec::new()),
        Some(way) => (way.more(&has)?, way.histories()?),
    };
    if options.is_delta {
        progress::phase("removing what the backup does not have");
        remove_others(&chosen, &segments, &histories, datadir)?;
    }
    progress::phase("restoring");
    for name in &chosen.contents.directories {
        cancelled()?;
        datadir.create_dir(name)?;
    }
    datadir.create_dir("pg_wal/archive_status")?;
    let mut restoring = Restoring::new(&chosen, options.is_delta)?;
    for file in chosen.contents.in_best_order() {
        restoring.file(file)?;
    }
    for history in &histories {
        restoring.history(history, datadir)?;
    }
    let Some(way) = &mut way else {
        restoring.finish()?;
        log::info!("restored {}", plan.backup);
        return Ok(());
    };
    let (mut bytes, mut files) = (plan.bytes, plan.files);
    for _ in 0..ROUNDS {
        for segment in &segments {
            restoring.segment(way, segment)?;
        }
        restoring = restoring.finish()?;
        if !way.goes_on() {
            break;
        }
        progress::phase("write-ahead log");
        segments = way.more(&has)?;
        if segments.is_empty() {
            break;
        }
        log::info!("WAL segments that were archived meanwhile: {}", segments.len());
        let count = segments.len() as u64;
        bytes = bytes.map(|bytes| bytes.saturating_add(count * way.size.bytes()));
        files = files.map(|files| files.saturating_add(2 * count));
        progress::expect(bytes, files);
    }
    log::info!("restored {}", plan.backup);
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
        let status = name.strip_prefix("archive_status/").and_then(|name| name.strip_suffix(".done"));
        wal.contains(status.unwrap_or(name))
    };
    let folders: Vec<_> = chosen.contents.tablespace_folders().collect();
    datadir.remove_others(&folders, &mut |name, kind| match kind {
        EntryKind::Directory => chosen.contents.has_directory(name) || name == "pg_wal/archive_status",
        EntryKind::File => chosen.contents.has_file(name) || is_wal(name),
        EntryKind::Other => false,
    })
}

/// The work for the host.
struct Restoring<'a> {
    chosen: &'a Chosen<Files>,
    job: Job,
    /// Where the files of the backup come from.
    origin: u32,
    /// Where WAL comes from, by how it is compressed.
    archives: HashMap<&'static str, u32>,
    unless: Unless,
    /// The folder of the backups, and what names what is empty.
    folder: String,
    nothing: String,
}

impl<'a> Restoring<'a> {
    fn new(chosen: &'a Chosen<Files>, is_delta: bool) -> Result<Self, Failure> {
        let job = Job::new();
        let pipeline = Repository::pipeline(chosen.key.as_ref(), chosen.head.compression().codec);
        let origin = job.origin(&chosen.repository.bucket, pipeline.as_ref())?;
        let folder = chosen.repository.backup("");
        Ok(Self {
            chosen,
            job,
            origin,
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
            origin: self.origin,
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
        if let Some(archived) = &segment.archived {
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
        }
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
        let pipeline = Repository::pipeline(way.archive.key.as_ref(), codec);
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
        datadir.write(&name, &mut history.text.as_bytes())?;
        self.is_archived(&history.name)
    }
}

fn sha1(value: &[u8; 20]) -> Digest {
    Digest { algorithm: Algorithm::Sha1, value: value.to_vec() }
}
