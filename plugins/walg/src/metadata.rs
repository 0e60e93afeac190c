//! The metadata of a backup: `<name>/metadata.json`, which is small (`ExtendedMetadataDto` in WAL-G's
//! internal/databases/postgres/backup_sentinel_dto.go). It is neither compressed nor encrypted.

use postgres_formats::Lsn;
use restore::target::seconds_of;
use serde::Deserialize;
use serde_json::Value;
use understudy::{Error, Failure, log};

use crate::name::BackupName;
use crate::place::Place;

/// The largest permitted metadata, in bytes. User data of any size may be in it.
const LIMIT: u32 = 1 << 20;

/// What is read from the metadata.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct Metadata {
    finish_time: Option<String>,
    finish_lsn: Option<u64>,
    user_data: Option<Value>,
}

/// What a storage has of the metadata of a backup.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    Metadata(Metadata),
    /// No metadata.
    Nothing,
    /// Metadata that WAL-G does not write, so that nothing is known of the backup.
    Damaged,
}

impl Metadata {
    /// Reads the metadata of the backup `name`. Logs a warning if they are damaged.
    ///
    /// # Errors
    /// The error of the storage.
    pub(crate) fn load(place: &Place, name: &BackupName) -> Result<Found, Failure> {
        let key = place.backups(&format!("{name}/metadata.json"));
        let parsed = match place.at.bucket.get(&key, None, LIMIT) {
            Err(Error::NotFound(_)) => return Ok(Found::Nothing),
            Err(Error::Limit(_)) => Err(format!("it has more than {LIMIT} bytes")),
            text => serde_json::from_slice(&text?).map_err(|error| error.to_string()),
        };
        Ok(match parsed {
            Ok(metadata) => Found::Metadata(metadata),
            Err(error) => {
                log::warn!(
                    "skipped the backup {name}: {} is not what WAL-G writes: {error}",
                    place.shown(&key)
                );
                Found::Damaged
            }
        })
    }

    /// Returns when the backup finished, in seconds since 1970; `None` if the metadata does not say it.
    pub(crate) fn finished(&self) -> Option<i64> {
        self.finish_time.as_deref().and_then(seconds_of)
    }

    /// Returns the LSN at which the backup finished; `None` if the metadata does not say it.
    pub(crate) fn finish(&self) -> Option<Lsn> {
        self.finish_lsn.map(Lsn)
    }

    /// Returns whether the backup has this user data.
    pub(crate) fn has_user_data(&self, wanted: &Value) -> bool {
        is_same(self.user_data.as_ref().unwrap_or(&Value::Null), wanted)
    }
}

/// Returns whether two values are the same. A number is the same as another of the same value, because WAL-G reads every number as a
/// floating-point number.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, one)| other.get(key).is_some_and(|other| is_same(one, other)))
        }
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_is_compared_by_value() {
        let of = |user_data: &str| {
            let text =
                format!("{{\"finish_time\":\"2026-11-26T04:30:00.5Z\",\"user_data\":{user_data},\"x\":[]}}");
            serde_json::from_str::<Metadata>(&text).unwrap()
        };
        assert_eq!(of("1").finished(), Some(1_795_667_400));
        for (one, other, same) in [
            ("\"nightly\"", "\"nightly\"", true),
            ("\"nightly\"", "\"weekly\"", false),
            ("1", "1.0", true),
            ("{\"a\":1,\"b\":[true]}", "{\"b\":[true],\"a\":1.0}", true),
            ("{\"a\":1}", "{\"a\":1,\"b\":2}", false),
            ("[1,2]", "[2,1]", false),
            ("null", "null", true),
            ("[1,2]", "[1]", false),
        ] {
            assert_eq!(of(one).has_user_data(&serde_json::from_str(other).unwrap()), same, "{one} {other}");
        }
        let without: Metadata = serde_json::from_str("{}").unwrap();
        assert_eq!(without.finished(), None);
        assert!(!without.has_user_data(&Value::from("nightly")));
    }
}
