//! Compares two data directories file by file.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};

use crate::control_file::{NO_CHECKPOINT, with_checkpoint};

/// A file or directory in a data directory. Links to tablespaces and to the WAL directory are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The permission bits.
    pub mode: u32,
    /// The inode number.
    pub inode: u64,
    /// The change time (ctime) in nanoseconds since 1970, which no program can set.
    pub changed: i128,
    /// The content of a file; `None` for a directory.
    pub content: Option<Vec<u8>>,
}

/// A difference between two data directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The path, relative to the data directory.
    pub path: String,
    /// A description of the difference.
    pub what: String,
}

/// Returns all files and directories in a data directory, by their paths relative to the data directory.
///
/// # Errors
/// Fails if a file or directory cannot be created.
pub fn snapshot(directory: &Path) -> Result<BTreeMap<String, Entry>> {
    let mut entries = BTreeMap::new();
    collect(directory, "", &mut entries)?;
    Ok(entries)
}

fn collect(directory: &Path, below: &str, entries: &mut BTreeMap<String, Entry>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        let metadata = fs::metadata(&path).with_context(|| format!("stat {}", path.display()))?;
        let content = if metadata.is_dir() { None } else { Some(fs::read(&path)?) };
        let is_directory = content.is_none();
        let changed = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
        let mode = metadata.permissions().mode() & 0o7777;
        entries.insert(name.clone(), Entry { mode, inode: metadata.ino(), changed, content });
        if is_directory {
            collect(&path, &name, entries)?;
        }
    }
    Ok(())
}

/// Returns the paths at which two data directories differ in names, content, size or permission bits. Leaves out paths for which `own`
/// returns true, because each tool writes its own version of these files. Compares pg_control without its checkpoint: if a replica has
/// a backup_label, the seal replaces the checkpoint with a checkpoint that does not exist, as pgBackRest has done since 2.51.
///
/// # Errors
/// Fails if a file or directory cannot be created.
pub fn differences(ours: &Path, theirs: &Path, own: impl Fn(&str) -> bool) -> Result<Vec<Difference>> {
    let (ours, mut theirs) = (snapshot(ours)?, snapshot(theirs)?);
    let mut found = Vec::new();
    for (path, entry) in ours {
        let other = theirs.remove(&path);
        if own(&path) {
            continue;
        }
        let what = match other {
            None => "only ours has it".to_owned(),
            Some(other) if other.mode != entry.mode => {
                format!("mode {:o}, theirs {:o}", entry.mode, other.mode)
            }
            Some(other) if path == "global/pg_control" => match same_but_for_the_checkpoint(&entry, &other) {
                Ok(true) => continue,
                Ok(false) => "it differs in more than its checkpoint".to_owned(),
                Err(error) => format!("{error:#}"),
            },
            Some(other) if other.content != entry.content => {
                let size = |content: &Option<Vec<u8>>| content.as_ref().map(Vec::len);
                format!("{:?} bytes, theirs {:?}", size(&entry.content), size(&other.content))
            }
            Some(_) => continue,
        };
        found.push(Difference { path, what });
    }
    found.extend(
        theirs
            .into_keys()
            .filter(|path| !own(path))
            .map(|path| Difference { path, what: "only theirs has it".to_owned() }),
    );
    Ok(found)
}

/// Returns whether a path is one of these files and directories, or below one of them. Each of them has the reason why it is one.
pub fn is_one_of(path: &str, paths: &[(&str, &str)]) -> bool {
    let is = |of: &str| path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    paths.iter().any(|(of, _)| is(of))
}

fn same_but_for_the_checkpoint(ours: &Entry, theirs: &Entry) -> Result<bool> {
    let without =
        |entry: &Entry| with_checkpoint(entry.content.as_deref().unwrap_or_default(), NO_CHECKPOINT);
    Ok(without(ours)? == without(theirs)?)
}
