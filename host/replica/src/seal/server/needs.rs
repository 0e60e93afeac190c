//! Checks what `postgres -C` accepts and a starting server refuses: settings that exclude each other (`PostmasterMain` in
//! `postmaster.c`) and libraries that are not installed (`process_shared_preload_libraries`). Also reports settings with which a server
//! starts but is useless, because every session ends at once or the server answers no queries.

use std::path::{Path, PathBuf};

use postgres_formats::control_file::{ControlFile, wal_segment_size};

use super::super::problem::{Problem, shown};
use super::ask::Server;
use super::{ConfigurationFile, Verdicts, lists};
use crate::regular_file;

/// A library that every PostgreSQL has. The other libraries are in the same directory.
const ALWAYS_THERE: &str = "libpqwalreceiver.so";

/// The directories of PostgreSQL's libraries, relative to its programs: as built by default, on Debian and Red Hat, and in relocated
/// installations.
const LIBRARIES: [&str; 4] = ["../lib", "../lib/postgresql", "../lib64/postgresql", "../lib64"];

/// Does all checks of this module.
pub(super) fn check(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    settings_below_primary(server, verdicts)?;
    connections(server, verdicts)?;
    wal_level(server, verdicts)?;
    wal_sizes(server, verdicts)?;
    libraries(server, verdicts)?;
    queries(server, verdicts)?;
    keytab(server, verdicts)
}

/// Compares a configuration outside the data directory, which no earlier check has read, with the primary's settings in pg_control.
fn settings_below_primary(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    if server.file == ConfigurationFile::Inside {
        return Ok(());
    }
    let Ok(control) = ControlFile::parse(server.replica.control_file) else { return Ok(()) };
    let required = &control.required;
    let mut unknown = Vec::new();
    for (name, primary) in [
        ("max_connections", required.max_connections),
        ("max_worker_processes", required.max_worker_processes),
        ("max_wal_senders", required.max_wal_senders),
        ("max_prepared_transactions", required.max_prepared_transactions),
        ("max_locks_per_transaction", required.max_locks_per_transaction),
    ] {
        let ConfigurationFile::At(file) = &server.file else {
            if server.entry(name).is_none() {
                unknown.push(format!("{name} >= {primary}"));
            }
            continue;
        };
        let configured = server.number(name)?;
        if configured < i64::from(primary) {
            verdicts.missing(format!(
                "`{name}` is {configured} by `{}`, but was {primary} on the primary when the backup was taken: a hot standby needs at \
                 least as many",
                file.display()
            ))?;
        }
    }
    if !unknown.is_empty() {
        verdicts.report(format!(
            "these settings were not checked, because only a configuration that PostgreSQL finds elsewhere can set them: {}",
            unknown.join(", ")
        ));
    }
    Ok(())
}

/// Checks that connections are left for users who are not superusers.
fn connections(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    let most = server.number("max_connections")?;
    let mut reserved = server.number("superuser_reserved_connections")?;
    let mut names = "`superuser_reserved_connections`".to_owned();
    if server.replica.major >= 16 {
        reserved += server.number("reserved_connections")?;
        names.push_str(" and `reserved_connections`");
    }
    if reserved >= most {
        verdicts.missing(format!(
            "{names} add up to {reserved}, and `max_connections` is {most}: PostgreSQL does not start if no connection is left for other \
             users"
        ))?;
    }
    Ok(())
}

/// Checks that nothing archives or sends WAL if `wal_level` is `minimal`.
fn wal_level(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    if server.setting("wal_level")? != "minimal" {
        return Ok(());
    }
    let mut conflicts = Vec::new();
    if server.setting("archive_mode")? != "off" {
        conflicts.push("`archive_mode`");
    }
    if server.number("max_wal_senders")? > 0 {
        conflicts.push("`max_wal_senders`");
    }
    if server.replica.major >= 17 && server.setting("summarize_wal")? == "on" {
        conflicts.push("`summarize_wal`");
    }
    if conflicts.is_empty() {
        return Ok(());
    }
    verdicts.missing(format!(
        "`wal_level` is `minimal`, and {} {} on: PostgreSQL does not start with both; set `wal_level = replica`",
        conflicts.join(" and "),
        if conflicts.len() == 1 { "is" } else { "are" }
    ))
}

/// Checks that `min_wal_size` and `max_wal_size` are at least two segments (`ReadControlFile` in `xlog.c`).
fn wal_sizes(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    let Ok(segment) = wal_segment_size(server.replica.control_file) else { return Ok(()) };
    let segment = i64::try_from(segment.bytes() >> 20).unwrap_or(i64::MAX);
    for name in ["min_wal_size", "max_wal_size"] {
        let megabytes = server.number(name)?;
        if megabytes < 2 * segment {
            verdicts.missing(format!(
                "`{name}` is {megabytes} MB ({}), and a WAL segment has {segment} MB in this cluster: PostgreSQL does not start if the \
                 setting is less than two segments. Set it to at least {} MB {}",
                server.place(name),
                2 * segment,
                server.remedy(name)
            ))?;
        }
    }
    Ok(())
}

/// Reports `hot_standby = off`, with which the standby follows but accepts no connections.
fn queries(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    const NAME: &str = "hot_standby";
    if server.setting(NAME)? != "on" {
        verdicts.report_unless_patroni_sets_it(format!(
            "`{NAME}` is off ({}): the standby starts and follows, and accepts no connection; turn it on if the standby is to answer \
             queries",
            server.place(NAME)
        ));
    }
    Ok(())
}

/// Checks the key table, which the server reads at the first login. A key table that is not set in the restored configuration is not
/// checked.
fn keytab(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    const NAME: &str = "krb_server_keyfile";
    if server.entry(NAME).is_none() {
        return Ok(());
    }
    let value = server.setting(NAME)?;
    let path = value.strip_prefix("FILE:").or_else(|| value.strip_prefix("WRFILE:")).unwrap_or(&value);
    if path.is_empty() || path.contains("%{") || path.starts_with("MEMORY:") {
        return Ok(());
    }
    if let Err(error) = regular_file::open(&server.replica.places.path.join(path)) {
        verdicts.report(format!(
            "`{NAME}` is `{}` ({}), which cannot be read ({error}): PostgreSQL starts, and logins with GSSAPI fail",
            shown(value.as_bytes()),
            server.place(NAME)
        ));
    }
    Ok(())
}

/// The lists of libraries that a server loads, and whether it loads them at its start. If not, every session loads them, and ends if a
/// library cannot be loaded.
const LIBRARIES_OF: [(&str, bool); 3] = [
    ("shared_preload_libraries", true),
    ("session_preload_libraries", false),
    ("local_preload_libraries", false),
];

/// Checks that the libraries that the server loads are installed.
fn libraries(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    for (setting, at_start) in LIBRARIES_OF {
        let listed = server.setting(setting)?;
        if !listed.trim().is_empty() {
            libraries_of(server, setting, at_start, &listed, verdicts)?;
        }
    }
    Ok(())
}

fn libraries_of(
    server: &Server<'_>,
    setting: &str,
    at_start: bool,
    listed: &str,
    verdicts: &mut Verdicts<'_>,
) -> Result<(), Problem> {
    let Some(names) = lists::paths(listed) else {
        verdicts.report(format!(
            "`{setting}` is `{}` ({}), which is not a list that PostgreSQL can read: it starts, and loads none of these libraries",
            shown(listed.as_bytes()),
            server.place(setting)
        ));
        return Ok(());
    };
    let bin_dir = &server.replica.bin_dir;
    let own =
        LIBRARIES.iter().map(|below| bin_dir.join(below)).find(|path| path.join(ALWAYS_THERE).is_file());
    let Some(own) = own else {
        verdicts.report(format!(
            "`{setting}` names `{}`; whether they are installed was not checked, because the libraries of {} were not found",
            shown(listed.as_bytes()),
            bin_dir.display()
        ));
        return Ok(());
    };
    let search = server.setting("dynamic_library_path")?;
    for name in names {
        // `load_libraries` in `miscinit.c`.
        let looked_for = match setting {
            "local_preload_libraries" if !name.contains('/') => format!("$libdir/plugins/{name}"),
            _ => name.clone(),
        };
        let candidates = candidates(&looked_for, &search, &own);
        if candidates.iter().any(|path| server.replica.is_restored_later(path)) {
            continue;
        }
        // The server loads the first file that exists.
        let fault = match candidates.iter().find(|path| path.is_file()) {
            None => format!("which is not installed here ({})", own.display()),
            Some(path) => match library_fault(path, &own.join(ALWAYS_THERE)) {
                None => continue,
                Some(fault) => fault,
            },
        };
        let faulty = format!("`{setting}` names `{}`, {fault}", shown(name.as_bytes()));
        match at_start {
            true => verdicts
                .missing(format!("{faulty}: PostgreSQL does not start without it; install its package"))?,
            false => verdicts.report(format!(
                "{faulty}: PostgreSQL starts and follows, and every session ends as soon as it begins; install its package"
            )),
        }
    }
    Ok(())
}

/// Returns why a library cannot be loaded; `None` if it can. The library must be an ELF file of the same kind as `model`, which is a
/// library of the same PostgreSQL.
fn library_fault(path: &Path, model: &Path) -> Option<String> {
    // The class and the byte order are in the first six bytes, the type and the machine in bytes 16 to 19 (elf(5)).
    let kind = |header: &[u8]| Some([header.get(..6)?, header.get(16..20)?].concat());
    let header = |path: &Path| regular_file::beginning(path, 20);
    let (library, model) = match (header(path), header(model)) {
        (Err(error), _) => return Some(format!("which cannot be read ({error})")),
        (Ok(library), model) => (library, model.ok().and_then(|model| kind(&model))),
    };
    if !library.starts_with(b"\x7fELF") {
        return Some(format!("and {} is not a shared library", path.display()));
    }
    (model.is_some() && kind(&library) != model)
        .then(|| format!("and {} is not a shared library for this machine", path.display()))
}

/// Returns the paths at which the server looks for a library (`expand_dynamic_library_name` in `dfmgr.c`): with the given name, and with
/// `.so` appended. `own` is the directory of PostgreSQL's libraries.
fn candidates(name: &str, search: &str, own: &Path) -> Vec<PathBuf> {
    let expanded = |path: &str| match path.strip_prefix("$libdir") {
        Some(rest) => PathBuf::from(format!("{}{rest}", own.display())),
        None => PathBuf::from(path),
    };
    let places: Vec<PathBuf> = match name.contains('/') {
        true => vec![expanded(name)],
        false => search.split(':').map(|place| expanded(place.trim()).join(name)).collect(),
    };
    let with_suffix = |path: PathBuf| {
        let mut suffixed = path.clone().into_os_string();
        suffixed.push(".so");
        [path, suffixed.into()]
    };
    places.into_iter().flat_map(with_suffix).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_looked_for_where_the_server_looks() {
        let own = Path::new("/own");
        let found = |name, search| -> Vec<String> {
            candidates(name, search, own).iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(found("x", "$libdir"), ["/own/x", "/own/x.so"]);
        assert_eq!(found("x", "/a:$libdir/b"), ["/a/x", "/a/x.so", "/own/b/x", "/own/b/x.so"]);
        assert_eq!(found("$libdir/plugins/x", "/a"), ["/own/plugins/x", "/own/plugins/x.so"]);
        assert_eq!(found("/a/x.so", "$libdir"), ["/a/x.so", "/a/x.so.so"]);
    }
}
