//! Resolves where a path in the configuration leads: into the data directory, into a mapped directory, or elsewhere.

use std::path::{Component, Path, PathBuf};

use foundation::rooted::RelativePath;

use super::places::Places;

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// Below the data directory; `None` is the data directory itself.
    Inside(Option<RelativePath>),
    /// Into a mapped directory for WAL or a tablespace, to which a method writes.
    Mapped,
    /// The destination is not known: the path is invalid or not UTF-8, or it leads through a file system in which each process sees other
    /// files (`/proc/self/cwd` is the data directory for the server, and another directory for this program).
    Unclear,
    /// Elsewhere.
    Outside,
}

/// The file systems of the kernel, in which a path can be a link to anywhere.
const OF_PROCESSES: [&str; 3] = ["/proc", "/dev", "/sys"];

/// Returns where `path` leads; it is relative to the directory `from` below the data directory. Removes `..` as PostgreSQL does
/// (`canonicalize_path`). Resolves links outside the data directory, so that other paths to the data directory are recognised. Does not
/// resolve links in the data directory, because the walk has refused every link that the host does not make.
pub(super) fn destination(places: &Places<'_>, from: Option<&Path>, path: &Path) -> Destination {
    // Bytes that are not UTF-8 were replaced in the text, so the server uses another path.
    if path.to_string_lossy().contains(char::REPLACEMENT_CHARACTER) {
        return Destination::Unclear;
    }
    let mut elsewhere = Destination::Outside;
    // If the data directory is reached through a link, it has two paths, from which `..` leads to different directories.
    for top in [places.path.as_path(), places.written] {
        match of(places, &normal(&top.join(from.unwrap_or(Path::new(""))).join(path))) {
            inside @ Destination::Inside(_) => return inside,
            Destination::Outside => {}
            other => elsewhere = other,
        }
    }
    elsewhere
}

/// Returns whether a text is an absolute path to the data directory, even through links.
pub(super) fn is_data_directory(places: &Places<'_>, path: &str) -> bool {
    let path = Path::new(path);
    path.is_absolute() && destination(places, None, path) == Destination::Inside(None)
}

fn of(places: &Places<'_>, path: &Path) -> Destination {
    let below = |path: &Path, tops: &[&Path]| {
        tops.iter().find_map(|top| path.strip_prefix(top).ok().map(Path::to_owned))
    };
    let inside = |below: PathBuf| match RelativePath::new(&below) {
        Ok(path) => Destination::Inside(Some(path)),
        Err(_) if below.as_os_str().is_empty() => Destination::Inside(None),
        Err(_) => Destination::Unclear,
    };
    if let Some(below) = below(path, &[&places.path, places.written]) {
        return inside(below);
    }
    if OF_PROCESSES.iter().any(|top| path.starts_with(top)) {
        return Destination::Unclear;
    }
    let real = real(path);
    match below(&real, &[&places.path]) {
        Some(below) => inside(below),
        None if places.is_mapped(&real) || places.is_mapped(path) => Destination::Mapped,
        None => Destination::Outside,
    }
}

/// Returns an absolute path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    normal
}

/// Returns the path with the links in its existing part resolved.
fn real(path: &Path) -> PathBuf {
    let existing = |ancestor: &Path| {
        let real = ancestor.canonicalize().ok()?;
        let rest = path.strip_prefix(ancestor).ok()?;
        // `join` of an empty path would add a slash, which only a directory may have.
        Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
    };
    path.ancestors().find_map(existing).unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::super::configuration::tests::Restored;
    use super::*;

    #[test]
    fn a_path_is_inside_only_where_it_cannot_lead_out() {
        let restored = Restored::with(&[]);
        let places = restored.places();
        let top = restored.place.path().display().to_string();
        let name = restored.place.path().file_name().unwrap().to_str().unwrap();
        let inside = |path: &str| {
            matches!(destination(&places, Some(Path::new("conf.d")), Path::new(path)), Destination::Inside(_))
        };
        let again = format!("../../{name}/a");
        for path in
            ["a", "../a", "./a/../b", "..", &top, &format!("{top}/a"), &format!("{top}/a/../b"), &again]
        {
            assert!(inside(path), "{path}");
        }
        for path in
            ["../../a", "/etc", &format!("{top}/../a"), &format!("{top}x"), "a/../../..", "a/\u{fffd}"]
        {
            assert!(!inside(path), "{path}");
        }
    }

    #[test]
    fn another_path_to_the_data_directory_is_recognised() {
        let restored = Restored::with(&[]);
        let beside = tempfile::tempdir().unwrap();
        let link = beside.path().join("link");
        symlink(restored.place.path(), &link).unwrap();
        let places = restored.places();
        let path = |name: &str| RelativePath::new(name).ok();
        assert_eq!(destination(&places, None, &link.join("promote")), Destination::Inside(path("promote")));
        assert_eq!(destination(&places, None, &link), Destination::Inside(None));
        assert_eq!(destination(&places, None, &beside.path().join("other")), Destination::Outside);
        for process in ["/proc/self/cwd/promote", "/proc/1/root/x", "/dev/fd/4", "/etc/../proc/self"] {
            assert_eq!(destination(&places, None, Path::new(process)), Destination::Unclear, "{process}");
        }
        let top = restored.place.path().display().to_string();
        for (text, is) in [
            (top.clone(), true),
            (format!("{top}/"), true),
            (format!("{top}/x/.."), true),
            (link.display().to_string(), true),
            (String::new(), false),
            (".".to_owned(), false),
            (format!("{top}/evil"), false),
            (format!("{top}/{}", "x".repeat(5000)), false),
            (format!(" {top}"), false),
            ("/proc/self/cwd".to_owned(), false),
        ] {
            assert_eq!(is_data_directory(&places, &text), is, "{text:?}");
        }
    }
}
