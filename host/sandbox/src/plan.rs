//! Checks the plan of a component before it is used.

use std::collections::HashSet;

use replica::Plan;

use crate::text::is_printable;

/// How many characters the backup's name may have.
const BACKUP: usize = 256;
/// How many tablespaces a backup may have.
pub(crate) const TABLESPACES: usize = 10_000;
/// How many bytes a tablespace's name may have. PostgreSQL allows fewer (NAMEDATALEN).
const NAME: usize = 256;
/// How many bytes a tablespace's path may have: PATH_MAX.
const LOCATION: usize = 4096;

/// Checks a plan by itself. The loop checks it against the source, the tablespace map and the disk.
///
/// # Errors
/// Says what is wrong with the plan.
pub(crate) fn check(plan: &Plan) -> Result<(), String> {
    if plan.backup.is_empty() || plan.backup.chars().count() > BACKUP || !is_printable(&plan.backup) {
        return Err(format!("the backup's name is not 1 to {BACKUP} printable characters"));
    }
    for (what, value) in [
        ("PostgreSQL major version", plan.postgresql_major.map(u64::from)),
        ("system identifier", plan.system_identifier),
        ("timeline", plan.timeline.map(u64::from)),
    ] {
        if value == Some(0) {
            return Err(format!("its {what} is 0"));
        }
    }
    if let (Some(start), Some(stop)) = (plan.start_lsn, plan.stop_lsn)
        && stop < start
    {
        return Err(format!("its backup stops at {stop}, before it starts at {start}"));
    }
    if plan.tablespaces.len() > TABLESPACES {
        return Err(format!("it has {} tablespaces, more than {TABLESPACES}", plan.tablespaces.len()));
    }
    let mut oids = HashSet::new();
    for tablespace in &plan.tablespaces {
        let oid = tablespace.oid;
        if oid == 0 || !oids.insert(oid) {
            return Err(format!("the object identifier {oid} of a tablespace is 0 or is used twice"));
        }
        if tablespace
            .name
            .as_ref()
            .is_some_and(|name| name.is_empty() || name.len() > NAME || !is_printable(name))
        {
            return Err(format!("the name of its tablespace {oid} is not 1 to {NAME} printable characters"));
        }
        let location = tablespace.location.to_string_lossy();
        if !location.starts_with('/') || location.len() > LOCATION || !is_printable(&location) {
            return Err(format!("the location of its tablespace {oid} is not a printable absolute path"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use replica::{Lsn, Tablespace};

    use super::*;

    fn plan() -> Plan {
        Plan { backup: "b".to_owned(), ..Plan::default() }
    }

    fn tablespace(oid: u32, location: &str) -> Tablespace {
        Tablespace { oid, name: None, location: location.into() }
    }

    #[test]
    fn a_plan_without_optional_fields_is_valid() {
        check(&plan()).unwrap();
        check(&Plan { tablespaces: vec![tablespace(16384, "/a"), tablespace(16385, "/a")], ..plan() })
            .unwrap();
    }

    #[test]
    fn an_invalid_plan_is_refused() {
        let many = (1..=TABLESPACES as u32 + 1).map(|oid| tablespace(oid, "/a")).collect();
        for (wrong, says) in [
            (Plan { backup: String::new(), ..plan() }, "name"),
            (Plan { backup: "a\u{1b}[2J".to_owned(), ..plan() }, "name"),
            (Plan { backup: "x".repeat(BACKUP + 1), ..plan() }, "name"),
            (Plan { system_identifier: Some(0), ..plan() }, "system identifier is 0"),
            (Plan { timeline: Some(0), ..plan() }, "timeline is 0"),
            (Plan { postgresql_major: Some(0), ..plan() }, "major version is 0"),
            (Plan { start_lsn: Some(Lsn(2)), stop_lsn: Some(Lsn(1)), ..plan() }, "before it starts"),
            (Plan { tablespaces: many, ..plan() }, "more than 10000"),
            (Plan { tablespaces: vec![tablespace(1, "/a"), tablespace(1, "/b")], ..plan() }, "used twice"),
            (Plan { tablespaces: vec![tablespace(0, "/a")], ..plan() }, "is 0"),
            (Plan { tablespaces: vec![tablespace(1, "relative")], ..plan() }, "absolute path"),
            (Plan { tablespaces: vec![tablespace(1, "/a\nb")], ..plan() }, "absolute path"),
            (
                Plan {
                    tablespaces: vec![Tablespace { name: Some(String::new()), ..tablespace(1, "/a") }],
                    ..plan()
                },
                "name of its tablespace 1",
            ),
        ] {
            let error = check(&wrong).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
