//! Reads the section `backup:target` of a manifest: the original paths of the data directory and of the link targets outside it.

use postgres_formats::names::tablespace_oid;
use serde::Deserialize;

use crate::ini::split;
use crate::names::{Name, name_of, shown};

/// The largest permitted number of links in a backup, including tablespaces.
pub(super) const MOST: usize = 1000;

/// The longest permitted target of a link, in bytes (Linux's `PATH_MAX`).
const LONGEST_PATH: usize = 4096;

/// The longest name of a tablespace, in bytes (`NAMEDATALEN` in PostgreSQL's pg_config_manual.h, without the byte at its end).
const LONGEST_NAME: usize = 63;

/// The target that is the data directory itself.
const DATA: &str = "pg_data";

/// A link in the data directory to a directory or file outside the data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The path of the link in the data directory.
    pub(crate) name: String,
    /// The OID and the name of the tablespace; `None` if it is another link.
    pub(crate) tablespace: Option<(u32, String)>,
    /// The absolute path to which the link led.
    pub(crate) path: String,
}

/// The targets that are being read.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// The original path of the data directory.
    data: Option<String>,
    links: Vec<Target>,
}

impl Targets {
    /// Adds one line. Returns the length of its key.
    pub(super) fn add(&mut self, line: &str) -> Result<usize, String> {
        #[derive(Deserialize)]
        #[serde(expecting = "what is known of a target, by names")]
        struct JsonTarget {
            path: String,
            file: Option<String>,
            #[serde(rename = "tablespace-id")]
            oid: Option<String>,
            #[serde(rename = "tablespace-name")]
            name: Option<String>,
            #[serde(rename = "type")]
            kind: String,
        }
        let (key, target) = split::<JsonTarget>(line)?;
        let path = match target.file {
            Some(file) => format!("{}/{file}", target.path),
            None => target.path,
        };
        if path.is_empty() || path.len() > LONGEST_PATH {
            return Err(format!("has a link to an empty path, or to one of more than {LONGEST_PATH} bytes"));
        }
        match target.kind.as_str() {
            "path" => {
                if key == DATA {
                    self.data = Some(path);
                }
                return Ok(key.len());
            }
            "link" => {}
            other => return Err(format!("has a target of the type {}", shown(other, 40))),
        }
        let Name::Below(name) = name_of(key)? else {
            return Err("has a link that no data directory has".to_owned());
        };
        let tablespace = match target.oid {
            None => None,
            Some(text) => {
                let oid = tablespace_oid(&text)
                    .filter(|oid| key == format!("pg_tblspc/{oid}"))
                    .ok_or_else(|| "has a tablespace whose oid is not its name".to_owned())?;
                Some((oid, target.name.unwrap_or_default()))
            }
        };
        if tablespace.is_none() && name.starts_with("pg_tblspc/") {
            return Err("has a tablespace without an oid".to_owned());
        }
        if self.links.len() == MOST {
            return Err(format!("is one too many: at most {MOST} links are allowed"));
        }
        if tablespace.as_ref().is_some_and(|(_, name)| name.len() > LONGEST_NAME) {
            return Err(format!("has a tablespace whose name has more than {LONGEST_NAME} bytes"));
        }
        self.links.push(Target { name: name.to_owned(), tablespace, path });
        Ok(key.len())
    }

    /// Returns every link with the absolute path to which the link led.
    pub(super) fn finish(self) -> Result<Vec<Target>, String> {
        let data = self.data;
        let resolved = self.links.into_iter().map(|link| {
            if link.path.starts_with('/') {
                return Ok(link);
            }
            let path = data.as_deref().and_then(|data| resolve(data, &link.name, &link.path)).ok_or_else(|| {
                format!(
                    "has the relative link `{}` to `{}`, but no absolute path of the data directory to resolve it",
                    shown(&link.name, 200),
                    shown(&link.path, 200)
                )
            })?;
            if path.len() > LONGEST_PATH {
                return Err(format!("has a link to a path of more than {LONGEST_PATH} bytes"));
            }
            Ok(Target { path, ..link })
        });
        resolved.collect()
    }
}

/// Resolves the relative `path` from the directory of the link `name` in the data directory `data`, without reading the file system, as
/// pgBackRest does (`manifestTargetPath` in its src/info/manifest.c). `None` if `data` is relative too.
fn resolve(data: &str, name: &str, path: &str) -> Option<String> {
    let below = data.strip_prefix('/')?;
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts = Vec::new();
    for part in [below, folder, path].into_iter().flat_map(|path| path.split('/')) {
        match part {
            "" | "." => {}
            // The parent of the root is the root.
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_is_resolved_from_the_folder_of_its_link() {
        for (name, path, absolute) in [
            ("pg_tblspc/16384", "../../ts1", "/srv/ts1"),
            ("pg_tblspc/16384", "../../../ts1/", "/ts1"),
            ("pg_tblspc/16384", "../../../../../ts1", "/ts1"),
            ("pg_tblspc/16384", "./a//b", "/srv/data/pg_tblspc/a/b"),
            ("pg_wal", "../wal", "/srv/wal"),
            ("conf/a.conf", "../../etc/a.conf", "/srv/etc/a.conf"),
        ] {
            assert_eq!(resolve("/srv/data", name, path).as_deref(), Some(absolute), "{name} {path}");
        }
        assert_eq!(resolve("srv/data", "pg_wal", "../wal"), None);
    }
}
