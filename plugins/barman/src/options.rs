//! Reads the operator's options.

use postgres_formats::Lsn;
use restore::wal::Wal;
use understudy::{Failure, Request};

use crate::names::is_backup_id;
use crate::place::Place;
use crate::time::seconds_of;

/// The value of `backup` that chooses the newest backup.
const LATEST: &str = "latest";

/// The longest name of a backup in bytes.
const LONGEST_NAME: usize = 1024;

/// The options of a request.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) place: Place,
    pub(crate) wanted: Wanted,
    pub(crate) wal: Wal,
}

/// Which backup to restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The backup with this ID.
    Id(String),
    /// The backup with this name (`barman backup --name`).
    Name(String),
    /// The newest matching backup.
    Newest {
        /// The point at or before which the backup must have ended; `None` for any point.
        until: Option<Until>,
        /// The timeline of the backup; `None` for any timeline.
        timeline: Option<u32>,
    },
}

/// When a backup must have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// At or before a time.
    Time {
        /// Seconds since 1970.
        seconds: i64,
        /// The time as the operator wrote it.
        text: String,
    },
    /// At or before an LSN.
    Lsn(Lsn),
}

impl Options {
    /// Reads the options of `request`, and opens the place that they name.
    ///
    /// # Errors
    /// Fails if an option is invalid, or if two options contradict each other; the errors of [`Place::of`].
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        let wanted = wanted(request)?;
        let wal = Wal::of(request.get::<String>("wal")?.as_deref())?;
        Ok(Self { place: Place::of(request)?, wanted, wal })
    }
}

fn wanted(request: &Request) -> Result<Wanted, Failure> {
    let backup = request.get::<String>("backup")?.filter(|backup| backup != LATEST);
    let time = request.get::<String>("target-time")?;
    let lsn = request.get::<String>("target-lsn")?;
    let timeline = request.get::<i64>("target-timeline")?;
    let targets = [
        ("target-time", time.is_some()),
        ("target-lsn", lsn.is_some()),
        ("target-timeline", timeline.is_some()),
    ];
    if let Some(backup) = backup {
        if let Some((other, _)) = targets.into_iter().find(|(_, is_set)| *is_set) {
            return Err(Failure::failed(format!(
                "the options `backup` and `{other}` both choose a backup: set one of them"
            )));
        }
        return match is_backup_id(&backup) {
            true => Ok(Wanted::Id(backup)),
            false if backup.is_empty() || backup.len() > LONGEST_NAME => Err(Failure::failed(format!(
                "the option `backup` has {} bytes: set it to the ID or the name of a backup, or to `{LATEST}`",
                backup.len()
            ))),
            false => Ok(Wanted::Name(backup)),
        };
    }
    let until = match (time, lsn) {
        (None, None) => None,
        (Some(_), Some(_)) => {
            return Err(Failure::failed(
                "the options `target-time` and `target-lsn` both say when the backup must have ended: set one of them",
            ));
        }
        (Some(text), None) => {
            let seconds = seconds_of(&text).ok_or_else(|| {
                Failure::failed(format!(
                    "`target-time = \"{}\"` is not a time with a zone such as 2026-11-26 04:30:00+00 or 2026-11-26T04:30:00Z",
                    text.escape_debug()
                ))
            })?;
            Some(Until::Time { seconds, text })
        }
        (None, Some(text)) => {
            let lsn = text.parse().map_err(|_| {
                let text = text.escape_debug();
                Failure::failed(format!("`target-lsn = \"{text}\"` is not an LSN such as 0/16B3748"))
            })?;
            Some(Until::Lsn(lsn))
        }
    };
    let timeline = match timeline {
        None => None,
        Some(number) => Some(u32::try_from(number).ok().filter(|number| *number > 0).ok_or_else(|| {
            Failure::failed(format!("`target-timeline = {number}` is not the number of a timeline"))
        })?),
    };
    Ok(Wanted::Newest { until, timeline })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_a_name_and_the_newest_are_told_apart() {
        let of = |name: &str, value: &str| wanted(&Request::default().with(name, value)).unwrap();
        assert_eq!(of("backup", "latest"), Wanted::Newest { until: None, timeline: None });
        assert_eq!(of("backup", "20261126T043406"), Wanted::Id("20261126T043406".to_owned()));
        assert_eq!(of("backup", "before upgrade"), Wanted::Name("before upgrade".to_owned()));
        let until = Some(Until::Lsn(Lsn(0x1_0000_0028)));
        assert_eq!(of("target-lsn", "1/28"), Wanted::Newest { until, timeline: None });
        let request = Request::default().with("backup", "latest").with("target-timeline", 3);
        assert_eq!(wanted(&request), Ok(Wanted::Newest { until: None, timeline: Some(3) }));
    }

    #[test]
    fn options_that_contradict_each_other_are_named() {
        let time = "2026-11-26 04:30:00+00";
        for (request, names) in [
            (Request::default().with("backup", "a").with("target-time", time), ["`backup`", "`target-time`"]),
            (
                Request::default().with("backup", "a").with("target-timeline", 1),
                ["`backup`", "`target-timeline`"],
            ),
            (
                Request::default().with("target-lsn", "0/1").with("target-time", time),
                ["`target-time`", "`target-lsn`"],
            ),
            (Request::default().with("target-time", "2026-11-26 04:30:00"), ["`target-time", "zone"]),
            (Request::default().with("target-lsn", "x/y"), ["`target-lsn", "0/16B3748"]),
            (Request::default().with("target-timeline", 0), ["`target-timeline", "timeline"]),
            (Request::default().with("backup", ""), ["`backup`", "0 bytes"]),
            (Request::default().with("backup", "x".repeat(LONGEST_NAME + 1)), ["`backup`", "1025 bytes"]),
        ] {
            let failure = wanted(&request).unwrap_err().to_string();
            assert!(names.iter().all(|name| failure.contains(name)), "{failure}");
        }
        assert!(wanted(&Request::default().with("backup", "x".repeat(LONGEST_NAME))).is_ok());
    }
}
