//! Restores a backup. The component writes `PG_VERSION`, `backup_label` and the control file, which it has read in any case. The host
//! unpacks everything else.

use postgres_formats::names::{
    BACKUP_LABEL, CONTROL_FILE, GLOBAL, PG_VERSION, POSTMASTER_OPTS, POSTMASTER_PID, TABLESPACE_MAP,
    UNFINISHED_CONTROL_FILE,
};
use restore::missing;
use restore::pages;
use restore::transfer::{ROUNDS, STATUS_FOLDER, WalFiles, restore_wal};
use restore::wal::{History, Segment};
use understudy::transfer::{Chain, IncrementFormat, Job, Unless, Unpack};
use understudy::{Datadir, Failure, Plan, cancelled, log, progress};

use crate::archives::Archive;
use crate::name::BackupName;
use crate::options::Options;
use crate::place::Place;
use crate::plan::{Link, Usable, usable};
use crate::sentinel::Sentinel;
use crate::wal::{self, WalRoute};

/// Files in the archives that are not written. The component writes the first three, each from where it belongs: a data directory may have
/// an old `backup_label`, and a remote backup has the control file twice. The host makes the links of `tablespace_map`. WAL comes from the
/// archive; WAL-G excludes `pg_wal` (`ExcludedFilenames` in internal/databases/postgres/bundle.go).
const SKIPPED: [&str; 5] = [PG_VERSION, BACKUP_LABEL, CONTROL_FILE, TABLESPACE_MAP, WAL];

/// The folder of the write-ahead log.
const WAL: &str = "pg_wal/";

/// Files of a running server and of the host, which no archive may have. WAL-G excludes the former (`ExcludedFilenames` in
/// internal/databases/postgres/bundle.go).
const REFUSED: [&str; 3] = [POSTMASTER_PID, POSTMASTER_OPTS, UNFINISHED_CONTROL_FILE];

/// How many bytes the archives may contain in addition to the size that the sentinel gives.
const SLACK: u64 = 64 << 20;

/// Restores the backup of `plan`.
///
/// # Errors
/// The error says why the backup was not restored.
pub(crate) fn all(options: &Options, plan: &Plan, datadir: &Datadir) -> Result<(), Failure> {
    let place = &options.place;
    let Some(name) = BackupName::parse(&plan.backup) else {
        return Err(Failure::failed(format!("`{}` is not a backup of WAL-G", plan.backup.escape_debug())));
    };
    let mut chain = restore::chain::begin(IncrementFormat::WalG)?;
    let mut want = |path: String| if is_unpacked(&path) { Ok(chain.want(path)?) } else { Ok(()) };
    let now = usable(place, &name, &mut want)?;
    let planned = |plan: &Plan| (plan.system_identifier, plan.timeline, plan.start_lsn, plan.stop_lsn);
    if planned(&now.plan) != planned(plan) || now.plan.tablespaces != plan.tablespaces {
        return Err(Failure::retry_later(format!(
            "the backup {name} was replaced since the plan was made: run again"
        )));
    }
    let looked = &now.looked;
    let newest = &now.newest.backup;
    let mut route =
        wal::route(place, newest, looked.system_identifier, options.wal, looked.segment_size.clone())?;
    let (segments, histories) = match &mut route {
        None => (Vec::new(), Vec::new()),
        Some(route) => (route.next_segments(&|_| false)?, route.histories()?),
    };
    progress::expect(plan.bytes, plan.files);
    progress::phase("restoring");
    datadir.write_version(newest.sentinel.major)?;
    datadir.write(BACKUP_LABEL, &mut &looked.label[..])?;
    unpack_chain(options, &now, &mut chain)?;
    datadir.create_dir(STATUS_FOLDER)?;
    if let Some(route) = &mut route {
        progress::phase("write-ahead log");
        write_histories(place, &name, &histories, datadir)?;
        let mut fetch =
            |route: &WalRoute<'_>, segments: &[Segment]| fetch_segments(place, &name, route, segments);
        restore_wal(route, segments, &|_| false, (plan.bytes, plan.files), ROUNDS, &mut fetch)?;
    }
    datadir.create_dir(GLOBAL)?;
    datadir.write(CONTROL_FILE, &mut &looked.control[..])?;
    log::info!("restored {name}");
    Ok(())
}

/// Returns whether the host writes the file `path`. The component writes the others, also if they did not change since the older backup.
fn is_unpacked(path: &str) -> bool {
    !SKIPPED.contains(&path) && !path.starts_with(WAL)
}

/// Unpacks the archives of a backup and of the backups that it depends on, newest first. The archives of a backup must have ended before
/// those of an older one begin. A full backup is a chain of one.
fn unpack_chain(options: &Options, usable: &Usable, chain: &mut Chain) -> Result<(), Failure> {
    let mut job = Job::new();
    let sentinel = &usable.newest.backup.sentinel;
    if options.verify
        && let Some(files) = usable.looked.pages.clone()?
    {
        pages::check(&mut job, files, sentinel.start, sentinel.finish)?;
    }
    let newest = most_bytes(sentinel);
    for (at, Link { backup, archives }) in std::iter::once(&usable.newest).chain(&usable.older).enumerate() {
        if at > 0 {
            chain.begin_older()?;
        }
        let most = newest.max(most_bytes(&backup.sentinel));
        for archive in &archives.parts {
            unpack(&options.place, archive, most, &mut job, chain)?;
        }
        job.wait_until_idle()?;
        log::info!("unpacked {}", backup.name);
    }
    job.finish()?;
    match missing::of_chain(chain)? {
        None => Ok(()),
        Some(some) => Err(Failure::failed(format!(
            "the backups are incomplete: none of them has all pages of {some}; choose another with `backup`"
        ))),
    }
}

/// Returns how many bytes may be written from one archive.
fn most_bytes(sentinel: &Sentinel) -> u64 {
    // The size of the files in the archives does not count those that were copied from an earlier backup.
    sentinel.catalog.map_or(u64::MAX, |bytes| bytes.saturating_add(SLACK))
}

/// Adds one archive to `job`, of which at most `limit` bytes may be written.
fn unpack(
    place: &Place,
    archive: &Archive,
    limit: u64,
    job: &mut Job,
    chain: &mut Chain,
) -> Result<(), Failure> {
    cancelled()?;
    let codec = archive.codec;
    let item = Unpack {
        origin: job.origin_of(&place.at.bucket, codec, || place.pipeline(codec))?,
        object: archive.object.key.clone(),
        path: String::new(),
        limit,
        skip: SKIPPED.map(str::to_owned).to_vec(),
        refuse: REFUSED.map(str::to_owned).to_vec(),
    };
    job.unpack_link(&item, None, chain)
}

/// Makes a job for files of `pg_wal`.
fn wal_job(place: &Place, name: &BackupName) -> Result<(Job, WalFiles), Failure> {
    let job = Job::new();
    // Nothing is read from this origin, so it needs no pipeline.
    let origin = job.origin(&place.at.bucket, None)?;
    let files = WalFiles::new(origin, place.backups(name.as_str()), None, Unless::Always);
    Ok((job, files))
}

fn write_histories(
    place: &Place,
    name: &BackupName,
    histories: &[History],
    datadir: &Datadir,
) -> Result<(), Failure> {
    let (mut job, files) = wal_job(place, name)?;
    for history in histories {
        files.history(&mut job, history, datadir)?;
    }
    job.finish().map(drop)
}

fn fetch_segments(
    place: &Place,
    name: &BackupName,
    route: &WalRoute<'_>,
    segments: &[Segment],
) -> Result<(), Failure> {
    let (mut job, files) = wal_job(place, name)?;
    for segment in segments {
        files.segment(&mut job, route, segment)?;
    }
    job.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unchanged_file_that_the_component_writes_is_not_wanted_from_an_older_backup() {
        for name in
            ["PG_VERSION", "backup_label", "tablespace_map", "global/pg_control", "pg_wal/00000002.history"]
        {
            assert!(!is_unpacked(name), "{name}");
        }
        for name in ["base/5/PG_VERSION", "base/5/1259", "postgresql.conf", "global/pg_filenode.map"] {
            assert!(is_unpacked(name), "{name}");
        }
    }
}
