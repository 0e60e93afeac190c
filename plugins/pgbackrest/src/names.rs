//! Maps the names in a manifest to paths in a data directory. The names come from the repository and are not trusted.

use postgres_formats::names;

/// The longest path in a data directory, in bytes: the longest path that Linux accepts, without its NUL (`PATH_MAX`).
const LONGEST: usize = 4095;

/// The longest component of a path, in bytes (`NAME_MAX`).
const LONGEST_PART: usize = 255;

/// Returns at most `most` characters of a text from the repository, escaped for a terminal.
pub(crate) fn shown(text: &str, most: usize) -> String {
    text.escape_debug().take(most).collect()
}

/// The meaning of a name in a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// A file or directory, by its path in the data directory.
    Below(&'a str),
    /// `pg_data` or `pg_tblspc`, which contain all other names.
    Root,
    /// A file that is not restored: `tablespace_map`, because the host creates the links, or the manifest, which describes only the backup.
    NotRestored,
}

/// Returns the meaning of the name `name` in a manifest.
///
/// # Errors
/// Fails if the name leads out of the data directory, or if backups never contain this name.
pub(crate) fn name_of(name: &str) -> Result<Name<'_>, String> {
    let shown = || shown(name, 200);
    if name.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return Err(format!(
            "lists `{}`, which is not a name that can be restored: restore with pgbackrest, or remove that file and take a new backup",
            shown()
        ));
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(format!("lists `{}`, which leaves the data directory", shown()));
    }
    let below = match name.split_once('/') {
        None if matches!(name, "pg_data" | "pg_tblspc") => return Ok(Name::Root),
        Some(("pg_data", below)) => below,
        Some(("pg_tblspc", _)) => name,
        _ => return Err(format!("lists `{}`, which is below neither pg_data nor pg_tblspc", shown())),
    };
    let is_too_long =
        |name: &str| name.len() > LONGEST || name.split('/').any(|part| part.len() > LONGEST_PART);
    if is_too_long(below) {
        return Err(format!(
            "lists `{}`, which is longer than Linux allows ({LONGEST} bytes, {LONGEST_PART} for each folder or file)",
            shown()
        ));
    }
    match below {
        names::TABLESPACE_MAP | "backup.manifest" => Ok(Name::NotRestored),
        // Files of a running server, and of the host.
        names::POSTMASTER_PID | names::POSTMASTER_OPTS | names::UNFINISHED_CONTROL_FILE => {
            Err(format!("lists `{}`, which no backup has", shown()))
        }
        _ if below.starts_with("pg_tblspc/") && below.len() < name.len() => {
            Err(format!("lists `{}`: what is in a tablespace is listed by its oid alone", shown()))
        }
        _ => Ok(Name::Below(below)),
    }
}

/// Returns the prefix of the path `name` in a manifest.
pub(crate) fn root_of(name: &str) -> &'static str {
    if name.starts_with("pg_tblspc/") { "" } else { "pg_data/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_to_paths_in_the_data_directory() {
        for (name, below) in [
            ("pg_data/PG_VERSION", "PG_VERSION"),
            ("pg_data/base/5/1259", "base/5/1259"),
            ("pg_data/pg_tblspc", "pg_tblspc"),
            ("pg_tblspc/16384", "pg_tblspc/16384"),
            ("pg_tblspc/16384/PG_15_202209061/5/1", "pg_tblspc/16384/PG_15_202209061/5/1"),
            ("pg_data/a=b \u{e9}", "a=b \u{e9}"),
        ] {
            assert_eq!(name_of(name), Ok(Name::Below(below)));
            if below != "pg_tblspc" {
                assert_eq!(format!("{}{below}", root_of(below)), name);
            }
        }
        assert_eq!(name_of("pg_data"), Ok(Name::Root));
        assert_eq!(name_of("pg_data/tablespace_map"), Ok(Name::NotRestored));
        assert_eq!(name_of("pg_data/backup.manifest"), Ok(Name::NotRestored));
    }

    #[test]
    fn names_out_of_the_data_directory_are_refused() {
        for name in [
            "",
            "/etc/passwd",
            "pg_data/",
            "pg_data/../x",
            "pg_data//x",
            "pg_data/./x",
            "../pg_data/x",
            "pg_data/a\nb",
            "pg_data/a\0b",
            "pg_data/a\u{7f}",
            "elsewhere/x",
            "base/5/1",
            "pg_data/pg_tblspc/16384",
            "pg_data/postmaster.pid",
            "pg_data/global/pg_control.understudy",
        ] {
            assert!(name_of(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_name_may_be_as_long_as_linux_accepts() {
        let deep = |length: usize| {
            let mut name = "d/".repeat(length / 2);
            name.truncate(length - 1);
            name + "f"
        };
        for (below, is_name) in
            [(deep(4095), true), (deep(4096), false), ("a".repeat(255), true), ("a".repeat(256), false)]
        {
            let name = format!("pg_data/{below}");
            assert_eq!(name_of(&name) == Ok(Name::Below(&below)), is_name, "{} bytes", below.len());
            let name = format!("pg_tblspc/16384/{below}");
            assert_eq!(name_of(&name).is_ok(), is_name && below.len() < 4000, "{} bytes", below.len());
        }
    }
}
