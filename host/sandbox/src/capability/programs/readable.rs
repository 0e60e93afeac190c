//! What every confined program may read: what belongs to the system's packages and holds no secret.

use std::path::{Path, PathBuf};

/// Libraries, the modules of interpreters, time zones, locales, certificates, and the names of users. Programs read the user database to
/// learn the name and the home directory of their user.
const SYSTEM: &[&str] = &[
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share",
    "/usr/local/share/ca-certificates",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/crypto-policies",
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/dev/zero",
    "/dev/urandom",
    "/dev/random",
];

/// What the C library reads to resolve a name.
const NETWORK: &[&str] =
    &["/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/services", "/etc/protocols", "/etc/gai.conf"];

/// Returns those that exist. `network`: whether the program may connect.
pub(super) fn files(network: bool) -> Vec<PathBuf> {
    let of_network = if network { NETWORK } else { &[] };
    SYSTEM.iter().chain(of_network).map(PathBuf::from).filter(|path: &PathBuf| Path::exists(path)).collect()
}
