//! Reads what base.tar says about the backup: its first members, its version, and, from a plain archive, the control file at its end.

use std::io::Read;

use postgres_formats::backup_label::{self, Start};
use postgres_formats::control_file::{self, Beginning, RelationFiles};
use postgres_formats::names;
use postgres_formats::tablespace_map::{self, Mapped};
use postgres_formats::version::{self, major_version};
use understudy::{Failure, cancelled};
use ustar::{Archive, Kind, Member, last_member};

use crate::archive::ArchiveObject;
use crate::names::belongs_in_base;
use crate::place::Place;

/// How many decompressed bytes of a compressed base.tar are read to find members that do not come first.
const FAR_ENOUGH: u64 = 16 << 20;

/// How many members of a plain base.tar are looked at in a directory, and in a store, where each member may cost a request.
const ENOUGH_LOCALLY: usize = 4096;
const ENOUGH_REMOTELY: usize = 64;

/// How many bytes at the end of a plain base.tar are read for the control file. It is the last member, unless the WAL is in the archive
/// too; then a few members of 512 bytes and records of zeros follow.
const TAIL: u64 = 64 << 10;

/// What base.tar says about the backup.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) label: Start,
    /// The text of backup_label.
    pub(crate) label_text: Vec<u8>,
    pub(crate) map: Vec<Mapped<String>>,
    pub(crate) major: Option<u32>,
    pub(crate) control: Option<Beginning>,
}

/// How much of base.tar to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// `backup_label` and `tablespace_map`, which come first.
    Labels,
    /// Everything that can be read without reading the whole archive.
    All,
}

/// Reads what the base.tar `archive` says about the backup.
///
/// # Errors
/// Fails if the archive cannot be read or does not come from a backup.
pub(crate) fn at_base(place: &Place, archive: &ArchiveObject, wanted: Wanted) -> Result<Base, Failure> {
    let mut looking =
        Looking { place, file: archive, label: None, map: Vec::new(), major: None, control: None };
    looking.members(wanted)?;
    let Some(label) = looking.label else {
        return Err(archive.failed(
            place,
            "has no backup_label: it is not a base backup, and a server started from it would be corrupt",
        ));
    };
    let (label_text, label) = label;
    let mut base =
        Base { label, label_text, map: looking.map, major: looking.major, control: looking.control };
    if wanted == Wanted::All && base.control.is_none() && archive.codec.is_none() {
        let tail = archive.tail(place, TAIL)?;
        if let Some(bytes) = last_member(&tail, names::CONTROL_FILE) {
            let is_incremental = base.label.incremental_from.is_some();
            base.control = Some(parse_control(place, archive, bytes, is_incremental)?);
        }
    }
    Ok(base)
}

struct Looking<'a> {
    place: &'a Place,
    file: &'a ArchiveObject,
    label: Option<(Vec<u8>, Start)>,
    map: Vec<Mapped<String>>,
    major: Option<u32>,
    control: Option<Beginning>,
}

impl Looking<'_> {
    fn members(&mut self, wanted: Wanted) -> Result<(), Failure> {
        let mut archive = self.file.look_at(self.place)?;
        let mut first = true;
        let enough = match (self.file.codec, self.place.at.is_local) {
            (Some(_), _) => usize::MAX,
            (None, true) => ENOUGH_LOCALLY,
            (None, false) => ENOUGH_REMOTELY,
        };
        for _ in 0..enough {
            cancelled()?;
            let far_enough = self.file.codec.is_some() && archive.next_header() > FAR_ENOUGH;
            if far_enough || (self.label.is_some() && self.major.is_some()) {
                return Ok(());
            }
            let Some(member) = archive.next().map_err(|error| self.failed(error))? else { return Ok(()) };
            belongs_in_base(&member.name, self.may_have_increments()).map_err(|why| self.failed(why))?;
            match member.name.as_str() {
                names::BACKUP_LABEL if !first => {
                    return Err(self.failed("has a backup_label that is not its first file"));
                }
                names::BACKUP_LABEL => {
                    let text = self.contents(&mut archive, &member, backup_label::LIMIT)?;
                    let label = Start::parse(&text)
                        .map_err(|error| self.failed(format!("has a backup_label that {error}")))?;
                    self.label = Some((text, label));
                }
                names::TABLESPACE_MAP => {
                    let map = self.contents(&mut archive, &member, tablespace_map::LIMIT)?;
                    self.map = tablespace_map::parse_absolute(&map)
                        .map_err(|error| self.failed(format!("has a tablespace_map that {error}")))?;
                }
                _ if wanted == Wanted::Labels || self.label.is_none() => return Ok(()),
                names::PG_VERSION => {
                    let major = major_version(&self.contents(&mut archive, &member, version::LIMIT)?);
                    self.major =
                        Some(major.ok_or_else(|| self.failed("has a PG_VERSION that names no version"))?);
                }
                names::CONTROL_FILE => {
                    let bytes = self.contents(&mut archive, &member, control_file::SIZE)?;
                    self.control =
                        Some(parse_control(self.place, self.file, &bytes, self.may_have_increments())?);
                }
                _ => {}
            }
            first &= member.kind == Kind::Directory;
        }
        Ok(())
    }

    /// Returns whether the backup is incremental, as far as is known.
    fn may_have_increments(&self) -> bool {
        self.label.as_ref().is_none_or(|(_, label)| label.incremental_from.is_some())
    }

    /// Reads a small member.
    fn contents(&self, archive: &mut Archive, member: &Member, limit: u64) -> Result<Vec<u8>, Failure> {
        if member.kind != Kind::File || member.size > limit {
            return Err(self.failed(format!(
                "has a {} that is not a file or is larger than {limit} bytes",
                member.name
            )));
        }
        let mut bytes = Vec::new();
        let read = archive.contents().read_to_end(&mut bytes);
        read.map_err(|error| self.failed(archive.error(error)))?;
        Ok(bytes)
    }

    fn failed(&self, what: impl std::fmt::Display) -> Failure {
        self.file.failed(self.place, what)
    }
}

/// Reads the control file. That of an incremental backup must have the pages and the segments for which files are combined.
fn parse_control(
    place: &Place,
    file: &ArchiveObject,
    bytes: &[u8],
    is_incremental: bool,
) -> Result<Beginning, Failure> {
    let refused = |error| file.failed(place, format!("has a global/pg_control that {error}"));
    if is_incremental {
        RelationFiles::check_default(bytes).map_err(refused)?;
    }
    Beginning::parse(bytes).map_err(refused)
}
