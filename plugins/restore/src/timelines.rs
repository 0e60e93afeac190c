//! The timelines that lead to the position of the source: the ancestors of its timeline, oldest first, and its current timeline. The
//! messages name the options `backup`, `target-timeline` and `target-lsn`, which every method has that uses this module.

use postgres_formats::Lsn;
use postgres_formats::history::Fork;
use postgres_formats::segment::SegmentSize;
use understudy::{Failure, source};

/// The timelines of a source, oldest first, each with its end; the current timeline has no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timelines(Vec<(u32, Option<Lsn>)>);

impl Timelines {
    /// Returns the timelines of the source; `None` if there is no source.
    pub fn of_source() -> Option<Self> {
        let current = source::wal_position()?.timeline;
        let ancestors = source::timeline_history()?;
        let mut all: Vec<_> =
            ancestors.iter().map(|ancestor| (ancestor.timeline, Some(Lsn(ancestor.ended_at)))).collect();
        all.push((current, None));
        Some(Self(all))
    }

    /// Checks that a backup that ends at `stop` on `timeline` is in the history of the source.
    ///
    /// # Errors
    /// The error says why the backup is not in the history.
    pub fn check(&self, timeline: u32, stop: Lsn) -> Result<(), Failure> {
        let current = self.0.last().map_or(0, |(timeline, _)| *timeline);
        match self.0.iter().find(|(known, _)| *known == timeline) {
            None => Err(Failure::failed(format!(
                "the backup ends on the timeline {timeline}, which is not in the history of the source's timeline \
                 {current}: a standby made from it would never follow; choose another with `target-timeline` or `backup`"
            ))),
            Some((_, Some(end))) if stop > *end => Err(Failure::failed(format!(
                "the backup ends at {stop} of the timeline {timeline}, which the source left at {end}: a standby made \
                 from it would never follow; choose one that ended before with `target-lsn`"
            ))),
            Some(_) => Ok(()),
        }
    }

    /// Returns the timeline from which the segment `number` is restored, for a backup on `timeline`. The segment in which a timeline ended
    /// is taken from the next timeline, because the older timeline's segment may continue with WAL that is not in the source's history.
    pub fn at(&self, timeline: u32, number: u64, size: SegmentSize) -> u32 {
        let later = self.0.iter().skip_while(|(known, _)| *known != timeline);
        let taken = later.into_iter().find(|(_, end)| end.is_none_or(|end| number < size.number(end)));
        taken.map_or(timeline, |(timeline, _)| *timeline)
    }

    /// Returns the LSN at which the source left `timeline`; `None` if the source did not leave this timeline.
    pub fn end(&self, timeline: u32) -> Option<Lsn> {
        self.0.iter().find(|(known, _)| *known == timeline).and_then(|(_, end)| *end)
    }

    /// Returns every timeline that has a history file.
    pub fn with_histories(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|(timeline, _)| *timeline).filter(|timeline| *timeline > 1)
    }

    /// Returns whether `forks`, from a history file of `timeline`, are the ancestors of that timeline in the history of the source.
    pub fn agrees(&self, timeline: u32, forks: &[Fork]) -> bool {
        let before = self.0.iter().take_while(|(known, _)| *known != timeline);
        before.copied().eq(forks.iter().map(|fork| (fork.timeline, Some(fork.at))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size() -> SegmentSize {
        SegmentSize::new(16 << 20).unwrap()
    }

    fn new(all: &[(u32, Option<u64>)]) -> Timelines {
        Timelines(all.iter().map(|(timeline, end)| (*timeline, end.map(Lsn))).collect())
    }

    fn timelines() -> Timelines {
        // Timeline 2 began within segment 5, timeline 4 at the beginning of segment 8.
        new(&[(1, Some(0x0500_0100)), (2, Some(0x0800_0000)), (4, None)])
    }

    #[test]
    fn the_segment_with_a_fork_is_taken_from_the_next_timeline() {
        let taken =
            |from: u32| (3..10).map(|number| timelines().at(from, number, size())).collect::<Vec<_>>();
        assert_eq!(taken(1), [1, 1, 2, 2, 2, 4, 4]);
        assert_eq!(taken(2), [2, 2, 2, 2, 2, 4, 4]);
        assert_eq!(taken(4), [4; 7]);
    }

    #[test]
    fn with_two_forks_in_one_segment_the_last_timeline_is_used() {
        let timelines = new(&[(1, Some(0x0500_0100)), (2, Some(0x0500_0200)), (3, None)]);
        assert_eq!(timelines.at(1, 5, size()), 3);
        assert_eq!(timelines.at(1, 4, size()), 1);
    }

    #[test]
    fn a_backup_is_in_the_history_if_it_ended_before_the_fork() {
        assert_eq!(timelines().check(1, Lsn(0x0500_0100)), Ok(()));
        assert_eq!(timelines().check(4, Lsn(u64::MAX)), Ok(()));
        for (timeline, stop, what) in [(1, 0x0500_0101, "left at 0/5000100"), (3, 0, "not in the history")] {
            let failure = timelines().check(timeline, Lsn(stop)).unwrap_err();
            assert!(failure.to_string().contains(what), "{failure}");
        }
    }

    #[test]
    fn a_history_of_another_cluster_does_not_agree() {
        let one = Fork { timeline: 1, at: Lsn(0x0500_0100) };
        assert!(timelines().agrees(2, &[one]));
        assert!(!timelines().agrees(2, &[Fork { at: Lsn(1), ..one }]));
        assert!(!timelines().agrees(4, &[one]));
        assert!(!timelines().agrees(2, &[]));
    }
}
