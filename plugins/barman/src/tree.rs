//! The files of a plain tree: which of them are restored, and where to.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use postgres_formats::names::{
    BACKUP_LABEL, BACKUP_MANIFEST, PG_TBLSPC, PG_VERSION, POSTMASTER_OPTS, POSTMASTER_PID, RECOVERY_SIGNAL,
    STANDBY_SIGNAL, TABLESPACE_MAP, TablespaceFolder, UNFINISHED_CONTROL_FILE, tablespace_oid,
};
use understudy::store::Object;
use understudy::{AtPath, Failure, cancelled};

use crate::info::Backup;
use crate::names::{is_increment, is_increment_of_relation};
use crate::place::Place;

/// The largest permitted number of files in a tree.
pub(crate) const MOST_FILES: usize = 10_000_000;

/// Folders whose content Barman does not restore (`_copy_pgdata_and_tablespaces` in barman/recovery_executor.py).
pub(crate) const EMPTIED: [&str; 4] = ["pg_wal/", "pg_xlog/", "log/", "pg_log/"];

/// Files that are not restored: those that Barman does not restore, those of a running server, those that the host writes itself, and the
/// list of the backup's files, which does not fit a cluster that runs.
pub(crate) const LEFT_OUT: [&str; 8] = [
    "recovery.conf",
    BACKUP_MANIFEST,
    POSTMASTER_OPTS,
    POSTMASTER_PID,
    RECOVERY_SIGNAL,
    STANDBY_SIGNAL,
    TABLESPACE_MAP,
    UNFINISHED_CONTROL_FILE,
];

/// The files that are written before all others, from what `backup.info` says.
pub(crate) const FIRST: [&str; 2] = [PG_VERSION, BACKUP_LABEL];

/// The directories of a data directory that may be empty (`subdirs` in PostgreSQL's src/bin/initdb/initdb.c). A listing does not have empty
/// directories, and a server does not start without some of these. The others have files in every cluster: if a backup has none of them,
/// the host finds that the directory is missing.
pub(crate) const DIRECTORIES: [&str; 14] = [
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_logical/mappings",
    "pg_logical/snapshots",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
];

/// How deep the folders of a tree may be nested. PostgreSQL's are five deep below the folder of a backup.
pub(crate) const DEEPEST: usize = 64;

/// Returns whether the file `name` of a data directory is neither restored nor compared with a manifest.
pub(crate) fn is_left_out(name: &str) -> bool {
    LEFT_OUT.contains(&name) || EMPTIED.iter().any(|folder| name.starts_with(folder))
}

/// Returns the name in the data directory of the file `rest` in the folder of a backup; `None` if the file is not restored. The name of an
/// increment is that of the stored file, such as `base/5/INCREMENTAL.1259`.
///
/// # Errors
/// Fails if the file does not belong in a backup. The error follows the name of the file.
pub(crate) fn name_of(rest: &str, backup: &Backup) -> Result<Option<String>, String> {
    let (folder, name) = rest.split_once('/').unwrap_or(("", rest));
    let is_known = |oid: u32| backup.tablespaces.iter().any(|tablespace| tablespace.oid == oid);
    let name = match (folder, tablespace_oid(folder)) {
        ("data", _) => name.to_owned(),
        (_, Some(oid)) if is_known(oid) => {
            let version =
                name.split_once('/').and_then(|(version, _)| TablespaceFolder::parse(version.as_bytes()));
            if version.and_then(|folder| folder.version.major()) != Some(backup.major) {
                return Err(format!("is not below a folder PG_{}_CATALOG of the tablespace", backup.major));
            }
            format!("{PG_TBLSPC}/{rest}")
        }
        (_, Some(_)) => return Err("belongs to no tablespace of the backup.info".to_owned()),
        // The `backup.info` of an older Barman, and annotations.
        _ => return Ok(None),
    };
    if folder == "data" {
        if is_left_out(&name) {
            return Ok(None);
        }
        if let Some(below) = name.strip_prefix("pg_tblspc/") {
            // A copy that follows links has the files of a tablespace twice: here, and in the folder of the tablespace.
            let oid = below.split('/').next().and_then(tablespace_oid);
            return if oid.is_some_and(is_known) {
                Ok(None)
            } else {
                Err("belongs to no tablespace of the backup.info".to_owned())
            };
        }
    }
    if is_increment(&name) {
        if backup.parent.is_none() {
            return Err("is of an incremental backup, although the backup has no parent".to_owned());
        }
        // The host writes an increment to the name without `INCREMENTAL.`, which must not be one that is left out or written first.
        if !is_increment_of_relation(&name) {
            return Err("is an increment of a file that is not a relation, which PostgreSQL does not write"
                .to_owned());
        }
    }
    Ok(Some(name))
}

/// Calls `visit` with the name in the data directory and the object of every file of the tree that is restored, except for [`FIRST`].
///
/// # Errors
/// Fails if the tree cannot be listed, has a file that does not belong there, has fewer bytes than when the backup ended, or has nothing of
/// a tablespace; the errors of `visit`.
pub(crate) fn walk(
    place: &Place,
    backup: &Backup,
    visit: &mut dyn FnMut(String, Object) -> Result<(), Failure>,
) -> Result<(), Failure> {
    walk_up_to(MOST_FILES, place, backup, visit)
}

fn walk_up_to(
    most: usize,
    place: &Place,
    backup: &Backup,
    visit: &mut dyn FnMut(String, Object) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let folder = place.backup(&backup.id);
    let mut bytes = 0_u64;
    let (mut missing, mut copied) = (BTreeSet::new(), BTreeSet::new());
    missing.extend(backup.tablespaces.iter().map(|tablespace| tablespace.oid));
    let too_many = || place.failed(&folder, format!("has more than {most} files"));
    let count = place.at.each_in(&folder, most, &too_many, &mut |rest, object| {
        if let Some(below) = rest.strip_prefix("data/pg_tblspc/") {
            // `size` does not count what a link leads to. A copy that followed links has the files here as well.
            copied.extend(below.split('/').next().and_then(tablespace_oid));
        } else if !(backup.is_by_rsync && rest == "data/backup_manifest") {
            // `size` does not count a manifest that `barman generate-manifest` adds.
            bytes = bytes.saturating_add(object.size);
        }
        if let Some(oid) = rest.split('/').next().and_then(tablespace_oid) {
            missing.remove(&oid);
        }
        let name = name_of(&rest, backup).map_err(|why| place.failed(&object.key, why))?;
        if let Some(name) = name.filter(|name| !FIRST.contains(&name.as_str())) {
            visit(name, object)?;
        }
        Ok(())
    })?;
    if count == 0 {
        return Err(place.failed(&folder, format!("has no files: {REMOVED}")));
    }
    if let Some(least) = backup.least_bytes.filter(|least| bytes < *least) {
        return Err(place.failed(
            &folder,
            format!("has files of {bytes} bytes, and by its backup.info of at least {least}: {REMOVED}"),
        ));
    }
    for oid in missing {
        if copied.contains(&oid) {
            return Err(place.failed(
                &format!("{folder}/{oid}"),
                format!("has no files, and data/pg_tblspc/{oid} has some: {REMOVED}"),
            ));
        }
        check_empty_tablespace(place, backup, oid)?;
    }
    Ok(())
}

/// Why files of a backup may be missing, and what to do.
const REMOVED: &str = "the backup was removed in part or not copied whole; choose another with `backup`";

/// Checks that the tablespace `oid`, of which a tree has no file, is in the backup. A tablespace without tables has a folder and no file. In
/// a store, which has no folders, only the size of the backup says that no file is missing.
fn check_empty_tablespace(place: &Place, backup: &Backup, oid: u32) -> Result<(), Failure> {
    let folder = format!("{}/{oid}", place.backup(&backup.id));
    let is_there = match place.at.directory() {
        None => backup.least_bytes.is_some(),
        Some(path) => {
            let path = path.join("base").join(&backup.id).join(oid.to_string());
            has_folder_of_version(&path, backup)?
        }
    };
    if is_there {
        return Ok(());
    }
    Err(place.failed(
        &folder,
        format!("has no folder PG_{}_CATALOG of the tablespace {oid}: {REMOVED}", backup.major),
    ))
}

/// Returns whether the folder `path` of a tablespace has the folder of the version of a backup.
fn has_folder_of_version(path: &Path, backup: &Backup) -> Result<bool, Failure> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        entries => entries.at(path)?,
    };
    for (count, entry) in entries.enumerate() {
        cancelled()?;
        let entry = entry.at(path)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let version = TablespaceFolder::parse(name.as_bytes()).and_then(|folder| folder.version.major());
        if version == Some(backup.major) && entry.file_type().at(entry.path())?.is_dir() {
            return Ok(true);
        }
        if count == MOST_BESIDES {
            break;
        }
    }
    Ok(false)
}

/// How many other entries the folder of a tablespace may have.
const MOST_BESIDES: usize = 1000;

/// Checks that the tree of `backup` in a directory of this machine has no symbolic links in place of files or folders. A listing passes over
/// links in silence. Barman copies what links lead to (`-rLKpts` in barman/copy_controller.py); pg_basebackup makes links of tablespaces,
/// whose files are in a folder of their own.
///
/// # Errors
/// Fails at the first link, if the tree has too many files or is nested too deeply, or if it cannot be read.
pub(crate) fn check_links(place: &Place, backup: &Backup) -> Result<(), Failure> {
    match place.at.directory() {
        None => Ok(()),
        Some(path) => {
            let path = path.join("base").join(&backup.id);
            Links { place, backup, left: MOST_FILES }.check(&path, "", 0)
        }
    }
}

/// The search for links.
struct Links<'a> {
    place: &'a Place,
    backup: &'a Backup,
    /// How many more entries may be looked at.
    left: usize,
}

impl Links<'_> {
    fn failed(&self, name: &str, what: impl std::fmt::Display) -> Failure {
        let folder = self.place.backup(&self.backup.id);
        self.place.failed(&format!("{folder}/{}", name.escape_debug()), what)
    }

    fn check(&mut self, path: &Path, name: &str, depth: usize) -> Result<(), Failure> {
        if depth > DEEPEST {
            return Err(self.failed(name, format!("is more than {DEEPEST} folders deep")));
        }
        for entry in fs::read_dir(path).at(path)? {
            cancelled()?;
            let entry = entry.at(path)?;
            let last = entry.file_name().to_string_lossy().into_owned();
            let name = if name.is_empty() { last } else { format!("{name}/{last}") };
            self.left = match self.left.checked_sub(1) {
                Some(left) => left,
                None => return Err(self.failed("", format!("has more than {MOST_FILES} files and folders"))),
            };
            if !is_of_a_restore(&name) {
                continue;
            }
            let kind = entry.file_type().at(entry.path())?;
            if kind.is_symlink() && !self.is_link(&name) {
                return Err(self.failed(
                    &name,
                    "is a symbolic link, which Barman does not keep in a backup: what it leads to would be missing; put the file or \
                     folder in its place, or choose another with `backup`",
                ));
            }
            if kind.is_dir() {
                self.check(&entry.path(), &name, depth + 1)?;
            }
        }
        Ok(())
    }

    /// Returns whether `name` may be a link: that of a tablespace.
    fn is_link(&self, name: &str) -> bool {
        let oid = name.strip_prefix("data/pg_tblspc/").and_then(tablespace_oid);
        oid.is_some_and(|oid| self.backup.tablespaces.iter().any(|tablespace| tablespace.oid == oid))
    }
}

/// Returns whether a restore reads the file or folder `name` in the folder of a backup, or something below it.
fn is_of_a_restore(name: &str) -> bool {
    match name.strip_prefix("data/") {
        Some(name) => {
            !LEFT_OUT.contains(&name) && EMPTIED.iter().all(|folder| folder.strip_suffix('/') != Some(name))
        }
        None => name == "data" || name.split('/').next().and_then(tablespace_oid).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use understudy::Tablespace;

    use super::*;
    use crate::tests::scene::{Info, Scene, backup};

    #[test]
    fn files_go_where_barman_restores_them_to() {
        let fast = Tablespace { oid: 16384, name: None, location: "/fast".to_owned() };
        let backup = Backup { tablespaces: vec![fast], ..backup("20261126T043406") };
        for (rest, name) in [
            ("data/base/5/1259", Some("base/5/1259")),
            ("data/global/pg_control", Some("global/pg_control")),
            ("data/PG_VERSION", Some("PG_VERSION")),
            ("data/log.txt", Some("log.txt")),
            ("16384/PG_15_202209061/5/1", Some("pg_tblspc/16384/PG_15_202209061/5/1")),
            ("data/pg_wal/000000010000000000000004", None),
            ("data/log/postgresql.log", None),
            ("data/postmaster.pid", None),
            ("data/tablespace_map", None),
            ("data/backup_manifest", None),
            ("data/standby.signal", None),
            ("data/global/pg_control.understudy", None),
            ("data/pg_tblspc/16384/PG_15_202209061/5/1", None),
            ("backup.info", None),
            ("annotations/keep", None),
        ] {
            assert_eq!(name_of(rest, &backup).unwrap().as_deref(), name, "{rest}");
        }
        for (rest, what) in [
            ("data/base/5/INCREMENTAL.1259", "no parent"),
            ("16384/PG_15_202209061/5/INCREMENTAL.1", "no parent"),
            ("data/pg_tblspc/16385/PG_15_202209061/5/1", "no tablespace"),
            ("16385/PG_15_202209061/5/1", "no tablespace"),
            ("16384/PG_16_202307071/5/1", "PG_15_CATALOG"),
            ("16384/file", "PG_15_CATALOG"),
        ] {
            assert!(name_of(rest, &backup).unwrap_err().contains(what), "{rest}");
        }
    }

    #[test]
    fn increments_keep_their_stored_names_and_belong_to_relations() {
        let fast = Tablespace { oid: 16384, name: None, location: "/fast".to_owned() };
        let parent = Some("20261125T043406".to_owned());
        let backup = Backup { tablespaces: vec![fast], parent, ..backup("20261126T043406") };
        for (rest, name) in [
            ("data/base/5/INCREMENTAL.1259", "base/5/INCREMENTAL.1259"),
            ("data/global/INCREMENTAL.1260", "global/INCREMENTAL.1260"),
            ("16384/PG_15_202209061/5/INCREMENTAL.1", "pg_tblspc/16384/PG_15_202209061/5/INCREMENTAL.1"),
        ] {
            assert_eq!(name_of(rest, &backup).unwrap().as_deref(), Some(name), "{rest}");
        }
        for rest in [
            "data/INCREMENTAL.PG_VERSION",
            "data/INCREMENTAL.standby.signal",
            "data/global/INCREMENTAL.pg_control",
            "data/base/5/INCREMENTAL.PG_VERSION",
        ] {
            assert!(name_of(rest, &backup).unwrap_err().contains("not a relation"), "{rest}");
        }
    }

    #[test]
    fn the_number_of_files_is_bounded() {
        let scene = Scene::new();
        let info = Info::new("20261126T043406");
        scene.tree(&info);
        let fast = Tablespace { oid: 16384, name: None, location: "/fast".to_owned() };
        let backup = Backup { tablespaces: vec![fast], ..backup(info.id) };
        let walk = |most| {
            let mut files = 0;
            let walked = scene.host().run(|| {
                let place = Place::of(&scene.request())?;
                walk_up_to(most, &place, &backup, &mut |_, _| {
                    files += 1;
                    Ok(())
                })
            });
            walked.0.map(|()| files)
        };
        // Ten files, of which two are left out and two are written first.
        assert_eq!(walk(10), Ok(6));
        assert!(walk(9).unwrap_err().to_string().contains("more than 9 files"));
    }
}
