//! Restores a copy of a data directory. The component walks through the files, and the host copies many files at once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use postgres_formats::names;
use understudy::store::Bucket;
use understudy::transfer::{Fetch, Job, Unless};
use understudy::{AtPath, Datadir, Failure, Plan, log, progress};

use crate::delta::{self, Delta};
use crate::layout::{Layout, read_control_file};
use crate::walk::{Entry, Warn, walk};

/// Copies everything, with the control file last.
pub(crate) fn all(layout: &Layout, delta: Delta, plan: &Plan, datadir: &Datadir) -> Result<(), Failure> {
    let planned: BTreeSet<_> = plan.tablespaces.iter().map(|tablespace| tablespace.oid).collect();
    if layout.describe() != plan.backup || !planned.into_iter().eq(layout.oids()) {
        return Err(changed(layout));
    }
    progress::expect(plan.bytes, plan.files);
    if delta != Delta::Off {
        progress::phase("removing what the copy does not have");
        delta::remove_others(layout, datadir)?;
    }
    progress::phase("copying");
    for name in FIRST {
        fetch_at_once(layout, delta, name)?;
    }
    let mut job = Job::new();
    let mut roots = Roots::new(layout, &job)?;
    // `plan` has logged the skipped entries.
    walk(layout, Warn::No, &mut |entry| match entry {
        Entry::Directory(name) => datadir.create_dir(&name),
        Entry::File { name, .. } if FIRST.contains(&name.as_str()) => Ok(()),
        Entry::File { name, path, size, mtime } => {
            let (origin, object) = roots.find(&path)?;
            job.fetch(fetch(delta, (origin, object), name, size, mtime))
        }
    })?;
    job.finish()?;
    if read_control_file(&layout.directory)?.as_ref() != Some(&layout.control_file) {
        return Err(changed(layout));
    }
    datadir.write(names::CONTROL_FILE, &mut &layout.control_file[..])?;
    log::info!("copied {}", plan.backup);
    Ok(())
}

/// The files that are copied first, for a Patroni that starts during the run (see the SDK's documentation).
const FIRST: [&str; 2] = [names::PG_VERSION, names::BACKUP_LABEL];

/// Copies the file `name` in the data directory, if it exists, and waits until it is copied.
fn fetch_at_once(layout: &Layout, delta: Delta, name: &str) -> Result<(), Failure> {
    let path = layout.directory.join(name);
    let metadata = match std::fs::symlink_metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        // The walk skips this entry too, and `plan` has logged it.
        Ok(metadata) if !metadata.is_file() => return Ok(()),
        metadata => metadata.at(&path)?,
    };
    let mut job = Job::new();
    let from = Roots::new(layout, &job)?.find(&path)?;
    job.fetch(fetch(delta, from, name.to_owned(), metadata.len(), crate::walk::mtime(&metadata)))?;
    job.finish().map(drop)
}

fn fetch(
    delta: Delta,
    (origin, object): (u32, String),
    path: String,
    size: u64,
    mtime: Option<u64>,
) -> Fetch {
    Fetch {
        origin,
        object,
        range: None,
        at: None,
        size,
        digest: None,
        mode: None,
        mtime,
        unless: delta.unless(&path),
        path,
    }
}

/// The granted directories that contain the copy, as origins for the job.
struct Roots(Vec<(PathBuf, u32)>);

impl Roots {
    fn new(layout: &Layout, job: &Job) -> Result<Self, Failure> {
        let mut roots = Self(Vec::new());
        for root in layout.roots() {
            if roots.0.iter().all(|(known, _)| !root.starts_with(known)) {
                let Some(name) = root.to_str() else { return Err(not_utf_8(root)) };
                roots.0.push((root.to_owned(), job.origin(&Bucket::open(name)?, None)?));
            }
        }
        Ok(roots)
    }

    /// Returns the origin that contains `path`, and the key of `path` in that origin.
    fn find(&mut self, path: &Path) -> Result<(u32, String), Failure> {
        let found = self.0.iter().find_map(|(root, origin)| Some((*origin, path.strip_prefix(root).ok()?)));
        let (origin, key) = found.ok_or_else(|| {
            Failure::failed(format!("{} is in none of the copy's directories", path.display()))
        })?;
        Ok((origin, key.to_str().ok_or_else(|| not_utf_8(path))?.to_owned()))
    }
}

impl Delta {
    /// Returns when the existing file `name` is kept. An existing backup_label is never kept, because it says where replay begins.
    fn unless(self, name: &str) -> Unless {
        match self {
            Self::Off => Unless::Always,
            _ if name == names::BACKUP_LABEL => Unless::Always,
            Self::SizeAndTime => Unless::SameSizeAndTime,
            Self::Digest => Unless::SameContent,
        }
    }
}

fn not_utf_8(path: &Path) -> Failure {
    let path = path.as_os_str().as_encoded_bytes().escape_ascii();
    Failure::failed(format!("`{path}` is a name that is not UTF-8: rename it"))
}

fn changed(layout: &Layout) -> Failure {
    let directory = layout.directory.display();
    Failure::failed(format!(
        "{directory} changed since the plan was made: a server runs in it, or it was replaced"
    ))
}
