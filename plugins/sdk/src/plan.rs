//! What a method would restore.

/// What would be restored. The host compares it with the source, the server's version, the operator's map and the space
/// on disk before it touches the data directory: whatever is known should be said, whatever is not is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Names the backup, for a person and for [`crate::Method::create`].
    pub backup: String,
    /// The major version of the server that it was taken from, such as 15.
    pub postgresql_major: Option<u32>,
    /// The cluster that it was taken from.
    pub system_identifier: Option<u64>,
    /// The timeline on which it ends.
    pub timeline: Option<u32>,
    /// Where replay begins: the 64 bits of an LSN.
    pub start_lsn: Option<u64>,
    /// Where the replica becomes consistent.
    pub stop_lsn: Option<u64>,
    /// How many bytes will be written.
    pub bytes: Option<u64>,
    /// How many files will be written.
    pub files: Option<u64>,
    /// Every tablespace of the backup besides `pg_default` and `pg_global`.
    pub tablespaces: Vec<Tablespace>,
    /// Whether `create` keeps what matches in a directory that holds data.
    pub builds_on_existing: bool,
}

/// A tablespace of a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tablespace {
    /// Its object identifier, the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its name, where the backup records it.
    pub name: Option<String>,
    /// Its path where the backup was taken.
    pub location: String,
}
