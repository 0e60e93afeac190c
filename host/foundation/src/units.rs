//! Sizes, speeds and durations as types: parsed from what an operator writes, shown as a person reads them.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

/// A number of bytes. Written `"512"`, `"64kB"`, `"256MiB"`, `"3TiB"`; a unit is a power of 1024 with or without the `i`,
/// as PostgreSQL's own settings have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// The units in which [`Bytes`] is shown, largest first, with their sizes in bytes.
const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A text that is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: write a whole number and one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB")]
pub struct NotASize(String);

impl FromStr for Bytes {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let not_a_size = || NotASize(text.to_owned());
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| not_a_size())?;
        let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            "t" | "tb" | "tib" => 1 << 40,
            _ => return Err(not_a_size()),
        };
        number.checked_mul(factor).map(Bytes).ok_or_else(not_a_size)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, size)| *size > 1 && self.0 >= *size) {
            Some((unit, size)) => write!(f, "{:.1} {unit}", self.0 as f64 / *size as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// A speed above zero in bytes per second. Written `"100MiB/s"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BytesPerSecond(NonZeroU64);

/// A text that is not a speed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a speed above zero: write a size and `/s`, such as \"100MiB/s\"")]
pub struct NotASpeed(String);

impl BytesPerSecond {
    /// Returns the number of bytes per second.
    pub fn bytes(self) -> Bytes {
        Bytes(self.0.get())
    }
}

impl FromStr for BytesPerSecond {
    type Err = NotASpeed;

    fn from_str(text: &str) -> Result<Self, NotASpeed> {
        let size = text.strip_suffix("/s").and_then(|size| size.trim_end().parse::<Bytes>().ok());
        size.and_then(|size| NonZeroU64::new(size.0)).map(Self).ok_or_else(|| NotASpeed(text.to_owned()))
    }
}

impl fmt::Display for BytesPerSecond {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.bytes())
    }
}

/// A length of time that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a length of time: {}", .0.escape_debug(), how_to_write(.0))]
pub struct NotADuration(String);

/// Says what to write in place of a text that is not a length of time.
fn how_to_write(text: &str) -> String {
    let small = text.to_ascii_lowercase();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        format!("a unit is missing, write such as \"{text}s\"")
    } else if text.contains('.') {
        "it has a fraction, write whole numbers and units, such as \"1h30m\"".to_owned()
    } else if small != text && parse_duration(&small).is_ok() {
        format!("units are written in small letters, \"{small}\"")
    } else {
        "write whole numbers and units, largest first, such as \"500ms\", \"90s\", \"5min\", \"1h30m\" or \"1d\"".to_owned()
    }
}

/// The units of time, largest first: the spellings of each, and its length in milliseconds. `m` is a minute.
const TIMES: [(&[&str], u64); 5] = [
    (&["d", "day", "days"], 86_400_000),
    (&["h", "hr", "hour", "hours"], 3_600_000),
    (&["m", "min", "mins", "minute", "minutes"], 60_000),
    (&["s", "sec", "secs", "second", "seconds"], 1000),
    (&["ms", "millisecond", "milliseconds"], 1),
];

/// Reads a length of time: `"500ms"`, `"90s"`, `"5min"`, `"1h30m"`, `"1d"`. Larger units come first, each at most once.
///
/// # Errors
/// Fails if the text is not a length of time; the message says how to write a length of time.
pub fn parse_duration(text: &str) -> Result<Duration, NotADuration> {
    let not_a_duration = || NotADuration(text.to_owned());
    let mut milliseconds: u64 = 0;
    let mut least = u64::MAX;
    let mut rest = text;
    loop {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, behind) = rest.split_at(digits);
        let behind = behind.trim_start_matches(' ');
        let letters = behind.len() - behind.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, behind) = behind.split_at(letters);
        let known = TIMES.iter().find(|(spellings, _)| spellings.contains(&unit));
        let (_, factor) = known.filter(|(_, factor)| *factor < least).ok_or_else(not_a_duration)?;
        let number: u64 = number.parse().map_err(|_| not_a_duration())?;
        let part = number.checked_mul(*factor).ok_or_else(not_a_duration)?;
        milliseconds = milliseconds.checked_add(part).ok_or_else(not_a_duration)?;
        if behind.is_empty() {
            return Ok(Duration::from_millis(milliseconds));
        }
        least = *factor;
        rest = behind.trim_start_matches(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_whole_numbers_with_units() {
        for (text, milliseconds) in [
            ("0s", 0),
            ("250ms", 250),
            ("90s", 90_000),
            ("5min", 300_000),
            ("5m", 300_000),
            ("4h", 14_400_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("2 minutes", 120_000),
            ("1d", 86_400_000),
            ("1d2h3m4s5ms", 93_784_005),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in [
            "",
            " ",
            "90",
            "s",
            "-1s",
            "+1s",
            "1.5h",
            "4 parsecs",
            "1m1h",
            "1s1s",
            "1S",
            " 1s",
            "1s ",
            "1h30",
            "18446744073709551615d",
        ] {
            let told = parse_duration(text).unwrap_err().to_string();
            assert!(told.starts_with(&format!("`{text}` is not a length of time: ")), "{told}");
        }
    }

    #[test]
    fn a_length_of_time_that_is_nearly_right_is_corrected() {
        for (text, says) in [
            ("300", "a unit is missing, write such as \"300s\""),
            ("4H", "units are written in small letters, \"4h\""),
            ("1.5h", "it has a fraction, write whole numbers and units, such as \"1h30m\""),
            ("30m1h", "write whole numbers and units, largest first"),
        ] {
            assert!(parse_duration(text).unwrap_err().to_string().contains(says), "{text}");
        }
    }

    #[test]
    fn a_speed_is_a_size_per_second_and_never_zero() {
        let speed: BytesPerSecond = "100MiB/s".parse().unwrap();
        assert_eq!((speed.bytes(), speed.to_string().as_str()), (Bytes(100 << 20), "100.0 MiB/s"));
        for text in ["", "/s", "100MiB", "0B/s", "100MiB/h", "-1kB/s"] {
            assert!(text.parse::<BytesPerSecond>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_is_read_with_either_spelling_of_its_unit() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("64kB", 65_536), ("256MiB", 256 << 20), ("3 TB", 3 << 40)]
        {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_not_sizes() {
        for text in ["", "MiB", "-1", "1.5GiB", "12 parsecs", "18446744073709551615kB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_is_shown_in_the_largest_unit_that_fits() {
        assert_eq!(Bytes(1023).to_string(), "1023 B");
        assert_eq!(Bytes(1536).to_string(), "1.5 KiB");
        assert_eq!(Bytes(3 << 40).to_string(), "3.0 TiB");
    }
}
