//! Queries the source with `psql`, in replication mode because some roles may only replicate.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use postgres_formats::history;
use postgres_formats::segment::history_name;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Conninfo, Fork, PassFile, Source, SourceError, SourceFacts, transient};
use crate::{Redactor, Secret, Tablespace};

/// How long all questions together may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// How many seconds one host has to accept a connection if the connection string has no `connect_timeout`.
const CONNECT_TIMEOUT: &str = "5";

/// How many bytes of psql's output are read: a history of some ten thousand promotions, or as many tablespaces.
const OUTPUT_LIMIT: u64 = 1 << 20;

/// How many bytes of psql's error output are reported.
const MESSAGE_LIMIT: usize = 2000;

/// Lists the tablespaces except the two that lie in the data directory. Fields and rows end with NUL.
const TABLESPACES: &str = "SELECT oid, spcname, pg_catalog.pg_tablespace_location(oid) FROM pg_catalog.pg_tablespace \
                           WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid";

/// Asks for everything that a replication role may read, and for the tablespaces, which such a role may not always read.
pub(super) async fn ask(
    source: &Source,
    bin_dir: &Path,
    cancel: &CancellationToken,
) -> Result<SourceFacts, SourceError> {
    let psql = Psql::of(source, bin_dir, cancel);
    let Connections { replication, database } = Connections::to(source)?;
    let identity = psql.run(&replication, &["IDENTIFY_SYSTEM", "SHOW server_version_num"], &[]).await?;
    let mut facts = parse_identity(&identity).ok_or_else(|| {
        SourceError::permanent(
            "the source did not answer IDENTIFY_SYSTEM and SHOW server_version_num as PostgreSQL does",
        )
    })?;
    if facts.timeline > 1 {
        let question = format!("TIMELINE_HISTORY {}", facts.timeline);
        let history = psql.run(&replication, &[&question], &[]).await?;
        facts.history = parse_history(&history, facts.timeline).ok_or_else(|| {
            let timeline = facts.timeline;
            SourceError::permanent(format!(
                "the history of timeline {timeline} that the source sent cannot be read"
            ))
        })?;
    }
    let rows = psql.run(&database, &["SET search_path = pg_catalog", TABLESPACES], &["-z", "-0"]).await;
    facts.tablespaces = rows.ok().and_then(|rows| parse_tablespaces(&rows));
    Ok(facts)
}

/// Part of libpq's message if a server asks for a password and libpq has none (`PQnoPasswordSupplied` in `libpq-fe.h`).
const NO_PASSWORD: &str = "no password supplied";

/// Connects once without any password. Returns whether the server asks for one; `None` if the connection fails for another reason.
pub(super) async fn asks_password(
    source: &Source,
    bin_dir: &Path,
    cancel: &CancellationToken,
) -> Option<bool> {
    let connstring = Conninfo::parse(&source.connstring).ok()?.without("passfile").without_passwords();
    // Without PGPASSFILE libpq would read the passfile in the home directory.
    let nothing = Some(PassFile::Given(PathBuf::from("/dev/null")));
    let without = Source { connstring, passfile: nothing, ..source.clone() };
    let Connections { replication, .. } = Connections::to(&without).ok()?;
    match Psql::of(&without, bin_dir, cancel).run(&replication, &["IDENTIFY_SYSTEM"], &[]).await {
        Ok(_) => Some(false),
        Err(error) => error.message.contains(NO_PASSWORD).then_some(true),
    }
}

/// The connection strings for the source.
pub(super) struct Connections {
    /// The connection string for replication mode.
    pub(super) replication: Conninfo,
    /// The connection string for a database, to which a role that may only replicate cannot connect.
    pub(super) database: Conninfo,
}

impl Connections {
    pub(super) fn to(source: &Source) -> Result<Self, SourceError> {
        let conninfo = Conninfo::parse(&source.native_connstring())
            .map_err(|error| SourceError::permanent(error.to_string()))?;
        let conninfo = match conninfo.get("connect_timeout") {
            Some(_) => conninfo,
            None => conninfo.with("connect_timeout", CONNECT_TIMEOUT),
        };
        // pg_basebackup uses this database name too, and an operator's passfile may have it in its entry.
        let replication = conninfo.clone().with("dbname", "replication").with("replication", "true");
        let database = conninfo.get("dbname").unwrap_or("postgres").to_owned();
        Ok(Self { replication, database: conninfo.with("dbname", &database).without("replication") })
    }
}

/// A `psql` for the questions to one source.
pub(super) struct Psql<'a> {
    source: &'a Source,
    program: PathBuf,
    deadline: Instant,
    cancel: &'a CancellationToken,
}

impl<'a> Psql<'a> {
    /// Returns a `psql` that has [`DEADLINE`] for all questions together.
    pub(super) fn of(source: &'a Source, bin_dir: &Path, cancel: &'a CancellationToken) -> Self {
        Self { source, program: bin_dir.join("psql"), deadline: Instant::now() + DEADLINE, cancel }
    }

    /// Runs `commands` on one connection and returns what psql prints.
    pub(super) async fn run(
        &self,
        conninfo: &Conninfo,
        commands: &[&str],
        flags: &[&str],
    ) -> Result<Vec<u8>, SourceError> {
        let mut command = Command::new(&self.program);
        command
            .args(["-X", "-q", "-A", "-t", "-w", "-F", "|", "-v", "ON_ERROR_STOP=1", "-P", "pager=off"])
            .args(flags)
            .args(commands.iter().flat_map(|command| ["-c", command]))
            .arg("-d")
            .arg(conninfo.without_passwords())
            .env_clear()
            .env("LC_ALL", "C")
            .env("PATH", "/usr/bin:/bin")
            .envs(self.source.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| {
            let program = self.program.display();
            SourceError::permanent(format!("{program} cannot be run: {error}; is `bin_dir` right?"))
        })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let finished = async {
            let (output, message) =
                tokio::join!(bounded(stdout, OUTPUT_LIMIT), bounded(stderr, OUTPUT_LIMIT));
            Ok::<_, std::io::Error>((output?, message?, child.wait().await?))
        };
        let answer = tokio::select! {
            answer = finished => answer,
            () = self.cancel.cancelled() => {
                return Err(SourceError::transient("cancelled while the source was asked"));
            }
            () = tokio::time::sleep_until(self.deadline) => {
                let seconds = DEADLINE.as_secs();
                return Err(SourceError::transient(format!("the source did not answer within {seconds} s")));
            }
        };
        match answer {
            Err(error) => Err(SourceError::transient(format!(
                "reading from {} failed: {error}",
                self.program.display()
            ))),
            Ok((output, ..)) if output.len() as u64 > OUTPUT_LIMIT => Err(SourceError::permanent(format!(
                "the source answered with more than {OUTPUT_LIMIT} bytes"
            ))),
            Ok((output, _, status)) if status.success() => Ok(output),
            Ok((_, message, status)) => {
                let said = self.explain(&message, status);
                let passes = status.code().is_none()
                    || transient::is_transient(&String::from_utf8_lossy(&message))
                    || self.is_starting(conninfo).await;
                Err(match passes {
                    true => SourceError::transient(said),
                    false => SourceError::permanent(format!(
                        "{said}{}",
                        transient::passfile_hint(self.source, conninfo)
                    )),
                })
            }
        }
    }

    /// Returns whether the server answers that it rejects connections for now. `pg_isready` reads the SQLSTATE, which psql does not print,
    /// so the answer does not depend on the server's language.
    async fn is_starting(&self, conninfo: &Conninfo) -> bool {
        /// The exit code for a server that is rejecting connections, for example while it starts (pg_isready(1)).
        const NOT_NOW: i32 = 1;
        let mut command = Command::new(self.program.with_file_name("pg_isready"));
        command
            .args(["--quiet", "--timeout=3", "--dbname"])
            .arg(conninfo.clone().without("replication").without_passwords())
            .env_clear()
            .env("LC_ALL", "C")
            .envs(self.source.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        tokio::select! {
            status = command.status() => status.is_ok_and(|status| status.code() == Some(NOT_NOW)),
            () = self.cancel.cancelled() => false,
            () = tokio::time::sleep_until(self.deadline) => true,
        }
    }

    /// Returns psql's error output on one line. Removes secrets, because the server may repeat what it received.
    fn explain(&self, message: &[u8], status: std::process::ExitStatus) -> String {
        let redacted = without_secrets(&String::from_utf8_lossy(message), &self.secrets());
        let Some(text) = redacted else {
            return format!("psql could not ask the source, and its message may hold a secret: {status}");
        };
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.trim().escape_debug().to_string())
            .filter(|line| !line.is_empty())
            .collect();
        let mut text = lines.join("; ").replace("\\\"", "\"").replace("\\'", "'");
        if text.len() > MESSAGE_LIMIT {
            text.truncate(text.floor_char_boundary(MESSAGE_LIMIT));
            text.push_str(" ...");
        }
        match text.is_empty() {
            true => format!("psql could not ask the source: {status}"),
            false => format!("the source could not be asked: {}", text.trim_start_matches("psql: error: ")),
        }
    }

    /// Reads every secret back from the files that this run wrote, because a [`Source`] keeps the secrets nowhere else.
    fn secrets(&self) -> Vec<String> {
        let passfile = match &self.source.passfile {
            Some(PassFile::Made(path)) => std::fs::read_to_string(&**path).unwrap_or_default(),
            Some(PassFile::Given(_)) | None => String::new(),
        };
        let service =
            self.source.service_file.as_ref().and_then(|path| std::fs::read_to_string(&**path).ok());
        let passwords = passfile.lines().filter_map(last_field);
        let others = service.iter().flat_map(|text| text.lines()).filter_map(|line| line.split_once('='));
        let mut secrets: Vec<_> = passwords.chain(others.map(|(_, value)| value.to_owned())).collect();
        secrets.retain(|secret| !secret.is_empty());
        secrets
    }
}

/// Returns a text without these secrets; `None` if they are too many to search for.
fn without_secrets(text: &str, secrets: &[String]) -> Option<String> {
    let redactor = Redactor::new();
    secrets.iter().try_for_each(|secret| redactor.add(&Secret::new(secret.as_str()))).ok()?;
    Some(redactor.redact(text).into_owned())
}

/// Returns the password of a line of a passfile, without its escapes.
fn last_field(line: &str) -> Option<String> {
    let mut field = String::new();
    let mut separators = 0;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ':' => {
                separators += 1;
                field.clear();
            }
            '\\' => field.extend(characters.next()),
            character => field.push(character),
        }
    }
    (separators == 4).then_some(field)
}

/// Reads at most one byte more than `limit`, and discards the rest so that the program can end.
async fn bounded(stream: Option<impl AsyncRead + Unpin>, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut read = Vec::new();
    if let Some(mut stream) = stream {
        (&mut stream).take(limit + 1).read_to_end(&mut read).await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    }
    Ok(read)
}

/// Parses `systemid|timeline|xlogpos|dbname` and, on the next line, the version's number.
fn parse_identity(output: &[u8]) -> Option<SourceFacts> {
    let text = std::str::from_utf8(output).ok()?;
    let mut lines = text.lines();
    let mut fields = lines.next()?.split('|');
    let facts = SourceFacts {
        system_identifier: fields.next()?.parse().ok()?,
        timeline: fields.next()?.parse().ok()?,
        wal_position: fields.next()?.parse().ok()?,
        server_version: lines.next()?.trim().parse().ok()?,
        history: Vec::new(),
        tablespaces: None,
    };
    Some(facts)
}

/// Parses the name of the history file, `|`, and its content.
fn parse_history(output: &[u8], timeline: u32) -> Option<Vec<Fork>> {
    let content = output.strip_prefix(history_name(timeline).as_bytes())?.strip_prefix(b"|")?;
    history::parse_ascending(content).ok()
}

/// Parses rows of oid, name and location, each field ended by NUL. A tablespace without an absolute location lies in the data
/// directory (`allow_in_place_tablespaces`) and needs no other directory.
fn parse_tablespaces(output: &[u8]) -> Option<Vec<Tablespace>> {
    let output = output.strip_suffix(b"\0").unwrap_or(output);
    if output.is_empty() {
        return Some(Vec::new());
    }
    let fields: Vec<&[u8]> = output.split(|byte| *byte == 0).collect();
    let rows: Option<Vec<Tablespace>> = fields
        .chunks(3)
        .map(|row| {
            let [oid, name, location] = row else { return None };
            Some(Tablespace {
                oid: std::str::from_utf8(oid).ok()?.parse().ok()?,
                name: String::from_utf8(name.to_vec()).ok(),
                location: PathBuf::from(OsStr::from_bytes(location)),
            })
        })
        .collect();
    rows.map(|rows| rows.into_iter().filter(|row| row.location.is_absolute()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lsn;

    #[test]
    fn a_short_password_does_not_blank_every_word_that_holds_it() {
        let redacted = |text: &str| {
            without_secrets(text, &["a".to_owned(), "base".to_owned(), "long password".to_owned()])
        };
        assert_eq!(
            redacted("no entry for database \"base\", password=a, and a long password in a database")
                .as_deref(),
            Some("no entry for database \"<secret>\", password=<secret>, and a <secret> in a database")
        );
        assert_eq!(without_secrets("text", &["x".repeat(1 << 20)]), None);
    }

    #[test]
    fn the_answer_to_identify_system_is_parsed() {
        let facts = parse_identity(b"7393211544711530931|2|0/3000148|\n150018\n").unwrap();
        assert_eq!((facts.system_identifier, facts.timeline), (7_393_211_544_711_530_931, 2));
        assert_eq!((facts.wal_position, facts.server_version), (Lsn(0x0300_0148), 150_018));
    }

    #[test]
    fn an_answer_that_is_not_postgresqls_is_refused() {
        for answer in
            [&b""[..], b"\n\n", b"1|2|0/3|\n", b"x|1|0/3|\n150018\n", b"1|1|0-3|\n150018\n", b"\xff|"]
        {
            assert_eq!(parse_identity(answer), None, "{answer:?}");
        }
    }

    #[test]
    fn a_history_is_read_and_a_crooked_one_refused() {
        let fork = |timeline, at| Fork { timeline, at: Lsn(at) };
        let answer =
            b"00000003.history|1\t0/3000000\tno recovery target specified\n\n# note\n2\t0/4000000\tx\n\n";
        assert_eq!(parse_history(answer, 3), Some(vec![fork(1, 0x0300_0000), fork(2, 0x0400_0000)]));
        for crooked in
            [&b"00000002.history|1\t0/3\n"[..], b"00000003.history|x\n", b"00000003.history|2\t0/3\n1\t0/4\n"]
        {
            assert_eq!(parse_history(crooked, 3), None);
        }
    }

    #[test]
    fn tablespaces_with_special_characters_in_their_names_are_read() {
        let answer = b"16384\0fast\n|disks\0/srv/a b\0\x31\x36385\0in_place\0pg_tblspc/16385\0";
        let expected =
            Tablespace { oid: 16384, name: Some("fast\n|disks".to_owned()), location: "/srv/a b".into() };
        assert_eq!(parse_tablespaces(answer), Some(vec![expected]));
        assert_eq!(parse_tablespaces(b""), Some(Vec::new()));
        assert_eq!(parse_tablespaces(b"16384\0a\0"), None);
    }

    #[test]
    fn the_password_of_a_passfile_line_is_found() {
        assert_eq!(last_field(r"\:\:1:5432:*:u:a\:b\\c").as_deref(), Some(r"a:b\c"));
        assert_eq!(last_field("# comment"), None);
    }
}
