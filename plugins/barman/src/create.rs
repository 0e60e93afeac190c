//! Restores a backup. The component says which object becomes which file and which archives are unpacked; the host does it.

use postgres_formats::control_file::Release;
use postgres_formats::names::{BACKUP_LABEL, PG_TBLSPC, TablespaceFolder};
use postgres_formats::version::Version;
use restore::transfer::{ROUNDS, STATUS_FOLDER, WalFiles, restore_wal};
use restore::wal::Segment;
use understudy::store::{Codec, Object};
use understudy::transfer::{Fetch, Job, Unless};
use understudy::{Datadir, Failure, Plan, cancelled, log, progress};

use crate::chain::Link;
use crate::contents::Contents;
use crate::manifest;
use crate::names::pipeline;
use crate::options::{Options, Wanted};
use crate::place::Place;
use crate::plan::usable;
use crate::tree::{DIRECTORIES, walk};
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
    // Both files come first, for a Patroni that starts during the run (see the SDK's documentation).
    datadir.write_version(newest.backup.major)?;
    datadir.write(BACKUP_LABEL, &mut &newest.label.text[..])?;
    let mut transfer = Transfer::new(place, newest)?;
    let mut checks = match &usable.contents {
        Contents::Tree { manifest } => tree(place, newest, manifest.as_ref(), &mut transfer, datadir)?,
        Contents::Server { .. } | Contents::Cloud(_) => unpack::all(&usable, &mut transfer)?,
    };
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
    for check in &mut checks {
        check.complete(place)?;
    }
    unpack::check_restored(&usable, place, datadir)?;
    log::info!("restored {}", plan.backup);
    Ok(())
}

/// Returns the version as the file `PG_VERSION` has it.
pub(crate) fn version_file(link: &Link) -> Vec<u8> {
    format!("{}\n", link.backup.major).into_bytes()
}

/// What is checked when everything is restored.
#[derive(Debug)]
pub(crate) enum Check {
    /// That a manifest of archives has no file that the archives lack.
    Archives(manifest::Archived),
    /// That a manifest of a tree has no file that the tree lacks.
    Tree(manifest::Plain),
}

impl Check {
    fn complete(&mut self, place: &Place) -> Result<(), Failure> {
        match self {
            Self::Archives(manifest) => manifest.check_complete(place),
            Self::Tree(manifest) => manifest.check_complete(place),
        }
    }
}

/// Adds the files of a tree to the job.
fn tree(
    place: &Place,
    link: &Link,
    object: Option<&Object>,
    transfer: &mut Transfer<'_>,
    datadir: &Datadir,
) -> Result<Vec<Check>, Failure> {
    let backup = &link.backup;
    let mut manifest = match object {
        Some(object) => Some(manifest::plain(place, object, link, &version_file(link))?),
        None => None,
    };
    if !backup.tablespaces.is_empty()
        && let (Some(manifest), Some(object)) = (&manifest, object)
        && !manifest.has_tablespaces()
    {
        log::warn!(
            "{} lists no file of a tablespace: nothing says whether the bytes of these files are right",
            place.shown(&object.key)
        );
    }
    for name in DIRECTORIES {
        datadir.create_dir(name)?;
    }
    // A listing does not have the folder of an empty tablespace, without which no table can be created in it.
    if let Some(release) = Release::of_major(backup.major)
        && let Some(version) = Version::parse(backup.major.to_string().as_bytes())
    {
        let folder = TablespaceFolder { version, catalog: release.catalog };
        for tablespace in &backup.tablespaces {
            cancelled()?;
            datadir.create_dir(&format!("{PG_TBLSPC}/{}/{folder}", tablespace.oid))?;
        }
    }
    let origin = transfer.origin(None)?;
    walk(place, backup, &mut |name, object| {
        let digest = match &mut manifest {
            Some(manifest) => manifest.digest_of(place, &name, object.size)?,
            None => None,
        };
        transfer.job.fetch(Fetch {
            origin,
            object: object.key,
            range: None,
            path: name,
            at: None,
            size: object.size,
            digest,
            mode: None,
            mtime: None,
            unless: Unless::Always,
        })
    })?;
    Ok(manifest.into_iter().map(Check::Tree).collect())
}

/// The transfer job that the host runs.
pub(crate) struct Transfer<'a> {
    pub(crate) place: &'a Place,
    folder: String,
    pub(crate) job: Job,
    /// The origins of files and archives, by compression.
    origins: Vec<(Option<Codec>, u32)>,
    /// The items for WAL.
    wal: WalFiles,
}

impl<'a> Transfer<'a> {
    fn new(place: &'a Place, newest: &Link) -> Result<Self, Failure> {
        Self::below(place, place.backup(&newest.backup.id))
    }

    fn below(place: &'a Place, folder: String) -> Result<Self, Failure> {
        let job = Job::new();
        let origin = job.origin(&place.bucket, None)?;
        let wal = WalFiles::new(origin, folder.clone(), None, Unless::Always);
        Ok(Self { place, folder, job, origins: vec![(None, origin)], wal })
    }

    /// Returns the origin of objects with this compression.
    pub(crate) fn origin(&mut self, codec: Option<Codec>) -> Result<u32, Failure> {
        if let Some((_, origin)) = self.origins.iter().find(|(known, _)| *known == codec) {
            return Ok(*origin);
        }
        let origin = self.job.origin(&self.place.bucket, pipeline(codec).as_ref())?;
        self.origins.push((codec, origin));
        Ok(origin)
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
