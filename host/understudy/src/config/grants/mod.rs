//! `[method.NAME.grants]`: what a component may use. Each kind of grant has its own module, which reads it.

pub(super) mod disk;
mod environment;
pub(super) mod keys;
pub(super) mod log;
pub(super) mod network;
pub(super) mod programs;
mod read;
pub(super) mod stores;

use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use replica::{Bytes, Redactor};
use sandbox::{Grants, Secret};

use super::Environment;
use super::keys::Key;
use super::problem::{Origin, Problem};
use super::tree::{Section, Value};

/// The keys of `[method.NAME.grants]`.
pub(super) const KEYS: &[Key] = &[
    Key::new(
        "read",
        "list of paths",
        "none",
        "directories that the method may read. A file is refused. A directory is refused if it overlaps \
         the data directory or a mapped place, even through links and mounts, or if it contains a file \
         with a secret of the run",
    ),
    Key::new(
        "stores",
        "table",
        "none",
        "[a store](#method-grants-stores). A name has 1 to 64 letters, digits, `_` and `-`",
    )
    .with_names(),
    Key::new("keys", "secret, with `stores`", "none", "[a key](#keys)").with_names(),
    Key::new("programs", "table", "none", "[a native program](#programs) that the method may run")
        .with_names(),
    Key::new(
        "memory",
        "size",
        "`\"256MiB\"`",
        "how much memory all linear memories and tables of the component may have together",
    ),
    Key::new(
        "host_memory",
        "size, at least `\"16MiB\"`",
        "`\"160MiB\"`",
        "how much memory the host may use for one run of the component: for queues, lists of files, \
         buffers and decoder windows",
    ),
    Key::new(
        "disk",
        "`{ bytes, files, keep_free }`",
        "no bound",
        "how much the method may write: [its bounds](#disk)",
    ),
    Key::new(
        "environment",
        "`{ NAME = \"text\" }`",
        "none",
        "all variables of the method's environment. A method can read every value. Refused: names that are not 1 to 64 \
         letters, digits and `_`, or begin with a digit; names of variables that always hold a secret, such as `PGPASSWORD`; \
         values that contain a secret of the run or look like one, such as an address with a password; and more than \
         32 KiB in all",
    ),
    Key::new(
        "network",
        "list of `\"host:port\"`, or a table",
        "none",
        "[the servers](#network) that the method may connect to",
    ),
    Key::new(
        "network_bytes",
        "size",
        "`\"1GiB\"`",
        "how many bytes the method may exchange with all servers together in one run",
    ),
    Key::new(
        "connection_bytes",
        "size",
        "only `network_bytes`",
        "how many bytes the method may exchange over one connection: one TCP socket, or one HTTP request with its response. \
         Includes headers and TLS, in both directions",
    ),
    Key::new(
        "open_files",
        "32 to 1,048,576",
        "`2048`",
        "how many files and streams may be open for the method at once, including those that its threads \
         keep open. Fewer are available if the program's limit of open files (`ulimit -n`) is lower",
    ),
    Key::new(
        "log",
        "`{ bytes, lines }`",
        "4 MiB, 10,000 lines",
        "how much the method may log and print in one attempt: [its bounds](#log)",
    ),
    Key::new("rate", "speed", "no bound", "how much the method may read from all stores together"),
    Key::new(
        "workers",
        "1 to 64",
        "as many as processors, at least 2",
        "how many threads transfer files for the method. Fewer are used if `host_memory` or `open_files` \
         is not enough for them",
    ),
];

/// The range of `open_files`: from the number that one transferring thread needs to the number that Linux allows by default.
const OPEN_FILES: RangeInclusive<u64> = 32..=1 << 20;

/// The minimum of `host_memory`: enough for one transferring thread and its buffers.
const LEAST_HOST_MEMORY: Bytes = Bytes(16 << 20);

/// The maximum of `workers`.
const WORKERS: usize = 64;
/// How many characters the name of a store, key or program may have.
const NAME: usize = 64;

/// The grants as configured, before the files with secrets are read.
#[derive(Clone, Debug, Default)]
pub struct GrantsSection {
    /// The grants without secrets: stores and servers without their credentials, and no keys.
    pub open: Grants,
    /// The secrets that stores with `credentials = "auto"` find in the environment.
    pub ambient: Vec<Secret>,
    /// The files with secrets that the environment names for such stores.
    pub ambient_files: Vec<PathBuf>,
    pub(crate) stores: stores::StoreSecrets,
    pub(crate) keys: keys::KeySources,
    pub(crate) servers: network::ServerSecrets,
}

impl GrantsSection {
    /// Returns the grants with their secrets and authorities, which are read from their files now.
    ///
    /// # Errors
    /// The first problem, at the setting that names the file.
    pub fn resolve(&self) -> Result<Grants, Problem> {
        let mut grants = self.open.clone();
        self.stores.resolve(&mut grants)?;
        self.keys.resolve(&mut grants)?;
        self.servers.resolve(&mut grants)?;
        Ok(grants)
    }

    /// Lets each store whose credentials come from files read the files again when the store refuses the credentials. `redactor` is given
    /// the new credentials before the store uses them.
    pub fn renew_credentials(&self, grants: &mut Grants, redactor: &Redactor) {
        self.stores.renew(grants, redactor);
    }

    /// Lists every file that holds a secret.
    pub fn secret_files(&self) -> impl Iterator<Item = &Path> {
        let files = self.keys.files().chain(self.stores.files()).chain(self.servers.files());
        files.chain(self.ambient_files.iter().map(PathBuf::as_path))
    }
}

pub(super) fn read(section: Section<'_>, environment: Environment<'_>) -> GrantsSection {
    let mut open = Grants::default();
    if let Some(memory) = section.get("memory").and_then(|value| value.nonzero_size()) {
        open.memory = memory;
    }
    if let Some(value) = section.get("host_memory")
        && let Some(memory) = value.nonzero_size()
    {
        if memory < LEAST_HOST_MEMORY {
            value.problem(format_args!(
                "must be at least {LEAST_HOST_MEMORY}: the host cannot copy with less"
            ));
        }
        open.host_memory = memory;
    }
    read::read(&section, &mut open);
    disk::read(&section, &mut open);
    environment::read(&section, &mut open);
    let servers = network::read(&section, environment, &mut open);
    log::read(&section, &mut open);
    if let Some(files) = section.get("open_files").and_then(|value| value.number_within(OPEN_FILES)) {
        open.open_files = files;
    }
    let stores = stores::read(&section, environment, &mut open);
    let references = programs::read(&section, &mut open);
    let used: Vec<_> = references.iter().map(|(name, _)| name.as_str()).collect();
    let keys = keys::read(&section, &stores.names, &used, environment);
    programs::check_references(&references, &keys.names);
    open.rate = section.get("rate").and_then(|value| value.parsed());
    open.workers = section.get("workers").and_then(|value| value.number_to(WORKERS));
    let (reader, place) = (section.reader(), section.place());
    section.finish();
    let ambient = stores::ambient(&open, environment);
    let ambient_files = stores::ambient_files(&open, environment);
    for file in &ambient_files {
        let origin = Origin::File { file: reader.file().to_owned(), place };
        reader.keep(file, "what the environment names for `credentials = \"auto\"`", origin);
    }
    GrantsSection { open, ambient, ambient_files, stores, keys, servers }
}

/// Returns the entries of a table whose keys are names that the operator chose. A name that is not allowed is noted as a problem.
fn by_name(table: Option<Value<'_>>) -> Vec<(String, Value<'_>)> {
    let entries = table.and_then(|value| value.table()).map(|section| section.entries()).unwrap_or_default();
    let named = entries.into_iter().filter_map(|(name, value)| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !(1..=NAME).contains(&name.text.len()) || !name.text.chars().all(allowed) {
            value.problem(format_args!("must have a name of 1 to {NAME} letters, digits, `_` and `-`"));
            return None;
        }
        Some((name.text, value))
    });
    named.collect()
}

impl Value<'_> {
    /// Reads a whole number from 1 to `most`.
    fn number_to(&self, most: usize) -> Option<NonZeroUsize> {
        let number = self.count(1)?;
        let fits = usize::try_from(number).ok().filter(|number| *number <= most).and_then(NonZeroUsize::new);
        if fits.is_none() {
            self.problem(format_args!("must be at most {most}, not {number}"));
        }
        fits
    }

    /// Reads a whole number within `range`.
    fn number_within(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self.count(*range.start())?;
        if !range.contains(&number) {
            self.problem(format_args!("must be at most {}, not {number}", range.end()));
            return None;
        }
        Some(number)
    }

    /// Reads a text that `T` parses.
    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&self) -> Option<T> {
        self.text()?.parse().map_err(|error| self.problem(format_args!("cannot be read: {error}"))).ok()
    }
}
