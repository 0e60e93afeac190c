//! Finds a granted directory that a component opens as a store.

use std::io;
use std::path::{Path, PathBuf};

use transfer::error::{Error, Kind};

/// Resolves the symbolic links of `wanted` and returns its real path; `None` if that path is not in one of the `granted` directories.
///
/// # Errors
/// `NotFound` if `wanted` does not exist and its path is below a granted directory, `Invalid` if it is not a directory; otherwise the error
/// of the file system.
pub(crate) fn find_granted_directory(wanted: &Path, granted: &[PathBuf]) -> Result<Option<PathBuf>, Error> {
    let of = |error: io::Error| Error::from(error).of(wanted.display());
    let real = match wanted.canonicalize() {
        Ok(real) => real,
        // A component must not learn whether a path outside of its grants exists.
        Err(error) if granted.iter().any(|granted| is_below(wanted, granted)) => return Err(of(error)),
        Err(_) => return Ok(None),
    };
    let covered =
        granted.iter().any(|granted| granted.canonicalize().is_ok_and(|granted| real.starts_with(granted)));
    if !covered {
        return Ok(None);
    }
    if !real.is_dir() {
        return Err(Error::new(Kind::Invalid, format!("{} is not a directory", wanted.display())));
    }
    Ok(Some(real))
}

/// Compares paths without reading the file system: returns whether `path` is below `other`. A path with `..` is not.
fn is_below(path: &Path, other: &Path) -> bool {
    path.starts_with(other) && !path.components().any(|part| part == std::path::Component::ParentDir)
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
        for inside in
            [granted.clone(), granted.join("deep"), granted.join("deep/../deep"), place.path().join("in")]
        {
            assert_eq!(opened(inside.clone()), Ok(true), "{}", inside.display());
        }
        for outside in
            ["other", "granted/out", "granted/../other", "granted2", "absent", "granted/../absent", "."]
        {
            assert_eq!(opened(place.path().join(outside)), Ok(false), "{outside}");
        }
        assert_eq!(opened(granted.join("absent")).unwrap_err().kind, Kind::NotFound);
        assert_eq!(opened(granted.join("file")).unwrap_err().kind, Kind::Invalid);
    }
}
