//! Checks the files of TLS (`be_tls_init` in `be-secure-openssl.c`): they must exist, and others must not be able to read the key. The
//! server itself reads their content when it starts in the scratch directory.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::super::problem::{Problem, shown};
use super::Verdicts;
use super::ask::Server;
use crate::regular_file;

/// The settings that name a file of TLS, and whether the server needs the file.
const FILES: [(&str, bool); 5] = [
    ("ssl_cert_file", true),
    ("ssl_key_file", true),
    ("ssl_ca_file", false),
    ("ssl_crl_file", false),
    ("ssl_dh_params_file", false),
];

/// Other settings that decide whether the server starts with TLS, with the first and the last major version that has them.
const FURTHER_SETTINGS: [(&str, u32, u32); 7] = [
    ("ssl_ciphers", 13, 18),
    ("ssl_prefer_server_ciphers", 13, 18),
    ("ssl_min_protocol_version", 13, 18),
    ("ssl_max_protocol_version", 13, 18),
    ("ssl_ecdh_curve", 13, 17),
    ("ssl_groups", 18, 18),
    ("ssl_tls13_ciphers", 18, 18),
];

/// How many bytes of a key are read to find out whether it has a passphrase.
const LONGEST_KEY: u64 = 64 << 10;

/// Checks the files of TLS. Returns the settings with which the server reads them; none if TLS is off, if a file has failed a check, or
/// if the key has a passphrase, for which the server would run a command of the restored configuration.
pub(super) fn check(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<Vec<OsString>, Problem> {
    if server.setting("ssl")? != "on" {
        return Ok(Vec::new());
    }
    let mut settings: Vec<OsString> = vec!["ssl=on".into()];
    let mut all_usable = true;
    for (name, needed) in FILES {
        let value = server.setting(name)?;
        if value.is_empty() && !needed {
            continue;
        }
        let path = server.replica.places.path.join(&value);
        if server.replica.is_restored_later(&path) {
            all_usable = false;
            continue;
        }
        if let Some(fault) = fault(name, &path) {
            all_usable = false;
            verdicts.missing(format!(
                "`ssl` is on, and `{name}` is `{}` ({}), {fault}: PostgreSQL does not start. Put the file there, or set `{name}` or \
                 `ssl = off` {}",
                shown(value.as_bytes()),
                server.place(name),
                server.remedy(name)
            ))?;
        }
        if name == "ssl_key_file" && has_passphrase(&path) {
            all_usable = false;
            let what = format!("`{name}` is `{}`, a key with a passphrase", shown(value.as_bytes()));
            if server.setting("ssl_passphrase_command")?.is_empty() {
                verdicts.missing(format!(
                    "{what}, and `ssl_passphrase_command` is empty: PostgreSQL does not start, because it cannot ask for the passphrase. \
                     Take the passphrase out of the key, or set `ssl_passphrase_command` {}",
                    server.remedy("ssl_passphrase_command")
                ))?;
            } else {
                verdicts.report(format!("{what}: whether PostgreSQL starts with it was not checked"));
            }
        }
        settings.push(named(name, path));
    }
    if !all_usable {
        return Ok(Vec::new());
    }
    if server.replica.major >= 14 {
        let directory = server.setting("ssl_crl_dir")?;
        if !directory.is_empty() {
            settings.push(named("ssl_crl_dir", server.replica.places.path.join(directory)));
        }
    }
    for (name, first, last) in FURTHER_SETTINGS {
        if (first..=last).contains(&server.replica.major) {
            settings.push(named(name, server.setting(name)?.into()));
        }
    }
    Ok(settings)
}

fn named(name: &str, value: PathBuf) -> OsString {
    let mut setting = OsString::from(name);
    setting.push("=");
    setting.push(value);
    setting
}

fn fault(name: &str, path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Err(error) => Some(format!("which cannot be examined ({error})")),
        Ok(metadata) if !metadata.is_file() => Some("which is not a regular file".to_owned()),
        Ok(metadata) => {
            let of_key = (name == "ssl_key_file").then(|| key_fault(&metadata)).flatten();
            let unreadable = || regular_file::open(path).err();
            of_key.or_else(|| unreadable().map(|error| format!("which cannot be read ({error})")))
        }
    }
}

/// Returns why the server refuses the owner or the mode of a key (`check_ssl_key_file_permissions` in `be-secure-common.c`).
fn key_fault(metadata: &fs::Metadata) -> Option<String> {
    let (owner, mode) = (metadata.uid(), metadata.mode());
    let server = rustix::process::geteuid().as_raw();
    if owner != server && owner != 0 {
        return Some(format!(
            "which belongs to the user {owner}, and not to the server's user {server} or to root"
        ));
    }
    let others = if owner == server { 0o077 } else { 0o037 };
    (mode & others != 0).then(|| format!("which others may read: its mode is {:04o}", mode & 0o7777))
}

/// Returns whether a key is encrypted, in either of the two PEM formats.
fn has_passphrase(path: &Path) -> bool {
    let mut key = zeroize::Zeroizing::new(Vec::new());
    let read = regular_file::open(path).and_then(|file| file.take(LONGEST_KEY).read_to_end(&mut key));
    read.is_ok() && key.windows(b"ENCRYPTED".len()).any(|window| window == b"ENCRYPTED")
}
