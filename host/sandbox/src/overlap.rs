//! What a method may read must lie apart from what it may write: what it wrote itself would else come back as an object of a
//! store, to be decrypted with a key that the operator granted.
//!
//! Two directories are compared by where their links lead, by device and inode of the directories that they lie in, and by
//! where what is mounted there lies on its own file system: a directory that is bound to two places (`mount --bind`) is one.

use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
        .map(|(path, what)| (Place::of(path, &mounts), path, what))
        .collect();
    for (granted, how) in grants.reads() {
        let place = Place::of(&granted, &mounts);
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

/// Where a directory is.
#[derive(Debug)]
struct Place {
    /// Without links.
    real: PathBuf,
    /// Device and inode of the directory, if it is there, and of each that it lies in.
    own: Option<(u64, u64)>,
    above: Vec<(u64, u64)>,
    /// Where on their own file systems the directory, and what is mounted below it, begin.
    regions: Vec<Region>,
}

impl Place {
    fn of(path: &Path, mounts: &Mounts) -> Self {
        let real = real(path);
        let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let (own, above) = (identity(&real), real.ancestors().filter_map(identity).collect());
        let regions = mounts.regions(&real);
        Self { real, own, above, regions }
    }

    fn overlaps(&self, other: &Self) -> bool {
        let within = |one: &Self, two: &Self| {
            one.real.starts_with(&two.real) || two.own.is_some_and(|own| one.above.contains(&own))
        };
        let mounted = self.regions.iter().any(|one| other.regions.iter().any(|two| one.overlaps(two)));
        within(self, other) || within(other, self) || mounted
    }
}

/// The path without symbolic links in it, also where the last parts of it are not there yet.
fn real(path: &Path) -> PathBuf {
    let there = |there: &Path| {
        let beyond = path.strip_prefix(there).ok()?;
        Some(there.canonicalize().ok()?.join(beyond))
    };
    path.ancestors().find_map(there).unwrap_or_else(|| path.to_owned())
}

/// A directory on a file system.
#[derive(Debug, PartialEq, Eq)]
struct Region {
    /// `major:minor`.
    device: String,
    path: PathBuf,
}

impl Region {
    fn overlaps(&self, other: &Self) -> bool {
        self.device == other.device
            && (self.path.starts_with(&other.path) || other.path.starts_with(&self.path))
    }
}

/// What is mounted where (`/proc/self/mountinfo`, proc(5)). Nothing where that cannot be read: then inodes alone are compared.
#[derive(Debug, Default)]
struct Mounts(Vec<(Region, PathBuf)>);

impl Mounts {
    fn of_this_process() -> Self {
        fs::read("/proc/self/mountinfo").map(|text| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(text: &[u8]) -> Self {
        let line = |line: &[u8]| {
            let mut fields = line.split(|byte| *byte == b' ').skip(2);
            let device = String::from_utf8(fields.next()?.to_vec()).ok()?;
            let (root, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
            Some((Region { device, path: root }, point))
        };
        Self(text.split(|byte| *byte == b'\n').filter_map(line).collect())
    }

    /// Where a path without links begins on its file system, and what is mounted below it on theirs.
    fn regions(&self, real: &Path) -> Vec<Region> {
        let within = |(root, point): &(Region, PathBuf)| {
            let below = real.strip_prefix(point).ok()?;
            Some((
                point.components().count(),
                Region { device: root.device.clone(), path: root.path.join(below) },
            ))
        };
        // Of two mounts on one point the later hides the earlier.
        let own = self.0.iter().filter_map(within).max_by_key(|(depth, _)| *depth).map(|(_, region)| region);
        let below = self.0.iter().filter(|(_, point)| point.starts_with(real) && point != real);
        let below = below.map(|(root, _)| Region { device: root.device.clone(), path: root.path.clone() });
        own.into_iter().chain(below).collect()
    }
}

/// A path with `\040` for a space and their like, as mountinfo has it.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let octal = (*byte == b'\\').then(|| after.get(..3)).flatten();
        let number = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(number.unwrap_or(*byte));
        rest = if number.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(std::ffi::OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

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

    #[test]
    fn what_is_mounted_in_two_places_is_one() {
        let mounts = Mounts::parse(
            b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
              23 22 8:2 / /var/lib rw - ext4 /dev/sdb1 rw\n\
              24 22 8:2 /pg /srv/by\\040bind rw - ext4 /dev/sdb1 rw\n\
              25 22 8:2 /pg/data/base /mnt/deep/base rw - ext4 /dev/sdb1 rw\n\
              26 22 0:5 / /mnt/other rw - tmpfs none rw\n",
        );
        let data = mounts.regions(Path::new("/var/lib/pg/data"));
        assert_eq!(data, [Region { device: "8:2".to_owned(), path: "/pg/data".into() }]);
        let overlaps = |path: &str| {
            mounts.regions(Path::new(path)).iter().any(|one| data.iter().any(|two| one.overlaps(two)))
        };
        for path in [
            "/",
            "/srv",
            "/srv/by bind",
            "/srv/by bind/data",
            "/mnt",
            "/mnt/deep",
            "/mnt/deep/base/1",
            "/var",
        ] {
            assert!(overlaps(path), "{path}");
        }
        for path in ["/srv/by bind/backups", "/mnt/other", "/var/lib/pg/backups", "/home"] {
            assert!(!overlaps(path), "{path}");
        }
    }
}
