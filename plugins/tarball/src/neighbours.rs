//! The backups beside an incremental backup. Their labels and manifests are read once for each plan.

use std::collections::BTreeMap;
use std::rc::Rc;

use postgres_formats::Lsn;
use postgres_formats::backup_label::Start;
use understudy::{Failure, cancelled, log};

use crate::backup::{self, Backup, Search};
use crate::look::{self, Wanted};
use crate::manifest::{self, Overview};
use crate::place::Place;
use crate::plan::check_tablespaces;

/// A backup that another may be based on.
#[derive(Debug)]
pub(crate) struct Neighbour {
    pub(crate) backup: Backup,
    pub(crate) label: Start,
    /// Why the backup cannot be restored, if that is known from its label and the names of its archives.
    pub(crate) broken: Option<String>,
}

/// The backups in the folder of a backup and beside it.
#[derive(Debug)]
pub(crate) struct Neighbours {
    pub(crate) place: Place,
    all: Vec<Neighbour>,
    /// The positions in `all` by where the backups began.
    began: BTreeMap<(Lsn, u32), Vec<usize>>,
}

impl Neighbours {
    /// Makes an empty list of backups in `place`.
    pub(crate) fn new(place: Place) -> Self {
        Self { place, all: Vec::new(), began: BTreeMap::new() }
    }

    /// Reads the labels of all backups in `place`. Backups that cannot be read are left out.
    ///
    /// # Errors
    /// Fails if the place cannot be listed or has too many backups.
    pub(crate) fn read(place: Place) -> Result<Self, Failure> {
        let left_out = |failure| match failure {
            Failure::Failed(why) => {
                log::debug!("no incremental backup can be based on this backup: {why}");
                Ok(())
            }
            failure => Err(failure),
        };
        let found = backup::find(&place, Search::Neighbours, &mut |_, failure| left_out(failure))?;
        let mut neighbours = Self::new(place);
        for backup in found {
            cancelled()?;
            match look::at_base(&neighbours.place, &backup.base, Wanted::Labels) {
                Ok(base) => neighbours.add(backup, base),
                Err(failure) => left_out(failure)?,
            }
        }
        Ok(neighbours)
    }

    /// Adds a backup whose label was read.
    pub(crate) fn add(&mut self, backup: Backup, base: look::Base) {
        let broken = check_tablespaces(&self.place, &backup, &base).err().map(|failure| failure.to_string());
        let began = (base.label.start_lsn, base.label.timeline);
        self.began.entry(began).or_default().push(self.all.len());
        self.all.push(Neighbour { backup, label: base.label, broken });
    }

    /// Returns the backups that began at this position of this timeline, each with its number.
    pub(crate) fn that_began(&self, lsn: Lsn, timeline: u32) -> impl Iterator<Item = (usize, &Neighbour)> {
        let found = self.began.get(&(lsn, timeline)).into_iter().flatten();
        found.filter_map(|at| Some((*at, self.all.get(*at)?)))
    }
}

/// What was read of the backups in a place.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// `None` before the first incremental backup.
    pub(crate) neighbours: Option<Neighbours>,
    pub(crate) manifests: Manifests,
}

/// The manifests that were read, by their keys.
#[derive(Debug, Default)]
pub(crate) struct Manifests(BTreeMap<String, Result<Rc<Overview>, String>>);

impl Manifests {
    /// Returns the manifest of a backup; `None` if the backup has no manifest.
    ///
    /// # Errors
    /// The errors of [`manifest::overview`].
    pub(crate) fn of(
        &mut self,
        place: &Place,
        backup: &Backup,
        label: &Start,
    ) -> Result<Option<Rc<Overview>>, Failure> {
        let Some(object) = &backup.manifest else { return Ok(None) };
        if let Some(known) = self.0.get(&object.key) {
            return known.clone().map(Some).map_err(Failure::Failed);
        }
        let read = match manifest::overview(place, backup, object, label) {
            Ok(overview) => Ok(Rc::new(overview)),
            Err(Failure::Failed(why)) => Err(why),
            Err(failure) => return Err(failure),
        };
        self.0.insert(object.key.clone(), read.clone());
        read.map(Some).map_err(Failure::Failed)
    }
}
