//! What the operator decides: the settings of the sandbox itself, of one method, and what that method is granted.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use replica::{Bytes, Redactor};
use serde::{Deserialize, Serialize};
use transfer::keys::Key;
use transfer::secret::Secret;
use transfer::store::StoreConfig;
use transfer::units::BytesPerSecond;

use crate::Compiler;

/// Settings of the sandbox that hold for every method.
#[derive(Clone, Debug)]
pub struct SandboxSettings {
    /// The least Landlock ABI that the kernel must offer (`require_landlock = N`): 1 to 7. None: what the kernel
    /// offers is used, and the log says which it was. Debian 12 has 2, Linux 6.7 has 4, Linux 6.12 has 6.
    pub require_landlock: Option<u32>,
    /// Knows every secret of the run. The sandbox adds those that it is given and those that it derives, and takes them out
    /// of every text that a component is told; who shows the events takes them out of those.
    pub redactor: Redactor,
    /// What turns components into machine code.
    pub compiler: Compiler,
    /// The directory in which compiled components are kept with what they said of themselves; made where it is missing. None:
    /// nothing is kept. It must be this user's alone, or it is not used.
    pub cache: Option<PathBuf>,
}

impl SandboxSettings {
    /// Nothing but a compiler.
    pub fn new(compiler: Compiler) -> Self {
        Self { require_landlock: None, redactor: Redactor::default(), compiler, cache: None }
    }
}

/// One method that is a component, as the operator configured it.
#[derive(Clone, Debug)]
pub struct MethodSettings {
    /// Its name in the operator's list, which is also the name of its section: `[method.NAME]`.
    pub name: String,
    /// The component's file, absolute.
    pub component: PathBuf,
    /// `[method.NAME.options]`, in the operator's order. Checked against what the component describes.
    pub options: Vec<(String, OptionValue)>,
    /// `[method.NAME.grants]`.
    pub grants: Grants,
}

/// A value of an option, as the operator wrote it. Serialized as the bare value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OptionValue {
    /// A string of the configuration file.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a fraction.
    Number(f64),
    /// `true` or `false`.
    Flag(bool),
    /// A list of strings.
    Texts(Vec<String>),
    /// Text from a command line, which has no types: read by the kind that the component describes.
    Untyped(String),
}

/// What a method may use besides the data directory and the directories that the operator maps.
#[derive(Clone, Debug)]
pub struct Grants {
    /// How much memory the component may hold at once, over all its memories and tables.
    pub memory: Bytes,
    /// How much memory the host may hold for one run of it: what it queues, listings of files, windows of decoders, buffers.
    pub host_memory: Bytes,
    /// Directories that it may read, absolute.
    pub read: Vec<PathBuf>,
    /// How much it may write; none: as much as the file systems take.
    pub disk: Option<DiskBudget>,
    /// Places where backups are (`stores.NAME`), by the name that the component uses.
    pub stores: BTreeMap<String, StoreConfig>,
    /// Keys (`keys.NAME`), by the name that the component uses. The component never sees their bytes.
    pub keys: BTreeMap<String, KeyGrant>,
    /// How fast it may read from stores, all together; none: as fast as they give.
    pub rate: Option<BytesPerSecond>,
    /// How many threads move its bytes, 1 to 64; none: as many as there are processors.
    pub workers: Option<NonZeroUsize>,
}

/// What the host may hold for one run where nothing is said: one window of `zstd --long=27` (128 MiB), and 32 MiB besides.
const HOST_MEMORY: Bytes = Bytes(160 << 20);

impl Default for Grants {
    fn default() -> Self {
        Self {
            memory: Bytes(256 << 20),
            host_memory: HOST_MEMORY,
            read: Vec::new(),
            disk: None,
            stores: BTreeMap::new(),
            keys: BTreeMap::new(),
            rate: None,
            workers: None,
        }
    }
}

impl Grants {
    /// Every secret in them.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let credentials = self.stores.values().flat_map(|store| &store.credentials).map(|(_, secret)| secret);
        self.keys.values().map(|key| &key.secret).chain(credentials)
    }

    /// All of them by the name that they have below `[method.NAME.grants]`, for a person: no secret and no credential.
    pub(crate) fn told(&self) -> BTreeMap<String, String> {
        let mut told = BTreeMap::new();
        let mut tell = |name: &str, value: String| told.insert(name.to_owned(), value);
        tell("memory", self.memory.to_string());
        tell("host_memory", self.host_memory.to_string());
        for path in &self.read {
            tell(&format!("read {}", path.display()), "granted".to_owned());
        }
        if let Some(disk) = self.disk {
            let DiskBudget { bytes, files, keep_free } = disk;
            let parts = [
                bytes.map(|bytes| format!("bytes {bytes}")),
                files.map(|files| format!("files {files}")),
                keep_free.map(|bytes| format!("keep_free {bytes}")),
            ];
            tell("disk", parts.into_iter().flatten().collect::<Vec<_>>().join(", "));
        }
        for (name, store) in &self.stores {
            tell(&format!("stores.{name}"), store.url.clone());
        }
        for name in self.keys.keys() {
            tell(&format!("keys.{name}"), "granted".to_owned());
        }
        if let Some(rate) = self.rate {
            tell("rate", rate.to_string());
        }
        if let Some(workers) = self.workers {
            tell("workers", workers.to_string());
        }
        told
    }

    /// The key of this name.
    pub(crate) fn key(&self, name: &str) -> Option<Key> {
        let granted = self.keys.get(name)?;
        Some(Key::named(name, granted.secret.clone()).bound_to(Arc::clone(&granted.stores)))
    }
}

/// A key, and what it opens.
#[derive(Clone, Debug)]
pub struct KeyGrant {
    /// The pass phrase.
    pub secret: Secret,
    /// The names of the granted stores whose objects it decrypts. It decrypts nothing else, whatever the component holds: what a
    /// component could have made itself is no object of the operator's.
    pub stores: Arc<BTreeSet<String>>,
}

impl KeyGrant {
    /// A key for the objects of these stores.
    pub fn new(secret: Secret, stores: impl IntoIterator<Item = String>) -> Self {
        Self { secret, stores: Arc::new(stores.into_iter().collect()) }
    }
}

/// How much one run of a method may write. What it removes is not given back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskBudget {
    /// By how many bytes its files may grow in all; none: no limit.
    pub bytes: Option<Bytes>,
    /// How many files, directories and links it may make; none: no limit.
    pub files: Option<u64>,
    /// How much must stay free on the file system that it writes to; none: nothing.
    pub keep_free: Option<Bytes>,
}
