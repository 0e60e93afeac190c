//! Reads the operator's options.

use restore::target::Target;
use restore::wal::Wal;
use understudy::{Failure, Request};

use crate::label::{check_stanza, is_label};

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
    Newest(Target),
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
                "the option `backup` names the backup to restore, and `older = true` would take another: set only one of the two",
            ));
        }
        Ok(Self { stanza, repositories, wanted, takes_older, is_delta: request.flag("delta")?, wal })
    }
}

fn wanted(request: &Request) -> Result<Wanted, Failure> {
    let label = request.get::<String>("backup")?;
    let target = Target::of(request)?;
    let Some(label) = label else { return Ok(Wanted::Newest(target)) };
    target.check_unset("backup")?;
    if !is_label(&label) {
        return Err(Failure::failed(format!(
            "`backup = \"{}\"` is not a label of pgBackRest such as 20261126-043406F or 20261126-043406F_20261126-050000I",
            label.escape_debug()
        )));
    }
    Ok(Wanted::Label(label))
}
