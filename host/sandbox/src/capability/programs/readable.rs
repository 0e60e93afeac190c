//! The files that every confined program may read: files of the system's packages that contain no secrets.

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

/// The files that the C library reads to resolve a host name.
const NETWORK: &[&str] =
    &["/etc/resolv.conf", "/etc/hosts", "/etc/host.conf", "/etc/services", "/etc/protocols", "/etc/gai.conf"];

/// The directories of the system's programs.
const PROGRAMS: &[&str] = &["/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// Returns every path of the system that a program may execute or read without a grant, whether the path exists or not.
pub(super) fn of_the_system() -> impl Iterator<Item = PathBuf> {
    SYSTEM.iter().chain(NETWORK).chain(PROGRAMS).map(PathBuf::from)
}

/// Returns the paths of [`SYSTEM`] that exist and, if the program may connect to servers (`network`), those of [`NETWORK`].
pub(super) fn files(network: bool) -> Vec<PathBuf> {
    let of_network = if network { NETWORK } else { &[] };
    SYSTEM.iter().chain(of_network).map(PathBuf::from).filter(|path: &PathBuf| Path::exists(path)).collect()
}
