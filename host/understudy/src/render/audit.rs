//! The audit, written to `--audit FILE`. When a request of a method to the host ends, the audit gets one line with a JSON object.

pub(crate) mod line;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use line::{Entry, FILE_BYTES, LINE_BYTES, Line};
use replica::event::{Event, HostCall};
use replica::{EventSink, Level};

use super::Log;
use super::log::now;
use super::output_file::{FileKind, OutputFile};
use super::text::json_line;

/// How many of these bytes are reserved for the two lines that end the file.
const LAST_LINES: u64 = 1024;

/// The file of the audit.
pub static AUDIT: FileKind = FileKind { name: "audit", is_earlier };

fn is_earlier(file: File) -> bool {
    let mut first = Vec::new();
    let read = BufReader::new(file.take(LINE_BYTES as u64)).read_until(b'\n', &mut first);
    let begin = read.ok().and_then(|_| serde_json::from_slice::<Line<'_>>(&first).ok());
    matches!(begin, Some(Line { entry: Entry::Begin { .. }, .. }))
}

/// The content of a line that is written.
type NewEntry<'a> = Entry<'a, &'a HostCall>;

/// The audit of a run. This event sink receives the calls.
pub struct Audit {
    log: Log,
    path: String,
    out: Mutex<Out>,
}

/// The file that the lines go to.
struct Out {
    file: Option<File>,
    /// How many bytes may still be written, not counting those reserved for the last lines.
    left: u64,
    is_full: bool,
}

impl Audit {
    /// Creates the file with its first line. `log` gets the error of a later write.
    ///
    /// # Errors
    /// The errors of [`OutputFile::create`].
    pub fn begin(file: &OutputFile, configuration: &str, log: &Log) -> io::Result<Self> {
        Self::within(FILE_BYTES, file, configuration, log)
    }

    fn within(most: u64, file: &OutputFile, configuration: &str, log: &Log) -> io::Result<Self> {
        let mut created = file.create()?;
        let (version, configuration) = (env!("CARGO_PKG_VERSION").into(), configuration.into());
        let begin = line(Entry::Begin { version, configuration });
        created.write_all(begin.as_bytes())?;
        let left = most.saturating_sub(LAST_LINES).saturating_sub(begin.len() as u64);
        let out = Out { file: Some(file.put(created)?), left, is_full: false };
        Ok(Self { log: log.clone(), path: file.path().display().to_string(), out: Mutex::new(out) })
    }

    fn write(&self, entry: NewEntry<'_>) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = out.write(entry) {
            out.file = None;
            drop(out);
            let message = format!("cannot write the audit {} any more: {error}", self.path);
            self.log.say(Level::Error, &message);
        }
    }
}

impl Out {
    fn write(&mut self, entry: NewEntry<'_>) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if matches!(entry, Entry::End { .. }) {
            return file.write_all(line(entry).as_bytes());
        }
        if self.is_full {
            return Ok(());
        }
        let text = line(entry);
        let length = text.len() as u64;
        if length > self.left {
            self.is_full = true;
            let message = format!(
                "the file has reached its maximum of {FILE_BYTES} bytes: later calls are not recorded"
            );
            return file.write_all(line(Entry::Full { message }).as_bytes());
        }
        self.left -= length;
        // Writes each line with one system call, without a buffer, so that no line waits in this process.
        file.write_all(text.as_bytes())
    }
}

fn line(entry: NewEntry<'_>) -> String {
    let mut line = json_line(&Line { time: now(), entry });
    line.push('\n');
    line
}

impl EventSink for Audit {
    fn emit(&self, event: Event) {
        match event {
            Event::Called { method, call } => self.write(Entry::Call { method: method.into(), call: &call }),
            Event::RunEnded { result, .. } => self.write(Entry::End { result }),
            _ => {}
        }
    }

    fn takes_calls(&self) -> bool {
        true
    }
}

/// Creates the value for an audit at `path`.
///
/// # Errors
/// The errors of [`OutputFile::new`].
pub fn audit_file(path: &Path) -> io::Result<OutputFile> {
    OutputFile::new(&AUDIT, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use replica::event::Step;
    use replica::{CapabilityKind, RunResult};
    use serde_json::Value;

    use super::*;
    use crate::cli::LogFormat;
    use crate::render::Terminal;

    fn log() -> Log {
        Log::new(Terminal::to(io::sink()), LogFormat::Text, Level::Info)
    }

    fn called(object: &str) -> Event {
        let call = HostCall {
            step: Step::Create,
            capability: Some(CapabilityKind::Read),
            function: "filesystem.open-at",
            object: object.to_owned(),
            calls: 3,
            bytes_read: 12,
            bytes_written: 0,
            duration: Duration::from_millis(250),
            answer: "ok",
        };
        Event::Called { method: "m".to_owned(), call }
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn each_call_is_a_line_in_a_file_that_only_its_owner_may_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let file = audit_file(&path).unwrap();
        file.probe().unwrap();
        let audit = Audit::begin(&file, "/u.toml", &log()).unwrap();
        audit.emit(called("/mnt/a\u{1b}[2J\nb"));
        // The line is in the file before the run ends.
        let written = lines(&path);
        assert_eq!((written.len(), &written[0]["entry"]), (2, &Value::from("begin")));
        let call = &written[1];
        for (key, value) in [
            ("entry", Value::from("call")),
            ("method", Value::from("m")),
            ("step", Value::from("create")),
            ("capability", Value::from("read")),
            ("function", Value::from("filesystem.open-at")),
            ("object", Value::from("/mnt/a\u{1b}[2J\nb")),
            ("calls", Value::from(3)),
            ("bytes_read", Value::from(12)),
            ("bytes_written", Value::from(0)),
            ("seconds", Value::from(0.25)),
            ("answer", Value::from("ok")),
        ] {
            assert_eq!(call[key], value, "{key}");
        }
        assert!(!std::fs::read_to_string(&path).unwrap().contains('\u{1b}'));
        audit.emit(Event::RunEnded { result: RunResult::Created, message: None });
        assert_eq!(lines(&path)[2]["entry"], "end");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn the_file_never_exceeds_its_maximum_and_its_last_lines_say_that_it_is_full() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let most = 10_000;
        let audit = Audit::within(most, &audit_file(&path).unwrap(), "/u.toml", &log()).unwrap();
        for number in 0..1000 {
            audit.emit(called(&number.to_string()));
        }
        audit.emit(Event::RunEnded { result: RunResult::Failed, message: None });
        let written = lines(&path);
        let last: Vec<_> =
            written[written.len() - 2..].iter().map(|line| line["entry"].as_str().unwrap()).collect();
        assert_eq!(last, ["full", "end"]);
        assert!(written.iter().filter(|line| line["entry"] == "full").count() == 1);
        assert!(std::fs::metadata(&path).unwrap().len() <= most);
    }

    #[test]
    fn only_an_earlier_audit_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let file = audit_file(&path).unwrap();
        for _ in 0..2 {
            Audit::begin(&file, "/u.toml", &log()).unwrap().emit(called("x"));
            assert_eq!(lines(&path).len(), 2);
        }
        let report =
            "{\"exit_code\": 0, \"result\": \"created\", \"version\": \"1\", \"configuration\": \"/u.toml\"}";
        for text in ["root:x:0:0\n", report, "{\"entry\": \"call\"}\n"] {
            std::fs::write(&path, text).unwrap();
            for tried in [file.probe(), Audit::begin(&file, "/u.toml", &log()).map(drop)] {
                let said = tried.unwrap_err().to_string();
                assert!(said.contains("only an earlier audit or an empty file is replaced"), "{said}");
            }
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn a_write_that_fails_is_logged_once_and_ends_the_audit() {
        let terminal = super::super::terminal::tests::Captured::default();
        let log = Log::new(Terminal::to(terminal.clone()), LogFormat::Text, Level::Info);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let out = Out { file: Some(full), left: FILE_BYTES, is_full: false };
        let audit = Audit { log, path: "/audit".to_owned(), out: Mutex::new(out) };
        audit.emit(called("x"));
        audit.emit(called("y"));
        let said = terminal.lines();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("cannot write the audit /audit any more: No space left"), "{said:?}");
    }
}
