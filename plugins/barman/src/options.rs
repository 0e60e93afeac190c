//! Reads the operator's options.

use restore::pages;
use restore::target::Target;
use restore::wal::Wal;
use understudy::{Failure, Request};

use crate::names::is_backup_id;
use crate::place::Place;

/// The value of `backup` that chooses the newest backup.
const LATEST: &str = "latest";

/// The longest name of a backup in bytes.
const LONGEST_NAME: usize = 1024;

/// The options of a request.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) place: Place,
    pub(crate) wanted: Wanted,
    /// Whether an older backup is restored if the newest matching backup cannot be restored.
    pub(crate) takes_older: bool,
    pub(crate) wal: Wal,
    /// Whether the checksums of pages are checked.
    pub(crate) verify: bool,
}

/// Which backup to restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// The backup with this ID.
    Id(String),
    /// The backup with this name (`barman backup --name`).
    Name(String),
    /// The newest matching backup.
    Newest(Target),
}

impl Options {
    /// Reads the options of `request`, and opens the place that they name.
    ///
    /// # Errors
    /// Fails if an option is invalid, or if two options contradict each other; the errors of [`Place::of`].
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        let wanted = wanted(request)?;
        let wal = Wal::of(request.get::<String>("wal")?.as_deref())?;
        let takes_older = request.flag("older")?;
        if takes_older && !matches!(wanted, Wanted::Newest(_)) {
            return Err(Failure::failed(
                "the option `backup` names the backup to restore, and `older = true` would take another: set only one of the two",
            ));
        }
        let verify = pages::are_wanted(request)?;
        Ok(Self { place: Place::of(request)?, wanted, takes_older, wal, verify })
    }
}

fn wanted(request: &Request) -> Result<Wanted, Failure> {
    let backup = request.get::<String>("backup")?.filter(|backup| backup != LATEST);
    let target = Target::of(request)?;
    let Some(backup) = backup else { return Ok(Wanted::Newest(target)) };
    target.check_unset("backup")?;
    match is_backup_id(&backup) {
        true => Ok(Wanted::Id(backup)),
        false if backup.is_empty() || backup.len() > LONGEST_NAME => Err(Failure::failed(format!(
            "the option `backup` has {} bytes: set it to the ID or the name of a backup, or to `{LATEST}`",
            backup.len()
        ))),
        false => Ok(Wanted::Name(backup)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_a_name_and_the_newest_are_told_apart() {
        let of = |name: &str, value: &str| wanted(&Request::default().with(name, value)).unwrap();
        assert_eq!(of("backup", "latest"), Wanted::Newest(Target::default()));
        assert_eq!(of("backup", "20261126T043406"), Wanted::Id("20261126T043406".to_owned()));
        assert_eq!(of("backup", "before upgrade"), Wanted::Name("before upgrade".to_owned()));
        let request = Request::default().with("backup", "latest").with("target-timeline", 3);
        assert_eq!(wanted(&request), Ok(Wanted::Newest(Target { until: None, timeline: Some(3) })));
    }

    #[test]
    fn options_that_contradict_each_other_are_named() {
        let time = "2026-11-26 04:30:00+00";
        for (request, names) in [
            (Request::default().with("backup", "a").with("target-time", time), ["`backup`", "`target-time`"]),
            (
                Request::default().with("backup", "a").with("target-timeline", 1),
                ["`backup`", "`target-timeline`"],
            ),
            (Request::default().with("backup", ""), ["`backup`", "0 bytes"]),
            (Request::default().with("backup", "x".repeat(LONGEST_NAME + 1)), ["`backup`", "1025 bytes"]),
        ] {
            let failure = wanted(&request).unwrap_err().to_string();
            assert!(names.iter().all(|name| failure.contains(name)), "{failure}");
        }
        assert!(wanted(&Request::default().with("backup", "x".repeat(LONGEST_NAME))).is_ok());
    }
}
