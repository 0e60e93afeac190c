//! Sizes and speeds as types: parsed from what an operator writes, shown as a person reads them.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

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

#[cfg(test)]
mod tests {
    use super::*;

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
