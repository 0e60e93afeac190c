//! Reads the operator's options.

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
    /// The backup whose sentinel was written last.
    Latest,
    /// The backup with this name.
    Named(BackupName),
    /// The newest backup that finished at or before a time.
    Before {
        /// Seconds since 1970.
        seconds: i64,
        /// The time as the operator wrote it.
        text: String,
    },
    /// The one backup with this user data.
    UserData(Value),
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
    let set: Vec<(&str, String)> = ["backup", "target-time", "target-user-data"]
        .into_iter()
        .filter_map(|name| request.get::<String>(name).map(|value| Some((name, value?))).transpose())
        .collect::<Result<_, _>>()?;
    let (name, text) = match set.as_slice() {
        [] => return Ok(Wanted::Latest),
        [(name, text)] => (*name, text.clone()),
        [(one, _), (other, _), ..] => {
            return Err(Failure::failed(format!(
                "the options `{one}` and `{other}` both choose a backup: set one of them"
            )));
        }
    };
    match name {
        "backup" if text == "LATEST" => Ok(Wanted::Latest),
        "backup" => match BackupName::parse(&text) {
            Some(name) => Ok(Wanted::Named(name)),
            None => Err(Failure::failed(format!(
                "`backup = \"{}\"` is not a name of WAL-G such as base_000000010000000000000004 or LATEST",
                text.escape_debug()
            ))),
        },
        "target-time" => match seconds_of(&text) {
            Some(seconds) => Ok(Wanted::Before { seconds, text }),
            None => Err(Failure::failed(format!(
                "`target-time = \"{}\"` is not a time with a zone such as 2026-11-26 04:30:00+00 or 2026-11-26T04:30:00Z",
                text.escape_debug()
            ))),
        },
        _ => serde_json::from_str(&text).map(Wanted::UserData).map_err(|error| {
            Failure::failed(format!(
                "`target-user-data` is not JSON, as WAL-G requires: {error}; write a text as '\"text\"'"
            ))
        }),
    }
}
