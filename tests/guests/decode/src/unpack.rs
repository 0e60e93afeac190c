//! Writes a backup to the data directory.

use std::collections::{BTreeSet, HashSet};

use postgres_formats::segment::WalFile;
use postgres_formats::{backup_label, control_file, names, tablespace_map};
use understudy::{Datadir, Failure, Plan, cancelled, log, progress};
use ustar::{Archive, Kind, Member};

use crate::backup::{ArchiveFile, Backup};
use crate::look;
use crate::manifest::{Check, CopyError, Sink};

/// Files that a running server writes. No backup contains them, and no replica may inherit them.
const OF_A_SERVER: [&str; 2] = [names::POSTMASTER_PID, names::POSTMASTER_OPTS];

/// Unpacks `backup`, which must match `plan`: first the tablespaces, then the WAL and the data directory, and last the control file.
pub(crate) fn all(backup: &Backup, plan: &Plan, datadir: &Datadir) -> Result<(), Failure> {
    progress::expect(plan.bytes, plan.files);
    let mut check = Check::new(backup.manifest.as_deref())?;
    let planned: BTreeSet<_> = plan.tablespaces.iter().map(|tablespace| tablespace.oid).collect();
    if !planned.iter().eq(backup.tablespaces.keys()) {
        return Err(Failure::failed(
            "the tablespaces of the backup are no longer those of the plan: the backup was replaced; run again",
        ));
    }
    for (oid, archive) in &backup.tablespaces {
        progress::phase(&format!("tablespace {oid}"));
        Unpacking { file: archive, datadir, check: &mut check }.tablespace(*oid)?;
    }
    datadir.create_dir("pg_wal/archive_status")?;
    if let Some(wal) = &backup.wal {
        progress::phase("WAL");
        Unpacking { file: wal, datadir, check: &mut check }.wal()?;
    }
    progress::phase("data directory");
    let control = Unpacking { file: &backup.base, datadir, check: &mut check }.base(plan)?;
    check.check_complete()?;
    datadir.write(names::CONTROL_FILE, &mut &control[..])?;
    log::info!("unpacked {}", plan.backup);
    Ok(())
}

/// An archive that is being unpacked.
struct Unpacking<'a> {
    file: &'a ArchiveFile,
    datadir: &'a Datadir,
    check: &'a mut Check,
}

impl Unpacking<'_> {
    fn tablespace(&mut self, oid: u32) -> Result<(), Failure> {
        self.each_member(|this, archive, member| {
            belongs_in_tablespace(&member.name).map_err(|why| this.file.failed(why))?;
            let name = format!("pg_tblspc/{oid}/{}", member.name);
            this.put(archive, member, &name)
        })
    }

    fn wal(&mut self) -> Result<(), Failure> {
        self.each_member(|this, archive, member| {
            belongs_in_wal(member).map_err(|why| this.file.failed(why))?;
            let name = format!("pg_wal/{}", member.name);
            this.put(archive, member, &name)
        })
    }

    /// Unpacks the archive except for the control file, and returns the content of the control file.
    fn base(&mut self, plan: &Plan) -> Result<Vec<u8>, Failure> {
        let (mut label, mut version, mut control) = (false, false, None);
        self.each_member(|this, archive, member| {
            let name = member.name.as_str();
            belongs_in_base(name).map_err(|why| this.file.failed(why))?;
            match name {
                names::CONTROL_FILE => {
                    if member.size != control_file::SIZE {
                        return Err(this
                            .file
                            .failed(format!("has a global/pg_control of {} bytes", member.size)));
                    }
                    control = Some(this.small(archive, member)?);
                    Ok(())
                }
                // The host creates the links itself, from the operator's map.
                names::TABLESPACE_MAP => {
                    let map = this.small_limited(archive, member, tablespace_map::LIMIT)?;
                    let map = look::read_map(this.file, &map)?;
                    let as_planned = map.len() == plan.tablespaces.len()
                        && map.iter().all(|mapped| {
                            plan.tablespaces.iter().any(|planned| {
                                (planned.oid, &planned.location) == (mapped.oid, &mapped.location)
                            })
                        });
                    if as_planned { Ok(()) } else { Err(this.replaced()) }
                }
                names::BACKUP_LABEL => {
                    label = true;
                    let contents = this.small_limited(archive, member, backup_label::LIMIT)?;
                    let read = look::read_label(this.file, &contents)?;
                    if plan.start_lsn != Some(read.start_lsn.0) || plan.backup != read.describe() {
                        return Err(this.replaced());
                    }
                    this.datadir.write(name, &mut &contents[..]).map(drop)
                }
                _ => {
                    version |= name == names::PG_VERSION;
                    this.put(archive, member, name)
                }
            }
        })?;
        match (label, version, control) {
            (true, true, Some(control)) => Ok(control),
            (false, ..) => Err(self.file.failed("has no backup_label")),
            (_, false, _) => Err(self.file.failed("has no PG_VERSION")),
            (.., None) => Err(self.file.failed("has no global/pg_control")),
        }
    }

    fn replaced(&self) -> Failure {
        self.file.failed(
            "is no longer the archive from which the plan was made, because it was replaced: run again",
        )
    }

    /// Calls a function for each member, and reads the archive to its end.
    fn each_member(
        &mut self,
        mut put: impl FnMut(&mut Self, &mut Archive, &Member) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut archive = self.file.read()?;
        let mut directories = HashSet::new();
        while let Some(member) = archive.next().map_err(|error| self.file.failed(error))? {
            cancelled()?;
            // If the archive has the same file twice, creating the second fails. Creating a directory twice would not fail.
            if member.kind == Kind::Directory && !directories.insert(member.name.clone()) {
                return Err(self
                    .file
                    .failed(format!("has the directory `{}` twice", member.name.escape_debug())));
            }
            put(self, &mut archive, &member)?;
        }
        Ok(())
    }

    /// Creates the directory or the file `name`.
    fn put(&mut self, archive: &mut Archive, member: &Member, name: &str) -> Result<(), Failure> {
        match member.kind {
            Kind::Directory => self.datadir.create_dir(name),
            Kind::File => {
                let mut to = self.datadir.create_file(name).map_err(|failure| match failure {
                    Failure::Failed(why) => {
                        self.file.failed(format!("has `{}`, but {why}", member.name.escape_debug()))
                    }
                    other => other,
                })?;
                self.contents(archive, member, name, &mut to)?;
                to.finish().map(drop)
            }
        }
    }

    /// Reads a small member, whose size the caller has checked.
    fn small(&mut self, archive: &mut Archive, member: &Member) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        self.contents(archive, member, &member.name, &mut bytes)?;
        Ok(bytes)
    }

    fn small_limited(
        &mut self,
        archive: &mut Archive,
        member: &Member,
        limit: u64,
    ) -> Result<Vec<u8>, Failure> {
        if member.kind != Kind::File || member.size > limit {
            let name = &member.name;
            return Err(self
                .file
                .failed(format!("has a {name} that is not a regular file or is larger than {limit} bytes")));
        }
        self.small(archive, member)
    }

    fn contents(
        &mut self,
        archive: &mut Archive,
        member: &Member,
        name: &str,
        to: &mut dyn Sink,
    ) -> Result<(), Failure> {
        let expected = self.check.expect(name, member.size)?;
        let copied = self.check.copy(name, expected, &mut archive.contents(), to);
        copied.map_err(|error| match error {
            CopyError::Read(error) => self.file.failed(archive.error(error)),
            CopyError::Other(failure) => failure,
        })
    }
}

/// Checks that base.tar may have a member with this name.
pub(crate) fn belongs_in_base(name: &str) -> Result<(), String> {
    let shown = name.escape_debug();
    if name.starts_with("pg_tblspc/") {
        return Err(format!("has a member `{shown}`, which belongs in the archive of its tablespace"));
    }
    if name == names::UNFINISHED_CONTROL_FILE || OF_A_SERVER.contains(&name) {
        return Err(format!("has a member `{shown}`, which base backups never contain"));
    }
    whole(name)
}

/// Checks that the archive of a tablespace may have a member with this name. Such an archive contains only PostgreSQL's directory.
fn belongs_in_tablespace(name: &str) -> Result<(), String> {
    let folder = name.split('/').next().unwrap_or(name);
    let of_postgresql = names::TablespaceFolder::parse(folder.as_bytes())
        .is_some_and(|folder| folder.version.major().is_some());
    if of_postgresql {
        return whole(name);
    }
    Err(format!("has a member `{}`, which is not below a PG_MAJOR_CATALOG folder", name.escape_debug()))
}

/// Checks that pg_wal.tar may have this member.
fn belongs_in_wal(member: &Member) -> Result<(), String> {
    let ok = match (member.kind, member.name.split_once('/')) {
        (Kind::Directory, None) => member.name == "archive_status",
        (Kind::File, None) => is_wal(&member.name),
        (Kind::File, Some(("archive_status", status))) => {
            status.strip_suffix(".done").or_else(|| status.strip_suffix(".ready")).is_some_and(is_wal)
        }
        _ => false,
    };
    if ok {
        Ok(())
    } else {
        Err(format!("has a member `{}`, which is not a WAL file", member.name.escape_debug()))
    }
}

/// Returns whether `name` is a WAL file: a segment, a partial segment, a backup history file or a timeline history file.
fn is_wal(name: &str) -> bool {
    WalFile::parse(name.as_bytes()).is_some()
}

/// Checks that a file does not come from an incremental backup, whose files are incomplete.
fn whole(name: &str) -> Result<(), String> {
    let file = name.rsplit('/').next().unwrap_or(name);
    if file.starts_with("INCREMENTAL.") {
        let name = name.escape_debug();
        return Err(format!(
            "has a member `{name}` of an incremental backup: combine it with its predecessors first (pg_combinebackup)"
        ));
    }
    Ok(())
}
