//! The chain of backups to which an incremental backup of PostgreSQL 17 belongs. Each backup names its parent in `parent_backup_id`, and its
//! label says where the parent began.

use postgres_formats::control_file::RelationFiles;
use understudy::{Failure, cancelled};

use crate::info::Backup;
use crate::label::Label;

/// The largest permitted number of backups in a chain.
pub(crate) const MOST_LINKS: usize = 256;

/// A backup with its label, and the name of its `backup.info` for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) backup: Backup,
    pub(crate) label: Label,
    /// How files of relations are divided if their pages have checksums; `None` if they have none, or if it is not known. The failure is for
    /// restores that check pages.
    pub(crate) pages: Result<Option<RelationFiles>, Failure>,
    pub(crate) shown: String,
}

/// Finds the backups on which `newest` depends, from newer to older; none if `newest` is a full backup. `find` reads the backup with an ID,
/// and returns `None` if there is none.
///
/// # Errors
/// Fails if a backup of the chain is missing or does not fit. The error names both.
pub(crate) fn parents(
    newest: &Link,
    find: &mut dyn FnMut(&str) -> Result<Option<Link>, Failure>,
) -> Result<Vec<Link>, Failure> {
    let mut parents: Vec<Link> = Vec::new();
    loop {
        cancelled()?;
        let child = parents.last().unwrap_or(newest);
        let Some(id) = &child.backup.parent else { return Ok(parents) };
        if parents.len() == MOST_LINKS {
            return Err(Failure::failed(format!(
                "{} depends on more than {MOST_LINKS} other backups: choose another with `backup`",
                newest.shown
            )));
        }
        let Some(parent) = find(id)? else {
            return Err(Failure::failed(format!(
                "{} is of an incremental backup, and its parent {id} is missing: choose another with `backup`",
                child.shown
            )));
        };
        fits(child, &parent)
            .map_err(|why| Failure::failed(format!("{} does not fit its parent {id}: {why}", child.shown)))?;
        parents.push(parent);
    }
}

/// Checks that `child` is based on `parent`.
fn fits(child: &Link, parent: &Link) -> Result<(), String> {
    let (one, other) = (&child.backup, &parent.backup);
    if one.system_identifier != other.system_identifier {
        return Err("the parent is of another cluster".to_owned());
    }
    if one.major != other.major {
        return Err(format!("it is of PostgreSQL {}, and the parent of {}", one.major, other.major));
    }
    if one.segment_size != other.segment_size {
        return Err("the parent has WAL segments of another size".to_owned());
    }
    // Each backup begins after its parent, so a chain cannot lead back to itself.
    if one.begin <= other.begin || one.timeline < other.timeline {
        return Err(format!(
            "it begins at {} on timeline {}, which is not after the parent's {} on timeline {}",
            one.begin, one.timeline, other.begin, other.timeline
        ));
    }
    match child.label.parent {
        Some((lsn, timeline))
            if lsn == other.begin && timeline.is_none_or(|known| known == other.timeline) =>
        {
            Ok(())
        }
        Some((lsn, _)) => Err(format!(
            "its backup_label says that it is based on a backup that began at {lsn}, and the parent began at {}",
            other.begin
        )),
        None => Err("its backup_label is that of a full backup".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use postgres_formats::Lsn;

    use super::*;
    use crate::tests::scene::backup;

    /// The backup number `number` of a chain; number 0 is a full backup.
    fn link(number: usize) -> Link {
        let parent = number.checked_sub(1);
        let begin = |number: usize| Lsn(0x0100_0028 + ((number as u64) << 24));
        let id = |number: usize| format!("20261126T{number:06}");
        let backup = Backup { begin: begin(number), parent: parent.map(id), ..backup(&id(number)) };
        let label = Label {
            original: Vec::new(),
            text: Vec::new(),
            parent: parent.map(|parent| (begin(parent), Some(1))),
        };
        Link { backup, label, pages: Ok(None), shown: format!("backup.info of {number}") }
    }

    fn parents_of(newest: &Link, change: &dyn Fn(&mut Link)) -> Result<Vec<Link>, Failure> {
        parents(newest, &mut |id| {
            let mut found = link(id.rsplit('T').next().unwrap().parse().unwrap());
            change(&mut found);
            Ok(Some(found))
        })
    }

    #[test]
    fn the_parents_come_from_newer_to_older() {
        let ids = |links: Vec<Link>| links.into_iter().map(|link| link.backup.id).collect::<Vec<_>>();
        let found = parents_of(&link(2), &|_| ()).unwrap();
        assert_eq!(ids(found), ["20261126T000001", "20261126T000000"]);
        assert!(parents_of(&link(0), &|_| ()).unwrap().is_empty());
    }

    #[test]
    fn a_parent_that_does_not_fit_is_refused() {
        let refused = |what: &str, change: &dyn Fn(&mut Link)| {
            let failure = parents_of(&link(2), change).unwrap_err().to_string();
            assert!(failure.contains(what) && failure.contains("20261126T000001"), "{failure}");
        };
        refused("another cluster", &|link| link.backup.system_identifier = Some(7));
        refused("PostgreSQL 15, and the parent of 16", &|link| link.backup.major = 16);
        refused("another size", &|link| {
            link.backup.segment_size = postgres_formats::segment::SegmentSize::new(1 << 20).unwrap();
        });
        refused("not after the parent's 0/3000028", &|link| link.backup.begin = Lsn(0x0300_0028));
        refused("on timeline 2", &|link| link.backup.timeline = 2);
        refused("began at 0/2000028", &|link| link.backup.begin = Lsn(0x0200_0000));
    }

    #[test]
    fn a_missing_parent_is_named() {
        let failure = parents(&link(1), &mut |_| Ok(None)).unwrap_err().to_string();
        assert!(failure.contains("parent 20261126T000000 is missing"), "{failure}");
        let mut other_timeline = link(1);
        other_timeline.label.parent = other_timeline.label.parent.map(|(lsn, _)| (lsn, Some(9)));
        assert!(parents_of(&other_timeline, &|_| ()).is_err());
    }

    #[test]
    fn a_cycle_ends_at_once_and_the_length_is_bounded() {
        let failure = parents_of(&link(1), &|link| link.backup.parent = Some("20261126T000001".to_owned()));
        assert!(failure.unwrap_err().to_string().contains("not after"));
        assert_eq!(parents_of(&link(MOST_LINKS), &|_| ()).unwrap().len(), MOST_LINKS);
        let failure = parents_of(&link(MOST_LINKS + 1), &|_| ()).unwrap_err().to_string();
        assert!(failure.contains("more than 256"), "{failure}");
    }
}
