//! Finds PostgreSQL's programs in the places where packages install them.

use std::path::{Path, PathBuf};

/// The directories that packages for one version have in common, each with the beginning of the version's own directory, and the way from
/// there to the programs: those of Debian, of the PostgreSQL project's packages for Red Hat, and of a build from source.
const PLACES: [(&str, &str, &str); 3] =
    [("/usr/lib/postgresql", "", "bin"), ("/usr", "pgsql-", "bin"), ("/usr/local", "pgsql", "bin")];

/// Returns the only directory of PostgreSQL's programs.
///
/// # Errors
/// Fails, with a message that follows the name of a flag, if there is none or more than one.
pub(super) fn only() -> Result<PathBuf, String> {
    only_below(Path::new("/"))
}

fn only_below(root: &Path) -> Result<PathBuf, String> {
    let mut found: Vec<PathBuf> = Vec::new();
    for (directory, prefix, bin) in PLACES {
        let place = root.join(directory.trim_start_matches('/'));
        let entries = place.read_dir().into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        found.extend(named.map(|entry| entry.path().join(bin)).filter(|bin| bin.join("postgres").is_file()));
    }
    found.sort();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => {
            let places = PLACES.map(|(directory, prefix, bin)| format!("{directory}/{prefix}*/{bin}"));
            Err(format!(
                "is missing, and there is no PostgreSQL in {}: name the directory of the program `postgres`",
                places.join(", ")
            ))
        }
        several => {
            let several: Vec<_> = several.iter().map(|directory| directory.display().to_string()).collect();
            Err(format!(
                "is missing, and there are several versions of PostgreSQL: name the one of the backup, {}",
                several.join(" or ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_only_version_is_used_and_one_of_several_must_be_named() {
        let root = tempfile::tempdir().unwrap();
        let install = |bin: &str| {
            fs::create_dir_all(root.path().join(bin)).unwrap();
            fs::write(root.path().join(bin).join("postgres"), "").unwrap();
            root.path().join(bin)
        };
        // A directory that a removed package left behind.
        fs::create_dir_all(root.path().join("usr/lib/postgresql/13/bin")).unwrap();
        let why = only_below(root.path()).unwrap_err();
        assert!(why.contains("/usr/lib/postgresql/*/bin, /usr/pgsql-*/bin"), "{why}");
        let of_debian = install("usr/lib/postgresql/15/bin");
        assert_eq!(only_below(root.path()), Ok(of_debian.clone()));
        let of_red_hat = install("usr/pgsql-17/bin");
        let why = only_below(root.path()).unwrap_err();
        for one in [of_debian, of_red_hat] {
            assert!(why.contains(one.to_str().unwrap()), "{why}");
        }
    }
}
