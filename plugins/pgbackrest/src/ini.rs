//! Reads the text files that pgBackRest stores with backups and archives: INI with JSON values (pgBackRest's src/common/ini.c) and a
//! checksum of the whole text (src/info/info.c). A text is read only once and line by line, because a manifest may have gigabytes.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read};

use serde::Deserialize;
use serde::de::IgnoredAny;
use understudy::digests::{Algorithm, Hasher};
use understudy::keys::Key;
use understudy::{AtPath, Failure, cancelled};

use crate::names::shown;

/// The supported version of the format (`REPOSITORY_FORMAT` in pgBackRest's src/version.h), unchanged since 2.00.
const FORMAT: u64 = 5;

/// The longest permitted line, in bytes. pgBackRest's longest lines list damaged pages, at most 131,072 for a file.
const LONGEST_LINE: u64 = 4 << 20;

/// The longest permitted text, in bytes. A manifest has some 250 bytes for each file.
const MOST_TEXT: u64 = 4 << 30;

/// The largest permitted number of names in sections other than the lists of files and directories: backups, clusters, settings.
const MOST_NAMES: usize = 200_000;

/// How many bytes of text are passed to the host's hasher at once.
const PIECE: usize = 256 << 10;

/// How many lines are read between two checks for cancellation.
const LINES: u64 = 4096;

/// Receives the lines of a text.
pub(crate) trait Visitor {
    /// Receives `line` of `section`, a key and a value joined by `=`. Returns the length of the key in bytes, from [`split`] or [`skip`].
    ///
    /// # Errors
    /// The error says what is wrong with the line. The reader puts the number of the line in front of the error.
    fn line(&mut self, section: &str, line: &str) -> Result<usize, String>;
}

/// Splits a line into key and value. A key may contain `=` too, so the line is split at the first `=` that JSON follows.
///
/// # Errors
/// Fails if no `=` is followed by JSON, or if the JSON is of another type.
pub(crate) fn split<'a, T: Deserialize<'a>>(line: &'a str) -> Result<(&'a str, T), String> {
    for (at, _) in line.match_indices('=') {
        let text = &line[at + 1..];
        match serde_json::from_str(text) {
            Ok(value) if at > 0 => return Ok((&line[..at], value)),
            Ok(_) => return Err("has a value without a name".to_owned()),
            Err(error) if error.is_data() && serde_json::from_str::<IgnoredAny>(text).is_ok() => {
                let (name, error) = (shown(&line[..at], 200), shown(&error.to_string(), 200));
                return Err(format!("has a value of `{name}` that is not what it should be: {error}"));
            }
            Err(_) => {}
        }
    }
    Err("is not a name with a JSON value".to_owned())
}

/// Splits a line whose key and value are not needed, and returns the length of the key.
///
/// # Errors
/// Fails if no `=` is followed by JSON.
pub(crate) fn skip(line: &str) -> Result<usize, String> {
    split::<IgnoredAny>(line).map(|(key, _)| key.len())
}

/// Reads the text `stream` to its end. `shown` is its name in messages. `secret` is the key in the text, which the component reads as
/// stars.
///
/// # Errors
/// Fails if the text cannot be read, has an invalid line or another format, or does not match its checksum.
pub(crate) fn read(
    shown: &str,
    stream: impl Read,
    secret: Option<&Key>,
    visitor: &mut dyn Visitor,
) -> Result<(), Failure> {
    read_within(shown, stream, secret, visitor, MOST_TEXT)
}

/// Reads a text as [`read`] does, with a limit of `most` bytes.
fn read_within(
    shown: &str,
    stream: impl Read,
    secret: Option<&Key>,
    visitor: &mut dyn Visitor,
    most: u64,
) -> Result<(), Failure> {
    let text = BufReader::with_capacity(64 << 10, stream);
    let mut reader = Reading { shown, text, number: 0, length: 0, most, sum: Summing::new(secret) };
    let (mut line, mut section) = (Vec::new(), String::new());
    let mut names = Names::default();
    let mut format = None;
    let mut expected = None;
    while reader.next(&mut line)? {
        if line.is_empty() {
            continue;
        }
        let line = std::str::from_utf8(&line).map_err(|_| {
            reader.bad(
                "is not UTF-8: where that is the name of a file, restore with pgbackrest, or remove the file and take a new \
                 backup",
            )
        })?;
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            if name.is_empty() {
                return Err(reader.bad("is a section without a name"));
            }
            names.section(name).map_err(|what| reader.bad(&what))?;
            name.clone_into(&mut section);
            continue;
        }
        if section.is_empty() {
            return Err(reader.bad("is in no section"));
        }
        let bad = |what: String| reader.bad(&what);
        let length = if section == "backrest" {
            match line.split('=').next() {
                Some("backrest-checksum") => {
                    expected = Some(split::<String>(line).map_err(bad)?.1);
                    continue;
                }
                Some(key @ "backrest-format") => {
                    format = Some(split::<u64>(line).map_err(bad)?.1);
                    key.len()
                }
                _ => skip(line).map_err(bad)?,
            }
        } else {
            visitor.line(&section, line).map_err(bad)?
        };
        names.name(&section, &line[..length]).map_err(|what| reader.bad(&what))?;
        reader.sum.add(&section, &line[..length], &line[length + 1..])?;
    }
    let sum = reader.sum.finish()?;
    let failed = |what: String| Err(Failure::failed(format!("{shown} {what}")));
    match format {
        None => return failed("is not a text of pgBackRest: it has no backrest-format".to_owned()),
        Some(format) if format != FORMAT => {
            return failed(format!("has the format {format}; only {FORMAT} is read, that of pgBackRest 2"));
        }
        Some(_) => {}
    }
    match expected {
        None => failed(format!("has no backrest-checksum: it is not whole; {REPAIR}")),
        Some(expected) if expected != sum => {
            let expected = crate::names::shown(&expected, 80);
            failed(format!("is damaged: it has the checksum {sum} and says {expected}; {REPAIR}"))
        }
        Some(_) => Ok(()),
    }
}

/// The sections and names that were read so far. A duplicate name is an error, because one reader would use the first value and another
/// reader the last. Only hashes are kept, so long names need no more memory than short names.
#[derive(Default)]
struct Names {
    hasher: RandomState,
    seen: HashSet<u64>,
}

impl Names {
    fn section(&mut self, section: &str) -> Result<(), String> {
        // The section `backrest` has two parts, at the beginning and at the end.
        if section == "backrest" { Ok(()) } else { self.add((section, ""), "repeats a section") }
    }

    fn name(&mut self, section: &str, name: &str) -> Result<(), String> {
        // Files and directories are in the order of their names, which `Manifest` checks.
        if matches!(section, "target:file" | "target:path") {
            return Ok(());
        }
        self.add((section, name), "repeats a name of this section")
    }

    fn add(&mut self, what: (&str, &str), twice: &str) -> Result<(), String> {
        if self.seen.len() == MOST_NAMES {
            return Err(format!("is one too many: at most {MOST_NAMES} names are allowed"));
        }
        if self.seen.insert(self.hasher.hash_one(what)) { Ok(()) } else { Err(twice.to_owned()) }
    }
}

/// The advice for a damaged text.
const REPAIR: &str = "look with `pgbackrest verify`, or name another repository";

struct Reading<'a, R> {
    shown: &'a str,
    text: BufReader<R>,
    number: u64,
    /// The number of bytes that were read, and the limit.
    length: u64,
    most: u64,
    sum: Summing<'a>,
}

impl<R: Read> Reading<'_, R> {
    /// Reads the next line into `line`, without the newline. Returns whether there was a line.
    fn next(&mut self, line: &mut Vec<u8>) -> Result<bool, Failure> {
        line.clear();
        if self.number.is_multiple_of(LINES) {
            cancelled()?;
        }
        self.number += 1;
        let read = self.text.by_ref().take(LONGEST_LINE).read_until(b'\n', line).at(self.shown)?;
        self.length += read as u64;
        if self.length > self.most {
            return Err(Failure::failed(format!("{} is longer than {} bytes", self.shown, self.most)));
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        } else if read as u64 == LONGEST_LINE {
            return Err(self.bad(&format!("is longer than {LONGEST_LINE} bytes")));
        }
        Ok(read > 0)
    }

    fn bad(&self, what: &str) -> Failure {
        Failure::failed(format!("{}: line {} {what}", self.shown, self.number))
    }
}

/// Computes the checksum of the JSON text that corresponds to the lines, in their order: `{"section":{"key":value,...},...}`.
struct Summing<'a> {
    sum: Hasher,
    waiting: Vec<u8>,
    section: String,
    secret: Option<&'a Key>,
}

impl<'a> Summing<'a> {
    fn new(secret: Option<&'a Key>) -> Self {
        Self {
            sum: Hasher::new(Algorithm::Sha1),
            waiting: Vec::with_capacity(PIECE + 4096),
            section: String::new(),
            secret,
        }
    }

    fn add(&mut self, section: &str, key: &str, value: &str) -> Result<(), Failure> {
        if self.section == section {
            self.waiting.push(b',');
        } else {
            self.waiting.extend_from_slice(if self.section.is_empty() { b"{" } else { b"}," });
            string(&mut self.waiting, section);
            self.waiting.extend_from_slice(b":{");
            section.clone_into(&mut self.section);
        }
        string(&mut self.waiting, key);
        self.waiting.push(b':');
        match self.secret {
            Some(secret) if section == CIPHER_SECTION && key == CIPHER_PASS => {
                self.waiting.push(b'"');
                self.flush(0)?;
                self.sum.secret(secret)?;
                self.waiting.push(b'"');
            }
            _ => self.waiting.extend_from_slice(value.as_bytes()),
        }
        self.flush(PIECE)
    }

    /// Passes the buffered text to the host if it has at least `from` bytes.
    fn flush(&mut self, from: usize) -> Result<(), Failure> {
        if self.waiting.len() < from {
            return Ok(());
        }
        for piece in self.waiting.chunks(PIECE) {
            self.sum.update(piece);
        }
        self.waiting.clear();
        Ok(())
    }

    /// Returns the checksum in hexadecimal.
    fn finish(mut self) -> Result<String, Failure> {
        self.waiting.extend_from_slice(b"}}");
        self.flush(0)?;
        Ok(self.sum.finish().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// The section of a pass phrase.
pub(crate) const CIPHER_SECTION: &str = "cipher";
/// The name of a pass phrase.
pub(crate) const CIPHER_PASS: &str = "cipher-pass";

/// Appends `text` as pgBackRest writes a string in JSON (`jsonWriteStr` in its src/common/type/json.c).
fn string(json: &mut Vec<u8>, text: &str) {
    json.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => json.extend_from_slice(b"\\\""),
            b'\\' => json.extend_from_slice(b"\\\\"),
            b'\n' => json.extend_from_slice(b"\\n"),
            b'\r' => json.extend_from_slice(b"\\r"),
            b'\t' => json.extend_from_slice(b"\\t"),
            0x08 => json.extend_from_slice(b"\\b"),
            0x0c => json.extend_from_slice(b"\\f"),
            other => json.push(other),
        }
    }
    json.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Anything;

    impl Visitor for Anything {
        fn line(&mut self, _section: &str, line: &str) -> Result<usize, String> {
            skip(line)
        }
    }

    #[test]
    fn an_endless_text_is_read_up_to_the_limit() {
        let text = (&b"[a]\n"[..]).chain(std::io::repeat(b'\n'));
        let failure = read_within("endless", text, None, &mut Anything, 1 << 20).unwrap_err();
        assert_eq!(failure.to_string(), "endless is longer than 1048576 bytes");
    }

    #[test]
    fn a_line_is_split_at_the_first_equals_sign_that_json_follows() {
        assert_eq!(split::<u64>("a=1"), Ok(("a", 1)));
        assert_eq!(split::<u64>("a=b=1"), Ok(("a=b", 1)));
        assert_eq!(split::<&str>("a=\"b=1\""), Ok(("a", "b=1")));
        for line in ["", "a", "=1", "a=", "a=b", "a==", "a=1 2"] {
            assert!(split::<IgnoredAny>(line).is_err(), "{line:?}");
        }
        assert!(split::<u64>("a=\"1\"").unwrap_err().contains("`a` that is not what it should be"));
    }

    #[test]
    fn a_line_of_many_equals_signs_costs_little() {
        for piece in ["=", "=\"", "=[", "=[1,", "={\"a\":", "=\"\\\"="] {
            let line = format!("{}~", piece.repeat((1 << 20) / piece.len()));
            assert!(split::<IgnoredAny>(&line).is_err(), "{piece}");
        }
    }
}
