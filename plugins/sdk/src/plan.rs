//! The plan of a method.

/// What the method would restore. Before the host touches the data directory, it compares the plan with the source, the server's version,
/// the operator's tablespace map and the free space. A method should set every field that it knows; `None` means unknown.
///
/// ```
/// use understudy::{Plan, Tablespace};
///
/// let plan = Plan {
///     backup: "2026-11-27".to_owned(),
///     postgresql_major: Some(15),
///     bytes: Some(31_457_280),
///     tablespaces: vec![Tablespace { oid: 16384, name: None, location: "/srv/fast".to_owned() }],
///     ..Plan::default()
/// };
/// assert!(!plan.builds_on_existing);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The name of the backup, for people to read and for [`crate::Method::create`].
    pub backup: String,
    /// The major version of the server that the backup was taken from, such as 15.
    pub postgresql_major: Option<u32>,
    /// The system identifier of the cluster that the backup was taken from.
    pub system_identifier: Option<u64>,
    /// The timeline on which the backup ends.
    pub timeline: Option<u32>,
    /// Where replay begins: the 64 bits of an LSN.
    pub start_lsn: Option<u64>,
    /// Where the replica becomes consistent: the 64 bits of an LSN.
    pub stop_lsn: Option<u64>,
    /// How many bytes will be written.
    pub bytes: Option<u64>,
    /// How many files will be written.
    pub files: Option<u64>,
    /// Every tablespace of the backup except `pg_default` and `pg_global`.
    pub tablespaces: Vec<Tablespace>,
    /// Whether `create` keeps matching files in a directory that holds data.
    pub builds_on_existing: bool,
}

/// A tablespace of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tablespace {
    /// Its object identifier, the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its name, if the backup records it.
    pub name: Option<String>,
    /// Its absolute path on the server that the backup was taken from.
    pub location: String,
}
