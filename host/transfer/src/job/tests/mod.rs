mod assembling;
mod bounds;
mod chains;
mod fetching;
mod held;
mod listings;
mod pages;
mod stopping;
mod unpacking;

use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rustix::io::Errno;
use tempfile::TempDir;

use super::*;
use crate::chain::Chain;
use crate::digest::{Algorithm, Hasher};
use crate::plane::DataPlane;
use crate::target::{Budget, Mapped};
use foundation::rooted::{Directory, RelativePath};

const LONG: Duration = Duration::from_secs(120);

/// A local store, a data directory with a mapped `pg_wal`, and a data plane.
struct Scene {
    store: TempDir,
    data: TempDir,
    wal: TempDir,
    plane: DataPlane,
    budget: Arc<Counted>,
}

/// A disk budget of a number of bytes and files, which can also block a worker.
struct Counted {
    bytes: AtomicU64,
    files: AtomicU64,
    gate: Mutex<Option<Gate>>,
    panics: AtomicBool,
}

/// Reports that a worker has arrived, and blocks it until it is released.
struct Gate(mpsc::Sender<()>, mpsc::Receiver<()>);

/// Controls a worker that is blocked before it creates a file.
struct Held(mpsc::Receiver<()>, mpsc::Sender<()>);

impl Held {
    fn wait_until_blocked(&self) {
        self.0.recv_timeout(LONG).unwrap();
    }

    fn release(self) {
        self.1.send(()).unwrap();
    }
}

impl Budget for Counted {
    fn write(&self, file: &File, start: u64, length: u64) -> io::Result<()> {
        let more = (start + length).saturating_sub(file.metadata()?.len());
        take(&self.bytes, more)
    }

    fn extend(&self, file: &File, size: u64) -> io::Result<()> {
        self.write(file, 0, size)
    }

    fn make(&self, place: &File) -> io::Result<()> {
        assert!(place.metadata()?.is_dir());
        assert!(!self.panics.load(Ordering::Relaxed), "as the test wants it");
        let gate = self.gate.lock().unwrap().take();
        if let Some(Gate(arrived, resume)) = gate {
            arrived.send(()).unwrap();
            resume.recv().unwrap();
        }
        take(&self.files, 1)
    }
}

fn take(left: &AtomicU64, count: u64) -> io::Result<()> {
    let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count));
    taken.map(drop).map_err(|_| Errno::NOSPC.into())
}

/// Records how many bytes were read and written for each item.
#[derive(Default)]
struct Recorded(Mutex<Vec<(u64, u64)>>);

impl Observer for Recorded {
    fn ended(&self, item: &EndedItem<'_>) {
        self.0.lock().unwrap().push((item.bytes_read, item.bytes_written));
    }

    fn withdrawn(&self, _items: usize) {}
}

impl Recorded {
    /// Records the items of this job.
    fn of(job: &Job) -> Arc<Self> {
        let recorded = Arc::new(Self::default());
        job.observe(Arc::clone(&recorded) as Arc<dyn Observer>);
        recorded
    }

    fn moved(&self) -> Vec<(u64, u64)> {
        self.0.lock().unwrap().clone()
    }
}

impl Scene {
    fn new() -> Self {
        Self::with_workers(2)
    }

    fn with_workers(workers: usize) -> Self {
        let dir = || tempfile::tempdir().unwrap();
        Self {
            store: dir(),
            data: dir(),
            wal: dir(),
            plane: DataPlane::start(NonZeroUsize::new(workers), None).unwrap(),
            budget: Arc::new(Counted {
                bytes: u64::MAX.into(),
                files: u64::MAX.into(),
                gate: Mutex::new(None),
                panics: false.into(),
            }),
        }
    }

    /// Blocks the next worker before it creates a file or a directory.
    fn hold(&self) -> Held {
        let ((arrived, has_arrived), (release, resume)) = (mpsc::channel(), mpsc::channel());
        *self.budget.gate.lock().unwrap() = Some(Gate(arrived, resume));
        Held(has_arrived, release)
    }

    fn target(&self) -> Arc<Target> {
        let path = |text| RelativePath::new(text).unwrap();
        Arc::new(Target {
            root: Directory::open(self.data.path()).unwrap(),
            mapped: vec![Mapped {
                path: path("pg_wal"),
                directory: Directory::open(self.wal.path()).unwrap(),
            }],
            renamed: vec![(path("global/pg_control"), path("global/pg_control.understudy"))],
            budget: Arc::clone(&self.budget) as Arc<dyn Budget>,
            modes: (0o640, 0o750),
        })
    }

    fn job(&self) -> Job {
        self.job_via(Pipeline::default())
    }

    fn job_via(&self, via: Pipeline) -> Job {
        let job = self.plane.job(self.target(), true, Withheld::default());
        let store = Store::directory(self.store.path()).unwrap();
        assert_eq!(job.add_origin(store, via).unwrap(), 0);
        job
    }

    /// Puts an object into the store.
    fn object(&self, name: &str, bytes: &[u8]) {
        let path = self.store.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.data.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.plane.runtime().block_on(work)
    }

    /// Fetches the items and returns how each ended.
    fn fetch(&self, job: &Job, items: Vec<Fetch>) -> Vec<Result<Action, Error>> {
        self.wait(job.fetch(items)).unwrap();
        self.ended(job)
    }

    fn unpack(&self, job: &Job, item: Unpack, listing: Option<&Arc<Listing>>) -> Result<(), Error> {
        self.wait(job.unpack(item, listing.cloned())).unwrap();
        self.ended(job).remove(0).map(|action| assert_eq!(action, Action::Written))
    }

    fn unpack_link(
        &self,
        job: &Job,
        item: Unpack,
        listing: Option<&Arc<Listing>>,
        chain: &Arc<Chain>,
    ) -> Result<(), Error> {
        self.wait(job.unpack_link(item, listing.cloned(), Arc::clone(chain))).unwrap();
        self.ended(job).remove(0).map(|action| assert_eq!(action, Action::Written))
    }

    fn ended(&self, job: &Job) -> Vec<Result<Action, Error>> {
        let status = self.wait(job.wait(LONG));
        assert!(status.idle, "{status:?}");
        let mut outcomes = job.outcomes(usize::MAX);
        outcomes.sort_by_key(|outcome| outcome.index);
        outcomes.into_iter().map(|outcome| outcome.ended).collect()
    }
}

fn fetch(object: &str, path: &str, size: u64) -> Fetch {
    Fetch {
        origin: 0,
        object: object.to_owned(),
        range: None,
        path: path.to_owned(),
        at: None,
        size,
        digest: None,
        mode: None,
        mtime: None,
        overwrite: Overwrite::Always,
    }
}

fn unpack(object: &str) -> Unpack {
    Unpack {
        origin: 0,
        object: object.to_owned(),
        path: String::new(),
        limit: u64::MAX,
        skip: Vec::new(),
        refuse: Vec::new(),
    }
}

fn digest(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

fn crc(bytes: &[u8]) -> Option<Digest> {
    Some(digest(Algorithm::Crc32c, bytes))
}

/// Random bytes, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    (0..length).map(|_| random.u8(..)).collect()
}

/// All entries below a directory, sorted by path: files with their bytes, directories without.
fn tree(directory: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(here) = left.pop() {
        for entry in fs::read_dir(here).unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
                found.push((name, None));
            } else {
                found.push((name, Some(fs::read(entry.path()).unwrap())));
            }
        }
    }
    found.sort();
    found
}
