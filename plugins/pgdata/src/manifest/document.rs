//! The JSON of a manifest, file by file.

use std::borrow::Cow;
use std::fmt;
use std::io;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{File, LONGEST_PATH, MOST_WAL_RANGES, Summary, WalRange};
use crate::checksum::{Algorithm, from_hex};

/// The whole document: gives the summary and the checksum that it claims to have.
pub(super) struct Document<'a, F> {
    pub(super) each: &'a mut F,
    /// The error that `each` ended the reading with.
    pub(super) stopped: &'a mut Option<io::Error>,
}

impl<'de, F: FnMut(File) -> io::Result<()>> DeserializeSeed<'de> for Document<'_, F> {
    type Value = (Summary, Vec<u8>);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, F: FnMut(File) -> io::Result<()>> Visitor<'de> for Document<'_, F> {
    type Value = (Summary, Vec<u8>);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a backup manifest")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut summary = Summary::default();
        let (mut version, mut files, mut ranges, mut checksum) = (None, false, false, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "PostgreSQL-Backup-Manifest-Version" if version.is_none() => {
                    let number: u32 = map.next_value()?;
                    if !(1..=2).contains(&number) {
                        return Err(A::Error::custom(format!(
                            "it has version {number}; versions 1 and 2 are read"
                        )));
                    }
                    version = Some(number);
                }
                "System-Identifier" if summary.system_identifier.is_none() => {
                    summary.system_identifier = Some(map.next_value()?);
                }
                "Files" if !files => {
                    files = true;
                    let list = Files { each: self.each, stopped: self.stopped, summary: &mut summary };
                    map.next_value_seed(list)?;
                }
                "WAL-Ranges" if !ranges => {
                    ranges = true;
                    summary.wal_ranges = map.next_value_seed(WalRanges)?;
                }
                "Manifest-Checksum" if checksum.is_none() => {
                    let text: String = map.next_value()?;
                    checksum = Some(
                        from_hex(&text).ok_or_else(|| A::Error::custom("its checksum is not hexadecimal"))?,
                    );
                }
                other => return Err(A::Error::custom(format!("a field `{}` it cannot have", short(other)))),
            }
        }
        if version.is_none() || !files {
            return Err(A::Error::custom("its version or its files are missing"));
        }
        let checksum = checksum.ok_or_else(|| A::Error::custom("it ends without its checksum"))?;
        Ok((summary, checksum))
    }
}

/// The list of files.
struct Files<'a, F> {
    each: &'a mut F,
    stopped: &'a mut Option<io::Error>,
    summary: &'a mut Summary,
}

impl<'de, F: FnMut(File) -> io::Result<()>> DeserializeSeed<'de> for Files<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(File) -> io::Result<()>> Visitor<'de> for Files<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of files")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(written) = list.next_element::<WrittenFile<'_>>()? {
            let file = written.read().map_err(A::Error::custom)?;
            self.summary.files += 1;
            self.summary.bytes = self.summary.bytes.saturating_add(file.size);
            if let Err(error) = (self.each)(file) {
                *self.stopped = Some(error);
                return Err(A::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// A file as the manifest has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFile<'a> {
    #[serde(rename = "Path", borrow, default)]
    path: Option<Cow<'a, str>>,
    #[serde(rename = "Encoded-Path", borrow, default)]
    encoded_path: Option<Cow<'a, str>>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Last-Modified", default)]
    _last_modified: IgnoredAny,
    #[serde(rename = "Checksum-Algorithm", borrow, default)]
    algorithm: Option<Cow<'a, str>>,
    #[serde(rename = "Checksum", borrow, default)]
    checksum: Option<Cow<'a, str>>,
}

impl WrittenFile<'_> {
    fn read(self) -> Result<File, String> {
        let path = match (self.path, self.encoded_path) {
            (Some(path), None) => path.into_owned(),
            (None, Some(encoded)) => {
                let bytes = from_hex(&encoded).ok_or_else(|| {
                    format!("an encoded path `{}` that is not hexadecimal", short(&encoded))
                })?;
                String::from_utf8(bytes).map_err(|error| {
                    let shown = error.as_bytes().escape_ascii().to_string();
                    format!(
                        "a file `{}` whose name is not UTF-8, which a sandbox cannot write",
                        short(&shown)
                    )
                })?
            }
            _ => return Err("a file without a path, or with two".to_owned()),
        };
        if path.len() > LONGEST_PATH {
            return Err(format!("a path `{}` of {} bytes", short(&path), path.len()));
        }
        let checksum = match (self.algorithm, self.checksum) {
            (None, None) => None,
            (Some(algorithm), Some(checksum)) => {
                let known = Algorithm::named(&algorithm).ok_or_else(|| {
                    format!("a checksum `{}` that is not known for `{path}`", short(&algorithm))
                })?;
                let value = from_hex(&checksum).filter(|value| value.len() == known.size());
                Some((known, value.ok_or_else(|| format!("a checksum of `{path}` that is no {known}"))?))
            }
            _ => return Err(format!("a checksum without its algorithm, or the reverse, for `{path}`")),
        };
        Ok(File { path, size: self.size, checksum })
    }
}

/// The list of WAL ranges, bounded.
struct WalRanges;

impl<'de> DeserializeSeed<'de> for WalRanges {
    type Value = Vec<WalRange>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenWalRange<'a> {
    #[serde(rename = "Timeline")]
    timeline: u32,
    #[serde(rename = "Start-LSN", borrow)]
    start: Cow<'a, str>,
    #[serde(rename = "End-LSN", borrow)]
    end: Cow<'a, str>,
}

impl<'de> Visitor<'de> for WalRanges {
    type Value = Vec<WalRange>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of WAL ranges")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut ranges = Vec::new();
        while let Some(written) = list.next_element::<WrittenWalRange<'_>>()? {
            let start = written.start.parse().map_err(A::Error::custom)?;
            let end = written.end.parse().map_err(A::Error::custom)?;
            if start > end || ranges.len() == MOST_WAL_RANGES {
                return Err(A::Error::custom("a WAL range that ends before it begins, or too many of them"));
            }
            ranges.push(WalRange { timeline: written.timeline, start, end });
        }
        Ok(ranges)
    }
}

/// The beginning of `text`, for a message.
fn short(text: &str) -> String {
    text.chars().take(200).collect()
}
