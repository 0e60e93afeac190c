//! The archives of a backup, in its folder `tar_partitions`: `part_001.tar.lz4` and so on, `copy_0.tar.lz4` for an archive of an earlier
//! full backup that was copied, `pg_control.tar.lz4`, and `backup_label.tar.lz4` with `tablespace_map` (`SetUp` in WAL-G's
//! internal/storage_tar_ball.go, `uploadLabelFiles` in internal/databases/postgres/bundle.go, `copyTar` in copy_tar_ball_composer.go). A
//! remote backup, which comes from BASE_BACKUP, has no `backup_label.tar`: the file is in one of its parts (streaming_base_backup.go).

use std::collections::BTreeSet;

use understudy::store::{Codec, Object};
use understudy::{Failure, log};

use crate::codec::{UNREAD, of_ending};
use crate::files::MOST_ARCHIVES;
use crate::place::Place;
use crate::sentinel::Backup;

/// How many archives that are not unpacked are named in the log.
const MOST_NAMED: usize = 20;

/// One archive.
#[derive(Clone, Debug)]
pub(crate) struct Archive {
    /// Its name in the folder.
    pub(crate) name: String,
    pub(crate) object: Object,
    pub(crate) codec: Option<Codec>,
}

/// The archives of a backup.
#[derive(Clone, Debug)]
pub(crate) struct Archives {
    /// The archive with `global/pg_control`.
    pub(crate) control: Archive,
    /// The archive with `backup_label`; `None` if the file is in one of the parts.
    pub(crate) label: Option<Archive>,
    /// The archives with the other files.
    pub(crate) parts: Vec<Archive>,
    /// The size of all archives, in bytes.
    pub(crate) stored: u64,
}

/// What an archive contains, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Control,
    Label,
    Part,
}

/// Parses the name of an archive. The error follows the name.
fn parse(name: &str) -> Result<(Content, Option<Codec>), String> {
    let unknown = || Err("is not an archive that WAL-G writes: remove it, or restore with WAL-G".to_owned());
    let Some((stem, ending)) = name.split_once(".tar") else { return unknown() };
    let codec = match ending {
        UNREAD => return Err("is compressed with lzo, which is not read: restore with WAL-G".to_owned()),
        // `copyTar` repeats the ending of an archive that is not compressed.
        ".tar" => None,
        ending => match of_ending(ending) {
            None => return unknown(),
            Some(codec) => codec,
        },
    };
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match stem {
        "pg_control" => Ok((Content::Control, codec)),
        "backup_label" => Ok((Content::Label, codec)),
        _ if stem.strip_prefix("part_").or_else(|| stem.strip_prefix("copy_")).is_some_and(is_number) => {
            Ok((Content::Part, codec))
        }
        _ => unknown(),
    }
}

impl Archives {
    /// Lists the archives of `backup`.
    ///
    /// # Errors
    /// Fails if the folder cannot be listed, lacks the archive with the control file, or has an object that is no archive of WAL-G.
    pub(crate) fn list(place: &Place, backup: &Backup) -> Result<Self, Failure> {
        let folder = place.backups(&format!("{}/tar_partitions", backup.name));
        let (mut control, mut label, mut parts, mut stored) = (None, None, Vec::new(), 0_u64);
        let too_many = || {
            let shown = place.shown(&folder);
            Failure::failed(format!("{shown} holds more than {MOST_ARCHIVES} archives"))
        };
        place.at.each_in(&folder, MOST_ARCHIVES, &too_many, &mut |name, object| {
            let shown = place.shown(&object.key);
            let (content, codec) = parse(&name).map_err(|what| Failure::failed(format!("{shown} {what}")))?;
            stored = stored.saturating_add(object.size);
            let archive = Archive { name, object, codec };
            let one = match content {
                Content::Part => {
                    parts.push(archive);
                    return Ok(());
                }
                Content::Control => &mut control,
                Content::Label => &mut label,
            };
            if let Some(other) = one.replace(archive) {
                return Err(Failure::failed(format!(
                    "there are both {shown} and {}: keep the one that belongs here",
                    other.name
                )));
            }
            Ok(())
        })?;
        let Some(control) = control else {
            return Err(backup.failed(format!(
                "is of a backup without pg_control.tar in {}: the backup is from WAL-E, or was removed in part",
                place.shown(&folder)
            )));
        };
        Ok(Self { control, label, parts, stored })
    }

    /// Checks that the backup has every archive that its list of the files names. Without such a list, checks that the archives together
    /// are not smaller than when they were written.
    ///
    /// # Errors
    /// Fails if an archive is missing.
    pub(crate) fn check(
        &self,
        place: &Place,
        backup: &Backup,
        listed: &BTreeSet<String>,
    ) -> Result<(), Failure> {
        let shown = place.shown(&place.backups(&format!("{}/tar_partitions", backup.name)));
        let gone = "the backup was removed in part or not copied whole; choose another with `backup`";
        let all = self.parts.iter().chain(&self.label).chain(std::iter::once(&self.control));
        let names: BTreeSet<&str> = all.map(|archive| archive.name.as_str()).collect();
        if let Some(missing) = listed.iter().find(|name| !names.contains(name.as_str())) {
            let missing: String = missing.escape_debug().take(200).collect();
            return Err(Failure::failed(format!("{shown} lacks `{missing}`: {gone}")));
        }
        if let (true, Some(written)) = (listed.is_empty(), backup.sentinel.compressed)
            && self.stored < written
        {
            let stored = self.stored;
            return Err(Failure::failed(format!(
                "the archives in {shown} have {stored} bytes and had {written} when they were written: {gone}"
            )));
        }
        Ok(())
    }

    /// Drops the parts that the list of the backup's files does not name, and logs them, as WAL-G does with `--skip-redundant-tars`
    /// (`shouldUnwrapTar` in internal/databases/postgres/backup.go): they are empty, or left over from a backup of the same name that was not
    /// finished. A list without archives says nothing.
    ///
    /// # Errors
    /// Fails if the list names archives, but none of the parts.
    pub(crate) fn keep_listed(&mut self, place: &Place, listed: &BTreeSet<String>) -> Result<(), Failure> {
        if listed.is_empty() || self.parts.is_empty() {
            return Ok(());
        }
        if let [first, ..] = &self.parts[..]
            && !self.parts.iter().any(|archive| listed.contains(&archive.name))
        {
            return Err(Failure::failed(format!(
                "the list of the backup's files names none of its archives, such as {}: the list is not that of the backup",
                place.shown(&first.object.key)
            )));
        }
        let mut left = 0_usize;
        self.parts.retain(|archive| {
            let is_listed = listed.contains(&archive.name);
            if !is_listed {
                left += 1;
                if left <= MOST_NAMED {
                    log::warn!(
                        "skipped {}: the list of the backup's files does not name it",
                        place.shown(&archive.object.key)
                    );
                }
            }
            is_listed
        });
        if left > MOST_NAMED {
            log::warn!("skipped {} more archives that the list does not name", left - MOST_NAMED);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_known_by_its_name() {
        for (name, content, codec) in [
            ("part_001.tar.lz4", Content::Part, Some(Codec::Lz4)),
            ("part_12345.tar.lzma", Content::Part, Some(Codec::Lzma)),
            ("part_001.tar", Content::Part, None),
            ("copy_0.tar.zst", Content::Part, Some(Codec::Zstd)),
            ("copy_0.tar.tar", Content::Part, None),
            ("pg_control.tar.br", Content::Control, Some(Codec::Brotli)),
            ("pg_control.tar", Content::Control, None),
            ("backup_label.tar.gz", Content::Label, Some(Codec::Gzip)),
        ] {
            assert_eq!(parse(name), Ok((content, codec)), "{name}");
        }
        assert!(parse("part_001.tar.lzo").unwrap_err().contains("lzo"));
        for name in [
            "",
            "part_001",
            "part_.tar",
            "part_1x.tar",
            "x.tar.lz4",
            "part_001.tar.xz",
            "a/part_001.tar",
            "part_001.tar.lz4.tmp",
        ] {
            assert!(parse(name).unwrap_err().contains("not an archive"), "{name}");
        }
    }
}
