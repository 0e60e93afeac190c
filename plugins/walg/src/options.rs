//! Reads the operator's options.

use postgres_formats::Lsn;
use restore::wal::Wal;
use serde_json::Value;
use understudy::store::CipherFormat;
use understudy::{Failure, Request};

use crate::name::BackupName;
use crate::place::Place;
use crate::time::seconds_of;

/// The choices of the option `libsodium-key-transform` (`keyTransformReg` in WAL-G's internal/crypto/libsodium/keytransform.go).
pub(crate) const TRANSFORMS: [&str; 3] = ["none", "hex", "base64"];

/// The options of a request.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) place: Place,
    pub(crate) wanted: Wanted,
    pub(crate) wal: Wal,
}

/// Which backup to restore.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    /// The backup with this name.
    Named(BackupName),
    /// The newest matching backup: the one whose sentinel was written last.
    Newest {
        /// The point at or before which the backup must have finished; `None` for any point.
        until: Option<Until>,
        /// The timeline on which the backup must have been taken; `None` for any timeline.
        timeline: Option<u32>,
    },
    /// The one backup with this user data.
    UserData(Value),
}

/// When a backup must have finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// At or before a time.
    Time {
        /// Seconds since 1970.
        seconds: i64,
        /// The time as the operator wrote it.
        text: String,
    },
    /// At or before an LSN.
    Lsn(Lsn),
}

impl Options {
    /// Reads the options of `request`, and opens the place that they name.
    ///
    /// # Errors
    /// Fails if an option is invalid, or if two options contradict each other; the errors of [`Place::of`].
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        let wal = Wal::of(request.get::<String>("wal")?.as_deref())?;
        let format = cipher(request.get::<String>("libsodium-key-transform")?.as_deref())?;
        let wanted = wanted(request)?;
        Ok(Self { place: Place::of(request, format)?, wanted, wal })
    }
}

fn cipher(transform: Option<&str>) -> Result<CipherFormat, Failure> {
    match transform {
        None | Some("none") => Ok(CipherFormat::Secretstream),
        Some("hex") => Ok(CipherFormat::SecretstreamHex),
        Some("base64") => Ok(CipherFormat::SecretstreamBase64),
        Some(other) => Err(Failure::failed(format!(
            "`libsodium-key-transform = \"{other}\"` is none of {}",
            TRANSFORMS.join(", ")
        ))),
    }
}

fn wanted(request: &Request) -> Result<Wanted, Failure> {
    let backup = request.get::<String>("backup")?.filter(|name| name != "LATEST");
    let user_data = request.get::<String>("target-user-data")?;
    let time = request.get::<String>("target-time")?;
    let lsn = request.get::<String>("target-lsn")?;
    let timeline = request.get::<i64>("target-timeline")?;
    // Each of the first four chooses a backup, and a timeline only leaves some of them.
    let set: Vec<&str> = [
        ("backup", backup.is_some()),
        ("target-user-data", user_data.is_some()),
        ("target-time", time.is_some()),
        ("target-lsn", lsn.is_some()),
        ("target-timeline", timeline.is_some() && (backup.is_some() || user_data.is_some())),
    ]
    .into_iter()
    .filter_map(|(name, is_set)| is_set.then_some(name))
    .collect();
    if let [one, other, ..] = set.as_slice() {
        return Err(Failure::failed(format!(
            "the options `{one}` and `{other}` both choose a backup: set one of them"
        )));
    }
    if let Some(text) = backup {
        return BackupName::parse(&text).map(Wanted::Named).ok_or_else(|| {
            Failure::failed(format!(
                "`backup = \"{}\"` is not a name of WAL-G such as base_000000010000000000000004 or LATEST",
                text.escape_debug()
            ))
        });
    }
    if let Some(text) = user_data {
        return serde_json::from_str(&text).map(Wanted::UserData).map_err(|error| {
            Failure::failed(format!(
                "`target-user-data` is not JSON, as WAL-G requires: {error}; write a text as '\"text\"'"
            ))
        });
    }
    let until = match (time, lsn) {
        (None, None) => None,
        (Some(text), _) => match seconds_of(&text) {
            Some(seconds) => Some(Until::Time { seconds, text }),
            None => {
                return Err(Failure::failed(format!(
                    "`target-time = \"{}\"` is not a time with a zone such as 2026-11-26 04:30:00+00 or 2026-11-26T04:30:00Z",
                    text.escape_debug()
                )));
            }
        },
        (None, Some(lsn)) => Some(Until::Lsn(
            lsn.parse().map_err(|error| Failure::failed(format!("the option `target-lsn`: {error}")))?,
        )),
    };
    let timeline = match timeline {
        None => None,
        Some(number) => Some(u32::try_from(number).ok().filter(|number| *number > 0).ok_or_else(|| {
            Failure::failed(format!("`target-timeline = {number}` is not a timeline: timelines count from 1"))
        })?),
    };
    Ok(Wanted::Newest { until, timeline })
}
