//! Makes the plan. Checks everything that the place shows without reading the backup's files; of a tree, the control file is read.

use pgdata::manifest::Summary;
use postgres_formats::backup_label;
use postgres_formats::control_file::{self, Beginning, RelationFiles, wal_segment_size};
use postgres_formats::names::{BACKUP_LABEL, CONTROL_FILE, PG_VERSION};
use postgres_formats::version::{self, major_version};
use restore::pages;
use restore::wal::{Amount, Counts};
use understudy::{Error, Failure, Plan, log};

use crate::catalogue::{self, Entry};
use crate::chain::{self, Link};
use crate::choice::{check_kept, choose};
use crate::combine;
use crate::contents::{self, Contents};
use crate::info::{Backup, Status};
use crate::label::Label;
use crate::manifest;
use crate::options::Options;
use crate::place::Place;
use crate::tree::{FIRST, check_links, walk};
use crate::wal;

/// A backup that can be restored.
#[derive(Debug)]
pub(crate) struct Usable {
    pub(crate) newest: Link,
    pub(crate) contents: Contents,
    /// The backups on which an incremental backup depends, from newer to older.
    pub(crate) older: Vec<Older>,
    /// The plan without the number of bytes and files.
    pub(crate) plan: Plan,
}

/// A backup on which an incremental backup depends.
#[derive(Debug)]
pub(crate) struct Older {
    pub(crate) link: Link,
    pub(crate) contents: Contents,
}

impl Usable {
    /// Returns whether the tablespace with this OID is restored: the backup has it. An older backup may have tablespaces that were dropped
    /// before the newest backup was taken.
    pub(crate) fn restores(&self, oid: u32) -> bool {
        self.newest.backup.tablespaces.iter().any(|tablespace| tablespace.oid == oid)
    }
}

/// Returns the plan of the backup that `options` choose.
///
/// # Errors
/// The error says why no backup can be restored.
pub(crate) fn of(options: &Options) -> Result<Plan, Failure> {
    let place = &options.place;
    let (Usable { newest, mut plan, .. }, counted) = first_usable(options)?;
    let wal = match wal::route(place, &newest, options.wal)? {
        None => Amount::default(),
        Some(route) => route.expected(&newest.backup.id, &|_| false)?,
    };
    (plan.bytes, plan.files) = wal.added_to(counted);
    Ok(plan)
}

/// How many older backups are tried at most.
pub(crate) const MOST_OLDER: usize = 20;

/// Returns the first backup of [`choose`] that can be restored, and how many bytes and files will be written for it, without WAL. If the
/// options do not allow older backups, tries only the first. Logs why it skips a backup.
fn first_usable(options: &Options) -> Result<(Usable, Counts), Failure> {
    let place = &options.place;
    let mut candidates = choose(options)?.into_iter();
    let mut failures: Vec<String> = Vec::new();
    let most = if options.takes_older { 1 + MOST_OLDER } else { 1 };
    for (entry, backup) in candidates.by_ref().take(most) {
        let id = &entry.id;
        // `choose` has checked this for the first backup.
        let kept = if failures.is_empty() { Ok(()) } else { check_kept(place, id) };
        let checked = kept.and_then(|()| usable_of(place, &entry, backup)).and_then(|usable| {
            let counted = counted(options, &usable)?;
            Ok((usable, counted))
        });
        match checked {
            Ok(found) => {
                for why in failures {
                    log::warn!("skipped a newer backup: {why}");
                }
                return Ok(found);
            }
            Err(Failure::Failed(why)) => failures.push(why),
            // An error that may pass is not a reason to use an older backup.
            Err(failure) => return Err(failure),
        }
    }
    let why = failures.join("; ");
    Err(Failure::failed(match candidates.next() {
        None => why,
        Some((next, _)) if options.takes_older => format!(
            "{why}; the backup {} and older ones were not tried, because at most {MOST_OLDER} older backups are: choose one with \
             `backup`",
            next.id
        ),
        Some((next, _)) => {
            format!("{why}; set `older = true` to try older backups automatically (the next is {})", next.id)
        }
    }))
}

/// Returns how many files are written for a tree with this number of files, without WAL.
pub(crate) fn written(of_tree: u64) -> u64 {
    (FIRST.len() as u64).saturating_add(of_tree)
}

/// Returns how many bytes and files will be written, without WAL. Reads the manifests, and lists the trees, of all backups. The bytes of a
/// chain, and those of archives without a manifest, are estimated by the size of the cluster that Barman recorded.
fn counted(options: &Options, usable: &Usable) -> Result<Counts, Failure> {
    let place = &options.place;
    let newest = &usable.newest;
    let rest = if options.verify && newest.pages.clone()?.is_some() { PAGES } else { NOTHING };
    let cluster_size = newest.backup.cluster_size;
    for Older { link, contents } in &usable.older {
        summary(place, link, contents, rest)?;
        if matches!(contents, Contents::Tree { .. }) {
            check_links(place, &link.backup)?;
            walk(place, &link.backup, &mut |_, _| Ok(()))?;
        }
    }
    let summary = summary(place, newest, &usable.contents, rest)?;
    let (bytes, files) = match (&usable.contents, summary) {
        (Contents::Tree { .. }, _) => {
            let (mut bytes, mut files) = (newest.label.text.len() as u64, written(0));
            check_links(place, &newest.backup)?;
            walk(place, &newest.backup, &mut |_, object| {
                bytes = bytes.saturating_add(object.size);
                files += 1;
                Ok(())
            })?;
            (Some(bytes), Some(files))
        }
        (Contents::Server { .. }, Some(Summary { bytes, files, .. })) => (Some(bytes), Some(files)),
        (Contents::Server { archives, .. } | Contents::Cloud(archives), _) => {
            (archives.plain_bytes().or(cluster_size), None)
        }
    };
    // The files of an incremental backup are smaller than those that are made from them.
    Ok((if usable.older.is_empty() { bytes } else { cluster_size }, files))
}

/// What says whether the bytes of files without other checksums are right, if their pages are checked, and if they are not.
const PAGES: &str = "only the checksums of pages say whether the bytes of its files are right";
const NOTHING: &str = "nothing says whether the bytes of its files are right";

/// Reads the manifest of a backup; `None`, and a warning that ends with `rest`, if there is none.
fn summary(place: &Place, link: &Link, contents: &Contents, rest: &str) -> Result<Option<Summary>, Failure> {
    let id = &link.backup.id;
    match contents {
        Contents::Tree { manifest: Some(object) } | Contents::Server { manifest: Some(object), .. } => {
            return manifest::summary(place, object, link).map(Some);
        }
        Contents::Tree { .. } | Contents::Server { .. } => {
            log::warn!("the backup {id} has no backup_manifest: {rest}");
        }
        Contents::Cloud(_) => log::warn!("barman-cloud keeps no checksums of the backup {id}: {rest}"),
    }
    Ok(None)
}

/// Checks that the backup that `options` choose can be restored.
///
/// # Errors
/// The error says why it cannot.
pub(crate) fn usable(options: &Options) -> Result<Usable, Failure> {
    let Some((entry, backup)) = choose(options)?.into_iter().next() else {
        return Err(Failure::failed(format!("no backup in {} can be restored", options.place)));
    };
    usable_of(&options.place, &entry, backup)
}

/// Checks that the backup of `entry` can be restored.
fn usable_of(place: &Place, entry: &Entry, backup: Backup) -> Result<Usable, Failure> {
    let (newest, contents) = opened(place, entry, backup)?;
    let older = older(place, &newest, &contents)?;
    let backup = &newest.backup;
    let plan = Plan {
        backup: backup.id.clone(),
        postgresql_major: Some(backup.major),
        system_identifier: backup.system_identifier,
        timeline: Some(backup.timeline),
        start_lsn: Some(backup.begin.0),
        stop_lsn: Some(backup.end.0),
        tablespaces: backup.tablespaces.clone(),
        ..Plan::default()
    };
    Ok(Usable { newest, contents, older, plan })
}

/// Finds the files of a backup, and checks what can be checked of them before they are listed.
fn opened(place: &Place, entry: &Entry, mut backup: Backup) -> Result<(Link, Contents), Failure> {
    let key = &entry.key;
    if !entry.record.unknown.is_empty() {
        log::debug!(
            "{} has keys that this version does not know: {}",
            place.shown(key),
            entry.record.unknown.join(", ")
        );
    }
    check_kind(place, key, &backup)?;
    let contents = contents::find(place, &backup)?;
    let label = label(place, key, &backup, &contents)?;
    let pages = if matches!(contents, Contents::Tree { .. }) {
        let (system_identifier, pages) = check_tree(place, &backup)?;
        backup.system_identifier = Some(system_identifier);
        pages
    } else {
        // The control file is behind the other files in an archive, too late to say how they are divided.
        Ok((backup.has_checksums == Some(true)).then_some(RelationFiles::DEFAULT))
    };
    Ok((Link { backup, label, pages, shown: place.shown(key) }, contents))
}

/// Checks that a backup of this kind can be restored.
fn check_kind(place: &Place, key: &str, backup: &Backup) -> Result<(), Failure> {
    if backup.is_snapshot {
        return Err(place.failed(
            key,
            "is of a backup in snapshots of disks, which are not restored: restore it with barman, or choose another with `backup`",
        ));
    }
    Ok(())
}

/// Returns the label of a backup, from `backup.info` or, for an exclusive backup, from the tree.
fn label(place: &Place, key: &str, backup: &Backup, contents: &Contents) -> Result<Label, Failure> {
    let is_tree = matches!(contents, Contents::Tree { .. });
    let object = format!("{}/data/{BACKUP_LABEL}", place.backup(&backup.id));
    let file = if is_tree { small(place, &object, backup_label::LIMIT)? } else { None };
    let (text, from) = match (&backup.label, file) {
        (Some(text), Some(file)) if text.as_bytes() != file => {
            return Err(place.failed(key, format!("has another backup_label than {}", place.shown(&object))));
        }
        (Some(text), _) => (text.clone().into_bytes(), key),
        (None, Some(file)) => (file, object.as_str()),
        (None, None) => {
            return Err(place.failed(
                key,
                "has no `backup_label`: without it a server would begin in the wrong place and be corrupt; choose another \
                 with `backup`",
            ));
        }
    };
    Label::of(backup, &text).map_err(|why| place.failed(from, why))
}

/// Finds the backups on which `newest` depends, with their files.
fn older(place: &Place, newest: &Link, contents: &Contents) -> Result<Vec<Older>, Failure> {
    let own = &newest.backup;
    if matches!(contents, Contents::Cloud(_)) {
        if own.compression.is_some() {
            return Err(Failure::failed(format!(
                "{} is of a backup whose archives were uploaded within other archives, which is not restored: upload it without \
                 `backup_compression`",
                newest.shown
            )));
        }
        if own.parent.is_some() {
            return Err(combine::in_cloud(newest, &own.id));
        }
        check_outside(newest)?;
    }
    let mut found = Vec::new();
    let parents = chain::parents(newest, &mut |id| {
        let Some(entry) = catalogue::find(place, id)? else { return Ok(None) };
        if entry.record.status != Status::Done {
            return Err(place.failed(
                &entry.key,
                format!(
                    "has the status {}, and {} depends on it",
                    entry.record.describe_status(),
                    newest.shown
                ),
            ));
        }
        check_kept(place, id)?;
        let backup = entry.record.backup(id).map_err(|why| place.failed(&entry.key, why))?;
        let (link, contents) = opened(place, &entry, backup)?;
        if matches!(contents, Contents::Cloud(_)) {
            return Err(combine::in_cloud(newest, id));
        }
        found.push(contents);
        Ok(Some(link))
    })?;
    Ok(parents.into_iter().zip(found).map(|(link, contents)| Older { link, contents }).collect())
}

/// Checks that no two configuration files get the same name in `data.tar`: barman-cloud adds those outside the data directory under their
/// base names (`backup_copy` of `CloudBackupUploader` in barman/cloud.py). Whether the data directory has a file of that name as well is
/// known only when the archive is unpacked.
fn check_outside(newest: &Link) -> Result<(), Failure> {
    let files = &newest.backup.outside;
    let name = |file: &String| file.rsplit('/').next().unwrap_or_default().to_owned();
    for (at, one) in files.iter().enumerate() {
        if let Some(other) = files.iter().skip(at + 1).find(|other| name(other) == name(one)) {
            return Err(Failure::failed(format!(
                "{} names the configuration files {} and {}, which barman-cloud stores under one name: give them different names, \
                 and take a new backup",
                newest.shown,
                one.escape_debug(),
                other.escape_debug()
            )));
        }
    }
    Ok(())
}

/// Checks the version and the control file of a tree. Returns the system identifier, and how files of relations are divided if their pages
/// have checksums.
fn check_tree(
    place: &Place,
    backup: &Backup,
) -> Result<(u64, Result<Option<RelationFiles>, Failure>), Failure> {
    let data = format!("{}/data", place.backup(&backup.id));
    let key = format!("{data}/{PG_VERSION}");
    let version = small(place, &key, version::LIMIT)?.unwrap_or_default();
    if major_version(&version) != Some(backup.major) {
        let major = backup.major;
        return Err(
            place.failed(&key, format!("is not that of version {major}, which the backup.info names"))
        );
    }
    let key = format!("{data}/{CONTROL_FILE}");
    let Some(bytes) = small(place, &key, control_file::SIZE)? else {
        return Err(place.failed(&key, "is missing: the backup is not whole"));
    };
    if bytes.len() as u64 != control_file::SIZE {
        return Err(
            place.failed(&key, format!("has {} bytes instead of {}", bytes.len(), control_file::SIZE))
        );
    }
    let control = Beginning::parse(&bytes).map_err(|error| place.failed(&key, error))?;
    if let Some(own) = backup.system_identifier.filter(|own| *own != control.system_identifier) {
        let found = control.system_identifier;
        return Err(place.failed(
            &key,
            format!("is from the cluster {found}, but the backup.info is from the cluster {own}"),
        ));
    }
    if backup.parent.is_some() {
        RelationFiles::check_default(&bytes).map_err(|error| place.failed(&key, error))?;
    }
    if let Ok(size) = wal_segment_size(&bytes)
        && size != backup.segment_size
    {
        let own = backup.segment_size;
        return Err(place.failed(&key, format!("has WAL segments of {size}, but the backup.info of {own}")));
    }
    let pages = pages::of_cluster(&bytes, |why| place.failed(&key, why));
    Ok((control.system_identifier, pages))
}

/// Reads a file of at most `limit` bytes; `None` if there is no such file.
fn small(place: &Place, key: &str, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
    match place.at.bucket.get(key, None, u32::try_from(limit).unwrap_or(u32::MAX)) {
        Err(Error::NotFound(_)) => Ok(None),
        contents => Ok(Some(contents?)),
    }
}
