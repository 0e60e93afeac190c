//! Reads settings with `postgres -C`, which reads every configuration file as a starting server does, or reports what is wrong with them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postgres_formats::names::POSTGRESQL_AUTO_CONF;

use super::super::configuration::{AUTO, Entry};
use super::super::problem::{Problem, shown, shown_within};
use super::{CHECK, ConfigurationFile, Replica};
use crate::process::{BoundedProgram, BoundedProgramError};

/// How long `postgres -C` may take. It usually takes about 20 ms, but the machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The most characters of the messages of `postgres` that are reported.
const SHOWN: usize = 2000;

/// The most Debian clusters of one major version that are checked.
const MOST_CLUSTERS: usize = 32;

/// The levels at the beginning of a server's messages; the message follows two spaces.
const LEVELS: [&str; 4] = ["LOG:", "FATAL:", "ERROR:", "PANIC:"];

/// The server of the replica, whose settings can be read.
#[derive(Clone)]
pub(super) struct Server<'a> {
    pub(super) replica: &'a Replica<'a>,
    pub(super) file: ConfigurationFile,
}

impl Server<'_> {
    /// Returns the value of a setting. The server must know the value before it reads the data, which excludes computed settings.
    pub(super) fn setting(&self, name: &str) -> Result<String, Problem> {
        let mut arguments: Vec<OsString> = vec!["-C".into(), name.into(), "-D".into()];
        arguments.push(self.replica.places.path.clone().into());
        if self.replica.to_fill.is_some() {
            // The old cluster's postgresql.auto.conf is not read in a check before the restore.
            let mut setting = OsString::from("data_directory=");
            setting.push(&self.replica.places.path);
            arguments.extend(["-c".into(), setting]);
        }
        if self.file != ConfigurationFile::Inside {
            arguments.extend(["-c".into(), self.file_argument()]);
        }
        run(self.replica, arguments)?.map_err(|said| self.refused(&said))
    }

    /// Returns the setting of `config_file` with which the server reads the same configuration in any data directory.
    pub(super) fn file_argument(&self) -> OsString {
        match &self.file {
            ConfigurationFile::Inside => config_file(&self.replica.places.path.join("postgresql.conf")),
            ConfigurationFile::At(file) => config_file(file),
            ConfigurationFile::Unknown => config_file(Path::new("/dev/null")),
        }
    }

    /// Returns the value of a numeric setting, such as `max_connections`.
    pub(super) fn number(&self, name: &str) -> Result<i64, Problem> {
        let text = self.setting(name)?;
        text.parse().map_err(|_| {
            Problem::new(
                CHECK,
                format!("`{name}` is `{}`, which is not a whole number", shown(text.as_bytes())),
            )
        })
    }

    /// Returns the entry in the data directory that sets a setting; `None` if it is set elsewhere or nowhere.
    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        let entry = self.replica.configuration.effective(name)?;
        // With a configuration file elsewhere the server reads only postgresql.auto.conf in the data directory.
        (self.file == ConfigurationFile::Inside || entry.file == AUTO).then_some(entry)
    }

    /// Returns where a setting is set, for a message.
    pub(super) fn place(&self, name: &str) -> String {
        match (self.entry(name), &self.file) {
            (Some(entry), _) => entry.place(),
            (None, ConfigurationFile::At(file)) => format!("by `{}`", file.display()),
            (None, ConfigurationFile::Inside | ConfigurationFile::Unknown) => {
                "not set in the data directory".to_owned()
            }
        }
    }

    /// Returns where a setting can be corrected, for a message.
    pub(super) fn remedy(&self, name: &str) -> String {
        match (self.entry(name), &self.file) {
            (None, ConfigurationFile::At(file)) => format!("in {}", file.display()),
            _ => "on the server that is backed up, or in a configuration file of this machine that `[replica] config_file` names".to_owned(),
        }
    }

    fn refused(&self, said: &str) -> Problem {
        let mut words: Vec<String> = said.lines().filter_map(message_of).map(without_token).collect();
        for word in &mut words {
            if let Some(place) = self.place_of_its_setting(word) {
                word.push_str(&format!(" ({place})"));
            }
        }
        let words = match words.is_empty() {
            true => shown_within(said.trim().as_bytes(), SHOWN),
            false => shown_within(words.join("; ").as_bytes(), SHOWN),
        };
        // Only postgresql.auto.conf is restored if the configuration file is elsewhere.
        let remedy = match &self.file {
            ConfigurationFile::At(file) if !words.contains(POSTGRESQL_AUTO_CONF) => {
                format!("in {}", file.display())
            }
            _ => "on the server that is backed up".to_owned(),
        };
        let message = format!(
            "PostgreSQL would not start from this configuration: {words}. Correct it {remedy}, or add the file that is missing"
        );
        Problem::new(CHECK, message)
    }

    /// Returns the place of the setting that the server's message is about; `None` if the message itself names the place, or no setting.
    fn place_of_its_setting(&self, words: &str) -> Option<String> {
        if words.contains(" line ") {
            return None;
        }
        let name = words.split_once("parameter \"")?.1.split_once('"')?.0.to_lowercase();
        self.replica.configuration.effective(&name).map(|entry| entry.place())
    }
}

fn config_file(path: &Path) -> OsString {
    let mut argument = OsString::from("config_file=");
    argument.push(path);
    argument
}

/// Runs `postgres`. Returns its output, or its error output if it failed.
fn run(replica: &Replica<'_>, arguments: Vec<OsString>) -> Result<Result<String, String>, Problem> {
    run_in(replica, arguments, None)
}

/// Runs `postgres` as [`run`] does, with a directory below which it may write.
pub(super) fn run_in(
    replica: &Replica<'_>,
    arguments: Vec<OsString>,
    writable: Option<&Path>,
) -> Result<Result<String, String>, Problem> {
    let program = replica.bin_dir.join("postgres");
    let program_run =
        BoundedProgram { program: &program, arguments, writable, timeout: TIMEOUT, cancel: replica.cancel };
    let said = program_run.run().map_err(problem_of)?;
    Ok(match said.status.success() {
        true => Ok(String::from_utf8_lossy(&said.output).trim_end_matches('\n').to_owned()),
        false if said.error.trim_ascii().is_empty() => Err(format!("FATAL: it ended with {}", said.status)),
        false => Err(String::from_utf8_lossy(&said.error).into_owned()),
    })
}

pub(super) fn problem_of(error: BoundedProgramError) -> Problem {
    match error {
        BoundedProgramError::Cancelled => Problem::cancelled(),
        BoundedProgramError::TooLong { .. } => {
            let message = format!(
                "the configuration cannot be read to its end: {error}; check whether it includes a file without an end"
            );
            Problem::new(CHECK, message)
        }
        BoundedProgramError::NotRun { .. } => {
            Problem::new(CHECK, format!("cannot check whether the server would start: {error}"))
        }
    }
}

/// Returns the message in a line of the server's log, after its prefix such as `2026-11-27 02:06:11.324 GMT [5498] LOG:  `; `None` for a
/// line that continues another message.
pub(super) fn message_of(line: &str) -> Option<&str> {
    let (_, words) =
        LEVELS.iter().filter_map(|level| line.split_once(level)).min_by_key(|(before, _)| before.len())?;
    Some(words.trim())
}

/// Removes from the message of a syntax error the text that it quotes from the file: the text may be part of a password, or the file may
/// not be a configuration file.
fn without_token(words: &str) -> String {
    words.split_once(", near token").map_or(words, |(words, _)| words).to_owned()
}

/// Returns the data directory that a configuration file outside the data directory sets; the scratch directory if it sets none. `None`
/// if the server refuses the file, which `Server::setting` reports.
pub(super) fn own_data_directory(server: &Server<'_>) -> Result<Option<String>, Problem> {
    let ConfigurationFile::At(file) = &server.file else { return Ok(None) };
    let replica = server.replica;
    let mut arguments: Vec<OsString> = vec!["-C".into(), "data_directory".into(), "-D".into()];
    arguments.extend([replica.places.path.clone().into(), "-c".into(), config_file(file)]);
    Ok(run(replica, arguments)?.ok())
}

/// Returns Debian's configuration file for this cluster: the `/etc/postgresql/<major>/<name>/postgresql.conf` that sets `data_directory` to
/// the replica's data directory. `None` if there is none.
pub(super) fn debians_file(replica: &Replica<'_>) -> Result<Option<PathBuf>, Problem> {
    find_below(replica, &PathBuf::from("/etc/postgresql").join(replica.major.to_string()))
}

fn find_below(replica: &Replica<'_>, clusters: &Path) -> Result<Option<PathBuf>, Problem> {
    let Ok(entries) = fs::read_dir(clusters) else { return Ok(None) };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .take(MOST_CLUSTERS)
        .map(|entry| entry.path().join("postgresql.conf"))
        .filter(|file| file.is_file())
        .collect();
    files.sort();
    for file in files {
        let arguments = vec!["-C".into(), "data_directory".into(), "-c".into(), config_file(&file)];
        // A file that cannot be read belongs to another cluster.
        let Ok(data_directory) = run(replica, arguments)? else { continue };
        if super::super::places::is_at(Path::new(&data_directory), &replica.places.path) {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

#[cfg(test)]
pub(super) fn find_below_for_tests(
    replica: &Replica<'_>,
    clusters: &Path,
) -> Result<Option<PathBuf>, Problem> {
    find_below(replica, clusters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_message_of_a_line_is_reported_and_never_a_part_of_a_file() {
        for (line, words) in [
            ("2026-11-27 02:06:11.324 GMT [5498] LOG:  a FATAL: b", Some("a FATAL: b")),
            (
                "FATAL:  configuration file \"x\" contains errors",
                Some("configuration file \"x\" contains errors"),
            ),
            ("DETAIL:  more", None),
            ("", None),
        ] {
            assert_eq!(message_of(line), words, "{line}");
        }
        assert_eq!(
            without_token("syntax error in file \"/x\" line 3, near token \"hunter2\""),
            "syntax error in file \"/x\" line 3"
        );
    }
}
