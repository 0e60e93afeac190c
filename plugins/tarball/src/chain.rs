//! Finds the backups that an incremental backup of PostgreSQL 17 and later depends on.
//!
//! The label of an incremental backup names the start of the backup that it is based on (`INCREMENTAL FROM LSN` and `INCREMENTAL FROM
//! TLI`). That backup is the one beside it whose own label says that it began there, as pg_combinebackup requires
//! (`check_backup_label_files` in `src/bin/pg_combinebackup/pg_combinebackup.c`). Backups of several clusters, and copies of a backup, may
//! have begun at the same position: a candidate must have a manifest, be of the same cluster, and have all its own predecessors.

use std::collections::BTreeSet;
use std::rc::Rc;

use postgres_formats::backup_label::Start;
use postgres_formats::names::BACKUP_MANIFEST;
use understudy::{Failure, cancelled};

use crate::backup::Backup;
use crate::look::Base;
use crate::manifest::Overview;
use crate::neighbours::{Known, Manifests, Neighbour, Neighbours};
use crate::place::Place;

/// The largest number of backups that an incremental backup may depend on.
const LONGEST: usize = 200;

/// How many candidates that do not fit are named.
const NAMED: usize = 3;

/// A backup that an incremental backup depends on.
#[derive(Debug)]
pub(crate) struct Older {
    pub(crate) backup: Backup,
    pub(crate) label: Start,
    pub(crate) manifest: Rc<Overview>,
}

/// The backups that an incremental backup depends on, from newer to older. The last one is a full backup.
#[derive(Debug)]
pub(crate) struct Chain {
    /// The place of all these backups.
    pub(crate) place: Place,
    pub(crate) older: Vec<Older>,
}

impl Chain {
    /// Finds the chain of a backup; `None` if it is a full backup. Reads only what `known` does not have.
    ///
    /// # Errors
    /// Fails if the backup has no manifest, or if a backup of the chain is missing. The error says why the candidates do not fit.
    pub(crate) fn of(
        place: &Place,
        backup: &Backup,
        base: &Base,
        known: &mut Known,
    ) -> Result<Option<Self>, Failure> {
        if base.label.incremental_from.is_none() {
            return Ok(None);
        }
        if backup.folder.is_empty() && !place.is_named {
            return Err(backup.base.failed(
                place,
                format!(
                    "is an incremental backup, and the backups that it is based on are looked for in the folders beside it: {}",
                    place.how_to_name()
                ),
            ));
        }
        let own = must_have(known.manifests.of(place, backup, &base.label)?, place, backup)?;
        let neighbours = match &mut known.neighbours {
            Some(neighbours) => neighbours,
            none => none.insert(Neighbours::read(place.of_neighbours()?)?),
        };
        let search = Search {
            newest: (place, backup, &base.label),
            system_identifier: own.summary.system_identifier,
            neighbours,
            manifests: &mut known.manifests,
            tried: BTreeSet::new(),
            misfits: Vec::new(),
        };
        let older = search.run()?;
        Ok(Some(Self { place: place.of_neighbours()?, older }))
    }
}

/// The search for the backups that one backup depends on.
struct Search<'a> {
    newest: (&'a Place, &'a Backup, &'a Start),
    system_identifier: Option<u64>,
    neighbours: &'a Neighbours,
    manifests: &'a mut Manifests,
    /// The numbers of the candidates that were tried. Whether a candidate fits does not depend on the backup that is based on it.
    tried: BTreeSet<usize>,
    /// Why candidates do not fit.
    misfits: Vec<String>,
}

impl Search<'_> {
    /// Goes from each backup to the one on which it is based. If there is none, goes back and tries another candidate.
    fn run(mut self) -> Result<Vec<Older>, Failure> {
        let mut older: Vec<Older> = Vec::new();
        let mut first_gap = None;
        loop {
            cancelled()?;
            let (place, backup, label) = match older.last() {
                None => self.newest,
                Some(last) => (&self.neighbours.place, &last.backup, &last.label),
            };
            let Some(from) = label.incremental_from else { return Ok(older) };
            if older.len() == LONGEST {
                let (place, backup, _) = self.newest;
                return Err(backup.base.failed(place, format!("depends on more than {LONGEST} backups")));
            }
            let timeline = label.incremental_from_timeline.unwrap_or(label.timeline);
            // A backup begins before those that are based on it. So no backup is its own predecessor.
            let mut candidates =
                self.neighbours.that_began(from, timeline).filter(|_| from < label.start_lsn);
            match candidates.find(|(number, _)| !self.tried.contains(number)) {
                Some((number, candidate)) => {
                    self.tried.insert(number);
                    older.extend(self.fitting(candidate)?);
                }
                None => {
                    first_gap.get_or_insert_with(|| {
                        let gap = format!(
                            "is an incremental backup from {from} on timeline {timeline}, and {} has no usable backup that began \
                             there",
                            self.neighbours.place
                        );
                        backup.base.failed(place, gap).to_string()
                    });
                    if older.pop().is_none() {
                        return Err(self.without_predecessor(&first_gap.unwrap_or_default()));
                    }
                }
            }
        }
    }

    /// Returns the candidate if it can be a backup of the chain.
    fn fitting(&mut self, candidate: &Neighbour) -> Result<Option<Older>, Failure> {
        let Neighbour { backup, label, broken } = candidate;
        let place = &self.neighbours.place;
        let manifest = match broken {
            Some(why) => Err(Failure::failed(why.clone())),
            None => self
                .manifests
                .of(place, backup, label)
                .and_then(|manifest| must_have(manifest, place, backup)),
        };
        let fits = manifest.and_then(|manifest| {
            match (manifest.summary.system_identifier, self.system_identifier) {
                (Some(own), Some(needed)) if own != needed => Err(backup.base.failed(
                    place,
                    format!(
                        "is from the cluster {own}, and the incremental backup from the cluster {needed}"
                    ),
                )),
                _ => Ok(manifest),
            }
        });
        match fits {
            Ok(manifest) => Ok(Some(Older { backup: backup.clone(), label: label.clone(), manifest })),
            Err(Failure::Failed(why)) => {
                self.misfits.push(why);
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Returns the failure for a chain in which a backup is missing.
    fn without_predecessor(&self, gap: &str) -> Failure {
        let named = self.misfits.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
        let why = match self.misfits.len() {
            0 => String::new(),
            count if count > NAMED => format!(" ({named}; and {} more do not fit)", count - NAMED),
            _ => format!(" ({named})"),
        };
        Failure::failed(format!(
            "{gap}{why}: put that backup into a folder beside this one, or combine the backups with pg_combinebackup"
        ))
    }
}

/// Returns the manifest of a backup of a chain, which must have one: without it nothing says which files the backup has.
fn must_have(
    manifest: Option<Rc<Overview>>,
    place: &Place,
    backup: &Backup,
) -> Result<Rc<Overview>, Failure> {
    manifest.ok_or_else(|| {
        backup.base.failed(
            place,
            format!("has no {BACKUP_MANIFEST} beside it: the backups of a chain are combined only if their files can be checked"),
        )
    })
}
