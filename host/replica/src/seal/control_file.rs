//! The identity of the cluster in `global/pg_control`. [`postgres_formats::control_file`] reads the format.

use postgres_formats::control_file::ControlFile;

use crate::Lsn;

/// The cluster of a pg_control and its latest checkpoint, which are reported before the cluster is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterIdentity {
    /// The system identifier.
    pub(crate) system_identifier: u64,
    /// The state in which the server left the cluster, in the words of `pg_controldata`.
    pub(crate) state: &'static str,
    /// The position of the latest checkpoint's record.
    pub(crate) checkpoint: Lsn,
    /// The timeline of the latest checkpoint.
    pub(crate) timeline: u32,
    /// When the latest checkpoint was taken, in seconds since 1970 (`CheckPoint.time`).
    pub(crate) time: i64,
}

/// Reads the identity of the cluster from a pg_control.
///
/// # Errors
/// Fails with the reason why the file cannot be used, in words that follow its name.
pub(crate) fn cluster_identity(bytes: &[u8]) -> Result<ClusterIdentity, String> {
    let control = ControlFile::parse(bytes).map_err(|error| format!("it {error}"))?;
    Ok(ClusterIdentity {
        system_identifier: control.system_identifier,
        state: control.state.describe(),
        checkpoint: control.checkpoint,
        timeline: control.checkpoint_timeline,
        time: control.checkpoint_time,
    })
}

#[cfg(test)]
mod tests {
    use postgres_formats::control_file::ClusterState;

    use super::super::test_cluster::Cluster;
    use super::*;

    /// Returns what pg_controldata prints in the line that begins with `key`.
    fn printed<'a>(controldata: &'a str, key: &str) -> &'a str {
        let line = controldata.lines().find(|line| line.starts_with(key)).unwrap();
        line[key.len()..].trim_start_matches(':').trim()
    }

    #[test]
    fn a_real_control_file_is_read_as_pg_controldata_reads_it() {
        let cluster = Cluster::made_with(&["--wal-segsize=4", "--data-checksums"]);
        // A start with other settings than initdb's writes them into pg_control, each at its own place.
        let settings = [
            ("max_connections", "77"),
            ("max_worker_processes", "9"),
            ("max_wal_senders", "6"),
            ("max_prepared_transactions", "5"),
            ("max_locks_per_transaction", "63"),
            ("wal_level", "logical"),
        ];
        let settings: Vec<String> = settings.map(|(name, value)| format!("{name}={value}")).to_vec();
        let mut arguments = vec!["--single", "-D"];
        let datadir = cluster.text();
        arguments.push(&datadir);
        for setting in &settings {
            arguments.extend(["-c", setting]);
        }
        arguments.push("postgres");
        let output = cluster.run("postgres", &arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        let output = cluster.run("pg_controldata", &["-D", &datadir]);
        let printed_data = String::from_utf8(output.stdout).unwrap();
        let control =
            ControlFile::parse(&std::fs::read(cluster.path().join("global/pg_control")).unwrap()).unwrap();
        for (key, read) in [
            ("Database system identifier", control.system_identifier.to_string()),
            ("pg_control version number", control.control_version.to_string()),
            ("Catalog version number", control.catalog_version.to_string()),
            ("Database cluster state", control.state.describe().to_owned()),
            ("Latest checkpoint location", control.checkpoint.to_string()),
            ("Latest checkpoint's REDO location", control.checkpoint_redo.to_string()),
            ("Latest checkpoint's TimeLineID", control.checkpoint_timeline.to_string()),
            ("Minimum recovery ending location", control.minimum_recovery.0.to_string()),
            ("Min recovery ending loc's timeline", control.minimum_recovery.1.to_string()),
            ("wal_level setting", format!("{:?}", control.wal_level).to_lowercase()),
            ("max_connections setting", control.required.max_connections.to_string()),
            ("max_worker_processes setting", control.required.max_worker_processes.to_string()),
            ("max_wal_senders setting", control.required.max_wal_senders.to_string()),
            ("max_prepared_xacts setting", control.required.max_prepared_transactions.to_string()),
            ("max_locks_per_xact setting", control.required.max_locks_per_transaction.to_string()),
            ("Bytes per WAL segment", control.wal_segment_size.bytes().to_string()),
            ("Data page checksum version", u32::from(control.data_checksums).to_string()),
        ] {
            assert_eq!(printed(&printed_data, key), read, "{key}");
        }
        assert_eq!(control.required.max_connections, 77);
        assert_eq!(control.state, ClusterState::ShutDown);
    }
}
