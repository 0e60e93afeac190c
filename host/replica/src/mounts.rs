//! The mount table: two paths to one directory (`mount --bind`) are recognised as one place.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use foundation::way::Way;

/// Returns the absolute path with its symbolic links and `..` resolved, even if parts of it do not exist yet. A link to something that does
/// not exist yet is also resolved.
pub fn real_path(path: &Path) -> PathBuf {
    // Only an empty path, or a current directory that was removed, has no absolute path.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Way::of(&absolute).end
}

/// Returns the real path of every symbolic link through which an absolute path leads, and last the real path of its end. If any of them is
/// removed, the path leads nowhere.
pub fn links_and_end(path: &Path) -> Vec<PathBuf> {
    let Way { mut links, end, .. } = Way::of(path);
    links.push(end);
    links
}

/// A directory on a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// `major:minor`.
    device: String,
    path: PathBuf,
}

impl Region {
    /// Returns whether the other region is, or lies in, this one.
    fn contains(&self, other: &Self) -> bool {
        self.device == other.device && other.path.starts_with(&self.path)
    }

    /// Returns whether one of the two is, or lies in, the other.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other) || other.contains(self)
    }
}

/// The place of a file or a directory, which is recognised by any of its paths. It is compared by its path without links, by the device and
/// inode of the directories above it, and by its region on its own file system, because a bind mount gives it another path.
#[derive(Debug)]
pub struct Location {
    real: PathBuf,
    /// Device and inode of the place, if it exists.
    own: Option<(u64, u64)>,
    /// Device and inode of the place itself and of each directory above it that exists.
    above: Vec<(u64, u64)>,
    /// The region of the place on its own file system; `None` if the mount table does not say.
    region: Option<Region>,
    /// The regions that are mounted below it.
    mounted: Vec<Region>,
}

impl Location {
    /// Returns the place to which a path leads. The path need not exist yet.
    pub fn of(path: &Path, mounts: &Mounts) -> Self {
        let real = real_path(path);
        let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let (own, above) = (identity(&real), real.ancestors().filter_map(identity).collect());
        let (region, mounted) = (mounts.region(&real), mounts.mounted_below(&real));
        Self { real, own, above, region, mounted }
    }

    /// Returns whether this place is `outer`, or lies in it.
    pub fn lies_in(&self, outer: &Self) -> bool {
        let regions = || outer.region.iter().chain(&outer.mounted);
        self.real.starts_with(&outer.real)
            || outer.own.is_some_and(|own| self.above.contains(&own))
            || self.region.as_ref().is_some_and(|own| regions().any(|region| region.contains(own)))
    }

    /// Returns whether one of the two is, or lies in, the other, or something is mounted below both.
    pub fn overlaps(&self, other: &Self) -> bool {
        let regions = |of: &Self| of.region.iter().chain(&of.mounted).cloned().collect::<Vec<_>>();
        let (own, others) = (regions(self), regions(other));
        self.lies_in(other)
            || other.lies_in(self)
            || own.iter().any(|one| others.iter().any(|two| one.overlaps(two)))
    }
}

/// The mount table (`/proc/self/mountinfo`, proc(5)). Empty if it cannot be read.
#[derive(Debug, Default)]
pub struct Mounts(Vec<Mount>);

/// A line of the mount table.
#[derive(Debug)]
struct Mount {
    id: u32,
    /// The mount on which this one is mounted.
    parent: u32,
    /// The directory that is mounted.
    root: Region,
    /// Where it is mounted.
    point: PathBuf,
}

impl Mounts {
    /// Returns the mounts that this process sees.
    pub fn of_this_process() -> Self {
        fs::read("/proc/self/mountinfo").map(|text| Self::parse(&text)).unwrap_or_default()
    }

    fn parse(text: &[u8]) -> Self {
        let line = |line: &[u8]| {
            let mut fields = line.split(|byte| *byte == b' ');
            let mut text = || Some(std::str::from_utf8(fields.next()?).ok()?.to_owned());
            let (id, parent, device) = (text()?.parse().ok()?, text()?.parse().ok()?, text()?);
            let (path, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
            Some(Mount { id, parent, root: Region { device, path }, point })
        };
        Self(text.split(|byte| *byte == b'\n').filter_map(line).collect())
    }

    /// Returns the regions that are mounted below a path without links.
    fn mounted_below(&self, real: &Path) -> Vec<Region> {
        let below = self.0.iter().filter(|mount| mount.point.starts_with(real) && mount.point != real);
        below.map(|mount| mount.root.clone()).collect()
    }

    /// Returns where a path without links is on its file system; `None` if the table does not say.
    fn region(&self, real: &Path) -> Option<Region> {
        let mount = self.mount_of(real)?;
        let below = real.strip_prefix(&mount.point).ok()?;
        Some(Region { device: mount.root.device.clone(), path: mount.root.path.join(below) })
    }

    /// Returns the mount in which a path without links lies. Goes along the path from each mount to the first that is mounted on it, as the
    /// kernel does, so that a mount on `/a` hides an earlier mount on `/a/b`.
    fn mount_of(&self, real: &Path) -> Option<&Mount> {
        let is_child = |mount: &Mount, of: u32| mount.parent == of && mount.id != of;
        let is_first = |mount: &&Mount| !self.0.iter().any(|parent| is_child(mount, parent.id));
        let on_the_way = |mount: &&Mount| real.starts_with(&mount.point);
        let nearest_root = |mount: &&Mount| mount.point.components().count();
        let mut mount = self.0.iter().filter(is_first).filter(on_the_way).min_by_key(nearest_root)?;
        // A mount has one parent, so no more steps than mounts are taken.
        for _ in &self.0 {
            let children = self.0.iter().filter(|child| is_child(child, mount.id)).filter(on_the_way);
            match children.min_by_key(nearest_root) {
                Some(child) => mount = child,
                None => break,
            }
        }
        Some(mount)
    }

    /// Returns the paths that may lead to the same file as a path without links, through the mounts of its file system. The given path is
    /// one of them. Another mount may hide one of these paths, so the caller must check to which file each of them leads.
    pub fn paths(&self, real: &Path) -> Vec<PathBuf> {
        let Some(region) = self.region(real) else { return vec![real.to_owned()] };
        let through = |Mount { root, point, .. }: &Mount| {
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
    use foundation::way::MOST_LINKS;

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

    #[test]
    fn a_path_is_resolved_also_where_it_does_not_exist_yet() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path().canonicalize().unwrap();
        fs::create_dir_all(place.join("deep/down")).unwrap();
        for (link, to) in [("to", "deep/down"), ("later", "not/yet")] {
            std::os::unix::fs::symlink(to, place.join(link)).unwrap();
        }
        for (path, real) in [
            ("deep/down", "deep/down"),
            ("to", "deep/down"),
            ("to/../x", "deep/x"),
            ("to/new/../x", "deep/down/x"),
            ("new/../deep/./down/x", "deep/down/x"),
            ("new/../to/x", "deep/down/x"),
            ("later/x", "not/yet/x"),
        ] {
            assert_eq!(real_path(&place.join(path)), place.join(real), "{path}");
        }
        assert_eq!(real_path(Path::new("x/..")), std::env::current_dir().unwrap().canonicalize().unwrap());
        let mounts = Mounts::default();
        let of = |path: &str| Location::of(&place.join(path), &mounts);
        assert!(of("new/../deep/x").lies_in(&of("deep")));
    }

    const MOUNTS: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
          23 22 8:2 / /var/lib rw - ext4 /dev/sdb1 rw\n\
          24 22 8:2 /pg /srv/by\\040bind rw - ext4 /dev/sdb1 rw\n\
          25 22 8:2 /pg/data/base /mnt/deep/base rw - ext4 /dev/sdb1 rw\n\
          26 22 0:5 / /mnt/other rw - tmpfs none rw\n";

    #[test]
    fn paths_to_one_directory_through_two_mounts_overlap() {
        let mounts = Mounts::parse(MOUNTS);
        let regions = |path: &Path| -> Vec<Region> {
            mounts.region(path).into_iter().chain(mounts.mounted_below(path)).collect()
        };
        let data = regions(Path::new("/var/lib/pg/data"));
        assert_eq!(data, [Region { device: "8:2".to_owned(), path: "/pg/data".into() }]);
        let overlaps =
            |path: &str| regions(Path::new(path)).iter().any(|one| data.iter().any(|two| one.overlaps(two)));
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
    fn a_path_lies_in_a_directory_by_way_of_a_bind_mount_of_either() {
        let mounts = Mounts::parse(MOUNTS);
        let of = |path: &str| Location::of(Path::new(path), &mounts);
        for (inner, outer) in [
            ("/mnt/deep/base/1", "/var/lib/pg/data"),
            ("/var/lib/pg/data/base/1", "/mnt/deep/base"),
            ("/srv/by bind/data/x", "/var/lib/pg/data"),
            ("/var/lib/pg/data/base", "/mnt/deep"),
        ] {
            assert!(of(inner).lies_in(&of(outer)), "{inner} in {outer}");
        }
        for (inner, outer) in
            [("/var/lib/pg/data", "/mnt/deep/base"), ("/srv/by bind/backups", "/var/lib/pg/data")]
        {
            assert!(!of(inner).lies_in(&of(outer)), "{inner} in {outer}");
        }
    }

    #[test]
    fn a_mount_hides_what_was_mounted_below_its_place_before() {
        let mounts = Mounts::parse(
            b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
              30 22 8:3 / /srv/deep/er rw - ext4 /dev/sdc1 rw\n\
              31 22 8:2 /pg /srv rw - ext4 /dev/sdb1 rw\n\
              32 31 8:4 / /srv rw - ext4 /dev/sdd1 rw\n",
        );
        let region = |path: &str| mounts.region(Path::new(path)).unwrap();
        let on = |device: &str, path: &str| Region { device: device.to_owned(), path: path.into() };
        assert_eq!(region("/srv/deep/er/x"), on("8:4", "/deep/er/x"));
        assert_eq!(region("/home"), on("8:1", "/home"));
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
