//! The archives of a backup.

use std::collections::BTreeMap;

use understudy::Failure;
use understudy::store::{Codec, Object};

use crate::info::Backup;
use crate::names::{ArchiveName, Holds};
use crate::place::Place;

/// One archive, or one part of a split archive.
#[derive(Clone, Debug)]
pub(crate) struct ArchiveObject {
    pub(crate) object: Object,
    pub(crate) codec: Option<Codec>,
}

/// The archives of a backup by what they contain.
#[derive(Clone, Debug, Default)]
pub(crate) struct Archives {
    all: BTreeMap<Holds, BTreeMap<u32, ArchiveObject>>,
}

impl Archives {
    /// Returns whether there is no archive.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds an archive.
    ///
    /// # Errors
    /// Fails if there is another archive with the same content.
    pub(crate) fn add(&mut self, place: &Place, name: ArchiveName, object: Object) -> Result<(), Failure> {
        let shown = place.shown(&object.key);
        let parts = self.all.entry(name.holds).or_default();
        match parts.insert(name.part, ArchiveObject { object, codec: name.codec }) {
            None => Ok(()),
            Some(other) => Err(Failure::failed(format!(
                "there are both {} and {shown}: keep the one that belongs here",
                place.shown(&other.object.key)
            ))),
        }
    }

    /// Checks that the archives are complete: one for the data directory and one for each tablespace, each without a missing part. `base`
    /// is the name of the archive of the data directory. A missing last part cannot be noticed.
    ///
    /// # Errors
    /// Fails if an archive or a part is missing, or belongs to no tablespace of the backup. The error names the archive.
    pub(crate) fn check(
        &self,
        place: &Place,
        folder: &str,
        base: &str,
        backup: &Backup,
    ) -> Result<(), Failure> {
        let stem = |holds: Holds| match holds {
            Holds::Data => base.to_owned(),
            Holds::Tablespace(oid) => oid.to_string(),
        };
        let missing = |name: String, why: String| {
            place.failed(folder, format!("has no {name}.tar, plain or compressed{why}"))
        };
        let wanted = backup.tablespaces.iter().map(|tablespace| Holds::Tablespace(tablespace.oid));
        for holds in std::iter::once(Holds::Data).chain(wanted) {
            if !self.all.contains_key(&holds) {
                let why = match holds {
                    Holds::Data => ", which holds the data directory".to_owned(),
                    Holds::Tablespace(oid) => {
                        let name = backup
                            .tablespaces
                            .iter()
                            .find(|one| one.oid == oid)
                            .and_then(|one| one.name.as_deref());
                        format!(
                            ", which holds the tablespace {}",
                            name.unwrap_or("without a name").escape_debug()
                        )
                    }
                };
                return Err(missing(stem(holds), why));
            }
        }
        for (holds, parts) in &self.all {
            if let Holds::Tablespace(oid) = holds
                && !backup.tablespaces.iter().any(|tablespace| tablespace.oid == *oid)
            {
                let key =
                    parts.values().next().map(|archive| archive.object.key.as_str()).unwrap_or_default();
                return Err(place.failed(key, "belongs to no tablespace of the backup.info"));
            }
            for (expected, part) in (0..).zip(parts.keys()) {
                if expected != *part {
                    let name =
                        if expected == 0 { stem(*holds) } else { format!("{}_{expected:04}", stem(*holds)) };
                    return Err(missing(name, format!(", but a part {part:04}: the backup is not whole")));
                }
            }
        }
        Ok(())
    }

    /// Returns every archive with what it contains, the parts of a split archive in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Holds, &ArchiveObject)> {
        self.all.iter().flat_map(|(holds, parts)| parts.values().map(move |archive| (*holds, archive)))
    }

    /// Returns an upper limit for the number of bytes in the archives; `None` if an archive is compressed.
    pub(crate) fn plain_bytes(&self) -> Option<u64> {
        self.iter().map(|(_, archive)| archive.codec.is_none().then_some(archive.object.size)).sum()
    }
}
