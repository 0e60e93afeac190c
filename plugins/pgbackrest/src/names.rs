//! Names in a manifest, and what they are below a data directory. They come from the repository and are believed in nothing.

use postgres_formats::names;

/// The longest name below a data directory, in bytes: the longest path that Linux takes, without its NUL (`PATH_MAX`).
const LONGEST: usize = 4095;

/// The longest name of a file within its folder, in bytes (`NAME_MAX`).
const LONGEST_PART: usize = 255;

/// At most `most` characters of a text from the repository, as a terminal may see them.
pub(crate) fn shown(text: &str, most: usize) -> String {
    text.escape_debug().take(most).collect()
}

/// What a name in a manifest stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// A file or directory by its name below the data directory.
    Below(&'a str),
    /// `pg_data` and `pg_tblspc`, below which everything else is.
    Root,
    /// A file that never reaches the data directory: links are the host's, and a manifest is true of a backup only.
    NotRestored,
}

/// What the name `name` of a manifest stands for.
///
/// # Errors
/// Where it leaves the data directory, or is one that no backup has.
pub(crate) fn name_of(name: &str) -> Result<Name<'_>, String> {
    let shown = || shown(name, 200);
    if name.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return Err(format!(
            "lists `{}`, which is no name that is restored: restore with pgbackrest, or remove that file and take a new backup",
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
            "lists `{}`, which is longer than Linux takes ({LONGEST} bytes, {LONGEST_PART} a folder or file)",
            shown()
        ));
    }
    match below {
        names::TABLESPACE_MAP | "backup.manifest" => Ok(Name::NotRestored),
        // A running server's, and the host's.
        names::POSTMASTER_PID | names::POSTMASTER_OPTS | names::UNFINISHED_CONTROL_FILE => {
            Err(format!("lists `{}`, which no backup has", shown()))
        }
        _ if below.starts_with("pg_tblspc/") && below.len() < name.len() => {
            Err(format!("lists `{}`: what is in a tablespace is listed by its oid alone", shown()))
        }
        _ => Ok(Name::Below(below)),
    }
}

/// What goes before the name `name` below the data directory, in a manifest.
pub(crate) fn root_of(name: &str) -> &'static str {
    if name.starts_with("pg_tblspc/") { "" } else { "pg_data/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_below_the_data_directory() {
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
    fn what_leaves_the_data_directory_is_refused() {
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
    fn a_name_is_as_long_as_linux_takes() {
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
