//! The directory of the write-ahead log and the link `pg_wal` to it. A method writes into the mapped directory itself; the host makes the
//! link.

use std::ops::ControlFlow;

use foundation::rooted::{Directory, Kind, RelativePath};
use postgres_formats::names;

use super::places::{Place, Places, is_at};
use super::problem::{During, Findings, Problem};
use crate::Rule;

const CHECK: Rule = Rule::Links;
const PG_WAL: RelativePath = RelativePath::literal(names::PG_WAL);
const ARCHIVE_STATUS: RelativePath = RelativePath::literal(names::ARCHIVE_STATUS);

/// The depth to which `pg_wal` is searched for files. Its own directories, `archive_status` and since PostgreSQL 17 `summaries`, are one
/// level deep.
const DEPTH: usize = 2;

/// The change that makes `pg_wal` lead to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkAction {
    /// Change nothing: the log is not mapped, and `pg_wal` is a directory.
    Nothing,
    /// Make the directory: the log is not mapped, and `pg_wal` is missing.
    MakeDirectory,
    /// Make the link: the log is mapped, and `pg_wal` is missing.
    MakeLink,
    /// Replace the link: it leads to the mapped directory, but not by its real path.
    ReplaceLink,
    /// Replace the directory with the link: the log is mapped, and `pg_wal` holds no file.
    ReplaceDirectory,
    /// Keep the link, which is the one that the host would make.
    Keep,
}

/// Checks what exists at `pg_wal`. Changes nothing.
pub(super) fn judge(places: &Places<'_>) -> Result<LinkAction, Problem> {
    let found = places.top.find(&PG_WAL).during(CHECK)?.map(|metadata| metadata.kind);
    match (found, &places.wal) {
        (Some(Kind::Directory), None) => Ok(LinkAction::Nothing),
        (None, None) => Ok(LinkAction::MakeDirectory),
        (None, Some(_)) => Ok(LinkAction::MakeLink),
        (Some(Kind::Link), Some(wal)) => judge_link(places, wal),
        (Some(Kind::Directory), Some(wal)) if holds_no_file(&places.top)? => {
            if places.top.is_mount_point(&PG_WAL).during(CHECK)? {
                let message = format!(
                    "`pg_wal` is a mount point while `wal_dir` is `{}`: remove the setting `wal_dir`",
                    wal.path.display()
                );
                return Err(Problem::new(CHECK, message));
            }
            Ok(LinkAction::ReplaceDirectory)
        }
        (Some(Kind::Directory), Some(wal)) => Err(Problem::new(
            CHECK,
            format!(
                "`pg_wal` holds files although `wal_dir` is `{}`: the method must write the WAL to that directory",
                wal.path.display()
            ),
        )),
        (Some(Kind::Link), None) => {
            let target = places.top.read_link(&PG_WAL).during(CHECK)?;
            Err(Problem::new(
                CHECK,
                format!(
                    "`pg_wal` is a link to `{}`, which no setting allows; `wal_dir = \"{}\"` would allow it",
                    target.display(),
                    target.display()
                ),
            ))
        }
        (Some(Kind::File | Kind::Special), _) => {
            Err(Problem::new(CHECK, "`pg_wal` is neither a directory nor a link"))
        }
    }
}

fn judge_link(places: &Places<'_>, wal: &Place) -> Result<LinkAction, Problem> {
    let target = places.top.read_link(&PG_WAL).during(CHECK)?;
    if target == wal.path {
        Ok(LinkAction::Keep)
    } else if is_at(&places.path.join(&target), &wal.path) {
        Ok(LinkAction::ReplaceLink)
    } else {
        let message = format!(
            "`pg_wal` is a link to `{}` while `wal_dir` is `{}`",
            target.display(),
            wal.path.display()
        );
        Err(Problem::new(CHECK, message))
    }
}

fn holds_no_file(top: &Directory) -> Result<bool, Problem> {
    let mut none = true;
    let directory = top.open_directory(&PG_WAL).during(CHECK)?;
    directory
        .walk(DEPTH, &mut |found| {
            none &= found.metadata.kind == Kind::Directory && found.boundary.is_none();
            Ok(if none { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })
        .during(CHECK)?;
    Ok(none)
}

/// Opens the directory that holds the log before [`apply`]; returns `None` if there is no such directory yet.
pub(super) fn open(places: &Places<'_>, work: LinkAction) -> Result<Option<Directory>, Problem> {
    match (work, &places.wal) {
        (_, Some(wal)) => wal.directory.try_clone().map(Some).during(CHECK),
        (LinkAction::Nothing, None) => places.top.open_directory(&PG_WAL).map(Some).during(CHECK),
        (_, None) => Ok(None),
    }
}

/// Does the action that [`judge`] returned.
pub(super) fn apply(places: &Places<'_>, work: LinkAction, findings: &mut Findings) -> Result<(), Problem> {
    let top = &places.top;
    match work {
        LinkAction::Nothing | LinkAction::Keep => {}
        LinkAction::MakeDirectory => {
            top.create_directory(&PG_WAL, 0o700).during(CHECK)?;
            findings.add(CHECK, "`pg_wal` was missing and was created empty");
        }
        LinkAction::MakeLink => make_link(places, findings)?,
        LinkAction::ReplaceLink => {
            top.remove_file(&PG_WAL).during(CHECK)?;
            make_link(places, findings)?;
        }
        LinkAction::ReplaceDirectory => {
            remove_empty(top)?;
            make_link(places, findings)?;
        }
    }
    let Some(log) = open(places, if places.wal.is_some() { work } else { LinkAction::Nothing })? else {
        return Ok(());
    };
    // The server would create this directory too, but a method that lists archived segments expects it to exist.
    if log.find(&ARCHIVE_STATUS).during(CHECK)?.is_none() {
        log.create_directory(&ARCHIVE_STATUS, 0o700).during(CHECK)?;
    }
    Ok(())
}

fn make_link(places: &Places<'_>, findings: &mut Findings) -> Result<(), Problem> {
    let Some(wal) = &places.wal else { return Ok(()) };
    places.top.create_link(&PG_WAL, &wal.path).during(CHECK)?;
    findings.add_info(CHECK, format!("`pg_wal` was made a link to `{}`", wal.path.display()));
    Ok(())
}

/// Removes the directories of a `pg_wal` without files, the deepest first.
fn remove_empty(top: &Directory) -> Result<(), Problem> {
    let directory = top.open_directory(&PG_WAL).during(CHECK)?;
    let mut below = Vec::new();
    directory
        .walk(DEPTH, &mut |found| {
            below.push(RelativePath::new(found.path).map_err(std::io::Error::other)?);
            Ok(ControlFlow::Continue(()))
        })
        .during(CHECK)?;
    for path in below.iter().rev() {
        directory.remove_directory(path).during(CHECK)?;
    }
    top.remove_directory(&PG_WAL).during(CHECK)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;
    use crate::{Directories, TablespaceMap};

    struct Scene {
        root: tempfile::TempDir,
        directories: Directories,
    }

    impl Scene {
        fn new(mapped: bool) -> Self {
            let root = tempfile::tempdir().unwrap();
            for name in ["main", "wal", "other"] {
                fs::create_dir(root.path().join(name)).unwrap();
            }
            let directories = Directories {
                datadir: root.path().join("main"),
                wal: mapped.then(|| root.path().join("wal")),
                tablespaces: TablespaceMap::default(),
            };
            Self { root, directories }
        }

        fn at(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        /// Makes the link or the directory, and returns where the log is then.
        fn done(&self) -> Result<PathBuf, Problem> {
            let places = Places::opened(&self.directories);
            let work = judge(&places)?;
            apply(&places, work, &mut Findings::default())?;
            assert!(
                matches!(judge(&places)?, LinkAction::Nothing | LinkAction::Keep),
                "nothing is left to do"
            );
            assert!(self.at("main/pg_wal/archive_status").is_dir());
            Ok(self.at("main/pg_wal").canonicalize().unwrap())
        }
    }

    #[test]
    fn a_log_that_is_not_mapped_stays_inside() {
        for made in [false, true] {
            let scene = Scene::new(false);
            if made {
                fs::create_dir(scene.at("main/pg_wal")).unwrap();
            }
            assert_eq!(scene.done().unwrap(), scene.at("main/pg_wal").canonicalize().unwrap());
            assert!(!scene.at("main/pg_wal").is_symlink());
        }
    }

    #[test]
    fn a_mapped_log_gets_the_hosts_link() {
        let nothing: fn(&Scene) = |_| {};
        let empty: fn(&Scene) = |scene| fs::create_dir_all(scene.at("main/pg_wal/archive_status")).unwrap();
        let links: fn(&Scene) = |scene| {
            symlink(scene.at("wal"), scene.at("via")).unwrap();
            symlink("../via", scene.at("main/pg_wal")).unwrap();
        };
        let right: fn(&Scene) =
            |scene| symlink(scene.at("wal").canonicalize().unwrap(), scene.at("main/pg_wal")).unwrap();
        for left in [nothing, empty, links, right] {
            let scene = Scene::new(true);
            left(&scene);
            assert_eq!(scene.done().unwrap(), scene.at("wal").canonicalize().unwrap());
            assert_eq!(
                fs::read_link(scene.at("main/pg_wal")).unwrap(),
                scene.at("wal").canonicalize().unwrap()
            );
        }
    }

    #[test]
    fn rule_30_a_log_that_is_or_leads_elsewhere_is_refused() {
        for mapped in [false, true] {
            let scene = Scene::new(mapped);
            symlink(scene.at("other"), scene.at("main/pg_wal")).unwrap();
            assert!(scene.done().unwrap_err().message.contains("other"));
            fs::remove_file(scene.at("main/pg_wal")).unwrap();
            fs::write(scene.at("main/pg_wal"), "").unwrap();
            assert!(scene.done().is_err());
        }
        let scene = Scene::new(true);
        fs::create_dir_all(scene.at("main/pg_wal/archive_status")).unwrap();
        fs::write(scene.at("main/pg_wal/archive_status/x.done"), "").unwrap();
        assert!(scene.done().unwrap_err().message.contains("holds files"));
        let scene = Scene::new(false);
        symlink(scene.at("wal"), scene.at("main/pg_wal")).unwrap();
        assert!(
            scene.done().unwrap_err().message.contains("wal_dir = "),
            "the message has the line that would allow it"
        );
    }
}
