//! Reads the JSON of a sentinel and of `files_metadata.json` as a stream. Both may have the list of the files, with an entry for each file
//! of the cluster, so that the document can be larger than the memory: old releases of WAL-G wrote that list into the sentinel
//! (`DeprecatedSentinelFields` in internal/databases/postgres/backup_sentinel_dto.go).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufReader, Read};

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, de::DeserializeOwned};
use understudy::{Failure, UntilCancelled};

use crate::spec::Spec;
use crate::tokens::Tokens;

/// The largest permitted document in bytes. An entry for a file has about 150 bytes.
const LIMIT: u64 = 16 << 30;

/// How many bytes are parsed at a time.
const BUFFER: usize = 64 << 10;

/// Receives the parts of a document of which there are many.
pub(crate) trait Contents {
    /// Receives a file of the backup.
    ///
    /// # Errors
    /// Ends the reading.
    fn file(&mut self, name: &str, state: FileState) -> Result<(), Failure>;

    /// Receives the name of an archive of the backup.
    ///
    /// # Errors
    /// Ends the reading.
    fn archive(&mut self, name: String) -> Result<(), Failure>;
}

/// What a backup has of a file (`BackupFileDescription` in internal/backup_file_description.go).
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(try_from = "Entry")]
pub(crate) struct FileState {
    /// Whether the archives have only the pages that changed since the older backup.
    pub(crate) is_incremented: bool,
    /// Whether the archives have nothing of the file, because it did not change since the older backup.
    pub(crate) is_skipped: bool,
    /// The pages whose checksums were wrong when the backup was taken.
    pub(crate) corrupt_blocks: Option<CorruptBlocks>,
}

/// The entry of a file as the list has it. WAL-G writes the first three keys of every file.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Entry {
    is_incremented: Option<bool>,
    is_skipped: Option<bool>,
    #[serde(rename = "MTime", deserialize_with = "is_there")]
    has_time: bool,
    corrupt_blocks: Option<CorruptBlocks>,
}

impl TryFrom<Entry> for FileState {
    type Error = &'static str;

    fn try_from(entry: Entry) -> Result<Self, Self::Error> {
        let Entry { is_incremented, is_skipped, has_time, corrupt_blocks } = entry;
        // Without this, an entry of another form would be a file that is in the archives as a whole.
        if !has_time && is_incremented.is_none() && is_skipped.is_none() {
            return Err("it has an entry of a file without IsIncremented, IsSkipped and MTime");
        }
        let (is_incremented, is_skipped) = (is_incremented.unwrap_or(false), is_skipped.unwrap_or(false));
        Ok(Self { is_incremented, is_skipped, corrupt_blocks })
    }
}

/// Reads and ignores a value.
fn is_there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// The pages of a file with wrong checksums.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct CorruptBlocks {
    pub(crate) corrupt_blocks_count: u64,
}

/// The other fields of a document. A field is none if the document does not have it, or has `null`.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    pub(crate) version: Option<u64>,
    pub(crate) start: Option<u64>,
    pub(crate) finish: Option<u64>,
    pub(crate) parent: Option<String>,
    pub(crate) parent_start: Option<u64>,
    /// As `parent_start`, from an old release of WAL-G.
    pub(crate) old_parent_start: Option<u64>,
    pub(crate) full: Option<String>,
    pub(crate) count: Option<u64>,
    pub(crate) parent_checkpoint: Option<u64>,
    pub(crate) pg_version: Option<u32>,
    pub(crate) system_identifier: Option<u64>,
    pub(crate) uncompressed: Option<i64>,
    pub(crate) compressed: Option<i64>,
    pub(crate) catalog: Option<i64>,
    pub(crate) spec: Option<Spec>,
    pub(crate) old_spec: Option<Spec>,
    pub(crate) is_without_files: Option<bool>,
    /// Whether the document has a list of the files that is not empty.
    pub(crate) has_files: bool,
}

/// Reads a document. `shown` is its name in messages.
///
/// # Errors
/// Fails if the document cannot be read, or is not the JSON that WAL-G writes; the errors of `contents`.
pub(crate) fn read(shown: &str, from: impl Read, contents: &mut dyn Contents) -> Result<Fields, Failure> {
    let reader = BufReader::with_capacity(BUFFER, Tokens::new(UntilCancelled::new(from), shown, LIMIT));
    let mut json = serde_json::Deserializer::from_reader(reader);
    let reading = Reading(RefCell::new((contents, None)));
    let read = (&reading).deserialize(&mut json).and_then(|fields| json.end().map(|()| fields));
    let failure = reading.0.into_inner().1;
    read.map_err(|error| match failure {
        Some(failure) => failure,
        None if error.is_io() => Failure::from(std::io::Error::from(error)),
        None => Failure::failed(format!("{shown} is not what WAL-G writes: {error}")),
    })
}

/// The receiver of the contents, and its failure.
struct Reading<'a>(RefCell<(&'a mut dyn Contents, Option<Failure>)>);

impl Reading<'_> {
    /// Passes something to the receiver, and keeps its failure.
    fn pass<E: de::Error>(
        &self,
        pass: impl FnOnce(&mut dyn Contents) -> Result<(), Failure>,
    ) -> Result<(), E> {
        let (contents, failed) = &mut *self.0.borrow_mut();
        pass(*contents).map_err(|failure| {
            let text = failure.to_string();
            *failed = Some(failure);
            E::custom(text)
        })
    }
}

impl<'de> DeserializeSeed<'de> for &Reading<'_> {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &Reading<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let (mut fields, mut seen) = (Fields::default(), BTreeSet::new());
        while let Some(key) = map.next_key::<String>()? {
            let map = &mut map;
            match key.as_str() {
                "Version" => fields.version = value(map)?,
                "LSN" => fields.start = value(map)?,
                "FinishLSN" => fields.finish = value(map)?,
                "DeltaFrom" => fields.parent = value(map)?,
                "DeltaLSN" => fields.parent_start = value(map)?,
                "DeltaFromLSN" => fields.old_parent_start = value(map)?,
                "DeltaFullName" => fields.full = value(map)?,
                "DeltaCount" => fields.count = value(map)?,
                "DeltaChkpNum" => fields.parent_checkpoint = value(map)?,
                "PgVersion" => fields.pg_version = value(map)?,
                "SystemIdentifier" => fields.system_identifier = value(map)?,
                "UncompressedSize" => fields.uncompressed = value(map)?,
                "CompressedSize" => fields.compressed = value(map)?,
                "DataCatalogSize" => fields.catalog = value(map)?,
                "Spec" => fields.spec = value(map)?,
                "spec" => fields.old_spec = value(map)?,
                "FilesMetadataDisabled" => fields.is_without_files = value(map)?,
                "Files" => fields.has_files |= map.next_value_seed(Files(self))?,
                "TarFileSets" => map.next_value_seed(TarFileSets(self))?,
                // Fields of which nothing is needed, also those of later releases.
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            }
            if !seen.insert(key.clone()) {
                return Err(de::Error::custom(format_args!("it has {key} twice")));
            }
        }
        Ok(fields)
    }
}

/// Reads the value of a field, which may be `null`.
fn value<'de, A: MapAccess<'de>, T: DeserializeOwned>(map: &mut A) -> Result<Option<T>, A::Error> {
    map.next_value()
}

/// Reads `Files`: an object with an entry for each file. Returns whether it has one.
struct Files<'a, 'b>(&'a Reading<'b>);

impl<'de> DeserializeSeed<'de> for Files<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Files<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the list of the files")
    }

    fn visit_unit<E: de::Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let mut has_files = false;
        while let Some(name) = map.next_key::<String>()? {
            let state = map.next_value()?;
            self.0.pass(|contents| contents.file(&name, state))?;
            has_files = true;
        }
        Ok(has_files)
    }
}

/// Reads `TarFileSets`: an object with the files of each archive.
struct TarFileSets<'a, 'b>(&'a Reading<'b>);

impl<'de> DeserializeSeed<'de> for TarFileSets<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for TarFileSets<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the files of each archive")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            map.next_value::<IgnoredAny>()?;
            self.0.pass(|contents| contents.archive(name))?;
        }
        Ok(())
    }
}
