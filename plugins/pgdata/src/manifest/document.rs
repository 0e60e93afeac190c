//! Reads a manifest's JSON, file by file.

use std::borrow::Cow;
use std::io::{self, Read};

use postgres_formats::NotAnLsn;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::window::Window;
use super::{File, LONGEST_PATH, MOST_WAL_RANGES, ManifestError, Summary, WalRange};
use crate::checksum::{Algorithm, from_hex};

/// The longest permitted value outside the lists, in bytes: a checksum or a number.
const LONGEST_VALUE: usize = 1024;

/// The longest permitted text for one file, in bytes. Six bytes of text may stand for one byte of a path.
const LONGEST_FILE: usize = 6 * LONGEST_PATH + 4096;

/// The longest permitted text for one WAL range, in bytes.
const LONGEST_RANGE: usize = 1024;

/// Reads the whole document. Returns the summary, and the checksum that the document states.
pub(super) fn read<R: Read>(
    text: &mut Window<R>,
    each: &mut impl FnMut(File) -> io::Result<()>,
) -> Result<(Summary, Vec<u8>), ManifestError> {
    let mut summary = Summary::default();
    let (mut version, mut files, mut ranges, mut checksum) = (None, false, false, None);
    text.one_of(b"{")?;
    loop {
        let key: String = text.value(LONGEST_VALUE)?;
        text.one_of(b":")?;
        match key.as_str() {
            "PostgreSQL-Backup-Manifest-Version" if version.is_none() => {
                let number: u32 = text.value(LONGEST_VALUE)?;
                if !(1..=2).contains(&number) {
                    return malformed(format!("it has version {number}; versions 1 and 2 are read"));
                }
                version = Some(number);
            }
            "System-Identifier" if summary.system_identifier.is_none() => {
                summary.system_identifier = Some(text.value(LONGEST_VALUE)?);
            }
            "Files" if !files => {
                files = true;
                list(text, |text| {
                    let number = summary.files + 1;
                    let written: WrittenFile<'_> =
                        text.value(LONGEST_FILE).map_err(|error| in_file(error, number))?;
                    let file = written.read().map_err(ManifestError::Malformed)?;
                    summary.files = number;
                    summary.bytes = summary.bytes.saturating_add(file.size);
                    Ok(each(file)?)
                })?;
            }
            "WAL-Ranges" if !ranges => {
                ranges = true;
                list(text, |text| {
                    let written: WrittenWalRange<'_> = text.value(LONGEST_RANGE)?;
                    summary.wal_ranges.push(written.read(summary.wal_ranges.len())?);
                    Ok(())
                })?;
            }
            "Manifest-Checksum" if checksum.is_none() => {
                let written: String = text.value(LONGEST_VALUE)?;
                let Some(value) = from_hex(&written) else {
                    return malformed("its checksum is not hexadecimal".to_owned());
                };
                checksum = Some(value);
            }
            other => return malformed(format!("a field `{}` it cannot have", short(other))),
        }
        if text.one_of(b",}")? == b'}' {
            break;
        }
    }
    text.end()?;
    if version.is_none() || !files {
        return malformed("its version or its files are missing".to_owned());
    }
    match checksum {
        Some(checksum) => Ok((summary, checksum)),
        None => malformed("it ends without its checksum".to_owned()),
    }
}

fn malformed<T>(why: String) -> Result<T, ManifestError> {
    Err(ManifestError::Malformed(why))
}

/// Adds the number of a file whose name is unknown to an error.
fn in_file(error: ManifestError, number: u64) -> ManifestError {
    match error {
        ManifestError::Malformed(why) => ManifestError::Malformed(format!("its file number {number}: {why}")),
        other => other,
    }
}

/// Reads a list, and calls `item` for each item.
fn list<R: Read>(
    text: &mut Window<R>,
    mut item: impl FnMut(&mut Window<R>) -> Result<(), ManifestError>,
) -> Result<(), ManifestError> {
    text.one_of(b"[")?;
    if text.takes(b']')? {
        return Ok(());
    }
    loop {
        item(text)?;
        if text.one_of(b",]")? == b']' {
            return Ok(());
        }
    }
}

/// A file as the manifest writes it.
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

impl WrittenWalRange<'_> {
    /// Returns the range that follows `before` other ranges.
    fn read(self, before: usize) -> Result<WalRange, ManifestError> {
        let lsn =
            |text: &str| text.parse().map_err(|error: NotAnLsn| ManifestError::Malformed(error.to_string()));
        let (start, end) = (lsn(&self.start)?, lsn(&self.end)?);
        if start > end || before == MOST_WAL_RANGES {
            return malformed("a WAL range that ends before it begins, or too many of them".to_owned());
        }
        Ok(WalRange { timeline: self.timeline, start, end })
    }
}

/// Returns the beginning of `text`, for a message.
fn short(text: &str) -> String {
    text.chars().take(200).collect()
}
