//! The directories that PostgreSQL needs to start. Tools that keep only files lose the empty directories. The list comes from initdb
//! (`subdirs` in `src/bin/initdb/initdb.c`).

use foundation::rooted::{Directory, Kind, RelativePath};
use postgres_formats::names;

use super::problem::{During, Findings, Problem};

use crate::Rule;

const CHECK: Rule = Rule::Directories;

/// The directories that hold files in every cluster.
const FILLED: [RelativePath; 5] = [
    RelativePath::literal("base"),
    RelativePath::literal(names::GLOBAL),
    RelativePath::literal("pg_multixact/members"),
    RelativePath::literal("pg_multixact/offsets"),
    RelativePath::literal("pg_xact"),
];

/// The directories that may be empty, each before those below it.
const EMPTY: [RelativePath; 14] = [
    RelativePath::literal("pg_commit_ts"),
    RelativePath::literal("pg_dynshmem"),
    RelativePath::literal("pg_logical"),
    RelativePath::literal("pg_logical/mappings"),
    RelativePath::literal("pg_logical/snapshots"),
    RelativePath::literal("pg_notify"),
    RelativePath::literal("pg_replslot"),
    RelativePath::literal("pg_serial"),
    RelativePath::literal("pg_snapshots"),
    RelativePath::literal("pg_stat"),
    RelativePath::literal("pg_stat_tmp"),
    RelativePath::literal("pg_subtrans"),
    RelativePath::literal(names::PG_TBLSPC),
    RelativePath::literal("pg_twophase"),
];

/// Checks that the directories exist that hold files in every cluster.
pub(super) fn check(top: &Directory) -> Result<(), Problem> {
    for path in &FILLED {
        if kind(top, path)? != Some(Kind::Directory) {
            return Err(Problem::new(
                CHECK,
                format!("there is no directory `{path}`: the backup is not whole"),
            ));
        }
    }
    Ok(())
}

/// Creates the missing directories that may be empty.
pub(super) fn complete(top: &Directory, findings: &mut Findings) -> Result<(), Problem> {
    let mut made = Vec::new();
    for path in &EMPTY {
        match kind(top, path)? {
            Some(Kind::Directory) => {}
            Some(_) => return Err(Problem::new(CHECK, format!("`{path}` is not a directory"))),
            None => {
                top.create_directory(path, 0o700).during(CHECK)?;
                made.push(path.to_string());
            }
        }
    }
    if !made.is_empty() {
        findings.add(CHECK, format!("missing directories were created empty: {}", made.join(", ")));
    }
    Ok(())
}

fn kind(top: &Directory, path: &RelativePath) -> Result<Option<Kind>, Problem> {
    Ok(top.find(path).during(CHECK)?.map(|metadata| metadata.kind))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn missing_empty_directories_are_created_and_others_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let top = Directory::open(place.path()).unwrap();
        for path in &FILLED {
            assert!(check(&top).unwrap_err().message.contains("not whole"));
            fs::create_dir_all(place.path().join(path.as_path())).unwrap();
        }
        check(&top).unwrap();
        let mut findings = Findings::default();
        complete(&top, &mut findings).unwrap();
        complete(&top, &mut findings).unwrap();
        assert_eq!(findings.into_list().len(), 1);
        assert!(EMPTY.iter().all(|path| place.path().join(path.as_path()).is_dir()));
    }

    #[test]
    fn rule_30_a_link_in_place_of_a_directory_is_refused() {
        let place = tempfile::tempdir().unwrap();
        symlink("/tmp", place.path().join("pg_stat")).unwrap();
        assert!(complete(&Directory::open(place.path()).unwrap(), &mut Findings::default()).is_err());
    }
}
