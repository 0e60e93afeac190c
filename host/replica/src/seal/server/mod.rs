//! Checks whether PostgreSQL would start, with PostgreSQL's own programs, because they read the configuration best.
//!
//! `postgres -C` reads the whole configuration as a starting server does, and ends before it reads the data. It does not read
//! `pg_hba.conf`. A server that starts in a scratch directory reads that file too, and ends because it finds no write-ahead log. Neither
//! program runs, loads or writes anything that the restored configuration names. Other modules check what else a server does at its
//! start: where it listens (`listen`), what it writes (`writes`), what it needs of the machine (`machine`).

mod access;
mod ask;
mod complaints;
mod listen;
mod lists;
mod machine;
mod needs;
mod own_file;
mod shared_memory;
mod slots;
mod standby;
mod tls;
mod writes;

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use self::ask::Server;
use super::EndState;
use super::configuration::Configuration;
use super::places::Places;
use super::problem::{Findings, Problem, shown};

pub(super) use self::own_file::{FutureReplica, check as check_own_file, reads};
use crate::{Directories, Rule};

/// The rule that all these checks report.
pub(super) const CHECK: Rule = Rule::Start;

/// What the checks need to know about the replica.
pub(super) struct Replica<'a> {
    pub(super) places: &'a Places<'a>,
    pub(super) bin_dir: &'a Path,
    pub(super) major: u32,
    /// The configuration with the host's changes.
    pub(super) configuration: &'a Configuration,
    /// The bytes of `global/pg_control`.
    pub(super) control_file: &'a [u8],
    pub(super) end: &'a EndState,
    /// The slot of the source by which the method received WAL; `None` if it used none.
    pub(super) slot: Option<&'a str>,
    /// The directories that are still to be filled, in a check before anything is restored; `None` in the seal.
    pub(super) to_fill: Option<&'a Directories>,
    pub(super) cancel: &'a CancellationToken,
}

/// Checks whether the server would start. In `postgresql.auto.conf`, overrides settings of files outside the data directory that would keep
/// the server from following its primary. Returns the slot of the source through which the server will follow; `None` if its configuration
/// names none.
///
/// # Errors
/// Fails with what the server refuses, with file and line if it reports them. Something that may still be added before the start, such as a
/// file that Patroni writes, is an error only with `configure_standby`, with which this program completes the data directory itself;
/// otherwise it is a finding.
pub(super) fn check(replica: &Replica<'_>, findings: &mut Findings) -> Result<Option<String>, Problem> {
    let mut verdicts = Verdicts { findings, completes_directory: replica.end.configure_standby.is_some() };
    let file = configuration_file(replica, &mut verdicts)?;
    let server = Server { replica, file };
    let runs = server.setting("data_directory")?;
    if !super::places::is_at(Path::new(&runs), &replica.places.path) {
        // A file outside the data directory, which no other check reads, may set it.
        return Err(another_directory(&runs));
    }
    standby::check(&server, &mut verdicts)?;
    let hba_file = PathBuf::from(server.setting("hba_file")?);
    let ident_file = PathBuf::from(server.setting("ident_file")?);
    needs::check(&server, &mut verdicts)?;
    slots::check(&server, &mut verdicts)?;
    listen::check(&server, &mut verdicts)?;
    writes::check(&server, &mut verdicts)?;
    machine::check(&server, &mut verdicts)?;
    let trial = access::Trial::of(&server, tls::check(&server, &mut verdicts)?)?;
    access::check(&server, &hba_file, &ident_file, &trial, &mut verdicts)?;
    let slot = server.setting("primary_slot_name")?;
    Ok((!slot.is_empty()).then_some(slot))
}

/// Returns the problem of a server that would run on the directory `runs`.
fn another_directory(runs: &str) -> Problem {
    let message = format!(
        "the server would run on `{}` (`data_directory`), which was not checked, and not on this directory; remove that setting from the \
         file that sets it",
        shown(runs.as_bytes())
    );
    Problem::new(CHECK, message)
}

/// Receives what the checks find.
struct Verdicts<'a> {
    findings: &'a mut Findings,
    /// Whether this program completes the data directory, so that nothing is added to it before the server starts.
    completes_directory: bool,
}

impl Verdicts<'_> {
    /// Fails with, or reports, something that the server needs for its start and that may still be added.
    fn missing(&mut self, message: String) -> Result<(), Problem> {
        if self.completes_directory {
            return Err(Problem::new(CHECK, message));
        }
        self.findings.add(CHECK, message);
        Ok(())
    }

    fn report(&mut self, message: impl Into<String>) {
        self.findings.add(CHECK, message);
    }

    /// Does the same as [`Verdicts::missing`] for a setting that Patroni passes to the server at its start. In a backup of a cluster under
    /// Patroni such a setting always has the primary's value.
    fn missing_unless_patroni_sets_it(&mut self, message: String) -> Result<(), Problem> {
        if self.completes_directory {
            return Err(Problem::new(CHECK, message));
        }
        self.report_unless_patroni_sets_it(message);
        Ok(())
    }

    fn report_unless_patroni_sets_it(&mut self, message: String) {
        if self.completes_directory {
            self.findings.add(CHECK, message);
        } else {
            self.findings.add_info(
                CHECK,
                format!("{message}. Patroni, if it starts PostgreSQL here, sets this itself"),
            );
        }
    }
}

/// The server's configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ConfigurationFile {
    /// `postgresql.conf` in the data directory.
    Inside,
    /// A file elsewhere.
    At(PathBuf),
    /// The file is not known: only `postgresql.auto.conf` can be read.
    Unknown,
}

fn configuration_file(
    replica: &Replica<'_>,
    verdicts: &mut Verdicts<'_>,
) -> Result<ConfigurationFile, Problem> {
    if let Some(file) = &replica.end.config_file {
        if file.is_file() {
            return Ok(ConfigurationFile::At(file.clone()));
        }
        verdicts.missing(format!("`config_file = {}`: there is no such file", file.display()))?;
    } else if replica.configuration.has_main {
        return Ok(ConfigurationFile::Inside);
    } else if let Some(file) = ask::debians_file(replica)? {
        return Ok(ConfigurationFile::At(file));
    } else {
        let major = replica.major;
        verdicts.missing(format!(
            "there is no `postgresql.conf` in the data directory, and none in `/etc/postgresql/{major}/*/` belongs to it: \
             PostgreSQL does not start without one. If it is elsewhere, name it with `[replica] config_file = \"<its path>\"`; \
             if the file on the original server is a link, the backup lacks it: put a file there"
        ))?;
    }
    Ok(ConfigurationFile::Unknown)
}

#[cfg(test)]
mod tests;
