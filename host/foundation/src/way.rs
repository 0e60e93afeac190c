//! The way of a path: the symbolic links through which it leads, the directories that decide where, and the users who may change that.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::process::geteuid;

/// The most symbolic links that the kernel follows for one path (`MAXSYMLINKS`).
pub const MOST_LINKS: usize = 40;

/// The sticky bit: in a directory that has it, users cannot replace the files of other users.
const STICKY: u32 = 0o1000;

const WRITABLE_BY_GROUP: u32 = 0o020;
const WRITABLE_BY_ALL: u32 = 0o002;

/// How a path is resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The real path of every symbolic link through which the path leads. If any of them is removed, the path leads nowhere.
    pub links: Vec<PathBuf>,
    /// The real path of every directory in which a name of the path, or of a link, is looked up; each once.
    pub directories: Vec<PathBuf>,
    /// The real path of the end, which need not exist.
    pub end: PathBuf,
}

impl Way {
    /// Resolves an absolute path, even if parts of it do not exist yet. A link to something that does not exist yet is also resolved.
    pub fn of(path: &Path) -> Self {
        let parts = |path: &Path| -> Vec<OsString> {
            let named = |part: Component<'_>| match part {
                Component::Normal(name) => Some(name.to_owned()),
                Component::ParentDir => Some("..".into()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
            };
            path.components().rev().filter_map(named).collect()
        };
        let (mut links, mut directories) = (Vec::new(), Vec::new());
        let (mut real, mut left) = (PathBuf::from("/"), parts(path));
        while let Some(part) = left.pop() {
            if part == ".." {
                real.pop();
                continue;
            }
            let next = real.join(part);
            if !directories.contains(&real) {
                directories.push(real.clone());
            }
            match fs::read_link(&next) {
                Ok(target) if links.len() < MOST_LINKS => {
                    if target.is_absolute() {
                        real = PathBuf::from("/");
                    }
                    left.extend(parts(&target));
                    links.push(next);
                }
                Ok(_) | Err(_) => real = next,
            }
        }
        Self { links, directories, end: real }
    }
}

/// A file, a directory or a link through which users who are not trusted may change what a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changeable {
    /// Its real path.
    pub path: PathBuf,
    /// Who may change it.
    pub by: ChangeableBy,
}

/// The users who may change something. If both apply, this is the mode: it admits more users than the owner, whom the
/// caller may trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeableBy {
    /// Only its owner, who is not trusted.
    Owner(u32),
    /// Its group or everybody, according to this mode.
    Mode(u32),
}

/// Finds everything through which users other than root, this process's user and `also` may change what a path leads to: the file or
/// directory at its end, the directories in which its names and those of its links are looked up, and links of such users in directories
/// with the sticky bit. Members of root's group are trusted like root. What is nearest to the end comes first.
///
/// # Errors
/// An error of the file system. The path must exist.
pub fn changeable_by_others(path: &Path, also: Option<u32>) -> io::Result<Vec<Changeable>> {
    let Way { links, directories, end } = Way::of(&std::path::absolute(path)?);
    let own = geteuid().as_raw();
    let is_trusted = |user: u32| user == 0 || user == own || also == Some(user);
    let failed = |path: &Path, error: io::Error| {
        io::Error::new(error.kind(), format!("{} cannot be examined: {error}", path.display()))
    };
    let mut found = Vec::new();
    for path in [&end].into_iter().chain(directories.iter().rev()) {
        let metadata = fs::metadata(path).map_err(|error| failed(path, error))?;
        let mode = metadata.mode() & 0o7777;
        let by_group = mode & WRITABLE_BY_GROUP != 0 && metadata.gid() != 0;
        let is_protected = metadata.is_dir() && mode & STICKY != 0;
        let by = if (by_group || mode & WRITABLE_BY_ALL != 0) && !is_protected {
            ChangeableBy::Mode(mode)
        } else if !is_trusted(metadata.uid()) {
            ChangeableBy::Owner(metadata.uid())
        } else {
            continue;
        };
        found.push(Changeable { path: path.clone(), by });
    }
    for link in links.iter().rev() {
        let is_sticky =
            link.parent().is_some_and(|up| fs::metadata(up).is_ok_and(|up| up.mode() & STICKY != 0));
        let owner = fs::symlink_metadata(link).map_err(|error| failed(link, error))?.uid();
        if is_sticky && !is_trusted(owner) {
            found.push(Changeable { path: link.clone(), by: ChangeableBy::Owner(owner) });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

    use super::*;

    const NOBODY: u32 = 65_534;

    /// A directory with `a/b/file` and the link `c/link` to `../a`.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            for directory in ["a/b", "c"] {
                fs::create_dir_all(place.at(directory)).unwrap();
            }
            for directory in ["", "a", "a/b", "c"] {
                place.set(directory, 0o755);
            }
            fs::write(place.at("a/b/file"), "").unwrap();
            place.set("a/b/file", 0o644);
            symlink("../a", place.at("c/link")).unwrap();
            place
        }

        fn at(&self, name: &str) -> PathBuf {
            let place = self.0.path().canonicalize().unwrap();
            if name.is_empty() { place } else { place.join(name) }
        }

        fn set(&self, name: &str, mode: u32) {
            fs::set_permissions(self.at(name), Permissions::from_mode(mode)).unwrap();
        }

        fn found(&self, path: &str) -> Vec<Changeable> {
            changeable_by_others(&self.at(path), None).unwrap()
        }

        fn by_mode(&self, name: &str, mode: u32) -> Vec<Changeable> {
            vec![Changeable { path: self.at(name), by: ChangeableBy::Mode(mode) }]
        }
    }

    #[test]
    fn every_link_and_every_directory_on_the_way_is_found() {
        let place = Place::new();
        let way = Way::of(&place.at("c/../c/link/./b/file"));
        assert_eq!((way.links, way.end), (vec![place.at("c/link")], place.at("a/b/file")));
        for directory in ["", "c", "a", "a/b"] {
            assert_eq!(way.directories.iter().filter(|found| **found == place.at(directory)).count(), 1);
        }
        symlink("loop", place.at("loop")).unwrap();
        assert_eq!(Way::of(&place.at("loop")).links.len(), MOST_LINKS);
    }

    #[test]
    fn a_path_that_others_may_change_anywhere_is_found() {
        let place = Place::new();
        assert_eq!(place.found("c/link/b/file"), []);
        for (name, mode, usual) in
            [("a/b/file", 0o646, 0o644), ("a/b", 0o757, 0o755), ("a", 0o777, 0o755), ("c", 0o757, 0o755)]
        {
            place.set(name, mode);
            assert_eq!(place.found("c/link/b/file"), place.by_mode(name, mode), "{name}");
            place.set(name, usual);
        }
        // The path leads through `c` although it does not end below it.
        place.set("c", 0o777);
        assert_eq!(place.found("c/../a/b/file"), []);
        fs::create_dir(place.at("c/d")).unwrap();
        assert_eq!(place.found("c/d/../../a/b/file"), place.by_mode("c", 0o777));
        changeable_by_others(&place.at("missing"), None).unwrap_err();
    }

    #[test]
    fn a_directory_with_the_sticky_bit_protects_what_trusted_users_own() {
        let place = Place::new();
        for directory in ["", "a", "c"] {
            place.set(directory, 0o1777);
        }
        assert_eq!(place.found("c/link/b/file"), []);
        // The bit has no such meaning for a file.
        place.set("a/b/file", 0o1646);
        assert_eq!(place.found("a/b/file"), place.by_mode("a/b/file", 0o1646));
    }

    #[test]
    fn other_owners_and_groups_are_found_unless_they_are_trusted() {
        if !geteuid().is_root() {
            return;
        }
        let place = Place::new();
        let by_owner =
            |name: &str| vec![Changeable { path: place.at(name), by: ChangeableBy::Owner(NOBODY) }];
        for name in ["a/b/file", "a/b", "a", "c"] {
            chown(place.at(name), Some(NOBODY), None).unwrap();
            assert_eq!(place.found("c/link/b/file"), by_owner(name), "{name}");
            assert_eq!(changeable_by_others(&place.at("c/link/b/file"), Some(NOBODY)).unwrap(), []);
            // That the owner is not trusted does not hide that others may change it too.
            let (open, usual) = if name.ends_with("file") { (0o646, 0o644) } else { (0o757, 0o755) };
            place.set(name, open);
            for also in [None, Some(NOBODY)] {
                let found = changeable_by_others(&place.at("c/link/b/file"), also).unwrap();
                assert_eq!(found, place.by_mode(name, open), "{name} {also:?}");
            }
            place.set(name, usual);
            chown(place.at(name), Some(0), None).unwrap();
        }
        // The owner of a link can replace it only in a directory to which the owner may write.
        lchown(place.at("c/link"), Some(NOBODY), None).unwrap();
        assert_eq!(place.found("c/link/b/file"), []);
        place.set("c", 0o1777);
        assert_eq!(place.found("c/link/b/file"), by_owner("c/link"));
        place.set("c", 0o755);
        place.set("a", 0o775);
        assert_eq!(place.found("c/link/b/file"), [], "root's group is trusted");
        chown(place.at("a"), None, Some(NOBODY)).unwrap();
        assert_eq!(place.found("c/link/b/file"), place.by_mode("a", 0o775));
    }
}
