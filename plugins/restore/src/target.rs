//! Which backup the options `target-time`, `target-lsn` and `target-timeline` choose: the newest one that ended by then.

use std::fmt;

use postgres_formats::Lsn;
use understudy::{Failure, Request};

/// What the newest backup must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// The point at or before which the backup must have ended; `None` for any point.
    pub until: Option<Until>,
    /// The timeline of the backup; `None` for any timeline.
    pub timeline: Option<u32>,
}

/// When a backup must have ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Until {
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

impl Target {
    /// Reads the options of `request`.
    ///
    /// # Errors
    /// Fails if an option is invalid, or if two options contradict each other.
    pub fn of(request: &Request) -> Result<Self, Failure> {
        let until = match (request.get::<String>("target-time")?, request.get::<String>("target-lsn")?) {
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
            (None, Some(text)) => Some(Until::Lsn(text.parse().map_err(|_| {
                let text = text.escape_debug();
                Failure::failed(format!("`target-lsn = \"{text}\"` is not an LSN such as 0/16B3748"))
            })?)),
        };
        let timeline = match request.get::<i64>("target-timeline")? {
            None => None,
            Some(number) => {
                Some(u32::try_from(number).ok().filter(|number| *number > 0).ok_or_else(|| {
                    Failure::failed(format!(
                        "`target-timeline = {number}` is not a timeline: timelines count from 1"
                    ))
                })?)
            }
        };
        Ok(Self { until, timeline })
    }

    /// Fails if one of the options is set although the option `other` chooses the backup.
    ///
    /// # Errors
    /// Names both options.
    pub fn check_unset(&self, other: &str) -> Result<(), Failure> {
        let set = match (&self.until, self.timeline) {
            (Some(Until::Time { .. }), _) => "target-time",
            (Some(Until::Lsn(_)), _) => "target-lsn",
            (None, Some(_)) => "target-timeline",
            (None, None) => return Ok(()),
        };
        Err(both_choose(other, set))
    }
}

/// Returns the failure if two options are set that each choose the backup.
pub fn both_choose(one: &str, other: &str) -> Failure {
    Failure::failed(format!("the options `{one}` and `{other}` both choose a backup: set one of them"))
}

/// What a backup must match, as it follows "none" in a message; empty if every backup does.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.until {
            None => {}
            Some(Until::Time { text, .. }) => write!(f, " that ended at or before {}", text.escape_debug())?,
            Some(Until::Lsn(lsn)) => write!(f, " that ended at or before {lsn}")?,
        }
        self.timeline.map_or(Ok(()), |timeline| write!(f, " on the timeline {timeline}"))
    }
}

/// Returns a time in seconds since 1970, without its fraction: `2026-11-26T04:30:00Z`, `2026-11-26 04:30:00.5+00`,
/// `2026-11-26 04:30:00-03:30`, as ISO 8601, PostgreSQL, Python and Go write it. `None` if `text` is not a time, has no time zone (that of
/// the writer is unknown), or is before 1970, as Go's time of zeros.
pub fn seconds_of(text: &str) -> Option<i64> {
    // PostgreSQL writes `UTC`, and a space before the zone, which ISO 8601 does not have.
    let text =
        text.strip_suffix("UTC").map_or_else(|| text.to_owned(), |time| format!("{}Z", time.trim_end()));
    let text = match text.rsplit_once(' ') {
        Some((time, zone)) if zone.starts_with(['+', '-']) => format!("{time}{zone}"),
        _ => text,
    };
    let time: jiff::Timestamp = text.parse().ok()?;
    Some(time.as_second()).filter(|seconds| *seconds >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_with_its_zone_is_a_number_of_seconds() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-11-26 04:30:00+00", 1_795_667_400),
            ("2026-11-26T04:30:00Z", 1_795_667_400),
            ("2026-11-26T04:30:00.123456789Z", 1_795_667_400),
            ("2026-11-26 04:30:00.123456+00:00", 1_795_667_400),
            ("2026-11-26 04:30:00.999 UTC", 1_795_667_400),
            ("2026-11-26T06:30:00.5+02:00", 1_795_667_400),
            ("2026-11-26 01:00:00-0330", 1_795_667_400),
            ("2026-11-26 01:00:00 -03:30", 1_795_667_400),
            ("2000-02-29 00:00:00Z", 951_782_400),
            ("2100-03-01 00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(seconds_of(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn an_invalid_time_or_one_without_zone_is_refused() {
        for text in [
            "",
            "yesterday",
            "Thu Nov 26 04:30:00 2026",
            "0001-01-01T00:00:00Z",
            "2026-11-26",
            "2026-11-26 04:30:00",
            "2026-13-26 04:30:00Z",
            "2026-02-29 04:30:00Z",
            "2026-11-26 24:30:00Z",
            "2026-11-26 04:30:00.Z",
            "2026-11-26 04:30:00+1",
            "2026-11-26 04:30:00+01:0",
            "2026-11-26 04:30:00Europe/Berlin",
            "2026-11-2604:30:00Z00",
            "+026-11-26 04:30:00Z",
            "2026-11-26 04:30:00Z\u{e9}",
        ] {
            assert_eq!(seconds_of(text), None, "{text}");
        }
    }

    #[test]
    fn a_target_is_read_and_described() {
        let of = |option: &str, value: &str| Target::of(&Request::default().with(option, value)).unwrap();
        assert_eq!(Target::of(&Request::default()), Ok(Target::default()));
        assert_eq!(Target::default().to_string(), "");
        assert_eq!(of("target-lsn", "1/28").until, Some(Until::Lsn(Lsn(0x1_0000_0028))));
        let request =
            Request::default().with("target-time", "2026-11-26 04:30:00+00").with("target-timeline", 3);
        let target = Target::of(&request).unwrap();
        assert_eq!(target.to_string(), " that ended at or before 2026-11-26 04:30:00+00 on the timeline 3");
        for (target, set) in [
            (target, "`target-time`"),
            (of("target-lsn", "0/1"), "`target-lsn`"),
            (Target { until: None, timeline: Some(1) }, "`target-timeline`"),
        ] {
            let failure = target.check_unset("backup").unwrap_err().to_string();
            assert!(failure.contains("`backup`") && failure.contains(set), "{failure}");
        }
        assert_eq!(Target::default().check_unset("backup"), Ok(()));
    }

    #[test]
    fn options_that_contradict_each_other_or_are_wrong_are_named() {
        let time = "2026-11-26 04:30:00+00";
        for (request, names) in [
            (
                Request::default().with("target-lsn", "0/1").with("target-time", time),
                ["`target-time`", "`target-lsn`"],
            ),
            (Request::default().with("target-time", "2026-11-26 04:30:00"), ["`target-time", "zone"]),
            (Request::default().with("target-lsn", "x/y"), ["`target-lsn", "0/16B3748"]),
            (Request::default().with("target-timeline", 0), ["`target-timeline", "timeline"]),
            (Request::default().with("target-timeline", -1), ["`target-timeline", "timeline"]),
            (Request::default().with("target-timeline", 1_i64 << 32), ["`target-timeline", "timeline"]),
        ] {
            let failure = Target::of(&request).unwrap_err().to_string();
            assert!(names.iter().all(|name| failure.contains(name)), "{failure}");
        }
    }
}
