//! What `postgres -C` does not look at, and a server that starts refuses: settings that exclude each other (`PostmasterMain` in
//! `postmaster.c`), libraries that are not installed (`process_shared_preload_libraries`), and the files of TLS (`be_tls_init`).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use postgres_formats::control_file::ControlFile;

use super::super::problem::{Problem, shown};
use super::ask::Server;
use super::{ConfigurationFile, Verdicts};

/// A library that every PostgreSQL brings: where it is, the others are.
const ALWAYS_THERE: &str = "libpqwalreceiver.so";

/// Where PostgreSQL's libraries are, seen from its programs: as it is built, on Debian and Red Hat, and as others move it.
const LIBRARIES: [&str; 4] = ["../lib", "../lib/postgresql", "../lib64/postgresql", "../lib64"];

/// Looks at all of them.
pub(super) fn check(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    below_the_primary(server, verdicts)?;
    connections(server, verdicts)?;
    log_level(server, verdicts)?;
    libraries(server, verdicts)?;
    tls(server, verdicts)
}

/// Where the configuration is elsewhere, nothing before this could compare it with what pg_control says of the primary.
fn below_the_primary(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    let ConfigurationFile::At(file) = &server.file else { return Ok(()) };
    let Ok(control) = ControlFile::parse(server.replica.control_file) else { return Ok(()) };
    let required = &control.required;
    for (name, primary) in [
        ("max_connections", required.max_connections),
        ("max_worker_processes", required.max_worker_processes),
        ("max_wal_senders", required.max_wal_senders),
        ("max_prepared_transactions", required.max_prepared_transactions),
        ("max_locks_per_transaction", required.max_locks_per_transaction),
    ] {
        let configured = server.number(name)?;
        if configured < i64::from(primary) {
            verdicts.missing(format!(
                "`{name}` is {configured} by `{}`, but was {primary} on the primary when the backup was taken: a hot standby needs at \
                 least as many",
                file.display()
            ))?;
        }
    }
    Ok(())
}

/// Some connections must be left for others than the superusers.
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
            "{names} come to {reserved}, and `max_connections` is {most}: PostgreSQL does not start where none is left"
        ))?;
    }
    Ok(())
}

/// With the least log nothing can be archived or sent.
fn log_level(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
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
        "`wal_level` is `minimal`, and {} {} on: PostgreSQL does not start so",
        conflicts.join(" and "),
        if conflicts.len() == 1 { "is" } else { "are" }
    ))
}

/// Libraries that the server loads when it starts are installed.
fn libraries(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    let listed = server.setting("shared_preload_libraries")?;
    if listed.trim().is_empty() {
        return Ok(());
    }
    let bin_dir = &server.replica.bin_dir;
    let own =
        LIBRARIES.iter().map(|below| bin_dir.join(below)).find(|path| path.join(ALWAYS_THERE).is_file());
    let Some(own) = own else {
        verdicts.told(format!(
            "`shared_preload_libraries` names `{}`; whether they are installed was not checked, for the libraries of {} were not found",
            shown(listed.as_bytes()),
            bin_dir.display()
        ));
        return Ok(());
    };
    let search = server.setting("dynamic_library_path")?;
    for name in elements(&listed) {
        if !candidates(&name, &search, &own).iter().any(|path| path.is_file()) {
            verdicts.missing(format!(
                "`shared_preload_libraries` names `{}`, which is not installed here ({}): PostgreSQL does not start without it; \
                 install its package",
                shown(name.as_bytes()),
                own.display()
            ))?;
        }
    }
    Ok(())
}

/// The elements of a list of file names as `SplitDirectoriesString` takes them apart.
fn elements(list: &str) -> Vec<String> {
    let mut elements = Vec::new();
    let mut characters = list.chars().peekable();
    loop {
        while characters.next_if(|c| c.is_ascii_whitespace()).is_some() {}
        let mut element = String::new();
        if characters.next_if_eq(&'"').is_some() {
            while let Some(c) = characters.next() {
                if c == '"' && characters.next_if_eq(&'"').is_none() {
                    break;
                }
                element.push(c);
            }
        }
        while let Some(c) = characters.next_if(|c| *c != ',') {
            element.push(c);
        }
        let element = element.trim_end().to_owned();
        if !element.is_empty() {
            elements.push(element);
        }
        if characters.next().is_none() {
            return elements;
        }
    }
}

/// Where the server looks for a library (`expand_dynamic_library_name` in `dfmgr.c`): as it is called, and with `.so`.
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

/// The files of TLS are there, and others cannot read the key (`check_ssl_key_file_permissions` in `be-secure-common.c`).
fn tls(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    if server.setting("ssl")? != "on" {
        return Ok(());
    }
    for name in ["ssl_cert_file", "ssl_key_file", "ssl_ca_file", "ssl_crl_file", "ssl_dh_params_file"] {
        let value = server.setting(name)?;
        // Whatever may be left out is left out where it is empty.
        if value.is_empty() && !matches!(name, "ssl_cert_file" | "ssl_key_file") {
            continue;
        }
        let path = server.replica.places.path.join(&value);
        let fault = match fs::metadata(&path) {
            Err(error) => Some(format!("which cannot be looked at ({error})")),
            Ok(metadata) if name == "ssl_key_file" => key_fault(&metadata),
            Ok(metadata) if !metadata.is_file() => Some("which is no file".to_owned()),
            Ok(_) => fs::File::open(&path).err().map(|error| format!("which cannot be read ({error})")),
        };
        if let Some(fault) = fault {
            verdicts.missing(format!(
                "`ssl` is on, and `{name}` is `{}`, {fault}: PostgreSQL does not start so",
                shown(value.as_bytes())
            ))?;
        }
    }
    Ok(())
}

fn key_fault(metadata: &fs::Metadata) -> Option<String> {
    let (owner, mode) = (metadata.uid(), metadata.mode());
    let server = rustix::process::geteuid().as_raw();
    if !metadata.is_file() {
        return Some("which is no file".to_owned());
    }
    if owner != server && owner != 0 {
        return Some(format!("which belongs to user {owner}, neither the server's {server} nor root"));
    }
    let others = if owner == server { 0o077 } else { 0o037 };
    (mode & others != 0).then(|| format!("which others may read: its mode is {:04o}", mode & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_taken_apart_as_the_server_does() {
        for (list, expected) in [
            ("a", vec!["a"]),
            ("a, b ,c", vec!["a", "b", "c"]),
            (" \"a, b\" , c", vec!["a, b", "c"]),
            ("\"a\"\"b\"", vec!["a\"b"]),
            ("", vec![]),
        ] {
            assert_eq!(elements(list), expected, "{list}");
        }
    }

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
