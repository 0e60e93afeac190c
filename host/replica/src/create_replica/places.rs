//! The directories that a plan fills. The operator's map must name a separate directory for each tablespace in the plan.
//!
//! `datadir::places` has already checked that none of the operator's directories lies in another.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use postgres_formats::names::{self, TablespaceFolder};
use postgres_formats::version;

use crate::mounts::real_path;
use crate::{Directories, Plan, Refusal, Rule, Tablespace};

/// Returns the real paths of the directories that the plan fills: the data directory first, then the WAL directory if the
/// operator named one, then one for each tablespace of the plan.
///
/// # Errors
/// Fails if the map does not name a tablespace, with the line to add, or if it gives two tablespaces the same directory.
pub(super) fn of_plan(plan: &Plan, directories: &Directories) -> Result<Vec<PathBuf>, Refusal> {
    let target = |tablespace: &Tablespace| {
        directories.tablespaces.target(tablespace.oid, tablespace.name.as_deref(), &tablespace.location)
    };
    let missing: Vec<_> = plan.tablespaces.iter().filter(|tablespace| target(tablespace).is_none()).collect();
    if !missing.is_empty() {
        return Err(not_in_the_map(&missing));
    }
    let mut placed: Vec<(&Tablespace, PathBuf)> = Vec::new();
    for tablespace in &plan.tablespaces {
        let Some(place) = target(tablespace).map(real_path) else { continue };
        if let Some((other, _)) = placed.iter().find(|(_, taken)| *taken == place) {
            let message = format!(
                "tablespace {} and tablespace {} would both go to {}; give each a directory of its own",
                shown(other),
                shown(tablespace),
                place.display()
            );
            return Err(Refusal::new(Rule::Tablespaces, message).remedy(line(&[other, tablespace])));
        }
        placed.push((tablespace, place));
    }
    let own = [Some(directories.datadir.as_path()), directories.wal.as_deref()];
    let own = own.into_iter().flatten().map(real_path);
    Ok(own.chain(placed.into_iter().map(|(_, place)| place)).collect())
}

/// Refuses a mapped tablespace directory that holds the folder of another major version (rule 24), such as the folder of the old cluster
/// that pg_upgrade leaves there. The folder belongs to another cluster, unless the data directory to be emptied is of that version too.
///
/// # Errors
/// Fails with the name of such a folder.
pub(super) fn hold_no_other_version(directories: &Directories, installed: u32) -> Result<(), Refusal> {
    let old = std::fs::File::open(directories.datadir.join(names::PG_VERSION)).ok().and_then(|file| {
        let mut contents = Vec::new();
        file.take(version::LIMIT).read_to_end(&mut contents).ok()?;
        version::version_between_spaces(&contents)?.major()
    });
    for place in directories.tablespaces.targets() {
        // Acquiring the data directory has already checked that this directory can be read, or will be created.
        for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let folder = TablespaceFolder::parse(name.as_bytes());
            let major = folder.and_then(|folder| folder.version.major());
            if major.is_some_and(|major| major != installed && Some(major) != old) {
                let message = format!(
                    "{} holds `{}`, the folder of another major version than PostgreSQL {installed} in `bin_dir`; \
                     move it away or map the tablespace elsewhere",
                    place.display(),
                    name.display()
                );
                return Err(Refusal::new(Rule::Tablespaces, message).remedy(
                    "[replica] tablespaces = { \"<path in the backup>\" = \"<an empty directory>\" }",
                ));
            }
        }
    }
    Ok(())
}

fn not_in_the_map(missing: &[&Tablespace]) -> Refusal {
    let named: Vec<_> = missing.iter().map(|tablespace| shown(tablespace)).collect();
    let message = format!("the map names no directory for tablespace {}", named.join(", tablespace "));
    Refusal::new(Rule::Tablespaces, message).remedy(line(missing))
}

fn shown(tablespace: &Tablespace) -> String {
    format!("{} (`{}`)", tablespace.oid, tablespace.location.display())
}

/// Returns the line of configuration that gives each of these tablespaces a directory.
fn line(tablespaces: &[&Tablespace]) -> String {
    let entries: Vec<_> = tablespaces
        .iter()
        .map(|tablespace| format!("{:?} = \"<directory>\"", tablespace.location.display().to_string()))
        .collect();
    format!("[replica] tablespaces = {{ {} }}", entries.join(", "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{TablespaceKey, TablespaceMap};

    fn plan(tablespaces: &[(u32, &str)]) -> Plan {
        let tablespaces = tablespaces
            .iter()
            .map(|(oid, location)| Tablespace { oid: *oid, name: None, location: PathBuf::from(location) })
            .collect();
        Plan { tablespaces, ..Plan::default() }
    }

    fn directories(root: &Path, wal: Option<&str>, map: &[(&str, &str)]) -> Directories {
        let map = map.iter().map(|(key, to)| (TablespaceKey::parse(key), root.join(to))).collect();
        Directories {
            datadir: root.join("data"),
            wal: wal.map(|wal| root.join(wal)),
            tablespaces: TablespaceMap::new(map),
        }
    }

    #[test]
    fn a_tablespace_outside_the_map_is_refused_with_the_line_to_add() {
        let root = tempfile::tempdir().unwrap();
        let directories = directories(root.path(), None, &[("16384", "one")]);
        let refusal = of_plan(&plan(&[(16384, "/old/one"), (16385, "/old/two")]), &directories).unwrap_err();
        assert_eq!(refusal.rule, Rule::Tablespaces);
        assert_eq!(
            refusal.remedy.as_deref(),
            Some("[replica] tablespaces = { \"/old/two\" = \"<directory>\" }")
        );
    }

    #[test]
    fn every_missing_tablespace_is_named_at_once() {
        let root = tempfile::tempdir().unwrap();
        let directories = directories(root.path(), None, &[]);
        let remedy = of_plan(&plan(&[(1, "/a"), (2, "/b")]), &directories).unwrap_err().remedy.unwrap();
        assert!(remedy.contains("\"/a\"") && remedy.contains("\"/b\""), "{remedy}");
    }

    #[test]
    fn the_places_of_a_plan_are_the_data_directory_the_wal_and_its_tablespaces() {
        let root = tempfile::tempdir().unwrap();
        let directories = directories(root.path(), Some("wal"), &[("/old/one", "one"), ("/unused", "two")]);
        let expected: Vec<_> = ["data", "wal", "one"].iter().map(|name| root.path().join(name)).collect();
        assert_eq!(of_plan(&plan(&[(16384, "/old/one")]), &directories), Ok(expected));
    }

    #[test]
    fn two_tablespaces_in_one_place_are_refused_also_where_a_link_hides_it() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("one")).unwrap();
        std::os::unix::fs::symlink(root.path().join("one"), root.path().join("link")).unwrap();
        let directories = directories(
            root.path(),
            None,
            &[("/a", "one"), ("/b", "link"), ("/c", "two"), ("/d", "one/new"), ("/e", "link/new")],
        );
        for two in [[(1, "/a"), (2, "/b")], [(4, "/d"), (5, "/e")]] {
            let refusal = of_plan(&plan(&two), &directories).unwrap_err();
            assert!(refusal.message.contains("both go to"), "{}", refusal.message);
        }
        assert!(of_plan(&plan(&[(1, "/a"), (3, "/c")]), &directories).is_ok());
    }

    #[test]
    fn rule_24_another_versions_folder_stays_unless_the_old_data_is_of_that_version() {
        let root = tempfile::tempdir().unwrap();
        let directories = directories(root.path(), None, &[("/a", "one")]);
        std::fs::create_dir_all(root.path().join("one/PG_15_202209061")).unwrap();
        assert_eq!(hold_no_other_version(&directories, 15), Ok(()));
        std::fs::create_dir(root.path().join("one/PG_14_202107181")).unwrap();
        let refusal = hold_no_other_version(&directories, 15).unwrap_err();
        assert!(refusal.message.contains("PG_14_202107181"), "{}", refusal.message);
        std::fs::create_dir(root.path().join("data")).unwrap();
        std::fs::write(root.path().join("data/PG_VERSION"), "14\n").unwrap();
        assert_eq!(hold_no_other_version(&directories, 15), Ok(()));
    }

    #[test]
    fn two_keys_of_one_tablespace_are_one_place() {
        let root = tempfile::tempdir().unwrap();
        let directories = directories(root.path(), None, &[("/a", "one"), ("16384", "one")]);
        assert!(of_plan(&plan(&[(16384, "/a")]), &directories).is_ok());
    }
}
