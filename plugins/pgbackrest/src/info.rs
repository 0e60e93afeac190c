//! `backup.info` and `archive.info`: which backups there are, and of which clusters (pgBackRest's src/info/infoBackup.c and
//! src/info/infoArchive.c).

use postgres_formats::Lsn;
use postgres_formats::segment::SegmentName;
use serde::Deserialize;
use understudy::Failure;
use understudy::keys::Key;

use crate::ini::{Visitor, skip, split};
use crate::label::is_label;
use crate::names::shown;
use crate::repository::{Lock, Repository};

/// The most backups of a stanza.
const MOST_BACKUPS: usize = 20_000;

/// The most clusters that a stanza held one after the other.
const MOST_CLUSTERS: usize = 1000;

/// One backup as `backup.info` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backup {
    pub(crate) label: String,
    /// When it ended, in seconds since 1970.
    pub(crate) stopped: u64,
    /// Where it ended; none of a cluster that was shut down.
    pub(crate) stop_lsn: Option<Lsn>,
    /// The timeline on which it ended.
    pub(crate) timeline: Option<u32>,
    /// Whether pages with wrong checksums were found.
    pub(crate) has_errors: bool,
    /// The number of its cluster.
    pub(crate) cluster: u32,
}

/// A cluster that a stanza holds or held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    number: u32,
    pub(crate) system_identifier: u64,
    /// Such as `15`, before version 10 such as `9.6`.
    pub(crate) version: String,
}

/// What `backup.info` says.
#[derive(Debug, Default)]
pub(crate) struct BackupInfo {
    pub(crate) backups: Vec<Backup>,
    clusters: Vec<Cluster>,
    /// What opens the manifests, of an encrypted repository.
    pub(crate) key: Option<Key>,
}

/// What `archive.info` says.
#[derive(Debug, Default)]
pub(crate) struct ArchiveInfo {
    clusters: Vec<Cluster>,
    /// What opens the archive, of an encrypted repository.
    pub(crate) key: Option<Key>,
}

impl BackupInfo {
    /// The `backup.info` of the stanza; none where there is none.
    ///
    /// # Errors
    /// Where it cannot be used, and its copy neither.
    pub(crate) fn load(repository: &Repository) -> Result<Option<Self>, Failure> {
        let key = format!("{}/backup.info", repository.backup(""));
        let loaded = repository.load(&key, Lock::Repository, &mut Self::default)?;
        Ok(loaded.map(|loaded| Self { key: loaded.key, ..loaded.contents }))
    }

    /// The backup with this label.
    pub(crate) fn find(&self, label: &str) -> Option<&Backup> {
        self.backups.iter().find(|backup| backup.label == label)
    }

    /// The cluster that `backup` is of.
    pub(crate) fn cluster(&self, backup: &Backup) -> Option<&Cluster> {
        self.clusters.iter().find(|cluster| cluster.number == backup.cluster)
    }
}

impl ArchiveInfo {
    /// The `archive.info` of the stanza; none where there is none.
    ///
    /// # Errors
    /// Where it cannot be used, and its copy neither.
    pub(crate) fn load(repository: &Repository) -> Result<Option<Self>, Failure> {
        let loaded =
            repository.load(&repository.archive("archive.info"), Lock::Repository, &mut Self::default)?;
        Ok(loaded.map(|loaded| Self { key: loaded.key, ..loaded.contents }))
    }

    /// The folders below the stanza's that hold WAL of the cluster with this identifier and version: a stanza can have come back
    /// to it, and has a number for each time. The one of `number` first, then from the newest on.
    pub(crate) fn folders(&self, system_identifier: u64, version: &str, number: u32) -> Vec<String> {
        let mut clusters: Vec<_> = self
            .clusters
            .iter()
            .rev()
            .filter(|cluster| cluster.system_identifier == system_identifier && cluster.version == version)
            .collect();
        clusters.sort_by_key(|cluster| cluster.number != number);
        clusters.into_iter().map(|cluster| format!("{}-{}", cluster.version, cluster.number)).collect()
    }
}

#[derive(Deserialize)]
#[serde(expecting = "what is known of a backup, by names")]
struct Current {
    #[serde(rename = "backup-archive-stop")]
    archive_stop: Option<String>,
    #[serde(rename = "backup-lsn-stop")]
    lsn_stop: Option<String>,
    #[serde(rename = "backup-timestamp-stop")]
    stopped: u64,
    #[serde(rename = "backup-error", default)]
    has_errors: Option<bool>,
    #[serde(rename = "db-id")]
    cluster: u32,
}

impl Visitor for BackupInfo {
    fn line(&mut self, section: &str, line: &str) -> Result<usize, String> {
        match section {
            "backup:current" => {
                let (label, current) = split::<Current>(line)?;
                if !is_label(label) {
                    return Err("names a backup by what is no label".to_owned());
                }
                if self.backups.len() == MOST_BACKUPS {
                    return Err(format!("is of one more than {MOST_BACKUPS} backups"));
                }
                let stop_lsn = current.lsn_stop.map(|text| text.parse::<Lsn>());
                let last_segment =
                    current.archive_stop.map(|name| SegmentName::parse(name.as_bytes()).ok_or(name));
                self.backups.push(Backup {
                    label: label.to_owned(),
                    stopped: current.stopped,
                    stop_lsn: stop_lsn
                        .transpose()
                        .map_err(|error| format!("says that it ended at {error}"))?,
                    timeline: last_segment
                        .transpose()
                        .map_err(|name| format!("names the segment {}", shown(&name, 60)))?
                        .map(SegmentName::timeline),
                    has_errors: current.has_errors.unwrap_or(false),
                    cluster: current.cluster,
                });
                Ok(label.len())
            }
            "db:history" => {
                #[derive(Deserialize)]
                #[serde(expecting = "what is known of a cluster, by names")]
                struct History {
                    #[serde(rename = "db-system-id")]
                    system_identifier: u64,
                    #[serde(rename = "db-version")]
                    version: String,
                }
                let (number, History { system_identifier, version }) = split(line)?;
                add_cluster(&mut self.clusters, number, system_identifier, version)?;
                Ok(number.len())
            }
            _ => skip(line),
        }
    }
}

impl Visitor for ArchiveInfo {
    fn line(&mut self, section: &str, line: &str) -> Result<usize, String> {
        if section != "db:history" {
            return skip(line);
        }
        // What is `db-system-id` in backup.info is `db-id` here.
        #[derive(Deserialize)]
        #[serde(expecting = "what is known of a cluster, by names")]
        struct History {
            #[serde(rename = "db-id")]
            system_identifier: u64,
            #[serde(rename = "db-version")]
            version: String,
        }
        let (number, History { system_identifier, version }) = split(line)?;
        add_cluster(&mut self.clusters, number, system_identifier, version)?;
        Ok(number.len())
    }
}

fn add_cluster(
    clusters: &mut Vec<Cluster>,
    number: &str,
    system_identifier: u64,
    version: String,
) -> Result<(), String> {
    let number = number.parse().map_err(|_| "names a cluster by what is no number".to_owned())?;
    let is_version = !version.is_empty()
        && version.len() <= 8
        && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && !version.contains("..");
    if !is_version {
        return Err("has a version of PostgreSQL that is none".to_owned());
    }
    if clusters.len() == MOST_CLUSTERS {
        return Err(format!("is of one more than {MOST_CLUSTERS} clusters"));
    }
    clusters.push(Cluster { number, system_identifier, version });
    Ok(())
}
