//! Finds the right section for a key that was written in a wrong one.

use super::keys::{SECTIONS, names};

/// The built-in method. A section `[basebackup]` at the top of the file is meant as `[method.basebackup]`.
const METHOD: &str = "basebackup";

/// The section of a granted program.
const PROGRAM: &str = "method.NAME.grants.programs.NAME";

/// Keys that users know from Patroni and PostgreSQL, each with what to write in this configuration instead.
const OTHER_WORDS: [(&str, &str); 16] = [
    (
        "pgpass",
        "the standby's passfile is `standby_passfile` below `[replica]`, the run's own is `passfile` below `[source]`",
    ),
    ("recovery_conf", "its `restore_command` belongs below `[replica]`; the rest stays in Patroni's file"),
    ("parameters", "PostgreSQL's settings stay in Patroni's file or in postgresql.conf: leave them out here"),
    ("pg_hba", "this setting belongs in Patroni's file: leave it out here"),
    ("use_pg_rewind", "this setting belongs in Patroni's file: leave it out here"),
    ("use_slots", "this setting belongs in Patroni's file: leave it out here"),
    ("slot", "a slot of pg_basebackup is `slot` below `[method.basebackup.options]`"),
    (
        "primary_slot_name",
        "this setting belongs in postgresql.conf; a slot of pg_basebackup is `slot` below `[method.basebackup.options]`",
    ),
    ("checkpoint", "an option of pg_basebackup belongs below `[method.basebackup.options]`"),
    ("max_rate", "an option of pg_basebackup belongs below `[method.basebackup.options]`"),
    ("primary_conninfo", "the source is `conninfo` below `[source]`"),
    ("connect_address", "the source is `conninfo` below `[source]`"),
    ("data_dir", "the data directory is `datadir` below `[replica]`"),
    ("pgdata", "the data directory is `datadir` below `[replica]`"),
    ("config_dir", "`config_file` below `[replica]` takes the path of postgresql.conf"),
    (
        "command",
        "a method of Patroni that runs a program is written with `plugin = \"command\"`, and with the program in `grants.programs`",
    ),
];

/// Returns a hint that names the right section of `key`, which the section at `path` does not have; `None` if no section has `key`.
pub(super) fn belongs(key: &str, path: &str) -> Option<String> {
    let plain = key.to_ascii_lowercase().replace('-', "_");
    if plain == METHOD && path.is_empty() {
        return Some(format!("`{METHOD}` is a method, whose section is `[method.{METHOD}]`"));
    }
    if let Some((_, what)) = OTHER_WORDS.iter().find(|(word, _)| *word == plain) {
        return Some((*what).to_owned());
    }
    let own = head_of(path);
    let having = SECTIONS
        .iter()
        .filter(|section| section.head != own && names(&(section.keys)()).contains(&plain.as_str()));
    let mut heads: Vec<_> = having.map(|section| section.head).collect();
    // If a granted program has the key too, the operator more likely meant the other section.
    if heads.len() > 1 {
        heads.retain(|head| *head != PROGRAM);
    }
    let mut places: Vec<String> = heads.into_iter().map(|head| head_as_written(head, path)).collect();
    let last = places.pop()?;
    let places = if places.is_empty() { last } else { format!("{} or {last}", places.join(", ")) };
    Some(format!("`{plain}` belongs to {places}"))
}

/// Returns the head of a section as the operator would write it. If `path` is in the section of a method, the head has that method's name
/// in place of `NAME`.
fn head_as_written(section: &str, path: &str) -> String {
    if section.is_empty() {
        return "the top of the file, above the first section".to_owned();
    }
    let within = method(path).filter(|name| *name != METHOD && section.starts_with("method.NAME"));
    match within {
        Some(name) => format!("`[{}]`", section.replacen("NAME", name, 1)),
        None => format!("`[{section}]`"),
    }
}

/// Returns the name of the method whose section `path` is in, with its quotes if it has any; `None` if `path` is in no such section.
fn method(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("method.")?;
    let end = match rest.strip_prefix('"') {
        Some(quoted) => quoted.find('"').map(|end| end + 2)?,
        None => rest.find('.').unwrap_or(rest.len()),
    };
    rest.get(..end)
}

/// Returns the head in [`SECTIONS`] of the section at `path`.
fn head_of(path: &str) -> &'static str {
    let Some(name) = method(path) else {
        return SECTIONS.iter().map(|section| section.head).find(|head| *head == path).unwrap_or_default();
    };
    let below = path.strip_prefix("method.").and_then(|rest| rest.strip_prefix(name)).unwrap_or_default();
    let last = below.rsplit('.').next().unwrap_or_default();
    match below {
        "" if name == METHOD => "method.basebackup",
        "" => "method.NAME",
        ".grants" => "method.NAME.grants",
        ".grants.disk" => "method.NAME.grants.disk",
        ".grants.log" => "method.NAME.grants.log",
        _ if below.starts_with(".grants.stores.") && last == "credentials" => {
            "method.NAME.grants.stores.NAME.credentials"
        }
        _ if below.starts_with(".grants.stores.") => "method.NAME.grants.stores.NAME",
        _ if below.starts_with(".grants.network.") => "method.NAME.grants.network.NAME",
        _ if below.starts_with(".grants.programs.") => PROGRAM,
        _ => "method.NAME.grants.keys.NAME",
    }
}
