//! The grants of one method.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use foundation::secret::Secret;
use foundation::units::BytesPerSecond;
use replica::Bytes;
use transfer::store::StoreConfig;

use crate::capability::{CAPABILITIES, readable_by_programs};
use crate::{DiskBudget, KeyGrant, LogBudget, ProgramGrant, Server, ServerGrant, Variables};

/// What a method may use in addition to the data directory and the directories that the operator maps.
#[derive(Clone, Debug)]
pub struct Grants {
    /// How much memory all linear memories and tables of the component may hold together.
    pub memory: Bytes,
    /// How much memory the host may use for one run of the component: for queues, file listings, decoder windows and buffers.
    pub host_memory: Bytes,
    /// Directories that the component may read, as absolute paths.
    pub read: Vec<PathBuf>,
    /// How much the component may write; `None` if only the free space of the file systems limits it.
    pub disk: Option<DiskBudget>,
    /// The stores with backups (`stores.NAME`), by the name that the component uses.
    pub stores: BTreeMap<String, StoreConfig>,
    /// Keys (`keys.NAME`), by the name that the component uses. The component never sees their bytes.
    pub keys: BTreeMap<String, KeyGrant>,
    /// The variables of the component's environment.
    pub environment: Variables,
    /// The servers that the component may connect to.
    pub network: BTreeMap<Server, ServerGrant>,
    /// How many bytes the component may exchange with all servers together in one run.
    pub network_bytes: Bytes,
    /// How many bytes the component may exchange over one connection; `None` if only `network_bytes` and the `bytes` of a server limit
    /// it.
    pub connection_bytes: Option<Bytes>,
    /// Native programs that the component may run (`programs.NAME`), by the name that the component uses.
    pub programs: BTreeMap<String, ProgramGrant>,
    /// How fast the component may read from all stores together; `None` if there is no limit.
    pub rate: Option<BytesPerSecond>,
    /// How many threads transfer files for the component, 1 to 64; `None` for one thread per processor.
    pub workers: Option<NonZeroUsize>,
    /// How many files may be open for the component at once. The system's limit (`ulimit -n`) may be lower. Each thread that transfers
    /// files uses some of these files.
    pub open_files: u64,
    /// How much the component may log and print in one attempt.
    pub log: LogBudget,
}

/// The default of `host_memory`: one window of `zstd --long=27` (128 MiB), and 32 MiB for everything else.
const HOST_MEMORY: Bytes = Bytes(160 << 20);

/// The default of `network_bytes`.
const NETWORK_BYTES: Bytes = Bytes(1 << 30);

/// The default of `open_files`.
const OPEN_FILES: u64 = 2048;

impl Default for Grants {
    fn default() -> Self {
        Self {
            memory: Bytes(256 << 20),
            host_memory: HOST_MEMORY,
            read: Vec::new(),
            disk: None,
            stores: BTreeMap::new(),
            keys: BTreeMap::new(),
            environment: Variables::default(),
            network: BTreeMap::new(),
            network_bytes: NETWORK_BYTES,
            connection_bytes: None,
            programs: BTreeMap::new(),
            rate: None,
            workers: None,
            open_files: OPEN_FILES,
            log: LogBudget::default(),
        }
    }
}

impl Grants {
    /// Returns every secret in the grants.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        CAPABILITIES.iter().flat_map(|capability| capability.secrets(self))
    }

    /// Returns every directory of this machine that the grants let the method read, each with the key below `[method.NAME.grants]` that
    /// grants it.
    pub fn reads(&self) -> impl Iterator<Item = (PathBuf, String)> {
        CAPABILITIES.iter().flat_map(|capability| capability.reads(self))
    }

    /// Returns the files and directories of the system that every program of these grants may read; none if no program is granted.
    pub fn reads_of_programs(&self) -> Vec<PathBuf> {
        if self.programs.is_empty() { Vec::new() } else { readable_by_programs() }
    }

    /// Returns every directory of this machine that the method's programs may write in addition to the data directory and the mapped
    /// places, each with the key below `[method.NAME.grants]` that grants it.
    pub fn writes(&self) -> impl Iterator<Item = (PathBuf, String)> {
        CAPABILITIES.iter().flat_map(|capability| capability.writes(self))
    }

    /// Returns every file and directory that determines which native code is executed for the method, each with its description in
    /// messages.
    pub fn trusts(&self) -> impl Iterator<Item = (PathBuf, String)> {
        CAPABILITIES.iter().flat_map(|capability| capability.trusts(self))
    }

    /// Returns the text of every grant for the report, by the grant's name below `[method.NAME.grants]`, without secrets and credentials.
    pub(crate) fn for_report(&self) -> BTreeMap<String, String> {
        let mut entries: BTreeMap<_, _> =
            CAPABILITIES.iter().flat_map(|capability| capability.report_entries(self)).collect();
        let mut add = |name: &str, value: String| entries.insert(name.to_owned(), value);
        add("memory", self.memory.to_string());
        add("host_memory", self.host_memory.to_string());
        add("open_files", self.open_files.to_string());
        add("log", format!("bytes {}, lines {}", self.log.bytes, self.log.lines));
        if let Some(rate) = self.rate {
            add("rate", rate.to_string());
        }
        if let Some(workers) = self.workers {
            add("workers", workers.to_string());
        }
        entries
    }
}
