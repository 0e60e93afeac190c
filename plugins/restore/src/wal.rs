//! Finds the WAL to restore to `pg_wal`. A server replays this WAL before it streams, so the backup becomes consistent without the source.
//! With WAL from another timeline after a fork, a standby could never follow the source. So the segments are chosen along the timelines
//! of the source, not by what the archive contains.
//!
//! The messages name the options `wal` and `backup`, which every method has that uses this module.

use postgres_formats::segment::{SegmentSize, history_name};
use postgres_formats::{Lsn, history};
use understudy::store::Codec;
use understudy::transfer::{Digest, Job};
use understudy::{Failure, cancelled, log, source};

use crate::timelines::Timelines;

/// The largest number of segments that are restored. With the default segment size that is more than 1.5 TB.
const MOST_SEGMENTS: usize = 100_000;

/// Which WAL is restored to `pg_wal`: the option `wal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wal {
    /// No WAL. The standby gets the WAL from the source.
    None,
    /// The WAL that the backup needs to become consistent.
    Consistent,
    /// All archived WAL up to the first gap, along the source's timelines.
    Latest,
}

impl Wal {
    /// The names of the choices.
    pub const CHOICES: [&'static str; 3] = ["none", "consistent", "latest"];

    /// Returns the choice with this name; the default if there is none.
    ///
    /// # Errors
    /// Fails if no choice has this name.
    pub fn of(name: Option<&str>) -> Result<Self, Failure> {
        match name {
            Some("none") => Ok(Self::None),
            None | Some("consistent") => Ok(Self::Consistent),
            Some("latest") => Ok(Self::Latest),
            Some(other) => {
                Err(Failure::failed(format!("`wal = \"{other}\"` is none of {}", Self::CHOICES.join(", "))))
            }
        }
    }
}

/// A segment in the archive.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The object.
    pub object: String,
    /// How the object is compressed; `None` if it is not.
    pub codec: Option<Codec>,
    /// The digest of its plain bytes; `None` if the archive does not have it.
    pub digest: Option<Digest>,
}

/// The objects of a segment in the archive.
#[derive(Clone, Debug)]
pub enum Found {
    /// One object, or several with the same bytes.
    One(Stored),
    /// Two objects with different bytes. Which of them the cluster wrote is unknown.
    Two(Stored, Stored),
}

/// The WAL of one cluster in the archive of a backup tool.
pub trait Archive {
    /// Finds the segment `name`; `None` if the segment is not archived.
    ///
    /// # Errors
    /// The error of the store.
    fn find(&mut self, name: &str) -> Result<Option<Found>, Failure>;

    /// Drops what is kept of listings, so that the next lookup reads them again.
    fn forget(&mut self);

    /// Returns where the segment `name` should be, for messages.
    ///
    /// # Errors
    /// Fails if there is no archive.
    fn shown(&self, name: &str) -> Result<String, Failure>;

    /// Reads the history files for `timeline`, the likeliest first. Empty if no file is archived.
    ///
    /// # Errors
    /// The error of the store.
    fn histories(&self, timeline: u32) -> Result<Vec<Vec<u8>>, Failure>;

    /// Returns whether a segment or history file was looked up successfully, so that the archive is known to exist.
    fn is_opened(&self) -> bool;

    /// Names the object `key`, for messages.
    fn shown_object(&self, key: &str) -> String;

    /// Returns the message for a segment that is archived twice with different bytes.
    fn duplicate_message(&self, name: &str, one: &Stored, other: &Stored) -> String {
        format!(
            "the segment {name} is archived twice, as {} and as {}: remove the one that does not belong here",
            self.shown_object(&one.object),
            self.shown_object(&other.object)
        )
    }

    /// Returns what one cluster archives to, for messages, such as `stanza`.
    fn place(&self) -> &'static str;

    /// Returns the origin of segments with this compression in `job`, from [`Job::origin_of`].
    ///
    /// # Errors
    /// The error of the host; fails if there is no archive.
    fn origin(&self, job: &mut Job, codec: Option<Codec>) -> Result<u32, Failure>;
}

/// What a route needs to know of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// The name of the backup at the beginning of messages, such as `repo:backup/main/20261126-043406F/backup.manifest`.
    pub shown: String,
    /// The system identifier of the cluster; `None` if unknown.
    pub system_identifier: Option<u64>,
    /// The WAL that the backup needs; `None` if it needs none, because the cluster was shut down.
    pub needed: Option<Needed>,
    /// The LSN at which the backup ended; `None` if unknown.
    pub stop: Option<Lsn>,
}

/// The WAL that a backup needs to become consistent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needed {
    /// Segments, by the names of the first and the last.
    Segments(String, String),
    /// Everything on a timeline between two LSNs.
    Between {
        /// The timeline.
        timeline: u32,
        /// Where the backup began.
        start: Lsn,
        /// Where it ended: the LSN of the first byte that is not needed.
        stop: Lsn,
    },
}

impl Needed {
    /// Returns the timeline, and the numbers of the first and the last segment.
    fn numbers(&self, shown: &str, size: SegmentSize) -> Result<(u32, u64, u64), Failure> {
        let refused = |start: &dyn std::fmt::Display, stop: &dyn std::fmt::Display, what: &str| {
            Failure::failed(format!(
                "{shown} begins {what}{start} and ends with {stop}: choose another with `backup`"
            ))
        };
        match self {
            Self::Segments(start, stop) => {
                let parse = |name: &str| {
                    let none = || {
                        let name: String = name.escape_debug().take(60).collect();
                        Failure::failed(format!(
                            "{shown} names `{name}`, which is not a WAL segment: set `wal = \"none\"`"
                        ))
                    };
                    size.parse(name).ok_or_else(none)
                };
                let ((timeline, first), (stop_timeline, last)) = (parse(start)?, parse(stop)?);
                if timeline != stop_timeline || last < first {
                    return Err(refused(start, stop, "with the segment "));
                }
                Ok((timeline, first, last))
            }
            Self::Between { timeline, start, stop } => {
                if stop < start || *timeline == 0 {
                    return Err(refused(start, stop, "with "));
                }
                // The last byte that is needed is the one before `stop` (`XLByteToPrevSeg` in PostgreSQL's xlog_internal.h).
                let (first, last) = (size.number(*start), size.number(Lsn(stop.0.saturating_sub(1))));
                Ok((*timeline, first, last.max(first)))
            }
        }
    }
}

/// A segment to restore to `pg_wal`.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its name.
    pub name: String,
    /// The segment in the archive; `None` if the segment is in the backup itself.
    pub archived: Option<Stored>,
}

/// A history file to restore to `pg_wal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Its name.
    pub name: String,
    /// Its content.
    pub text: Vec<u8>,
}

/// Numbers of bytes and of files, each `None` if it is unknown.
pub type Counts = (Option<u64>, Option<u64>);

/// How much is written for WAL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// The bytes of segments and history files.
    pub bytes: u64,
    /// The number of segments and history files, each with its status file.
    pub files: u64,
}

impl Amount {
    /// Returns the sums of this amount and the given numbers. The sum of an unknown number is unknown.
    #[must_use]
    pub fn added_to(self, (bytes, files): Counts) -> Counts {
        let sum = |one: Option<u64>, other| one.map(|one| one.saturating_add(other));
        (sum(bytes, self.bytes), sum(files, self.files))
    }
}

/// The route along which the WAL for a backup is chosen, and the current position on the route.
#[derive(Debug)]
pub struct Route<A> {
    /// The archive.
    pub archive: A,
    /// The size of a segment.
    pub size: SegmentSize,
    /// The timeline of the backup.
    timeline: u32,
    /// The numbers of the first and the last segment that the backup needs.
    first: u64,
    last: u64,
    /// The timelines of the source, if they are known.
    timelines: Option<Timelines>,
    /// Whether the route continues after the WAL that the backup needs, up to the first gap in the archive.
    follows_source: bool,
    /// The number of the next segment.
    next: u64,
    found: usize,
    /// Whether [`Route::next_segments`] was called before.
    is_repeated: bool,
}

impl<A: Archive> Route<A> {
    /// Makes the route for the option `wal`; `None` if no WAL is restored. `size` is the size of a segment, or why it is unknown.
    ///
    /// # Errors
    /// Fails for [`Wal::Latest`] without a source, or if the backup is not in the history of the source.
    pub fn of(
        backup: &Backup,
        archive: A,
        wal: Wal,
        size: Result<SegmentSize, Failure>,
    ) -> Result<Option<Self>, Failure> {
        if wal == Wal::None {
            return Ok(None);
        }
        let needed = match &backup.needed {
            Some(needed) => needed,
            None if wal == Wal::Consistent => return Ok(None),
            None => {
                return Err(Failure::failed(format!(
                    "{} names no WAL, because the cluster was shut down: `wal = \"latest\"` does not know where to begin; set \
                     it to \"consistent\"",
                    backup.shown
                )));
            }
        };
        let follows_source = wal == Wal::Latest;
        // The host itself refuses a source of another cluster.
        let is_of_cluster = follows_source || source::system_identifier() == backup.system_identifier;
        let timelines = if is_of_cluster { Timelines::of_source() } else { None };
        if follows_source && timelines.is_none() {
            return Err(Failure::failed(
                "`wal = \"latest\"` follows the timelines of the source, and there is no source that tells them: set \
                 [source], or `wal = \"consistent\"`",
            ));
        }
        let size = size?;
        let (timeline, first, last) = needed.numbers(&backup.shown, size)?;
        if let Some(timelines) = &timelines {
            timelines.check(timeline, backup.stop.unwrap_or(Lsn(last * size.bytes())))?;
        }
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

    /// Returns whether the route continues after the WAL that the backup needs, up to the first gap in the archive.
    pub fn follows_source(&self) -> bool {
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
    pub fn next_segments(&mut self, has: &dyn Fn(&str) -> bool) -> Result<Vec<Segment>, Failure> {
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

    /// Returns how much is written for `segments` and `histories`. Segments in the backup itself do not count.
    pub fn amount_of(&self, segments: &[Segment], histories: &[History]) -> Amount {
        let fetched = segments.iter().filter(|segment| segment.archived.is_some()).count() as u64;
        let texts = histories.iter().map(|history| history.text.len() as u64).sum();
        Amount {
            bytes: fetched.saturating_mul(self.size.bytes()).saturating_add(texts),
            files: 2 * (fetched + histories.len() as u64),
        }
    }

    /// Returns how much WAL a plan for the backup `label` expects, and logs the number of segments. `has` returns whether a segment is in
    /// the backup itself.
    ///
    /// # Errors
    /// The errors of [`Route::next_segments`] and [`Route::histories`].
    pub fn expected(mut self, label: &str, has: &dyn Fn(&str) -> bool) -> Result<Amount, Failure> {
        let segments = self.next_segments(has)?;
        let histories = self.histories()?;
        let until = if self.follows_source { ", up to the newest that is archived" } else { "" };
        log::info!("WAL segments that come with the backup {label}{until}: {}", segments.len());
        Ok(self.amount_of(&segments, &histories))
    }

    /// Returns the history files of the timelines on the route.
    ///
    /// # Errors
    /// Fails if a history file does not match the history of the source.
    pub fn histories(&self) -> Result<Vec<History>, Failure> {
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
                     this {}",
                    self.archive.place()
                )),
            };
            why = why.or(Some(failure));
        }
        Err(why.unwrap_or_else(|| Failure::failed(format!("{name} is not archived"))))
    }
}
