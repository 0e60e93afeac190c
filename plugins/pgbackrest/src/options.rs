//! Reads the operator's options.

use postgres_formats::Lsn;
use restore::wal::Wal;
use understudy::{Failure, Request};

use crate::label::{check_stanza, is_label};
use crate::time::seconds_of;

/// The default store.
pub(crate) const REPOSITORY: &str = "repo";

/// The largest permitted number of repositories, which is also pgBackRest's limit.
const MOST_REPOSITORIES: usize = 256;

/// The options of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) stanza: String,
    pub(crate) repositories: Vec<String>,
    pub(crate) wanted: Wanted,
    /// Whether an older backup is restored if the newest matching backup cannot be restored.
    pub(crate) takes_older: bool,
    pub(crate) is_delta: bool,
    pub(crate) wal: Wal,
}

/// Which backup to restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The backup with this label.
    Label(String),
    /// The newest matching backup.
    Newest {
        /// The point at or before which the backup must have ended; `None` for any point.
        until: Option<Until>,
        /// The timeline on which the backup must have ended; `None` for any timeline.
        timeline: Option<u32>,
    },
}

/// When a backup must have ended.
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
    /// Reads the options of `request`.
    ///
    /// # Errors
    /// Fails if an option is invalid, or if two options contradict each other.
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        let stanza: String = request.require("stanza")?;
        check_stanza(&stanza)?;
        let repositories =
            request.get::<Vec<String>>("repositories")?.unwrap_or_else(|| vec![REPOSITORY.to_owned()]);
        if repositories.is_empty() || repositories.len() > MOST_REPOSITORIES {
            return Err(Failure::failed(format!(
                "the option `repositories` names {} stores: name 1 to {MOST_REPOSITORIES}, as granted in \
                 grants.stores.NAME",
                repositories.len()
            )));
        }
        let wal = Wal::of(request.get::<String>("wal")?.as_deref())?;
        let (wanted, takes_older) = (wanted(request)?, request.flag("older")?);
        if takes_older && matches!(wanted, Wanted::Label(_)) {
            return Err(Failure::failed(
                "the option `backup` names the one that is restored, and `older = true` would take another: set one of them",
            ));
        }
        Ok(Self { stanza, repositories, wanted, takes_older, is_delta: request.flag("delta")?, wal })
    }
}

fn wanted(request: &Request) -> Result<Wanted, Failure> {
    let label = request.get::<String>("backup")?;
    let time = request.get::<String>("target-time")?;
    let lsn = request.get::<String>("target-lsn")?;
    let timeline = request.get::<i64>("target-timeline")?;
    let targets = [
        ("target-time", time.is_some()),
        ("target-lsn", lsn.is_some()),
        ("target-timeline", timeline.is_some()),
    ];
    if let Some(label) = label {
        if let Some((other, _)) = targets.into_iter().find(|(_, is_set)| *is_set) {
            return Err(Failure::failed(format!(
                "the options `backup` and `{other}` both choose a backup: set one of them"
            )));
        }
        if !is_label(&label) {
            return Err(Failure::failed(format!(
                "`backup = \"{}\"` is not a label of pgBackRest such as 20261126-043406F or \
                 20261126-043406F_20261126-050000I",
                label.escape_debug()
            )));
        }
        return Ok(Wanted::Label(label));
    }
    let until = match (time, lsn) {
        (None, None) => None,
        (Some(_), Some(_)) => {
            return Err(Failure::failed(
                "the options `target-time` and `target-lsn` both say when the backup must have ended: set one of them",
            ));
        }
        (Some(text), None) => {
            let seconds = seconds_of(&text).ok_or_else(|| {
                Failure::failed(format!(
                    "`target-time = \"{}\"` is not a time with a zone such as 2026-11-26 04:30:00+00 or 2026-11-26T04:30:00Z",
                    text.escape_debug()
                ))
            })?;
            Some(Until::Time { seconds, text })
        }
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
