//! `backup.info` and `archive.info`: the backups of a stanza and their clusters (pgBackRest's src/info/infoBackup.c and
//! src/info/infoArchive.c).

use std::collections::HashSet;

use postgres_formats::Lsn;
use postgres_formats::segment::SegmentName;
use serde::Deserialize;
use understudy::Failure;
use understudy::keys::Key;

use crate::ini::{Visitor, skip, split};
use crate::label::is_label;
use crate::names::shown;
use crate::repository::{Repository, TextKey};

/// The largest permitted number of backups in a stanza.
const MOST_BACKUPS: usize = 20_000;

/// The largest permitted number of clusters that a stanza had, one after the other.
const MOST_CLUSTERS: usize = 1000;

/// One backup in `backup.info`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backup {
    pub(crate) label: String,
    /// When the backup ended, in seconds since 1970.
    pub(crate) stopped: u64,
    /// Where the backup ended; `None` if the cluster was shut down.
    pub(crate) stop_lsn: Option<Lsn>,
    /// The timeline on which the backup ended.
    pub(crate) timeline: Option<u32>,
    /// Whether pages with wrong checksums were found.
    pub(crate) has_errors: bool,
    /// The number of the cluster in the stanza.
    pub(crate) cluster: u32,
}

/// A cluster that a stanza has or had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    number: u32,
    pub(crate) system_identifier: u64,
    /// The major version, such as `15`; before version 10, such as `9.6`.
    pub(crate) version: String,
}

/// The content of `backup.info`.
#[derive(Debug, Default)]
pub(crate) struct BackupInfo {
    pub(crate) backups: Vec<Backup>,
    clusters: Vec<Cluster>,
    /// The labels of the backups whose blocks, if they have any, are divided into chunks.
    with_chunks: HashSet<String>,
    /// The key of the manifests, if the repository is encrypted.
    pub(crate) key: Option<Key>,
}

/// The content of `archive.info`.
#[derive(Debug, Default)]
pub(crate) struct ArchiveInfo {
    clusters: Vec<Cluster>,
    /// The key of the archive, if the repository is encrypted.
    pub(crate) key: Option<Key>,
}

impl BackupInfo {
    /// Reads the `backup.info` of the stanza; `None` if it does not exist.
    ///
    /// # Errors
    /// Fails if neither the file nor its copy can be used.
    pub(crate) fn load(repository: &Repository) -> Result<Option<Self>, Failure> {
        let key = format!("{}/backup.info", repository.backup(""));
        let loaded = repository.load(&key, TextKey::PassPhrase, &mut Self::default)?;
        Ok(loaded.map(|loaded| Self { key: loaded.key, ..loaded.contents }))
    }

    /// Finds the backup with this label.
    pub(crate) fn find(&self, label: &str) -> Option<&Backup> {
        self.backups.iter().find(|backup| backup.label == label)
    }

    /// Returns whether the blocks in the backup `label`, if it has any, are divided into chunks, as up to pgBackRest 2.45.
    pub(crate) fn has_chunks(&self, label: &str) -> bool {
        self.with_chunks.contains(label)
    }

    /// Returns the cluster of `backup`.
    pub(crate) fn cluster(&self, backup: &Backup) -> Option<&Cluster> {
        self.clusters.iter().find(|cluster| cluster.number == backup.cluster)
    }
}

impl ArchiveInfo {
    /// Reads the `archive.info` of the stanza; `None` if it does not exist.
    ///
    /// # Errors
    /// Fails if neither the file nor its copy can be used.
    pub(crate) fn load(repository: &Repository) -> Result<Option<Self>, Failure> {
        let loaded =
            repository.load(&repository.archive("archive.info"), TextKey::PassPhrase, &mut Self::default)?;
        Ok(loaded.map(|loaded| Self { key: loaded.key, ..loaded.contents }))
    }

    /// Returns the stanza's folders with WAL from the cluster with this system identifier and version. A stanza may have had the cluster
    /// several times, each time with another number. The folder for `number` comes first, then the others, newest first.
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
    #[serde(rename = "backrest-version")]
    release: Option<String>,
}

/// Returns whether this release of pgBackRest, such as `2.45`, divided super blocks into chunks. Release 2.46 was the first that did not
/// (its src/command/backup/blockIncr.c).
fn has_chunks(release: &str) -> bool {
    let mut parts = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) <= (2, 45),
        _ => false,
    }
}

impl Visitor for BackupInfo {
    fn line(&mut self, section: &str, line: &str) -> Result<usize, String> {
        match section {
            "backup:current" => {
                let (label, current) = split::<Current>(line)?;
                if !is_label(label) {
                    return Err("names a backup by what is not a label".to_owned());
                }
                if self.backups.len() == MOST_BACKUPS {
                    return Err(format!("is one too many: at most {MOST_BACKUPS} backups are allowed"));
                }
                let stop_lsn = current.lsn_stop.map(|text| text.parse::<Lsn>());
                let last_segment =
                    current.archive_stop.map(|name| SegmentName::parse(name.as_bytes()).ok_or(name));
                if current.release.as_deref().is_some_and(has_chunks) {
                    self.with_chunks.insert(label.to_owned());
                }
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
        // archive.info has the system identifier under `db-id`, backup.info has it under `db-system-id`.
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
    let number = number.parse().map_err(|_| "names a cluster by what is not a number".to_owned())?;
    let is_version = !version.is_empty()
        && version.len() <= 8
        && version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && !version.contains("..");
    if !is_version {
        return Err("has an invalid PostgreSQL version".to_owned());
    }
    if clusters.len() == MOST_CLUSTERS {
        return Err(format!("is one too many: at most {MOST_CLUSTERS} clusters are allowed"));
    }
    clusters.push(Cluster { number, system_identifier, version });
    Ok(())
}
