//! The cluster that a data directory holds before a run, and whether it may be replaced. Loop rules 24 and 25.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use foundation::rooted::Directory;
use postgres_formats::{control_file, names, version};

use super::contents::{AllowedContents, CONTROL_FILE, PG_VERSION};
use super::places::MappedPlace;
use super::room::reclaimable_seen;
use super::{besides, enclosing_cluster};
use crate::seal::{ClusterIdentity, cluster_identity};
use crate::{Bytes, Refusal, Rule};

/// How many tablespaces of a cluster are read.
const MOST_TABLESPACES: usize = 10_000;

/// How many tablespaces a message names.
const NAMED_TABLESPACES: usize = 5;

/// How many files and directories that are not part of the cluster a message names.
const NAMED_BESIDES: usize = 10;

/// The cluster in the data directory, which a method replaces or builds on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCluster {
    /// The content of PG_VERSION.
    version: String,
    /// The identity in its pg_control, or why pg_control cannot be used.
    identity: Result<ClusterIdentity, String>,
    /// The cluster's size on disk, and the number of its files and directories; `None` if they could not be counted.
    size: Option<(Bytes, u64)>,
    /// The paths of its tablespaces.
    tablespaces: Vec<PathBuf>,
    /// The highest directory in it that belongs to another cluster.
    inner: Option<Inner>,
    /// The names at the top of the directory that neither PostgreSQL nor Patroni creates.
    besides: Vec<String>,
}

/// A directory that belongs to another cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    directory: PathBuf,
    /// What shows that it belongs to a cluster, for a message.
    why: &'static str,
}

impl FoundCluster {
    /// Reads the cluster in `directory`, and walks the whole directory. Blocking.
    pub(super) fn read(directory: &Directory) -> Self {
        let version = directory.read(&PG_VERSION, version::LIMIT).unwrap_or_default();
        let identity = directory
            .read(&CONTROL_FILE, control_file::SIZE)
            .map_err(|error| error.to_string())
            .and_then(|bytes| {
                let shown = directory.path().join(CONTROL_FILE.as_path());
                cluster_identity(&bytes).map_err(|why| format!("{}: {why}", shown.display()))
            });
        let own = own_parts(directory);
        let (inner, size) = look_for_cluster(directory, None, &own);
        let size = size.ok().map(|(bytes, files)| (Bytes(bytes), files));
        Self {
            version: String::from_utf8_lossy(version.trim_ascii()).into_owned(),
            identity,
            size,
            tablespaces: links(&directory.path().join(names::PG_TBLSPC)),
            inner,
            besides: besides::of(directory, &own),
        }
    }

    /// Returns a list of the files and directories that are not part of the cluster, for a message; `None` if there are none.
    pub fn besides(&self) -> Option<String> {
        let more = self.besides.len().saturating_sub(NAMED_BESIDES);
        let named =
            self.besides.iter().take(NAMED_BESIDES).map(String::as_str).collect::<Vec<_>>().join(", ");
        match more {
            0 => (!named.is_empty()).then_some(named),
            _ if self.besides.len() >= besides::MOST => Some(format!("{named} and many more")),
            more => Some(format!("{named} and {more} more")),
        }
    }

    /// Returns the cluster's system identifier; `None` if its pg_control cannot be used.
    pub fn system_identifier(&self) -> Option<u64> {
        self.identity.as_ref().ok().map(|identity| identity.system_identifier)
    }

    /// Refuses a cluster whose identity is not known, unless the operator passed `--force`.
    pub(super) fn refuse_unknown(&self, directory: &Directory, force: bool) -> Result<(), Refusal> {
        match &self.identity {
            Err(why) if !force => {
                let message = format!(
                    "the data directory {} holds {self}; it is not known which cluster that is, because its pg_control cannot be used: {why}",
                    directory.path().display()
                );
                Err(Refusal::new(Rule::DataDirectory, message).remedy("--force, if all of it may be removed"))
            }
            Err(_) | Ok(_) => Ok(()),
        }
    }

    /// Refuses a cluster in which a directory of another cluster lies, because that directory would be removed too, unless the operator
    /// passed `--force`.
    pub(super) fn refuse_inner(&self, directory: &Directory, force: bool) -> Result<(), Refusal> {
        match &self.inner {
            Some(inner) if !force => {
                let message = format!("the data directory {} {}", directory.path().display(), holds(inner));
                Err(Refusal::new(Rule::DataDirectory, message).remedy(MOVE_IT_AWAY).by_policy())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses to replace this cluster with another one, unless the operator passed `--force`. `cluster` is the system identifier of the
    /// new cluster, and `whose` says where it comes from.
    ///
    /// # Errors
    /// Fails with the rule `another cluster`, by policy: only the operator may decide to replace the cluster.
    pub(crate) fn refuse_other(&self, cluster: u64, whose: &str, force: bool) -> Result<(), Refusal> {
        match self.system_identifier() {
            Some(own) if own != cluster && !force => {
                let message = format!(
                    "the data directory holds {self}, and {whose} is the cluster {cluster}: the data of another cluster is removed only \
                     with --force"
                );
                Err(Refusal::new(Rule::AnotherCluster, message)
                    .remedy("--force, if all of it may be removed; else name another `datadir`")
                    .by_policy())
            }
            Some(_) | None => Ok(()),
        }
    }
}

impl fmt::Display for FoundCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a PostgreSQL {} cluster", self.version.escape_debug())?;
        if let Ok(ClusterIdentity { system_identifier, state, checkpoint, timeline, time }) = &self.identity {
            write!(
                f,
                " with the system identifier {system_identifier} ({state}; last checkpoint at {checkpoint} on timeline {timeline}"
            )?;
            if let Ok(time) = jiff::Timestamp::from_second(*time) {
                write!(f, ", {time}")?;
            }
            f.write_str(")")?;
        }
        if let Some((bytes, files)) = &self.size {
            write!(f, ", {bytes} in {files} files and directories")?;
        }
        if !self.tablespaces.is_empty() {
            let named = self.tablespaces.iter().take(NAMED_TABLESPACES);
            let named: Vec<_> = named.map(|path| path.display().to_string()).collect();
            let more = if self.tablespaces.len() > NAMED_TABLESPACES { ", ..." } else { "" };
            write!(f, ", tablespaces in {}{more}", named.join(", "))?;
        }
        Ok(())
    }
}

/// What to do about a data directory that lies in a directory to be emptied.
const MOVE_IT_AWAY: &str = "move it away, or pass --force if all of it may be removed";

fn holds(Inner { directory, why }: &Inner) -> String {
    format!("holds another cluster, or a part of one: {} {why}; it would be removed too", directory.display())
}

/// Walks `directory` once. Returns the highest directory below it that belongs to another cluster, if there is one, and the bytes and
/// files of `directory`. `allowed` says what a mapped directory may hold; `None` means a data directory. `own` lists the parts of the
/// directory's own cluster that lie in it.
fn look_for_cluster(
    directory: &Directory,
    allowed: Option<AllowedContents>,
    own: &[(PathBuf, AllowedContents)],
) -> (Option<Inner>, io::Result<(u64, u64)>) {
    let mut highest: Option<(usize, Inner)> = None;
    let size = reclaimable_seen(directory, &|_| true, &mut |path| {
        let within = own.iter().find_map(|(part, allowed)| Some((path.strip_prefix(part).ok()?, *allowed)));
        let (below, allowed) = within.map_or((path, allowed), |(below, allowed)| (below, Some(allowed)));
        let Some((part, why)) = enclosing_cluster::part_of_another(below, allowed) else { return };
        let above = below.components().count() - part.components().count();
        let part = path.ancestors().nth(above).unwrap_or(path);
        let depth = part.components().count();
        if highest.as_ref().is_none_or(|(known, _)| depth < *known) {
            highest = Some((depth, Inner { directory: directory.path().join(part), why }));
        }
    });
    (highest.map(|(_, inner)| inner), size)
}

/// Returns the WAL directory and the tablespaces of a cluster that lie in its own data directory, where its links lead: the path of each
/// below the data directory, and what it may hold.
fn own_parts(directory: &Directory) -> Vec<(PathBuf, AllowedContents)> {
    let Ok(top) = directory.path().canonicalize() else { return Vec::new() };
    let below = |path: PathBuf, allowed| {
        let below = path.canonicalize().ok()?.strip_prefix(&top).ok()?.to_owned();
        (!below.as_os_str().is_empty()).then_some((below, allowed))
    };
    let entries = fs::read_dir(top.join(names::PG_TBLSPC)).into_iter().flatten();
    let tablespaces = entries.take(MOST_TABLESPACES).filter_map(Result::ok);
    let tablespaces = tablespaces.filter_map(|entry| below(entry.path(), AllowedContents::TablespaceFolders));
    below(top.join(names::PG_WAL), AllowedContents::Wal).into_iter().chain(tablespaces).collect()
}

/// Returns the targets of the links in a directory, unresolved.
fn links(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().take(MOST_TABLESPACES).filter_map(Result::ok);
    let mut links: Vec<_> = entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    links.sort();
    links
}

/// Refuses a mapped directory whose content may not belong to the cluster in the data directory. WAL and tablespaces do not name their
/// cluster, so the cluster must have a link to the mapped directory, or the state file must name it. Also refuses a mapped directory in
/// which a directory of another cluster lies.
///
/// # Errors
/// Fails with the rule `mapped place`, unless the operator passed `--force`.
pub(super) fn refuse_unlinked(datadir: &Path, mapped: &[MappedPlace], force: bool) -> Result<(), Refusal> {
    for place in mapped.iter().filter(|place| !place.is_own_work()) {
        let empty = place
            .directory()
            .is_empty()
            .map_err(|error| place.refuse(format_args!("cannot be read: {error}")))?;
        if empty || force {
            continue;
        }
        if let (Some(inner), _) = look_for_cluster(place.directory(), Some(place.allowed_contents()), &[]) {
            return Err(place.refuse(holds(&inner)).remedy(MOVE_IT_AWAY).by_policy());
        }
        if is_linked(datadir, place) {
            continue;
        }
        let what = if place.is_wal() { "WAL" } else { "the files of a tablespace" };
        let mut refusal = place.refuse(format_args!(
            "holds {what}, and no cluster in the data directory links to it: it may be another cluster's; empty it by hand, name \
             another directory, or pass --force if all of it may be removed"
        ));
        refusal.policy = true;
        return Err(refusal);
    }
    Ok(())
}

/// Returns whether `pg_wal`, or an entry of `pg_tblspc`, leads to the mapped directory.
fn is_linked(datadir: &Path, place: &MappedPlace) -> bool {
    use std::os::unix::fs::MetadataExt;
    let leads_there = |path: &Path| {
        fs::metadata(path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == place.inode())
    };
    if place.is_wal() {
        return leads_there(&datadir.join(names::PG_WAL));
    }
    let entries = fs::read_dir(datadir.join(names::PG_TBLSPC)).into_iter().flatten();
    entries.take(MOST_TABLESPACES).filter_map(Result::ok).any(|entry| leads_there(&entry.path()))
}
