//! The mount table: two paths to one directory (`mount --bind`) are recognised as one place.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// Returns the path with its symbolic links resolved, also if its last components do not exist yet.
pub fn real_path(path: &Path) -> PathBuf {
    let there = |there: &Path| {
        let beyond = path.strip_prefix(there).ok()?;
        Some(there.canonicalize().ok()?.join(beyond))
    };
    path.ancestors().find_map(there).unwrap_or_else(|| path.to_owned())
}

/// The most symbolic links that the kernel follows for one path (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

/// Returns the real path of every symbolic link by which an absolute path is reached, and last the real path of the end. Whoever
/// removes any of them takes the path away.
pub fn links_and_end(path: &Path) -> Vec<PathBuf> {
    let parts = |path: &Path| -> Vec<OsString> {
        let named = |part: Component<'_>| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        };
        path.components().rev().filter_map(named).collect()
    };
    let (mut found, mut real, mut left) = (Vec::new(), PathBuf::from("/"), parts(path));
    while let Some(part) = left.pop() {
        if part == ".." {
            real.pop();
            continue;
        }
        let next = real.join(part);
        match fs::read_link(&next) {
            Ok(target) if found.len() < MOST_LINKS => {
                if target.is_absolute() {
                    real = PathBuf::from("/");
                }
                left.extend(parts(&target));
                found.push(next);
            }
            Ok(_) | Err(_) => real = next,
        }
    }
    found.push(real);
    found
}

/// A directory on a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// `major:minor`.
    device: String,
    path: PathBuf,
}

impl Region {
    /// Returns whether one of the two is, or lies in, the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.device == other.device
            && (self.path.starts_with(&other.path) || other.path.starts_with(&self.path))
    }
}

/// The mount table (`/proc/self/mountinfo`, proc(5)). Empty if it cannot be read.
#[derive(Debug, Default)]
pub struct Mounts(Vec<(Region, PathBuf)>);

impl Mounts {
    /// Returns the mounts that this process sees.
    pub fn of_this_process() -> Self {
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

    /// Returns the region of a path without links on its file system, and the regions that are mounted below the path.
    pub fn regions(&self, real: &Path) -> Vec<Region> {
        let below = self.0.iter().filter(|(_, point)| point.starts_with(real) && point != real);
        let below = below.map(|(root, _)| root.clone());
        self.region(real).into_iter().chain(below).collect()
    }

    /// Returns where a path without links is on its file system.
    fn region(&self, real: &Path) -> Option<Region> {
        let within = |(root, point): &(Region, PathBuf)| {
            let below = real.strip_prefix(point).ok()?;
            Some((
                point.components().count(),
                Region { device: root.device.clone(), path: root.path.join(below) },
            ))
        };
        // Of two mounts on one point the later one hides the earlier one.
        self.0.iter().filter_map(within).max_by_key(|(depth, _)| *depth).map(|(_, region)| region)
    }

    /// Returns the paths that may lead, through the mounts of its file system, to the same file as a path without links; that path is
    /// one of them. Another mount may hide one of them, so the caller must check what each leads to.
    pub fn paths(&self, real: &Path) -> Vec<PathBuf> {
        let Some(region) = self.region(real) else { return vec![real.to_owned()] };
        let through = |(root, point): &(Region, PathBuf)| {
            let below = region.path.strip_prefix(&root.path).ok().filter(|_| region.device == root.device)?;
            // `join` of nothing would end the path in a slash.
            Some(if below.as_os_str().is_empty() { point.clone() } else { point.join(below) })
        };
        let mut paths: Vec<_> = self.0.iter().filter_map(through).collect();
        if !paths.iter().any(|path| path == real) {
            paths.push(real.to_owned());
        }
        paths
    }
}

/// Decodes a path of mountinfo, which has `\040` for a space and the like.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let octal = (*byte == b'\\').then(|| after.get(..3)).flatten();
        let number = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(number.unwrap_or(*byte));
        rest = if number.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(OsString::from_vec(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_on_the_way_is_found() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path().canonicalize().unwrap();
        let path = |name: &str| place.join(name);
        fs::create_dir_all(path("deep/down")).unwrap();
        for (link, to) in [("deep/here", "../to"), ("to", "deep/down"), ("loop", "loop")] {
            std::os::unix::fs::symlink(to, path(link)).unwrap();
        }
        assert_eq!(links_and_end(&path("deep/down/x")), [path("deep/down/x")]);
        assert_eq!(links_and_end(&path("to/../x")), [path("to"), path("deep/x")]);
        assert_eq!(links_and_end(&path("deep/here/x")), [path("deep/here"), path("to"), path("deep/down/x")]);
        assert_eq!(links_and_end(&path("loop")).len(), MOST_LINKS + 1);
    }

    const MOUNTS: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
          23 22 8:2 / /var/lib rw - ext4 /dev/sdb1 rw\n\
          24 22 8:2 /pg /srv/by\\040bind rw - ext4 /dev/sdb1 rw\n\
          25 22 8:2 /pg/data/base /mnt/deep/base rw - ext4 /dev/sdb1 rw\n\
          26 22 0:5 / /mnt/other rw - tmpfs none rw\n";

    #[test]
    fn what_is_mounted_in_two_places_is_one() {
        let mounts = Mounts::parse(MOUNTS);
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

    #[test]
    fn every_path_to_a_directory_is_known() {
        let mounts = Mounts::parse(MOUNTS);
        let paths = |path: &str| mounts.paths(Path::new(path));
        let base = ["/var/lib/pg/data/base", "/srv/by bind/data/base", "/mnt/deep/base"].map(PathBuf::from);
        for path in &base {
            assert_eq!(mounts.paths(path), base);
        }
        assert_eq!(paths("/home/x"), [PathBuf::from("/home/x")]);
        assert_eq!(Mounts::default().paths(Path::new("/x")), [PathBuf::from("/x")]);
    }
}
