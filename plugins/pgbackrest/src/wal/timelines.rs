//! The way that WAL takes to where the source is: over its ancestors' timelines, one after the other.

use postgres_formats::Lsn;
use postgres_formats::history::Fork;
use postgres_formats::segment::SegmentSize;
use understudy::{Failure, source};

/// The timelines of a source, oldest first, each with where it ended; the current one has no end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Timelines(Vec<(u32, Option<Lsn>)>);

impl Timelines {
    /// Those of the source; none without one.
    pub(crate) fn of_source() -> Option<Self> {
        let current = source::wal_position()?.timeline;
        let ancestors = source::timeline_history()?;
        let mut all: Vec<_> =
            ancestors.iter().map(|ancestor| (ancestor.timeline, Some(Lsn(ancestor.ended_at)))).collect();
        all.push((current, None));
        Some(Self(all))
    }

    /// These, as if they were a source's.
    #[cfg(test)]
    pub(crate) fn new(all: &[(u32, Option<u64>)]) -> Self {
        Self(all.iter().map(|(timeline, end)| (*timeline, end.map(Lsn))).collect())
    }

    /// Whether WAL that ends at `stop` of `timeline` is on the way.
    ///
    /// # Errors
    /// Where it is not, and why.
    pub(crate) fn check(&self, timeline: u32, stop: Lsn) -> Result<(), Failure> {
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

    /// From which timeline the segment `number` is taken, for a backup of `timeline`: from the segment on in which a
    /// timeline ended, the next one has it too, and what the older one has may go on elsewhere.
    pub(crate) fn at(&self, timeline: u32, number: u64, size: SegmentSize) -> u32 {
        let later = self.0.iter().skip_while(|(known, _)| *known != timeline);
        let taken = later.into_iter().find(|(_, end)| end.is_none_or(|end| number < size.number(end)));
        taken.map_or(timeline, |(timeline, _)| *timeline)
    }

    /// Where the source left `timeline`.
    pub(crate) fn end(&self, timeline: u32) -> Option<Lsn> {
        self.0.iter().find(|(known, _)| *known == timeline).and_then(|(_, end)| *end)
    }

    /// Every timeline that has a history.
    pub(crate) fn with_histories(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|(timeline, _)| *timeline).filter(|timeline| *timeline > 1)
    }

    /// Whether `forks` is what the history of `timeline` lists, as far as the source knows it.
    pub(crate) fn agrees(&self, timeline: u32, forks: &[Fork]) -> bool {
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

    fn timelines() -> Timelines {
        // The second began within segment 5, the fourth where segment 8 begins.
        Timelines::new(&[(1, Some(0x0500_0100)), (2, Some(0x0800_0000)), (4, None)])
    }

    #[test]
    fn from_the_segment_of_a_fork_on_the_next_timeline_is_taken() {
        let taken =
            |from: u32| (3..10).map(|number| timelines().at(from, number, size())).collect::<Vec<_>>();
        assert_eq!(taken(1), [1, 1, 2, 2, 2, 4, 4]);
        assert_eq!(taken(2), [2, 2, 2, 2, 2, 4, 4]);
        assert_eq!(taken(4), [4; 7]);
    }

    #[test]
    fn two_forks_in_one_segment_lead_to_the_last() {
        let timelines = Timelines::new(&[(1, Some(0x0500_0100)), (2, Some(0x0500_0200)), (3, None)]);
        assert_eq!(timelines.at(1, 5, size()), 3);
        assert_eq!(timelines.at(1, 4, size()), 1);
    }

    #[test]
    fn a_backup_is_on_the_way_until_its_timeline_ended() {
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
