//! Checks that the directories that a method may read do not overlap those that it writes. Otherwise a method could write a file, read it
//! back as an object of a store, and have it decrypted with a key that the operator granted.
//!
//! The comparison follows symbolic links, compares the device and inode of every parent directory, and looks up mount points, so that
//! it recognizes a directory that is mounted in two places (`mount --bind`).

use replica::mounts::{Location, Mounts};
use replica::{Directories, Refusal, Rule};

use crate::Grants;

/// Refuses grants that overlap the data directory or a mapped place.
///
/// # Errors
/// A [`Refusal`] by policy that names both directories and what to change.
pub(crate) fn refuse(directories: &Directories, grants: &Grants) -> Result<(), Refusal> {
    let mounts = Mounts::of_this_process();
    let written: Vec<_> = std::iter::once((directories.datadir.as_path(), "the data directory"))
        .chain(directories.mapped().map(|path| (path, "the mapped place")))
        .map(|(path, what)| (Location::of(path, &mounts), path, what))
        .collect();
    for (granted, how) in grants.reads() {
        let place = Location::of(&granted, &mounts);
        let Some((_, path, what)) = written.iter().find(|(other, ..)| place.overlaps(other)) else {
            continue;
        };
        let message = format!(
            "`{how}` lets the method read {}, which overlaps {what} {}, where the method writes: grant a directory that lies apart from it",
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
    fn a_granted_directory_may_not_contain_equal_or_lie_in_a_written_one() {
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
        // Other spellings of the path in a URL.
        for url in ["/d%61ta", "\\data", "/backups/link/../../data", "/data%2Fdeep/", "/./data"] {
            let spelt = Path::new(&format!("{}{url}", root.display())).to_owned();
            refuse(&directories, &store(&spelt)).unwrap_err();
        }
        for name in ["backups", "database", "wa", "absent"] {
            refuse(&directories, &read(&root.join(name))).unwrap();
            refuse(&directories, &store(&root.join(name))).unwrap();
        }
        // The data directory is a link, or does not exist yet.
        let linked = Directories { datadir: root.join("link"), ..directories.clone() };
        refuse(&linked, &read(&root.join("data"))).unwrap_err();
        let absent = Directories { datadir: root.join("absent/data"), ..directories };
        refuse(&absent, &read(&root.join("absent"))).unwrap_err();
    }
}
