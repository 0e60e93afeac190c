//! Runs the real method `basebackup` with stubs for PostgreSQL's programs. The stub for `pg_basebackup` does what the test case says.
//!
//! The stub for `pg_basebackup` runs under its guard, restricted by Landlock, and can write only to the data directory. It reads its
//! instructions from a file in its own directory. It prints what it finds, and the test receives this output as events.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use replica::basebackup::{Basebackup, BasebackupOptions};
use replica::process::GuardExecutable;
use tests::cluster::minimal_cluster;

use crate::case::{Ending, Try};
use crate::trace::Files;

/// The stub of `postgres`, which Patroni and Understudy run thousands of times. It prints a version and default values of settings.
const POSTGRES: &str = r#"#!/bin/sh
case "$1 $2" in
'-C data_directory') echo "$4" ;;
'-C hba_file') echo "$4/pg_hba.conf" ;;
'-C ident_file') echo "$4/pg_ident.conf" ;;
'-C max_connections') echo 100 ;;
'-C max_worker_processes') echo 8 ;;
'-C max_wal_senders') echo 10 ;;
'-C max_prepared_transactions') echo 0 ;;
'-C max_locks_per_transaction') echo 64 ;;
'-C superuser_reserved_connections') echo 3 ;;
'-C min_wal_size') echo 80 ;;
'-C max_wal_size') echo 1024 ;;
'-C min_dynamic_shared_memory') echo 0 ;;
'-C shared_memory_size') echo 143 ;;
'-C port') echo 5432 ;;
'-C block_size') echo 8192 ;;
'-C '*_buffers | '-C '*_memory | '-C '*_delay | '-C '*_connections | '-C '*_slots) echo 0 ;;
'-C shared_buffers') echo 16384 ;;
'-C huge_page_size' | '-C recovery_min_apply_delay') echo 0 ;;
'-C wal_level') echo replica ;;
'-C archive_mode' | '-C ssl') echo off ;;
'-C dynamic_library_path') echo '$libdir' ;;
'-C '*) echo ;;
*) echo 'postgres (PostgreSQL) 15.18' ;;
esac
"#;

/// The stub of `pg_basebackup`. The first argument is `--version`, `--pgdata`, or an argument with which the options are checked.
const PG_BASEBACKUP: &str = r#"#!/bin/sh
here=$(dirname "$0")
case "$1" in
--version) echo "pg_basebackup (PostgreSQL) 15.18"; exit 0 ;;
--pgdata=*) cd "${1#--pgdata=}" || exit 99 ;;
*) echo "pg_basebackup: error: too many command-line arguments" >&2; exit 1 ;;
esac
look() {
    echo "oracle $1$(for path in base/* global/pg_control; do [ -e "$path" ] && printf ' %s' "$path"; done)"
}
. "$here/script"
for argument; do echo "oracle argument $argument"; done
look found
[ "$ends" = 0 ] && cp -R "$here/cluster/." .
for path in $leaves; do
    mkdir -p "${path%/*}"
    [ -e "$path" ] || echo scripted > "$path"
done
look left
if [ -n "$cancel" ]; then
    echo "oracle cancel"
    exec sleep 30
fi
exit "$ends"
"#;

/// The arguments that this project adds to Patroni's arguments for `pg_basebackup`.
pub(crate) const ADDED_ARGUMENTS: [&str; 2] = ["--no-password", "--progress"];

/// A directory with stubs of PostgreSQL's programs.
#[derive(Clone, Debug)]
pub(crate) struct StubPrograms {
    bin_dir: PathBuf,
}

/// A line of the stub's output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StubOutput {
    /// The stub received this argument.
    Argument(String),
    /// The stub started and found these files.
    Found(Files),
    /// The stub has finished, and leaves these files.
    Left(Files),
    /// The run must be cancelled while the stub runs.
    Cancel,
}

impl StubPrograms {
    /// Creates the stubs in `bin_dir`, with the cluster that a successful `pg_basebackup` copies.
    pub(crate) fn new(bin_dir: PathBuf, system_identifier: u64) -> Self {
        fs::create_dir(&bin_dir).unwrap();
        for (name, text) in [("postgres", POSTGRES), ("pg_basebackup", PG_BASEBACKUP)] {
            let path = bin_dir.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        minimal_cluster(system_identifier).write_complete(&bin_dir.join("cluster")).unwrap();
        Self { bin_dir }
    }

    /// Returns the directory of the stubs.
    pub(crate) fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// Sets what `pg_basebackup` does when it is run next.
    pub(crate) fn set_next(&self, script: &Try) {
        let ends = match script.ends {
            Ending::Code(code @ 0..=255) => code,
            Ending::Code(_) | Ending::NotStarted | Ending::Exception => 1,
        };
        let cancel = if script.cancel { "yes" } else { "" };
        let text = format!("ends={ends}\nleaves='{}'\ncancel={cancel}\n", script.leaves.join(" "));
        fs::write(self.bin_dir.join("script"), text).unwrap();
    }

    /// Returns the method `basebackup` with almost no pause between its tries.
    pub(crate) fn basebackup(&self) -> Basebackup {
        let guard = GuardExecutable::at(env!("CARGO_BIN_EXE_guard"));
        Basebackup::new(BasebackupOptions::default(), guard).pause(Duration::from_millis(1))
    }
}

impl StubOutput {
    /// Parses a line of the stub's output.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let line = line.strip_prefix("oracle ")?;
        if let Some(argument) = line.strip_prefix("argument ") {
            return Some(Self::Argument(argument.to_owned()));
        }
        let mut words = line.split_ascii_whitespace();
        let word = words.next()?;
        let files = words.map(str::to_owned).collect();
        match word {
            "found" => Some(Self::Found(files)),
            "left" => Some(Self::Left(files)),
            "cancel" => Some(Self::Cancel),
            _ => None,
        }
    }
}
