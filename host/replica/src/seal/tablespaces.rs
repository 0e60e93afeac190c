//! The tablespaces: the operator's map gives each tablespace a directory, and the host makes the links in `pg_tblspc`. It also removes
//! `tablespace_map`: at its start, the server would make links from it to any path.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use foundation::rooted::{Directory, Kind, RelativePath};
use postgres_formats::control_file::ControlFile;
use postgres_formats::names::{self, TablespaceFolder, tablespace_oid};
use postgres_formats::tablespace_map;
use postgres_formats::version::Version;

use super::places::{Places, is_at};
use super::problem::{During, Findings, Problem, shown};
use crate::{Rule, Tablespace};

const CHECK: Rule = Rule::Tablespaces;
const TABLESPACE_MAP: RelativePath = RelativePath::literal(names::TABLESPACE_MAP);
const PG_TBLSPC: RelativePath = RelativePath::literal(names::PG_TBLSPC);

/// The most entries in `pg_tblspc` that are read.
const MOST: usize = 10_000;

/// A tablespace of the replica.
#[derive(Debug)]
pub(super) struct Linked {
    /// The real path of its directory, which is the target of the link.
    pub(super) path: PathBuf,
    pub(super) directory: Directory,
    /// The folder in it that belongs to this version of PostgreSQL, `PG_15_202209061`.
    pub(super) folder: RelativePath,
    link: RelativePath,
    work: LinkAction,
}

impl Linked {
    fn of(
        places: &Places<'_>,
        target: &Path,
        folder: &RelativePath,
        link: RelativePath,
        work: LinkAction,
    ) -> Result<Self, Problem> {
        let place = places.tablespace(target)?;
        let directory = place.directory.try_clone().during(CHECK)?;
        Ok(Self { path: place.path.clone(), directory, folder: folder.clone(), link, work })
    }

    /// Returns the path of its link, below the data directory.
    pub(super) fn link(&self) -> &Path {
        self.link.as_path()
    }
}

/// How the link of a tablespace is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LinkAction {
    Make,
    ReplaceLink,
    ReplaceDirectory,
    Keep,
}

/// The tablespaces of the replica, and the changes to make.
#[derive(Debug)]
pub(super) struct Tablespaces {
    pub(super) linked: Vec<Linked>,
    /// Whether there is a tablespace_map to remove.
    map: bool,
}

/// A tablespace in the backup, with the keys by which the map is searched.
struct Wanted {
    name: Option<String>,
    location: PathBuf,
}

/// Checks tablespace_map, the tablespaces in the plan and the entries in `pg_tblspc`. Changes nothing.
pub(super) fn judge(
    places: &Places<'_>,
    planned: &[Tablespace],
    control: &ControlFile,
    major: u32,
    findings: &mut Findings,
) -> Result<Tablespaces, Problem> {
    let (mut wanted, map) = wanted(&places.top, planned)?;
    let folder = TablespaceFolder { version: Version::Major(major), catalog: control.catalog_version };
    let folder =
        RelativePath::new(folder.to_string()).map_err(|error| Problem::new(CHECK, error.to_string()))?;
    let mut linked = Vec::new();
    for (oid, kind) in entries(&places.top)? {
        let link = link(oid)?;
        let (target, work) = match wanted.remove(&oid) {
            Some(wanted) => {
                let target = mapped(places, oid, &wanted)?;
                let work = judge_existing(places, &link, kind, &target)?;
                (target, work)
            }
            None => match kind {
                Kind::Link => judge_unknown_link(places, oid, &link)?,
                Kind::Directory => {
                    findings.add(
                        CHECK,
                        format!("`{link}` is a directory: a tablespace inside the data directory"),
                    );
                    continue;
                }
                Kind::File | Kind::Special => continue,
            },
        };
        linked.push(Linked::of(places, &target, &folder, link, work)?);
    }
    for (oid, wanted) in wanted {
        let target = mapped(places, oid, &wanted)?;
        linked.push(Linked::of(places, &target, &folder, link(oid)?, LinkAction::Make)?);
    }
    let mut taken = BTreeMap::new();
    for tablespace in &linked {
        check_place(places, tablespace, &mut taken)?;
    }
    Ok(Tablespaces { linked, map })
}

/// Returns the tablespaces in tablespace_map and in the plan, and whether there is a tablespace_map. Locations in tablespace_map take
/// precedence over those in the plan.
fn wanted(top: &Directory, planned: &[Tablespace]) -> Result<(BTreeMap<u32, Wanted>, bool), Problem> {
    let mut wanted: BTreeMap<u32, Wanted> = planned
        .iter()
        .map(|tablespace| {
            (tablespace.oid, Wanted { name: tablespace.name.clone(), location: tablespace.location.clone() })
        })
        .collect();
    if top.find(&TABLESPACE_MAP).during(CHECK)?.is_none() {
        return Ok((wanted, false));
    }
    let bytes = top.read(&TABLESPACE_MAP, tablespace_map::LIMIT).during(CHECK)?;
    let entries = tablespace_map::parse(&bytes)
        .map_err(|error| Problem::new(CHECK, format!("`tablespace_map` cannot be read: it {error}")))?;
    for entry in entries {
        let name = wanted.remove(&entry.oid).and_then(|planned| planned.name);
        let location = PathBuf::from(OsString::from_vec(entry.location));
        wanted.insert(entry.oid, Wanted { name, location });
    }
    Ok((wanted, true))
}

/// Returns the directory that the operator's map gives to a tablespace.
fn mapped(places: &Places<'_>, oid: u32, wanted: &Wanted) -> Result<PathBuf, Problem> {
    places.tablespaces.target(oid, wanted.name.as_deref(), &wanted.location).map(Path::to_owned).ok_or_else(
        || {
            let location = shown(wanted.location.as_os_str().as_encoded_bytes());
            let message = format!(
                "the tablespace {oid}, which was at `{location}`, is not in the map: \
             add `tablespaces = {{ \"{location}\" = \"/new/place\" }}`"
            );
            Problem::new(CHECK, message)
        },
    )
}

/// Checks what exists at the link of a tablespace whose directory is `target`.
fn judge_existing(
    places: &Places<'_>,
    link: &RelativePath,
    kind: Kind,
    target: &Path,
) -> Result<LinkAction, Problem> {
    match kind {
        Kind::Link => {
            let existing = places.top.read_link(link).during(CHECK)?;
            let real = &places.tablespace(target)?.path;
            if existing == *real {
                Ok(LinkAction::Keep)
            } else if is_at(&places.path.join("pg_tblspc").join(&existing), real) {
                Ok(LinkAction::ReplaceLink)
            } else {
                let message = format!(
                    "`{link}` is a link to `{}`, but the map says `{}`",
                    shown(existing.as_os_str().as_encoded_bytes()),
                    target.display()
                );
                Err(Problem::new(Rule::Links, message))
            }
        }
        Kind::Directory
            if places.top.open_directory(link).and_then(|found| found.is_empty()).during(CHECK)? =>
        {
            Ok(LinkAction::ReplaceDirectory)
        }
        Kind::Directory => {
            let message = format!(
                "`{link}` holds files although the map gives the tablespace `{}`: the method must write the files to that directory",
                target.display()
            );
            Err(Problem::new(CHECK, message))
        }
        Kind::File | Kind::Special => {
            Err(Problem::new(CHECK, format!("`{link}` is neither a directory nor a link")))
        }
    }
}

/// Checks the link of a tablespace that neither tablespace_map nor the plan names, such as a link that pg_basebackup leaves. The link must
/// lead to a directory in the map, but not to a directory that the map gives to another tablespace.
fn judge_unknown_link(
    places: &Places<'_>,
    oid: u32,
    link: &RelativePath,
) -> Result<(PathBuf, LinkAction), Problem> {
    let existing = places.top.read_link(link).during(CHECK)?;
    let resolved = places.path.join("pg_tblspc").join(&existing);
    // If the map has an entry for this object identifier, only the directory of that entry is allowed.
    let by_oid = places.tablespaces.entries().find(|(key, _)| **key == crate::TablespaceKey::Oid(oid));
    let target = match by_oid {
        Some((_, target)) => Some(target).filter(|target| same_place(&resolved, target)),
        None => places.tablespaces.targets().find(|target| same_place(&resolved, target)),
    };
    let Some(target) = target else {
        let shown = shown(existing.as_os_str().as_encoded_bytes());
        let message = format!(
            "`{link}` is a link to `{shown}`, which the map does not give to the tablespace: \
             add `tablespaces = {{ \"{oid}\" = \"{shown}\" }}` to allow that directory"
        );
        return Err(Problem::new(Rule::Links, message));
    };
    let work =
        if existing == places.tablespace(target)?.path { LinkAction::Keep } else { LinkAction::ReplaceLink };
    Ok((target.to_owned(), work))
}

fn same_place(resolved: &Path, target: &Path) -> bool {
    target.canonicalize().is_ok_and(|real| is_at(resolved, &real))
}

/// Checks that no other tablespace has the same directory, and that the directory contains the tablespace's folder.
fn check_place(
    places: &Places<'_>,
    tablespace: &Linked,
    taken: &mut BTreeMap<PathBuf, PathBuf>,
) -> Result<(), Problem> {
    let path = tablespace.path.clone();
    if path == places.path || places.wal.as_ref().is_some_and(|wal| wal.path == path) {
        let message = format!("`{}` is also used for something other than a tablespace", path.display());
        return Err(Problem::new(CHECK, message));
    }
    if let Some(other) = taken.insert(path.clone(), tablespace.link().to_owned()) {
        let message = format!(
            "`{}` and `{}` both go to `{}`: give each tablespace its own directory",
            other.display(),
            tablespace.link().display(),
            path.display()
        );
        return Err(Problem::new(CHECK, message));
    }
    let folder = tablespace.directory.find(&tablespace.folder).during(CHECK)?;
    if folder.map(|metadata| metadata.kind) != Some(Kind::Directory) {
        let message = format!(
            "`{}` has no directory `{}`: the method did not restore the tablespace of `{}`",
            path.display(),
            tablespace.folder,
            tablespace.link().display()
        );
        return Err(Problem::new(CHECK, message));
    }
    Ok(())
}

/// Returns the entries in `pg_tblspc` whose names are object identifiers. PostgreSQL ignores all other entries.
fn entries(top: &Directory) -> Result<Vec<(u32, Kind)>, Problem> {
    if top.find(&PG_TBLSPC).during(CHECK)?.is_none() {
        return Ok(Vec::new());
    }
    let directory = top.open_directory(&PG_TBLSPC).during(CHECK)?;
    let mut oids = BTreeSet::new();
    let mut count = 0;
    directory
        .names(&mut |name| {
            // `007` and `7` are different entries: only PostgreSQL's own spelling counts.
            if let Some(oid) = name.to_str().and_then(tablespace_oid) {
                oids.insert(oid);
            }
            count += 1;
            Ok(count <= MOST)
        })
        .during(CHECK)?;
    if count > MOST {
        return Err(Problem::new(CHECK, format!("`pg_tblspc` has more than {MOST} entries")));
    }
    oids.into_iter().map(|oid| Ok((oid, top.metadata(&link(oid)?).during(CHECK)?.kind))).collect()
}

fn link(oid: u32) -> Result<RelativePath, Problem> {
    RelativePath::new(format!("{}/{oid}", names::PG_TBLSPC))
        .map_err(|error| Problem::new(CHECK, error.to_string()))
}

/// Makes the links and removes tablespace_map.
pub(super) fn apply(
    top: &Directory,
    tablespaces: &Tablespaces,
    findings: &mut Findings,
) -> Result<(), Problem> {
    for tablespace in &tablespaces.linked {
        let link = &tablespace.link;
        match tablespace.work {
            LinkAction::Keep => continue,
            LinkAction::Make => {}
            LinkAction::ReplaceLink => top.remove_file(link).during(CHECK)?,
            LinkAction::ReplaceDirectory => top.remove_directory(link).during(CHECK)?,
        }
        top.create_link(link, &tablespace.path).during(CHECK)?;
        findings.add_info(CHECK, format!("`{link}` was made a link to `{}`", tablespace.path.display()));
    }
    if tablespaces.map {
        top.remove_file(&TABLESPACE_MAP).during(CHECK)?;
        findings.add(
            CHECK,
            "`tablespace_map` was removed: its links are made, and the server would make them again",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
