//! Finds a granted directory that a component opens as a store.

use std::path::{Path, PathBuf};

use foundation::way::Way;
use transfer::error::{Error, Kind};

use crate::files::GuestPath;

/// Resolves the symbolic links of `wanted`, an absolute path, and returns its real path; `None` if that path is not in one of the `granted`
/// directories. Before that, removes each `..` with the name before it, as in every path of a component. If the kernel resolved `..`, a
/// component could learn whether a directory outside of its grants exists, by a path through that directory.
///
/// # Errors
/// `NotFound` if `wanted` does not exist and leads to a place in a granted directory, `Invalid` if it is not a directory; otherwise the
/// error of the file system.
pub(crate) fn find_granted_directory(wanted: &Path, granted: &[PathBuf]) -> Result<Option<PathBuf>, Error> {
    let Some(wanted) = GuestPath::of(wanted).map(|path| path.to_host()) else { return Ok(None) };
    let covers = |real: &Path| granted.iter().any(|granted| real.starts_with(Way::of(granted).end));
    let real = match wanted.canonicalize() {
        Ok(real) => real,
        // A component must not learn whether a path outside of its grants exists, not even through a link in a granted directory.
        Err(error) if covers(&Way::of(&wanted).end) => {
            return Err(Error::from(error).of(wanted.display()));
        }
        Err(_) => return Ok(None),
    };
    if !covers(&real) {
        return Ok(None);
    }
    if !real.is_dir() {
        return Err(Error::new(Kind::Invalid, format!("{} is not a directory", wanted.display())));
    }
    Ok(Some(real))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_directories_whose_real_path_is_granted_are_found() {
        let place = tempfile::tempdir().unwrap();
        let (granted, other) = (place.path().join("granted"), place.path().join("other"));
        fs::create_dir_all(granted.join("deep")).unwrap();
        fs::create_dir_all(&other).unwrap();
        symlink(&other, granted.join("out")).unwrap();
        symlink(granted.join("deep"), place.path().join("in")).unwrap();
        fs::write(granted.join("file"), "x").unwrap();
        let opened = |path: PathBuf| {
            find_granted_directory(&path, std::slice::from_ref(&granted)).map(|found| found.is_some())
        };
        for inside in [
            "granted",
            "granted/deep",
            "granted/deep/../deep",
            "in",
            "other/../granted",
            // The answer does not depend on whether this directory exists.
            "other/absent/../../granted",
        ] {
            assert_eq!(opened(place.path().join(inside)), Ok(true), "{inside}");
        }
        symlink(other.join("later"), granted.join("dangling")).unwrap();
        for outside in [
            "other",
            "granted/out",
            "granted/out/absent",
            "granted/out/absent/deep",
            "granted/dangling",
            "granted/../other",
            "granted2",
            "absent",
            "granted/../absent",
            "granted/absent/../../other/absent",
            ".",
        ] {
            assert_eq!(opened(place.path().join(outside)), Ok(false), "{outside}");
        }
        for absent in ["granted/absent", "granted/deep/absent", "in/absent"] {
            assert_eq!(opened(place.path().join(absent)).unwrap_err().kind, Kind::NotFound, "{absent}");
        }
        assert_eq!(opened(granted.join("file")).unwrap_err().kind, Kind::Invalid);
    }
}
