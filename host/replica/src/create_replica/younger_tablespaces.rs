//! Tablespaces younger than the backup. The source has them and the backup does not, so replay creates them on the replica, at the path
//! that they have on the source. `create_tablespace_directories` in PostgreSQL's `tablespace.c` does not know the map. It ends recovery if
//! that path is not a directory of the server's user, and removes the content of the folder of the server's version there.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use postgres_formats::names::TablespaceFolder;
use postgres_formats::version::Version;

use crate::outcome::Finding;
use crate::source::SourceFacts;
use crate::{Directories, Level, Plan, Refusal, Rule, Tablespace};

const CHECK: Rule = Rule::Tablespaces;

/// Checks the path of each tablespace that is younger than the backup on this machine. Touches nothing. Blocking.
///
/// # Errors
/// Refuses a tablespace that replay could not create, or would create over another cluster's files.
pub(super) fn check(
    plan: &Plan,
    facts: Option<&SourceFacts>,
    directories: &Directories,
    major: u32,
) -> Result<Vec<Finding>, Refusal> {
    // If a plan has no start of replay, the method makes a new copy of the source, and no tablespace is younger than that copy.
    let (Some(facts), Some(_)) = (facts, plan.start_lsn) else { return Ok(Vec::new()) };
    let Some(tablespaces) = &facts.tablespaces else {
        let message = "the source does not list its tablespaces for this role, which may only replicate: if one was created after the \
                       backup, its directory must exist on this machine too, or replay ends there";
        return Ok(vec![Finding { check: CHECK, level: Level::Info, message: message.to_owned() }]);
    };
    let restored = |tablespace: &Tablespace| plan.tablespaces.iter().any(|known| known.oid == tablespace.oid);
    let later = tablespaces.iter().filter(|tablespace| !restored(tablespace));
    later.map(|tablespace| check_one(tablespace, directories, major)).collect()
}

fn check_one(tablespace: &Tablespace, directories: &Directories, major: u32) -> Result<Finding, Refusal> {
    let Tablespace { oid, name, location } = tablespace;
    let shown = format!("tablespace {oid} (`{}`)", location.display());
    let mapped = directories.tablespaces.target(*oid, name.as_deref(), location);
    let refuse = |what: String| {
        let message = format!(
            "{shown} was created after the backup, and replay creates it at that path, whatever the map says: {what}"
        );
        let path = location.display().to_string();
        Refusal::new(Rule::Tablespaces, message)
            .remedy(format!("[replica] tablespaces = {{ {path:?} = {path:?} }}"))
    };
    let found = |message: String| Finding { check: CHECK, level: Level::Info, message };
    if let Some(target) = mapped
        && real(target) == real(location)
    {
        // The run creates and empties mapped directories.
        return Ok(found(format!(
            "{shown} was created after the backup; replay creates it there, in the directory that the map gives it"
        )));
    }
    let metadata = match location.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(refuse(match mapped {
                Some(target) => format!(
                    "make it a link to the directory of the map with `ln -s {target} {location}`, map it to its own path, or take a new \
                     backup",
                    target = target.display(),
                    location = location.display()
                ),
                None => {
                    "there is no such directory; map the tablespace to its own path, so that the directory is created, or take a new backup"
                        .to_owned()
                }
            }));
        }
        Err(error) => return Err(refuse(format!("the path cannot be examined: {error}"))),
    };
    if !metadata.is_dir() {
        return Err(refuse("the path is not a directory; move away what is there".to_owned()));
    }
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return Err(refuse(format!(
            "the directory belongs to user {}, and the server runs as user {user}; `chown` it",
            metadata.uid()
        )));
    }
    if let Some(folder) = folder_of(location, major)
        .map_err(|error| refuse(format!("the directory cannot be read: {error}")))?
    {
        return Err(refuse(format!(
            "the directory holds `{folder}` of a cluster on this machine, which replay would remove; take a new backup, and map the \
             tablespace elsewhere"
        )));
    }
    Ok(found(match mapped {
        Some(target) => format!(
            "{shown} was created after the backup; replay creates it there and not in {}, where the map would have it",
            target.display()
        ),
        None => format!(
            "{shown} was created after the backup; replay creates it there, in a directory that exists already"
        ),
    }))
}

/// Returns the folder of this major version in a tablespace's directory.
fn folder_of(location: &Path, major: u32) -> io::Result<Option<String>> {
    for entry in std::fs::read_dir(location)? {
        let name = entry?.file_name();
        let folder = TablespaceFolder::parse(name.as_bytes());
        if let Some(folder) = folder.filter(|folder| folder.version == Version::Major(major)) {
            return Ok(Some(folder.to_string()));
        }
    }
    Ok(None)
}

/// Returns the path with its links resolved, even if its last component does not exist yet.
fn real(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    match (path.parent().and_then(|parent| parent.canonicalize().ok()), path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::{Lsn, TablespaceKey, TablespaceMap};

    struct Scene {
        root: tempfile::TempDir,
        map: Vec<(TablespaceKey, PathBuf)>,
    }

    impl Scene {
        fn new() -> Self {
            Self { root: tempfile::tempdir().unwrap(), map: Vec::new() }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        /// Checks a backup with tablespace 1 of a source that also has tablespace 2, at `later`.
        fn checked(&self) -> Result<Vec<Finding>, Refusal> {
            let tablespace = |oid, name: &str| Tablespace { oid, name: None, location: self.at(name) };
            let plan = Plan {
                start_lsn: Some(Lsn(1)),
                tablespaces: vec![tablespace(1, "first")],
                ..Plan::default()
            };
            check(
                &plan,
                Some(&self.facts(Some(vec![tablespace(1, "first"), tablespace(2, "later")]))),
                &self.directories(),
                15,
            )
        }

        fn directories(&self) -> Directories {
            let tablespaces = TablespaceMap::new(self.map.clone());
            Directories { datadir: self.at("data"), wal: None, tablespaces }
        }

        fn facts(&self, tablespaces: Option<Vec<Tablespace>>) -> SourceFacts {
            SourceFacts {
                server_version: 150_018,
                system_identifier: 7,
                timeline: 1,
                wal_position: Lsn(9),
                history: Vec::new(),
                tablespaces,
            }
        }

        fn refused(&self, expected: &str) {
            let refusal = self.checked().unwrap_err();
            assert_eq!(refusal.rule, Rule::Tablespaces);
            assert!(refusal.message.contains(expected), "{}", refusal.message);
            let path = self.at("later").display().to_string();
            assert_eq!(
                refusal.remedy.unwrap(),
                format!("[replica] tablespaces = {{ \"{path}\" = \"{path}\" }}")
            );
        }

        fn found(&self, expected: &str) {
            let findings = self.checked().unwrap();
            assert!(findings.len() == 1 && findings[0].message.contains(expected), "{findings:?}");
        }
    }

    #[test]
    fn a_tablespace_whose_directory_is_not_here_is_refused_before_anything_is_touched() {
        let mut scene = Scene::new();
        scene.refused("no such directory");
        scene.map = vec![(TablespaceKey::Oid(2), scene.at("elsewhere"))];
        scene.refused("ln -s");
        std::fs::write(scene.at("later"), "").unwrap();
        scene.refused("is not a directory");
    }

    #[test]
    fn a_tablespace_that_is_mapped_to_its_own_path_or_through_a_link_is_accepted() {
        let mut scene = Scene::new();
        scene.map = vec![(TablespaceKey::Location(scene.at("later")), scene.at("later"))];
        scene.found("that the map gives it");
        scene.map = vec![(TablespaceKey::Location(scene.at("later")), scene.at("elsewhere"))];
        std::fs::create_dir(scene.at("elsewhere")).unwrap();
        symlink(scene.at("elsewhere"), scene.at("later")).unwrap();
        scene.found("that the map gives it");
    }

    #[test]
    fn another_clusters_files_at_that_path_are_not_replayed_over() {
        let mut scene = Scene::new();
        std::fs::create_dir_all(scene.at("later/PG_14_202107181")).unwrap();
        scene.found("exists already");
        scene.map = vec![(TablespaceKey::Oid(2), scene.at("elsewhere"))];
        scene.found("where the map would have it");
        std::fs::create_dir(scene.at("later/PG_15_202209061")).unwrap();
        scene.refused("PG_15_202209061");
        scene.map.clear();
        scene.refused("PG_15_202209061");
    }

    #[test]
    fn a_source_that_lists_no_tablespaces_is_reported_and_a_plan_without_a_start_is_not_checked() {
        let scene = Scene::new();
        let plan = Plan { start_lsn: Some(Lsn(1)), ..Plan::default() };
        let findings = check(&plan, Some(&scene.facts(None)), &scene.directories(), 15).unwrap();
        assert!(findings[0].message.contains("only replicate"), "{findings:?}");
        assert_eq!(check(&plan, None, &scene.directories(), 15), Ok(Vec::new()));
        assert_eq!(
            check(&Plan::default(), Some(&scene.facts(None)), &scene.directories(), 15),
            Ok(Vec::new())
        );
    }
}
