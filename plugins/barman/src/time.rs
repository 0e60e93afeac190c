//! Reads times with their zone, as the operator writes them and as Barman writes `end_time`: `str` of Python's `datetime`.

/// Returns a time in seconds since 1970, without its fraction: `2026-11-26 04:30:00.123456+00:00`, `2026-11-26T04:30:00Z`. `None` if `text`
/// is not a time or has no time zone: the time zone of the Barman server is unknown.
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
    fn times_of_barman_and_of_the_operator_are_read() {
        for text in [
            "2026-11-26 04:30:00.123456+00:00",
            "2026-11-26 06:30:00+02:00",
            "2026-11-26 01:00:00.5-03:30",
            "2026-11-26T04:30:00Z",
            "2026-11-26 04:30:00 UTC",
        ] {
            assert_eq!(seconds_of(text), Some(1_795_667_400), "{text}");
        }
        for text in ["", "2026-11-26 04:30:00", "Thu Nov 26 04:30:00 2026", "yesterday"] {
            assert_eq!(seconds_of(text), None, "{text}");
        }
    }
}
