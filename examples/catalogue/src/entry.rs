//! The catalogue's answer: one backup, as JSON.

use serde::Deserialize;
use understudy::{Failure, Plan, Tablespace};

/// A backup, as `pg_basebackup -Ft` writes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// The name of the backup, for people to read.
    pub(crate) name: String,
    postgresql_major: Option<u32>,
    system_identifier: Option<u64>,
    timeline: Option<u32>,
    /// The archives, each with its place in the data directory.
    pub(crate) archives: Vec<Archive>,
    #[serde(default)]
    tablespaces: Vec<Location>,
}

/// A plain tar archive in the store.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Archive {
    /// Its key in the store.
    pub(crate) object: String,
    /// The directory into which it is unpacked: empty, `pg_wal`, or `pg_tblspc/OID`.
    pub(crate) path: String,
    /// Its size in bytes.
    pub(crate) size: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Location {
    oid: u32,
    location: String,
}

impl Entry {
    /// Reads the answer of the catalogue.
    pub(crate) fn read(text: &[u8]) -> Result<Self, Failure> {
        let entry: Self = serde_json::from_slice(text).map_err(|error| {
            Failure::failed(format!("the catalogue's answer does not describe a backup: {error}"))
        })?;
        if entry.archives.is_empty() {
            return Err(Failure::not_applicable(format!("the backup {} has no archives", entry.name)));
        }
        Ok(entry)
    }

    /// Returns the plan to restore the backup.
    pub(crate) fn plan(&self) -> Plan {
        let tablespace =
            |from: &Location| Tablespace { oid: from.oid, name: None, location: from.location.clone() };
        Plan {
            backup: self.name.clone(),
            postgresql_major: self.postgresql_major,
            system_identifier: self.system_identifier,
            timeline: self.timeline,
            bytes: Some(self.archives.iter().map(|archive| archive.size).sum()),
            tablespaces: self.tablespaces.iter().map(tablespace).collect(),
            ..Plan::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogues_answer_becomes_a_plan() {
        let text = br#"{ "name": "monday", "postgresql_major": 15, "system_identifier": 7, "timeline": 1,
            "archives": [{ "object": "monday/base.tar", "path": "", "size": 30 },
                         { "object": "monday/16400.tar", "path": "pg_tblspc/16400", "size": 12 }],
            "tablespaces": [{ "oid": 16400, "location": "/fast" }] }"#;
        let plan = Entry::read(text).unwrap().plan();
        assert_eq!((plan.backup.as_str(), plan.bytes, plan.timeline), ("monday", Some(42), Some(1)));
        assert_eq!((plan.tablespaces[0].oid, plan.tablespaces[0].location.as_str()), (16400, "/fast"));
    }

    #[test]
    fn an_answer_that_does_not_describe_a_backup_fails() {
        for text in ["", "<html>", "{}", r#"{"name": "x"}"#, r#"{"name": "x", "archives": [{}]}"#] {
            assert!(matches!(Entry::read(text.as_bytes()), Err(Failure::Failed(_))), "{text}");
        }
        let empty = Entry::read(br#"{"name": "x", "archives": []}"#);
        assert!(matches!(empty, Err(Failure::NotApplicable(_))), "{empty:?}");
    }
}
