//! What an operator granted to one method.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use foundation::secret::Secret;
use foundation::units::BytesPerSecond;
use replica::Bytes;
use transfer::store::StoreConfig;

use crate::capability::CAPABILITIES;
use crate::{DiskBudget, KeyGrant};

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
        CAPABILITIES.iter().flat_map(|capability| capability.secrets(self))
    }

    /// Every directory of this machine that the method can read by them, each with the key below `[method.NAME.grants]` that grants it.
    pub fn reads(&self) -> impl Iterator<Item = (PathBuf, String)> {
        CAPABILITIES.iter().flat_map(|capability| capability.reads(self))
    }

    /// All of them by the name that they have below `[method.NAME.grants]`, for a person: no secret and no credential.
    pub(crate) fn told(&self) -> BTreeMap<String, String> {
        let mut told: BTreeMap<_, _> =
            CAPABILITIES.iter().flat_map(|capability| capability.told(self)).collect();
        let mut tell = |name: &str, value: String| told.insert(name.to_owned(), value);
        tell("memory", self.memory.to_string());
        tell("host_memory", self.host_memory.to_string());
        if let Some(rate) = self.rate {
            tell("rate", rate.to_string());
        }
        if let Some(workers) = self.workers {
            tell("workers", workers.to_string());
        }
        told
    }
}
