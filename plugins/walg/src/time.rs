//! Reads times in ISO 8601, as WAL-G writes them, and in PostgreSQL's format.

/// Returns a time in seconds since 1970, without its fraction: `2026-11-26T04:30:00.25Z`, `2026-11-26 04:30:00+00`. `None` if `text` is not
/// a time, has no time zone, or is before 1970.
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
            ("2026-11-26T04:30:00.123456789Z", 1_795_667_400),
            ("2026-11-26 04:30:00+00", 1_795_667_400),
            ("2026-11-26 04:30:00.999 UTC", 1_795_667_400),
            ("2026-11-26T06:30:00.5+02:00", 1_795_667_400),
        ] {
            assert_eq!(seconds_of(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn an_invalid_time_or_one_without_zone_is_refused() {
        // The third is Go's zero time, which WAL-G writes for an unknown time.
        for text in ["", "yesterday", "0001-01-01T00:00:00Z", "2026-11-26 04:30:00", "2026-13-26 04:30:00Z"] {
            assert_eq!(seconds_of(text), None, "{text}");
        }
    }
}
