//! Finds the WAL to restore to `pg_wal`. A server replays this WAL before it streams, so the backup becomes consistent without the source.
//! With WAL from another timeline after a fork, a standby could never follow the source. So the segments are chosen along the timelines
//! of the source, not by what the archive contains.

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

/// The largest number of segments that are restored. With the default segment size that is more than 1.5 TB.
const MOST_SEGMENTS: usize = 100_000;

/// A segment to restore to `pg_wal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) name: String,
    /// The segment in the archive; `None` if the segment is in the backup itself.
    pub(crate) archived: Option<Archived>,
}

/// A history file to restore to `pg_wal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) name: String,
    pub(crate) text: Vec<u8>,
}

/// The route along which the WAL for a backup is chosen, and the current position on the route.
#[derive(Debug)]
pub(crate) struct WalRoute<'a> {
    pub(crate) archive: Archive<'a>,
    pub(crate) size: SegmentSize,
    /// The timeline of the backup.
    timeline: u32,
    /// The numbers of the first and the last segment that the backup needs.
    first: u64,
    last: u64,
    /// The timelines of the source, if they are known.
    timelines: Option<Timelines>,
    /// Whether the route continues up to the position of the source.
    follows_source: bool,
    /// The number of the next segment.
    next: u64,
    found: usize,
    /// Whether [`WalRoute::next_segments`] was called before.
    is_repeated: bool,
}

impl<'a> WalRoute<'a> {
    /// Makes the route for the option `wal`; `None` if no WAL is restored.
    ///
    /// # Errors
    /// Fails for [`Wal::Latest`] without a source, or if the backup is not in the history of the source.
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
                    "names no WAL, because the cluster was shut down: `wal = \"latest\"` does not know where to begin; set \
                     it to \"consistent\"",
                ));
            }
        };
        let follows_source = wal == Wal::Latest;
        // The host itself refuses a source of another cluster.
        let is_of_cluster = follows_source || source::system_identifier() == head.system_identifier;
        let timelines = if is_of_cluster { Timelines::of_source() } else { None };
        if follows_source && timelines.is_none() {
            return Err(Failure::failed(
                "`wal = \"latest\"` follows the timelines of the source, and there is no source that tells them: set \
                 [source], or `wal = \"consistent\"`",
            ));
        }
        let size = size?;
        let parse = |name: &str| {
            let none = || {
                let name = shown(name, 60);
                chosen.failed(format!("names `{name}`, which is not a WAL segment: set `wal = \"none\"`"))
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
            follows_source,
            next: first,
            found: 0,
            is_repeated: false,
        }))
    }

    /// Returns whether the route continues up to the position of the source.
    pub(crate) fn follows_source(&self) -> bool {
        self.follows_source
    }

    /// Returns the next archived segments: from the first to the last segment that the backup needs and, if the route follows the
    /// source, further segments up to the first gap. If the source left the backup's timeline within the backup's last segment, uses
    /// the segment from the next timeline; if that segment is not archived yet, the replica streams it. `has` returns whether a segment
    /// is in the backup itself.
    ///
    /// # Errors
    /// Fails if a segment that the backup needs is missing, or if a segment is archived twice with different content. In later calls, which
    /// look for newly archived segments, a segment that is archived twice only ends the route.
    pub(crate) fn next_segments(&mut self, has: &dyn Fn(&str) -> bool) -> Result<Vec<Segment>, Failure> {
        let mut segments = Vec::new();
        self.archive.forget();
        let is_repeated = std::mem::replace(&mut self.is_repeated, true);
        while self.follows_source() || self.next <= self.last {
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
                    let why = self.archive.duplicate_message(&name, &one, &other);
                    if !is_repeated || self.next <= self.last {
                        return Err(Failure::failed(why));
                    }
                    log::warn!("{why}; the replica gets the WAL after it from the source");
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

    /// Returns the history files of the timelines on the route.
    ///
    /// # Errors
    /// Fails if a history file does not match the history of the source.
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
                // The backup itself contains all the WAL that it needs.
                Err(Failure::Failed(why)) if !self.archive.is_opened() && !self.follows_source => {
                    log::warn!("no history files are restored: {why}");
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

    /// Returns the first of the archived `texts` that matches the history of the source; without a source, the first valid text.
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
