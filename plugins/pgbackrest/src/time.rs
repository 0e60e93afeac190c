//! Reads times in ISO 8601 and in PostgreSQL's format.

/// Returns a time in seconds since 1970, without its fraction: `2026-11-26T04:30:00Z`, `2026-11-26 04:30:00.5+00`,
/// `2026-11-26 04:30:00-03:30`. `None` if `text` is not a time or has no time zone: the time zone of a method is unknown.
pub(crate) fn seconds_of(text: &str) -> Option<i64> {
    let number = |text: &str, least: i64, most: i64| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<i64>().ok()).flatten().filter(|number| (least..=most).contains(number))
    };
    let two = |text: &str, least, most| if text.len() == 2 { number(text, least, most) } else { None };
    if !text.is_ascii() || text.len() < 20 {
        return None;
    }
    let (date, rest) = text.split_at(10);
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || year.len() != 4 {
        return None;
    }
    let (year, month) = (number(year, 1970, 9999)?, two(month, 1, 12)?);
    let day = two(day, 1, days_in(year, month))?;
    let rest = rest.strip_prefix([' ', 'T'])?;
    let (time, rest) = rest.split_at_checked(8)?;
    let mut parts = time.split(':');
    let (hour, minute, second) =
        (two(parts.next()?, 0, 23)?, two(parts.next()?, 0, 59)?, two(parts.next()?, 0, 60)?);
    if parts.next().is_some() {
        return None;
    }
    let rest = match rest.strip_prefix('.') {
        None => rest,
        Some(fraction) => {
            let rest = fraction.trim_start_matches(|digit: char| digit.is_ascii_digit());
            if rest.len() == fraction.len() {
                return None;
            }
            rest
        }
    };
    let rest = rest.strip_prefix(' ').unwrap_or(rest);
    let offset = match rest {
        "Z" | "UTC" => 0,
        _ => {
            let sign = match rest.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let zone = &rest[1..];
            let (hours, minutes) = match (zone.split_once(':'), zone.len()) {
                (Some(parts), _) => parts,
                (None, 2) => (zone, "00"),
                (None, 4) => zone.split_at(2),
                _ => return None,
            };
            sign * (two(hours, 0, 15)? * 3600 + two(minutes, 0, 59)? * 60)
        }
    };
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let leap_days = |year: i64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let months: i64 = (1..month).map(|month| days_in(year, month)).sum();
    (year - 1970) * 365 + leap_days(year) - leap_days(1970) + months + day - 1
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
