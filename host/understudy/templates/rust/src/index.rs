//! The index of a backup: facts about the backup, and a line for each directory and each file. README.md describes the format.

use std::io::{BufRead, BufReader, Read};

use understudy::store::Bucket;
use understudy::{AtPath, Failure, Plan, Tablespace};

/// The folder of the indexes in the store.
const INDEXES: &str = "index/";

/// The version of the format that this method reads.
const FORMAT: &str = "1";

/// The longest line in bytes. A path in a data directory has less than 1024.
const LONGEST_LINE: u64 = 4096;

/// The most files and directories that an index may list. In memory, an entry takes about 150 bytes.
const MOST_ENTRIES: usize = 1_000_000;

/// What an index says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) postgresql_major: Option<u32>,
    pub(crate) system_identifier: Option<u64>,
    pub(crate) timeline: Option<u32>,
    pub(crate) tablespaces: Vec<Tablespace>,
    /// Every directory, so that empty ones are created too.
    pub(crate) directories: Vec<String>,
    pub(crate) files: Vec<File>,
}

/// A file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// The path in the data directory, such as `base/5/1259`.
    pub(crate) path: String,
    /// The size in bytes before compression.
    pub(crate) size: u64,
    /// The SHA-256 of the bytes before compression.
    pub(crate) sha256: [u8; 32],
}

/// Returns the name of the newest backup: names begin with a date, so the newest is the last by name.
pub(crate) fn newest(store: &Bucket) -> Result<String, Failure> {
    let mut newest = None;
    for object in store.objects(INDEXES) {
        newest = newest.max(Some(object?.key));
    }
    let key = newest.ok_or_else(|| Failure::not_applicable("the store has no backup"))?;
    Ok(key.trim_start_matches(INDEXES).to_owned())
}

/// Returns the object that holds a file of a backup.
pub(crate) fn object(backup: &str, path: &str) -> String {
    format!("files/{backup}/{path}.gz")
}

impl Index {
    /// Reads the index of the backup `name`.
    pub(crate) fn read(store: &Bucket, name: &str) -> Result<Self, Failure> {
        let key = format!("{INDEXES}{name}");
        if store.find(&key)?.is_none() {
            return Err(Failure::failed(format!("the store has no backup {name}")));
        }
        Self::parse(BufReader::new(store.read(&key, None, None)?), &key)
    }

    /// Parses an index. `key` is its name in messages.
    pub(crate) fn parse(mut text: impl BufRead, key: &str) -> Result<Self, Failure> {
        let mut index = Self::default();
        let mut line = String::new();
        let mut number = 0_u64;
        loop {
            line.clear();
            number += 1;
            text.by_ref()
                .take(LONGEST_LINE)
                .read_line(&mut line)
                .at(key)?;
            let wrong = |what: &str| Failure::failed(format!("{key}: line {number} {what}"));
            let Some(line) = line.strip_suffix('\n') else {
                return Err(wrong(match line.as_str() {
                    "" => "is missing: the index has no end",
                    _ => "is too long or cut off",
                }));
            };
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            if (number == 1) != (word == "format") {
                return Err(wrong("is not what an index has there"));
            }
            if word == "end" {
                return match number_in::<usize>(rest) {
                    Some(files) if files == index.files.len() => Ok(index),
                    _ => Err(wrong(&format!("does not end {} files", index.files.len()))),
                };
            }
            index
                .add(word, rest)
                .ok_or_else(|| wrong("is not a line of format 1"))?;
            if index.files.len() + index.directories.len() > MOST_ENTRIES {
                return Err(wrong(&format!(
                    "is one too many: {MOST_ENTRIES} entries are allowed"
                )));
            }
        }
    }

    /// Adds what one line says; `None` if the line is wrong.
    fn add(&mut self, word: &str, rest: &str) -> Option<()> {
        match word {
            "format" => (rest == FORMAT).then_some(())?,
            "postgresql_major" => self.postgresql_major = Some(number_in(rest)?),
            "system_identifier" => self.system_identifier = Some(number_in(rest)?),
            "timeline" => self.timeline = Some(number_in(rest)?),
            "tablespace" => self.tablespaces.push(tablespace(rest)?),
            "directory" => self.directories.push(rest.to_owned()),
            "file" => self.files.push(file(rest)?),
            _ => return None,
        }
        Some(())
    }

    /// Returns the plan to restore this backup, whose name is `backup`. The host compares the plan with the source, the server, the
    /// tablespace map and the free space.
    pub(crate) fn plan(&self, backup: &str) -> Plan {
        Plan {
            backup: backup.to_owned(),
            postgresql_major: self.postgresql_major,
            system_identifier: self.system_identifier,
            timeline: self.timeline,
            bytes: Some(
                self.files
                    .iter()
                    .fold(0, |sum, file| file.size.saturating_add(sum)),
            ),
            files: Some(self.files.len() as u64),
            tablespaces: self.tablespaces.clone(),
            ..Plan::default()
        }
    }
}

fn number_in<N: std::str::FromStr>(text: &str) -> Option<N> {
    text.parse().ok()
}

/// Parses `16384 /srv/fast`.
fn tablespace(rest: &str) -> Option<Tablespace> {
    let (oid, location) = rest.split_once(' ')?;
    Some(Tablespace {
        oid: number_in(oid)?,
        name: None,
        location: location.to_owned(),
    })
}

/// Parses `8192 SHA256 base/5/1259`.
fn file(rest: &str) -> Option<File> {
    let mut parts = rest.splitn(3, ' ');
    let (size, digest, path) = (parts.next()?, parts.next()?, parts.next()?);
    let mut sha256 = [0; 32];
    if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in sha256.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digest[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(File {
        path: path.to_owned(),
        size: number_in(size)?,
        sha256,
    })
}
