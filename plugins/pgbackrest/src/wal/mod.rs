//! The WAL that is put into `pg_wal`, where a server replays it before it streams anything: so a backup is whole without
//! its source. What is past a fork of the source's history would make a standby that never follows, so that the way goes
//! over the source's timelines and never over what the archive happens to hold.

pub(crate) mod archive;
pub(crate) mod timelines;

use postgres_formats::segment::{SegmentSize, history_name};
use postgres_formats::{Lsn, history};
use understudy::{Failure, cancelled, log, source};

use crate::choice::Chosen;
use crate::names::shown;
use crate::options::Wal;
use archive::{Archive, Archived, Found};
use timelines::Timelines;

/// The most segments that are restored: with those of the usual size more than 1.5 TB.
const MOST_SEGMENTS: usize = 100_000;

/// A segment that belongs into `pg_wal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) name: String,
    /// Where it is taken from; none where the backup itself has it.
    pub(crate) archived: Option<Archived>,
}

/// A history file that belongs into `pg_wal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) name: String,
    pub(crate) text: Vec<u8>,
}

/// The WAL of a backup on its way.
#[derive(Debug)]
pub(crate) struct Way<'a> {
    pub(crate) archive: Archive<'a>,
    pub(crate) size: SegmentSize,
    /// The timeline of the backup.
    timeline: u32,
    /// The segments with which the backup begins and ends.
    first: u64,
    last: u64,
    /// The source's timelines, where they are known.
    timelines: Option<Timelines>,
    /// Whether it goes on to where the source is.
    goes_on: bool,
    /// The number of the segment that comes next.
    next: u64,
    found: usize,
    /// Whether [`Way::more`] was asked before.
    was_looked_at: bool,
}

impl<'a> Way<'a> {
    /// The way that `wal` says; none where no WAL is restored.
    ///
    /// # Errors
    /// For [`Wal::Latest`] where there is no source; where the backup is not on the source's way.
    pub(crate) fn of<C>(
        chosen: &'a Chosen<C>,
        wal: Wal,
        size: Result<SegmentSize, Failure>,
    ) -> Result<Option<Self>, Failure> {
        if wal == Wal::None {
            return Ok(None);
        }
        let head = &chosen.head;
        let (start, stop) = match (&head.archive_start, &head.archive_stop) {
            (Some(start), Some(stop)) => (start, stop),
            _ if wal == Wal::Consistent => return Ok(None),
            _ => {
                return Err(chosen.failed(
                    "names no WAL, for the cluster was shut down: `wal = \"latest\"` does not know where to begin; set \
                     it to \"consistent\"",
                ));
            }
        };
        let goes_on = wal == Wal::Latest;
        // The host says of a source of another cluster that it is one.
        let is_of_cluster = goes_on || source::system_identifier() == head.system_identifier;
        let timelines = if is_of_cluster { Timelines::of_source() } else { None };
        if goes_on && timelines.is_none() {
            return Err(Failure::failed(
                "`wal = \"latest\"` follows the timelines of the source, and there is no source that tells them: set \
                 [source], or `wal = \"consistent\"`",
            ));
        }
        let size = size?;
        let parse = |name: &str| {
            let none = || {
                let name = shown(name, 60);
                chosen.failed(format!("names `{name}`, which is no WAL segment: set `wal = \"none\"`"))
            };
            size.parse(name).ok_or_else(none)
        };
        let ((timeline, first), (stop_timeline, last)) = (parse(start)?, parse(stop)?);
        if timeline != stop_timeline || last < first {
            return Err(chosen.failed(format!(
                "begins with the segment {start} and ends with {stop}: choose another with `backup`"
            )));
        }
        if let Some(timelines) = &timelines {
            timelines.check(timeline, head.lsn_stop.unwrap_or(Lsn(last * size.bytes())))?;
        }
        let archive = Archive::of(chosen);
        Ok(Some(Self {
            archive,
            size,
            timeline,
            first,
            last,
            timelines,
            goes_on,
            next: first,
            found: 0,
            was_looked_at: false,
        }))
    }

    /// Whether it goes on to where the source is.
    pub(crate) fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// The segments that come next, as far as they are archived: from the backup's first to its last and, on the way to
    /// the source, up to the first gap. Where the source left the backup's timeline within its last segment, that of the next
    /// timeline is taken, and where it is not archived yet the replica streams it. `has` says which segments are in the backup itself.
    ///
    /// # Errors
    /// Where one that the backup needs is missing, or one is archived twice with different contents; when it is asked again, for
    /// what was archived while the rest was restored, such a one only ends the way.
    pub(crate) fn more(&mut self, has: &dyn Fn(&str) -> bool) -> Result<Vec<Segment>, Failure> {
        let mut segments = Vec::new();
        self.archive.forget();
        let was_looked_at = std::mem::replace(&mut self.was_looked_at, true);
        while self.goes_on() || self.next <= self.last {
            cancelled()?;
            let timeline = self
                .timelines
                .as_ref()
                .map_or(self.timeline, |timelines| timelines.at(self.timeline, self.next, self.size));
            let name = self.size.nth(timeline, self.next);
            let archived = match if has(&name) { None } else { self.archive.find(&name)? } {
                None => None,
                Some(Found::One(archived)) => Some(archived),
                Some(Found::Two(one, other)) => {
                    let why = self.archive.twice(&name, &one, &other);
                    if !was_looked_at || self.next <= self.last {
                        return Err(Failure::failed(why));
                    }
                    log::warn!("{why}; what comes after it the replica gets from the source");
                    break;
                }
            };
            if archived.is_none() && !has(&name) {
                if self.next > self.last {
                    break;
                }
                let fork = self.timelines.as_ref().and_then(|timelines| timelines.end(self.timeline));
                if let Some(fork) = fork.filter(|_| timeline != self.timeline) {
                    log::warn!(
                        "the source left the timeline {} at {fork}, within the segment with which the backup ends, and {name} \
                         is not archived: the replica must get it from the source",
                        self.timeline
                    );
                    break;
                }
                let (shown, from, to) = (
                    self.archive.shown(&name)?,
                    self.size.nth(self.timeline, self.first),
                    self.size.nth(self.timeline, self.last),
                );
                return Err(Failure::failed(format!(
                    "the segment {name} is missing, which the backup needs to be consistent ({from} to {to}): there is \
                     no {shown}; set `wal = \"none\"` where the source still has it"
                )));
            }
            if self.found == MOST_SEGMENTS {
                return Err(Failure::failed(format!(
                    "there is WAL of more than {MOST_SEGMENTS} segments to restore: take a newer backup, or set `wal` to \
                     another choice"
                )));
            }
            segments.push(Segment { name, archived });
            self.found += 1;
            self.next += 1;
        }
        Ok(segments)
    }

    /// The history files on the way.
    ///
    /// # Errors
    /// Where one is not that of the source.
    pub(crate) fn histories(&self) -> Result<Vec<History>, Failure> {
        let timelines: Vec<u32> = match &self.timelines {
            Some(timelines) => timelines.with_histories().collect(),
            None if self.timeline > 1 => vec![self.timeline],
            None => Vec::new(),
        };
        let mut histories = Vec::new();
        for timeline in timelines {
            let name = history_name(timeline);
            let archived = match self.archive.histories(timeline) {
                // The backup brought all of its WAL itself.
                Err(Failure::Failed(why)) if !self.archive.is_opened() && !self.goes_on => {
                    log::warn!("no history files come along: {why}");
                    break;
                }
                archived => archived?,
            };
            if archived.is_empty() {
                log::warn!("{name} is not archived: the replica must get it from the source");
                continue;
            }
            histories.push(self.of_the_source(timeline, name, archived)?);
        }
        Ok(histories)
    }

    /// The first of the archived `texts` that is the history of the source's `timeline`; without a source the first.
    fn of_the_source(&self, timeline: u32, name: String, texts: Vec<Vec<u8>>) -> Result<History, Failure> {
        let mut why = None;
        for text in texts {
            let failure = match history::parse(&text) {
                Err(error) => Failure::failed(format!("the archived {name} {error}")),
                Ok(forks) if self.timelines.as_ref().is_none_or(|known| known.agrees(timeline, &forks)) => {
                    return Ok(History { name, text });
                }
                Ok(_) => Failure::failed(format!(
                    "the archived {name} is not that of the source: another cluster's timeline of that number archived to \
                     this stanza"
                )),
            };
            why = why.or(Some(failure));
        }
        Err(why.unwrap_or_else(|| Failure::failed(format!("{name} is not archived"))))
    }
}
