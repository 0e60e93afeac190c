//! Reads times in ISO 8601 and in PostgreSQL's format.

/// Returns a time in seconds since 1970, without its fraction: `2026-11-26T04:30:00Z`, `2026-11-26 04:30:00.5+00`,
/// `2026-11-26 04:30:00-03:30`. `None` if `text` is not a time or has no time zone: the time zone of a method is unknown.
pub(crate) fn seconds_of(text: &str) -> Option<i64> {
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
}
