//! Makes the plan for a backup from its first archive members and its manifest.

use std::io::Read;

use postgres_formats::backup_label::{self, Start};
use postgres_formats::names::{BACKUP_LABEL, TABLESPACE_MAP};
use postgres_formats::tablespace_map::{self, Mapped};
use understudy::{Failure, Plan, Tablespace, cancelled};
use ustar::{Archive, Kind, Member};

use crate::backup::{ArchiveFile, Backup};
use crate::manifest;

/// How many decompressed bytes of base.tar are read to find its first members.
const FAR_ENOUGH: u64 = 16 << 20;

/// Makes the plan for `backup`.
pub(crate) fn plan(backup: &Backup) -> Result<Plan, Failure> {
    let (label, map) = look_at_base(&backup.base)?;
    let label = label.ok_or_else(|| backup.base.failed("has no backup_label: it is not a base backup"))?;
    let summary = match &backup.manifest {
        Some(path) => Some(manifest::summary(path)?),
        None => None,
    };
    let last =
        summary.as_ref().and_then(|summary| summary.wal_ranges.iter().max_by_key(|range| range.timeline));
    let tablespace =
        |mapped: Mapped<String>| Tablespace { oid: mapped.oid, name: None, location: mapped.location };
    Ok(Plan {
        backup: label.describe(),
        system_identifier: summary.as_ref().and_then(|summary| summary.system_identifier),
        timeline: Some(last.map_or(label.timeline, |range| range.timeline)),
        start_lsn: Some(label.start_lsn.0),
        stop_lsn: last.map(|range| range.end.0),
        bytes: summary.as_ref().map(|summary| summary.bytes),
        files: summary.as_ref().map(|summary| summary.files),
        tablespaces: map.into_iter().map(tablespace).collect(),
        ..Plan::default()
    })
}

fn look_at_base(file: &ArchiveFile) -> Result<(Option<Start>, Vec<Mapped<String>>), Failure> {
    let mut archive = file.read()?;
    let (mut label, mut map) = (None, Vec::new());
    while archive.next_header() < FAR_ENOUGH {
        cancelled()?;
        let Some(member) = archive.next().map_err(|error| file.failed(error))? else { break };
        match member.name.as_str() {
            BACKUP_LABEL => {
                label = Some(read_label(file, &contents(file, &mut archive, &member, backup_label::LIMIT)?)?);
            }
            TABLESPACE_MAP => {
                map = read_map(file, &contents(file, &mut archive, &member, tablespace_map::LIMIT)?)?;
            }
            // pg_basebackup writes both files before any other file.
            _ => break,
        }
    }
    Ok((label, map))
}

/// Reads a small archive member.
fn contents(
    file: &ArchiveFile,
    archive: &mut Archive,
    member: &Member,
    limit: u64,
) -> Result<Vec<u8>, Failure> {
    if member.kind != Kind::File || member.size > limit {
        return Err(file.failed(format!("has a {} that is not a file or exceeds {limit} bytes", member.name)));
    }
    let mut bytes = Vec::new();
    let read = archive.contents().read_to_end(&mut bytes);
    read.map_err(|error| file.failed(archive.error(error)))?;
    Ok(bytes)
}

pub(crate) fn read_label(file: &ArchiveFile, contents: &[u8]) -> Result<Start, Failure> {
    Start::parse(contents).map_err(|error| file.failed(format!("has a backup_label that {error}")))
}

pub(crate) fn read_map(file: &ArchiveFile, contents: &[u8]) -> Result<Vec<Mapped<String>>, Failure> {
    tablespace_map::parse_absolute(contents)
        .map_err(|error| file.failed(format!("has a tablespace_map that {error}")))
}
