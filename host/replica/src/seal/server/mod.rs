//! Whether PostgreSQL would start. Its own programs are asked, because nothing here reads its configuration as well as they do.
//!
//! `postgres -C` reads the whole configuration as a server does that starts, and ends before it looks at the data. Who may
//! connect (`pg_hba.conf`) it does not read; a server that starts in a scratch directory does, and ends there because it finds no
//! write-ahead log. Neither runs, loads or writes anything that the restored configuration names. What the server does itself before it
//! reads the data, and what neither shows, is judged here as the server does it: where it listens (`listen`), what it writes (`writes`),
//! what it wants of the machine (`machine`).

mod access;
mod ask;
mod complaints;
mod listen;
mod lists;
mod machine;
mod needs;
mod tls;
mod writes;

use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use self::ask::Server;
use super::EndState;
use super::configuration::Configuration;
use super::places::Places;
use super::problem::{Findings, Problem, shown};

use crate::Rule;

/// The check of everything that the server's own reader refuses.
pub(super) const CHECK: Rule = Rule::Start;

/// What is known of the replica by now.
pub(super) struct Replica<'a> {
    pub(super) places: &'a Places<'a>,
    pub(super) bin_dir: &'a Path,
    pub(super) major: u32,
    /// As it is now, after what the host writes.
    pub(super) configuration: &'a Configuration,
    /// The bytes of `global/pg_control`.
    pub(super) control_file: &'a [u8],
    pub(super) end: &'a EndState,
    pub(super) cancel: &'a CancellationToken,
}

/// Asks the server whether it would start; gives the slot of the source through which it will follow, if its configuration names one.
///
/// # Errors
/// What it refuses, with file and line where it tells them. What somebody else may still bring, such as a file that Patroni
/// writes, is an error only where this program finishes the data directory itself, with `configure_standby`; else it is told.
pub(super) fn check(replica: &Replica<'_>, findings: &mut Findings) -> Result<Option<String>, Problem> {
    let mut verdicts = Verdicts { findings, finishes: replica.end.configure_standby.is_some() };
    let file = configuration_file(replica, &mut verdicts)?;
    let server = Server { replica, file };
    let runs = server.setting("data_directory")?;
    if !super::places::is_at(Path::new(&runs), &replica.places.path) {
        // A file that is read nowhere else, outside the data directory, may set it.
        let message = format!(
            "the server would run `{}` (`data_directory`), which was not checked, and not this directory; remove that setting from \
             the file that sets it",
            shown(runs.as_bytes())
        );
        return Err(Problem::new(CHECK, message));
    }
    let hba_file = PathBuf::from(server.setting("hba_file")?);
    let ident_file = PathBuf::from(server.setting("ident_file")?);
    needs::check(&server, &mut verdicts)?;
    listen::check(&server, &mut verdicts)?;
    writes::check(&server, &mut verdicts)?;
    machine::check(&server, &mut verdicts)?;
    let trial = access::Trial::of(&server, tls::check(&server, &mut verdicts)?)?;
    access::check(&server, &hba_file, &ident_file, &trial, &mut verdicts)?;
    let slot = server.setting("primary_slot_name")?;
    Ok((!slot.is_empty()).then_some(slot))
}

/// Where what is missing is told.
struct Verdicts<'a> {
    findings: &'a mut Findings,
    /// Whether nobody adds anything to the data directory before the server starts.
    finishes: bool,
}

impl Verdicts<'_> {
    /// Something without which the server does not start, and that somebody may still bring.
    fn missing(&mut self, message: String) -> Result<(), Problem> {
        if self.finishes {
            return Err(Problem::new(CHECK, message));
        }
        self.findings.add(CHECK, message);
        Ok(())
    }

    fn told(&mut self, message: impl Into<String>) {
        self.findings.add(CHECK, message);
    }

    /// As [`Verdicts::missing`], of a setting that Patroni gives the server when it starts it. What a backup of Patroni's says of it is the
    /// primary's, in every run.
    fn missing_unless_patroni_sets_it(&mut self, message: String) -> Result<(), Problem> {
        if self.finishes {
            return Err(Problem::new(CHECK, message));
        }
        self.told_unless_patroni_sets_it(message);
        Ok(())
    }

    fn told_unless_patroni_sets_it(&mut self, message: String) {
        if self.finishes {
            self.findings.add(CHECK, message);
        } else {
            self.findings
                .done(CHECK, format!("{message}. Patroni, if it starts PostgreSQL here, sets this itself"));
        }
    }
}

/// Where the server's configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ConfigurationFile {
    /// `postgresql.conf` in the data directory.
    Inside,
    /// Elsewhere.
    At(PathBuf),
    /// Nobody knows: only `postgresql.auto.conf` can be read.
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
            "there is no `postgresql.conf` in the data directory, and none of `/etc/postgresql/{major}/*/` is of it: \
             PostgreSQL does not start without one. Where it is elsewhere, say so with `[replica] config_file = \"<its path>\"`; \
             where the original's is a link, the backup lacks it: put a file there"
        ))?;
    }
    Ok(ConfigurationFile::Unknown)
}

#[cfg(test)]
mod tests;
