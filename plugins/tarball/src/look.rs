//! What a backup would restore, found without unpacking it: all of a plain archive's headers, only the beginning of a
//! compressed one.

use std::io::Read;

use pgdata::backup_label::{self, BackupLabel};
use pgdata::control::{self, Control};
use pgdata::major_version;
use pgdata::manifest::Summary;
use pgdata::tablespace_map::{self, Mapped};
use understudy::{Failure, Plan, Tablespace, cancelled, log};

use crate::backup::{ArchiveFile, Backup};
use crate::codec::Codec;
use crate::manifest;
use crate::tar::{Archive, Kind, Member};
use crate::unpack::belongs_in_base;

/// How far a compressed base.tar is read for what does not come first, in plain bytes.
const FAR_ENOUGH: u64 = 16 << 20;

/// The size of a WAL segment unless the cluster was made with another, which only its control file tells.
const USUAL_SEGMENT: u64 = 16 << 20;

/// What base.tar told.
#[derive(Default)]
struct Base {
    label: Option<BackupLabel>,
    map: Vec<Mapped>,
    major: Option<u32>,
    control: Option<Control>,
    /// Whether every member was seen, so that the sums are whole.
    whole: bool,
    sum: Sum,
    /// Of that, WAL.
    wal: Sum,
}

#[derive(Clone, Copy, Default)]
struct Sum {
    bytes: u64,
    files: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64, files: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.files = self.files.saturating_add(files);
    }
}

/// The plan of `backup`.
pub(crate) fn plan(backup: &Backup) -> Result<Plan, Failure> {
    let base = look_at_base(&backup.base)?;
    let Some(label) = &base.label else {
        return Err(backup.base.failed(
            "has no backup_label: it is not a base backup, and a server started from it would be corrupt",
        ));
    };
    if let Some(from) = label.incremental_from {
        return Err(backup.base.failed(format!(
            "is an incremental backup from {from}: combine it with its predecessors first (pg_combinebackup)"
        )));
    }
    let tablespaces = tablespaces(backup, &base)?;
    let summary = match &backup.manifest {
        Some(path) => Some(manifest::summary(path)?),
        None => {
            log::warn!(
                "there is no backup_manifest beside {}: files cannot be checked",
                backup.base.path.display()
            );
            None
        }
    };
    let mut plan = Plan {
        backup: label.describe(),
        postgresql_major: base.major,
        system_identifier: base.control.map(|control| control.system_identifier),
        timeline: Some(label.timeline),
        start_lsn: Some(label.start_lsn.0),
        tablespaces,
        ..Plan::default()
    };
    if let Some(summary) = &summary {
        believe(backup, summary, label, &mut plan)?;
    }
    if let Some(sum) = sum(backup, &base, summary.as_ref())? {
        (plan.bytes, plan.files) = (Some(sum.bytes), Some(sum.files));
    }
    Ok(plan)
}

/// Takes into the plan what the manifest says, which must be about this backup.
fn believe(backup: &Backup, summary: &Summary, label: &BackupLabel, plan: &mut Plan) -> Result<(), Failure> {
    let path = backup.manifest.as_deref().unwrap_or("backup_manifest".as_ref()).display();
    let base = backup.base.path.display();
    let begins_here = summary.wal_ranges.iter().any(|range| range.start == label.start_lsn);
    if !summary.wal_ranges.is_empty() && !begins_here {
        let start = label.start_lsn;
        return Err(Failure::failed(format!(
            "{path} belongs to another backup: none of its WAL begins at {start} as {base} says"
        )));
    }
    match (summary.system_identifier, plan.system_identifier) {
        (Some(listed), Some(found)) if listed != found => {
            return Err(Failure::failed(format!("{path} is of the cluster {listed}, {base} of {found}")));
        }
        (Some(listed), _) => plan.system_identifier = Some(listed),
        (None, _) => {}
    }
    if let Some(last) = summary.wal_ranges.iter().max_by_key(|range| range.timeline) {
        plan.timeline = Some(last.timeline);
        plan.stop_lsn = Some(last.end.0);
    }
    Ok(())
}

/// How much will be written, where that is known.
fn sum(backup: &Backup, base: &Base, summary: Option<&Summary>) -> Result<Option<Sum>, Failure> {
    let mut sum = match summary {
        Some(summary) => Sum { bytes: summary.bytes, files: summary.files },
        None => {
            let plain = backup.tablespaces.values().all(|archive| archive.codec == Codec::Plain);
            if !base.whole || !plain {
                return Ok(None);
            }
            let mut sum = base.sum;
            for archive in backup.tablespaces.values() {
                let sum_of_it = each_member(archive)?;
                sum.add(sum_of_it.bytes, sum_of_it.files);
            }
            sum
        }
    };
    if summary.is_some() && base.whole {
        sum.add(base.wal.bytes, base.wal.files);
    }
    match &backup.wal {
        Some(wal) if wal.codec == Codec::Plain => {
            let wal = each_member(wal)?;
            sum.add(wal.bytes, wal.files);
        }
        // Compressed or within a compressed base.tar: what must be there at least.
        Some(_) => add_listed_wal(&mut sum, summary),
        None if !base.whole => add_listed_wal(&mut sum, summary),
        None => {}
    }
    Ok(Some(sum))
}

fn add_listed_wal(sum: &mut Sum, summary: Option<&Summary>) {
    if let Some(bytes) = summary.and_then(|summary| summary.wal_bytes(USUAL_SEGMENT)) {
        sum.add(bytes, bytes / USUAL_SEGMENT);
    }
}

fn each_member(file: &ArchiveFile) -> Result<Sum, Failure> {
    let mut archive = file.look_at()?;
    let mut sum = Sum::default();
    while let Some(member) = archive.next().map_err(|error| file.failed(error))? {
        cancelled()?;
        if member.kind == Kind::File {
            sum.add(member.size, 1);
        }
    }
    Ok(sum)
}

fn look_at_base(file: &ArchiveFile) -> Result<Base, Failure> {
    let mut archive = file.look_at()?;
    let mut base = Base::default();
    let plain = file.codec == Codec::Plain;
    loop {
        cancelled()?;
        // backup_label and tablespace_map come first; the rest is worth some looking, not reading a terabyte.
        if !plain && base.label.is_some() && (base.major.is_some() || archive.next_header() > FAR_ENOUGH) {
            return Ok(base);
        }
        let Some(member) = archive.next().map_err(|error| file.failed(error))? else {
            base.whole = true;
            return Ok(base);
        };
        belongs_in_base(&member.name).map_err(|why| file.failed(why))?;
        let first = base.sum.files == 0;
        if member.kind == Kind::File {
            base.sum.add(member.size, 1);
            if member.name.starts_with("pg_wal/") {
                base.wal.add(member.size, 1);
            }
        }
        match member.name.as_str() {
            "backup_label" if !first => {
                return Err(file.failed("has a backup_label that is not its first file"));
            }
            "backup_label" => {
                let text = text(file, &mut archive, &member, backup_label::LIMIT)?;
                base.label = Some(read_label(file, &text)?);
            }
            "tablespace_map" => {
                let text = text(file, &mut archive, &member, tablespace_map::LIMIT)?;
                base.map = read_map(file, &text)?;
            }
            "PG_VERSION" => {
                let text = text(file, &mut archive, &member, 64)?;
                let major = major_version(&text);
                base.major =
                    Some(major.ok_or_else(|| file.failed("has a PG_VERSION that names no version"))?);
            }
            "global/pg_control" => {
                let mut beginning = [0; control::NEEDED];
                if member.size < beginning.len() as u64 {
                    return Err(file.failed(format!("has a global/pg_control of {} bytes", member.size)));
                }
                let read = archive.contents().read_exact(&mut beginning);
                read.map_err(|error| file.failed(archive.error(error)))?;
                let control = Control::parse(&beginning);
                base.control = Some(
                    control.map_err(|error| file.failed(format!("has a global/pg_control that {error}")))?,
                );
            }
            _ if first && !plain && base.label.is_none() => return Ok(base),
            _ => {}
        }
    }
}

/// Reads a small text of an archive.
pub(crate) fn text(
    file: &ArchiveFile,
    archive: &mut Archive,
    member: &Member,
    limit: u64,
) -> Result<String, Failure> {
    if member.kind != Kind::File || member.size > limit {
        return Err(
            file.failed(format!("has a {} that is larger than {limit} bytes or no file", member.name))
        );
    }
    let mut bytes = Vec::new();
    let read = archive.contents().read_to_end(&mut bytes);
    read.map_err(|error| file.failed(archive.error(error)))?;
    utf8(file, &member.name, bytes)
}

pub(crate) fn utf8(file: &ArchiveFile, name: &str, bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|_| file.failed(format!("has a {name} that is not UTF-8")))
}

pub(crate) fn read_label(file: &ArchiveFile, text: &str) -> Result<BackupLabel, Failure> {
    BackupLabel::parse(text).map_err(|error| file.failed(format!("has a backup_label that {error}")))
}

pub(crate) fn read_map(file: &ArchiveFile, text: &str) -> Result<Vec<Mapped>, Failure> {
    tablespace_map::parse(text).map_err(|error| file.failed(format!("has a tablespace_map that {error}")))
}

/// The tablespaces of the map, each of which must have its archive, and no archive without one.
fn tablespaces(backup: &Backup, base: &Base) -> Result<Vec<Tablespace>, Failure> {
    if let Some(missing) = base.map.iter().find(|mapped| !backup.tablespaces.contains_key(&mapped.oid)) {
        let Mapped { oid, location } = missing;
        return Err(backup
            .base
            .failed(format!("has the tablespace {oid} of {location}, and {oid}.tar is missing beside it")));
    }
    for (oid, archive) in &backup.tablespaces {
        if !base.map.iter().any(|mapped| mapped.oid == *oid) {
            return Err(archive.failed("belongs to no tablespace of the backup's tablespace_map"));
        }
    }
    Ok(base
        .map
        .iter()
        .map(|mapped| Tablespace { oid: mapped.oid, name: None, location: mapped.location.clone() })
        .collect())
}
