//! The operator's WAL directory and tablespace map as arguments of `pg_basebackup`. Loop rule 20.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::options::refuse;
use crate::{Directories, Refusal, Tablespace, TablespaceKey};

/// Returns `--waldir`, and `--tablespace-mapping` for each entry of the map. `pg_basebackup` knows a tablespace only by its location, so
/// entries with other keys are left out unless `tablespaces`, from the source, has the location.
pub(super) fn arguments(
    directories: &Directories,
    tablespaces: Option<&[Tablespace]>,
) -> Result<Vec<OsString>, Refusal> {
    let wal = directories.wal.as_ref().map(|wal| joined(&[b"--waldir=", wal.as_os_str().as_bytes()]));
    let mapped: Result<Vec<_>, _> =
        locations(directories, tablespaces).iter().map(|(old, new)| mapping(old, new)).collect();
    Ok(wal.into_iter().chain(mapped?).collect())
}

/// Returns every mapped location with its new directory. An entry by location takes precedence over one by object identifier or name.
pub(super) fn locations(
    directories: &Directories,
    tablespaces: Option<&[Tablespace]>,
) -> Vec<(PathBuf, PathBuf)> {
    let mut locations: Vec<(PathBuf, PathBuf)> = Vec::new();
    let by_location = directories.tablespaces.entries().filter_map(|(key, to)| match key {
        TablespaceKey::Location(from) => Some((from.clone(), to.to_owned())),
        TablespaceKey::Oid(_) | TablespaceKey::Name(_) => None,
    });
    let by_tablespace = tablespaces.into_iter().flatten().filter_map(|one| {
        let to = directories.tablespaces.target(one.oid, one.name.as_deref(), &one.location)?;
        Some((one.location.clone(), to.to_owned()))
    });
    for (from, to) in by_location.chain(by_tablespace) {
        if !locations.iter().any(|(known, _)| *known == from) {
            locations.push((from, to));
        }
    }
    locations
}

/// Returns the argument `OLDDIR=NEWDIR`, with an equals sign in either path written `\=` (`tablespace_list_append` in `pg_basebackup.c`).
fn mapping(old: &Path, new: &Path) -> Result<OsString, Refusal> {
    for path in [old, new] {
        // A backslash escapes the equals sign after it, and cannot itself be escaped.
        if path.as_os_str().as_bytes().ends_with(b"\\") {
            let message = format!("the tablespace directory {} ends in a backslash", path.display());
            return Err(refuse(format!("{message}, which cannot be passed to pg_basebackup")));
        }
    }
    let (old, new) = (escaped(old), escaped(new));
    Ok(joined(&[b"--tablespace-mapping=", &old, b"=", &new]))
}

fn escaped(path: &Path) -> Vec<u8> {
    let bytes = path.as_os_str().as_bytes();
    bytes
        .iter()
        .flat_map(|byte| if *byte == b'=' { &b"\\="[..] } else { std::slice::from_ref(byte) })
        .copied()
        .collect()
}

fn joined(parts: &[&[u8]]) -> OsString {
    OsString::from_vec(parts.concat())
}

/// Refuses an option `waldir` that is not the operator's `wal_dir`.
pub(super) fn agree_on_wal(value: &str, directories: &Directories) -> Result<(), Refusal> {
    if directories.wal.as_deref() == Some(Path::new(value)) {
        return Ok(());
    }
    let line = format!("[replica] wal_dir = {value:?}");
    Err(refuse(format!("`waldir` of {value} contradicts the configuration")).remedy(line))
}

/// Refuses an option `tablespace-mapping` that is not an entry of the operator's map.
pub(super) fn agree_on_tablespace(value: &str, directories: &Directories) -> Result<(), Refusal> {
    let Some((old, new)) = split(value) else {
        let message = format!("`tablespace-mapping` of {value} is not of the form OLDDIR=NEWDIR");
        return Err(refuse(message));
    };
    if locations(directories, None).contains(&(old.clone(), new.clone())) {
        return Ok(());
    }
    let line = format!("[replica] tablespaces = {{ {old:?} = {new:?} }}");
    Err(refuse(format!("`tablespace-mapping` of {value} contradicts the configuration")).remedy(line))
}

/// Splits `OLDDIR=NEWDIR` as pg_basebackup does. Returns both halves without their escapes; `None` if the value does not have this form.
fn split(value: &str) -> Option<(PathBuf, PathBuf)> {
    let mut halves = vec![Vec::new()];
    let bytes = value.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let escaped = at > 0 && bytes[at - 1] == b'\\';
        match byte {
            b'\\' if bytes.get(at + 1) == Some(&b'=') => {}
            b'=' if !escaped => halves.push(Vec::new()),
            byte => halves.last_mut()?.push(*byte),
        }
    }
    match &halves[..] {
        [old, new] if !old.is_empty() && !new.is_empty() => {
            Some((Path::new(OsStr::from_bytes(old)).to_owned(), Path::new(OsStr::from_bytes(new)).to_owned()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TablespaceMap;

    fn directories(entries: Vec<(TablespaceKey, PathBuf)>) -> Directories {
        Directories { datadir: "/data".into(), wal: None, tablespaces: TablespaceMap::new(entries) }
    }

    fn tablespace(oid: u32, name: &str, location: &str) -> Tablespace {
        Tablespace { oid, name: Some(name.to_owned()), location: location.into() }
    }

    #[test]
    fn rule_20_the_host_generates_the_arguments_from_the_map() {
        let map = vec![
            (TablespaceKey::Location("/old/a".into()), "/new/a".into()),
            (TablespaceKey::Oid(16385), "/new/b".into()),
            (TablespaceKey::Name("fast".to_owned()), "/new/c".into()),
        ];
        let directories = Directories { wal: Some("/wal".into()), ..directories(map) };
        let unknown = arguments(&directories, None).unwrap();
        assert_eq!(unknown, ["--waldir=/wal", "--tablespace-mapping=/old/a=/new/a"]);
        let source = [(16385, "slow", "/old/b"), (16386, "fast", "/old/c"), (16384, "fast", "/old/a")];
        let source = source.map(|(oid, name, location)| tablespace(oid, name, location));
        let known = arguments(&directories, Some(&source)).unwrap();
        assert_eq!(known[2..], ["--tablespace-mapping=/old/b=/new/b", "--tablespace-mapping=/old/c=/new/c"]);
        assert_eq!(known.len(), 4);
    }

    #[test]
    fn rule_20_equals_signs_are_escaped_so_that_pg_basebackup_reads_them_back() {
        let map = |old: &str| directories(vec![(TablespaceKey::Location(old.into()), "/new/x=y".into())]);
        assert_eq!(arguments(&map("/a=b"), None).unwrap(), [r"--tablespace-mapping=/a\=b=/new/x\=y"]);
        assert_eq!(split(r"/a\=b=/new/x\=y"), Some(("/a=b".into(), "/new/x=y".into())));
        assert_eq!(arguments(&map(r"/a\=b"), None).unwrap(), [r"--tablespace-mapping=/a\\=b=/new/x\=y"]);
        assert!(arguments(&map("/a\\"), None).unwrap_err().message.contains("backslash"));
    }
}
