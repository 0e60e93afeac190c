//! What a method may read must lie apart from what it may write: what it wrote itself would else come back as an object of a
//! store, to be decrypted with a key that the operator granted.
//!
//! Two directories are compared by where their links lead, by device and inode of the directories that they lie in, and by
//! where what is mounted there lies on its own file system: a directory that is bound to two places (`mount --bind`) is one.

use replica::mounts::{Location, Mounts};
use replica::{Directories, Refusal, Rule};

use crate::Grants;

/// Refuses grants that overlap what the method writes: the data directory, and the places that the operator mapped.
///
/// # Errors
/// A [`Refusal`] by policy that names both directories and what to change.
pub(crate) fn refuse(directories: &Directories, grants: &Grants) -> Result<(), Refusal> {
    let mounts = Mounts::of_this_process();
    let written: Vec<_> = std::iter::once((directories.datadir.as_path(), "the data directory"))
        .chain(directories.mapped().map(|path| (path, "a mapped place")))
        .map(|(path, what)| (Location::of(path, &mounts), path, what))
        .collect();
    for (granted, how) in grants.reads() {
        let place = Location::of(&granted, &mounts);
        let Some((_, path, what)) = written.iter().find(|(other, ..)| place.overlaps(other)) else {
            continue;
        };
        let message = format!(
            "{} is granted by `{how}`, and {what}, {}, in which the method writes, is the same place or lies within it, or the \
             other way round: grant a directory that lies apart from it",
            granted.display(),
            path.display()
        );
        return Err(Refusal::new(Rule::Grant, message).by_policy());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use replica::{TablespaceKey, TablespaceMap};
    use transfer::store::StoreConfig;

    use super::*;

    #[test]
    fn nothing_that_is_read_lies_above_at_or_below_what_is_written() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        for name in ["data/deep", "wal", "fast", "backups"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        symlink(root.join("data"), root.join("link")).unwrap();
        symlink(root.join("data/deep"), root.join("backups/link")).unwrap();
        let map = TablespaceMap::new(vec![(TablespaceKey::parse("/old"), root.join("fast"))]);
        let directories =
            Directories { datadir: root.join("data"), wal: Some(root.join("wal")), tablespaces: map };
        let read = |path: &Path| Grants { read: vec![path.to_owned()], ..Grants::default() };
        let store = |path: &Path| Grants {
            stores: [("repo".to_owned(), StoreConfig::new(format!("file://{}", path.display())))].into(),
            ..Grants::default()
        };
        for name in [
            "",
            "data",
            "data/",
            "data/.",
            "data/deep",
            "data/absent",
            "data/../data",
            "link",
            "link/deep",
            "backups/link",
            "wal",
            "wal/archive_status",
            "fast",
            "fast/PG_15",
        ] {
            for grants in [read(&root.join(name)), store(&root.join(name))] {
                let refusal = refuse(&directories, &grants).unwrap_err();
                assert!(refusal.policy && refusal.message.contains("lies apart"), "{name}: {refusal}");
            }
        }
        refuse(&directories, &read(Path::new("/"))).unwrap_err();
        // What a URL makes of other spellings of a path.
        for url in ["/d%61ta", "\\data", "/backups/link/../../data", "/data%2Fdeep/", "/./data"] {
            let spelt = Path::new(&format!("{}{url}", root.display())).to_owned();
            refuse(&directories, &store(&spelt)).unwrap_err();
        }
        for name in ["backups", "database", "wa", "absent"] {
            refuse(&directories, &read(&root.join(name))).unwrap();
            refuse(&directories, &store(&root.join(name))).unwrap();
        }
        // A data directory that is a link, or not there yet.
        let linked = Directories { datadir: root.join("link"), ..directories.clone() };
        refuse(&linked, &read(&root.join("data"))).unwrap_err();
        let absent = Directories { datadir: root.join("absent/data"), ..directories };
        refuse(&absent, &read(&root.join("absent"))).unwrap_err();
    }
}
