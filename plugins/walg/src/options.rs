//! Reads the operator's options.

use restore::pages;
use restore::target::{Target, both_choose};
use restore::wal::Wal;
use serde_json::Value;
use understudy::store::CipherFormat;
use understudy::{Failure, Request};

use crate::name::BackupName;
use crate::place::Place;

/// The choices of the option `libsodium-key-transform` (`keyTransformReg` in WAL-G's internal/crypto/libsodium/keytransform.go).
pub(crate) const TRANSFORMS: [&str; 3] = ["none", "hex", "base64"];

/// The choices of the option `encryption`.
pub(crate) const ENCRYPTIONS: [&str; 2] = ["libsodium", OPENPGP];

/// The choice of `encryption` for the storages that WAL-G encrypts with a key of OpenPGP.
pub(crate) const OPENPGP: &str = "openpgp";

/// The options of a request.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) place: Place,
    pub(crate) wanted: Wanted,
    pub(crate) wal: Wal,
    /// Whether the checksums of pages are checked.
    pub(crate) verify: bool,
}

/// Which backup to restore.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wanted {
    /// The backup with this name.
    Named(BackupName),
    /// The newest matching backup: the one whose sentinel was written last.
    Newest(Target),
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
        let encryption = request.get::<String>("encryption")?;
        let transform = request.get::<String>("libsodium-key-transform")?;
        let format = cipher(encryption.as_deref(), transform.as_deref())?;
        if format == CipherFormat::Openpgp && request.get::<String>("key")?.is_none() {
            return Err(Failure::failed(
                "`encryption = \"openpgp\"` needs a key: name the granted key with the option `key`",
            ));
        }
        let wanted = wanted(request)?;
        let verify = pages::are_wanted(request)?;
        Ok(Self { place: Place::of(request, format)?, wanted, wal, verify })
    }
}

fn cipher(encryption: Option<&str>, transform: Option<&str>) -> Result<CipherFormat, Failure> {
    match encryption {
        None | Some("libsodium") => {}
        Some(OPENPGP) => {
            return match transform {
                None | Some("none") => Ok(CipherFormat::Openpgp),
                Some(_) => Err(Failure::failed(format!(
                    "`libsodium-key-transform` is for libsodium, and `encryption` is {OPENPGP}: set one of them"
                ))),
            };
        }
        Some(other) => {
            return Err(Failure::failed(format!(
                "`encryption = \"{}\"` is none of {}",
                other.escape_debug(),
                ENCRYPTIONS.join(", ")
            )));
        }
    }
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
    let target = Target::of(request)?;
    if backup.is_some() && user_data.is_some() {
        return Err(both_choose("backup", "target-user-data"));
    }
    if let Some(text) = backup {
        target.check_unset("backup")?;
        return BackupName::parse(&text).map(Wanted::Named).ok_or_else(|| {
            Failure::failed(format!(
                "`backup = \"{}\"` is not a name of WAL-G such as base_000000010000000000000004 or LATEST",
                text.escape_debug()
            ))
        });
    }
    if let Some(text) = user_data {
        target.check_unset("target-user-data")?;
        return serde_json::from_str(&text).map(Wanted::UserData).map_err(|error| {
            Failure::failed(format!(
                "`target-user-data` is not JSON, as WAL-G requires: {error}; write a text as '\"text\"'"
            ))
        });
    }
    Ok(Wanted::Newest(target))
}
