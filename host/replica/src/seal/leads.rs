//! Where a path in the configuration leads: into the data directory, a mapped place, elsewhere.

use std::path::{Component, Path, PathBuf};

use foundation::rooted::RelativePath;

use super::places::Places;

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    /// Below the data directory; `None` is the data directory itself.
    Inside(Option<RelativePath>),
    /// Into a place that the operator mapped for the log or a tablespace, in which a method writes.
    Mapped,
    /// It cannot be told: a name that is none of this program's paths or no UTF-8, or what the kernel shows of processes (`/proc/self/cwd`
    /// is the data directory to the server, and something else here).
    Unclear,
    /// Elsewhere.
    Outside,
}

/// What the kernel shows of processes and devices, of which a path can be a link to anywhere.
const OF_PROCESSES: [&str; 3] = ["/proc", "/dev", "/sys"];

/// Where `path`, relative to the directory `from` of the data directory, leads. `..` is taken away as PostgreSQL does it
/// (`canonicalize_path`); links outside are resolved as they are now, so that another name of the data directory is known as it.
/// Links in the data directory are not resolved: the walk has refused every one that is not the host's to make.
pub(super) fn leads(places: &Places<'_>, from: Option<&Path>, path: &Path) -> Leads {
    // What was no UTF-8 is not in the text any more: the server goes by another name.
    if path.to_string_lossy().contains(char::REPLACEMENT_CHARACTER) {
        return Leads::Unclear;
    }
    let mut elsewhere = Leads::Outside;
    // `..` from a data directory that is reached by a link is not the same by its two names.
    for top in [places.path.as_path(), places.written] {
        match of(places, &normal(&top.join(from.unwrap_or(Path::new(""))).join(path))) {
            inside @ Leads::Inside(_) => return inside,
            Leads::Outside => {}
            other => elsewhere = other,
        }
    }
    elsewhere
}

/// Whether a text is the data directory's absolute path, by whatever name.
pub(super) fn is_data_directory(places: &Places<'_>, path: &str) -> bool {
    let path = Path::new(path);
    path.is_absolute() && leads(places, None, path) == Leads::Inside(None)
}

fn of(places: &Places<'_>, path: &Path) -> Leads {
    let below = |path: &Path, tops: &[&Path]| {
        tops.iter().find_map(|top| path.strip_prefix(top).ok().map(Path::to_owned))
    };
    let inside = |below: PathBuf| match RelativePath::new(&below) {
        Ok(path) => Leads::Inside(Some(path)),
        Err(_) if below.as_os_str().is_empty() => Leads::Inside(None),
        Err(_) => Leads::Unclear,
    };
    if let Some(below) = below(path, &[&places.path, places.written]) {
        return inside(below);
    }
    if OF_PROCESSES.iter().any(|top| path.starts_with(top)) {
        return Leads::Unclear;
    }
    let real = real(path);
    match below(&real, &[&places.path]) {
        Some(below) => inside(below),
        None if places.is_mapped(&real) || places.is_mapped(path) => Leads::Mapped,
        None => Leads::Outside,
    }
}

/// An absolute path without `.` and `..`.
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

/// The path with the links in what there is of it resolved.
fn real(path: &Path) -> PathBuf {
    let existing = |ancestor: &Path| {
        let real = ancestor.canonicalize().ok()?;
        let rest = path.strip_prefix(ancestor).ok()?;
        // A path that ends in a slash is that of a directory.
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
            matches!(leads(&places, Some(Path::new("conf.d")), Path::new(path)), Leads::Inside(_))
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
    fn another_name_of_the_data_directory_is_known_as_it() {
        let restored = Restored::with(&[]);
        let beside = tempfile::tempdir().unwrap();
        let link = beside.path().join("link");
        symlink(restored.place.path(), &link).unwrap();
        let places = restored.places();
        let path = |name: &str| RelativePath::new(name).ok();
        assert_eq!(leads(&places, None, &link.join("promote")), Leads::Inside(path("promote")));
        assert_eq!(leads(&places, None, &link), Leads::Inside(None));
        assert_eq!(leads(&places, None, &beside.path().join("other")), Leads::Outside);
        for process in ["/proc/self/cwd/promote", "/proc/1/root/x", "/dev/fd/4", "/etc/../proc/self"] {
            assert_eq!(leads(&places, None, Path::new(process)), Leads::Unclear, "{process}");
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
