//! `report`: adds up what the methods of a run asked of the host, from the audit that `create --audit FILE` wrote.

mod sums;
mod text;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context;
use replica::{Bytes, RunResult};
use serde::Serialize;
use sums::{MethodSums, Sums};

use super::{NotStarted, input_name, print};
use crate::cli::ReportArgs;
use crate::render::Terminal;
use crate::render::audit::line::{Entry, FILE_BYTES, LINE_BYTES, Line, ReadLine};
use crate::render::text::{cut, json_line, printable};

/// The exit code if the audit is complete.
const COMPLETE: u8 = 0;
/// The exit code if something is missing in the audit or in the report.
const INCOMPLETE: u8 = 1;

/// The exit codes, with what each means.
pub(crate) const EXIT_CODES: [(&str, &str); 3] = [
    ("0", "the audit was added up"),
    ("1", "the audit was added up, but it is incomplete or parts of it were left out; the report says which"),
    ("2", "usage, or the file cannot be read or is not an audit; nothing is printed to standard output"),
];

/// The bounds of a report.
#[derive(Clone, Copy)]
struct Limits {
    /// How many bytes of the file are read.
    file_bytes: u64,
    /// How many methods the report has.
    methods: usize,
    /// How many bytes of memory the tables of objects and denials may take together.
    table_bytes: usize,
    /// How many different denials of a method and a capability are listed.
    denials: usize,
}

const LIMITS: Limits = Limits { file_bytes: FILE_BYTES, methods: 64, table_bytes: 32 << 20, denials: 100 };

/// How many characters of a reason for not understanding a line are shown.
const REASON_CHARACTERS: usize = 200;

/// Prints the report and returns the exit code.
pub fn run(args: &ReportArgs) -> u8 {
    match report(args) {
        Ok(report) => {
            let text = if args.json { vec![json_line(&report)] } else { text::lines(&report) };
            print(&text.iter().map(|line| format!("{}\n", printable(line))).collect::<String>());
            if report.incomplete.is_empty() { COMPLETE } else { INCOMPLETE }
        }
        Err(error) => {
            Terminal::stderr().line(&format!("understudy: {}", printable(&error.message)));
            error.exit_code
        }
    }
}

fn report(args: &ReportArgs) -> Result<Report, NotStarted> {
    let name = input_name(&args.file);
    let read = match args.file == Path::new("-") {
        true => Reading::of(io::stdin().lock(), LIMITS),
        false => File::open(&args.file).and_then(|file| Reading::of(BufReader::new(file), LIMITS)),
    };
    let reading = read.with_context(|| format!("cannot read {name}")).map_err(NotStarted::usage)?;
    if reading.known == 0 {
        let what = if reading.lines == 0 { "it is empty" } else { "it has no line of an audit" };
        let message = format!("{name} is not an audit: {what} (`understudy create --audit FILE` writes one)");
        return Err(NotStarted::usage(anyhow::anyhow!(message)));
    }
    Ok(reading.report(args.objects))
}

/// What the methods of a run asked of the host.
#[derive(Debug, Serialize)]
struct Report {
    /// The version of the program that wrote the audit; `None` if the first line is missing.
    version: Option<String>,
    /// The path of the run's configuration; `None` if the first line is missing.
    configuration: Option<String>,
    /// When the audit was begun; `None` if the first line is missing.
    began: Option<String>,
    /// When the run ended; `None` if the last line is missing.
    ended: Option<String>,
    /// How the run ended; `None` if the last line is missing.
    result: Option<RunResult>,
    /// The methods, in the order of their first calls.
    methods: Vec<MethodSums>,
    /// What is missing in the audit, or was left out of this report; empty if nothing is.
    incomplete: Vec<String>,
}

/// Lines that could not be added, all for the same reason.
#[derive(Default)]
struct Skipped {
    lines: u64,
    /// The number of the first of these lines, and what is wrong with it.
    first: Option<(u64, String)>,
}

impl Skipped {
    fn add(&mut self, line: u64, reason: impl FnOnce() -> String) {
        self.lines += 1;
        self.first.get_or_insert_with(|| (line, reason()));
    }
}

/// An audit, as far as it was read.
struct Reading {
    sums: Sums,
    /// How many lines were read, and how many of them are lines of an audit.
    lines: u64,
    known: u64,
    /// How many lines begin an audit. More than one if audits were written one after the other into the same file.
    audits: u64,
    version: Option<String>,
    configuration: Option<String>,
    began: Option<String>,
    /// When the last line was written.
    last: Option<String>,
    result: Option<RunResult>,
    full: Option<String>,
    unknown: Skipped,
    damaged: Skipped,
    too_long: Skipped,
    is_cut: bool,
    is_too_large: bool,
}

impl Reading {
    /// Reads the lines of an audit. Damaged lines do not end this.
    ///
    /// # Errors
    /// Those of reading.
    fn of(input: impl BufRead, limits: Limits) -> io::Result<Self> {
        let mut reading = Self {
            sums: Sums::new(limits),
            lines: 0,
            known: 0,
            audits: 0,
            version: None,
            configuration: None,
            began: None,
            last: None,
            result: None,
            full: None,
            unknown: Skipped::default(),
            damaged: Skipped::default(),
            too_long: Skipped::default(),
            is_cut: false,
            is_too_large: false,
        };
        let mut input = input.take(limits.file_bytes);
        let mut line = Vec::new();
        loop {
            line.clear();
            if (&mut input).take(LINE_BYTES as u64 + 1).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let has_end = line.pop_if(|last| *last == b'\n').is_some();
            if !has_end && input.limit() == 0 && !input.get_mut().fill_buf()?.is_empty() {
                reading.is_too_large = true;
                break;
            }
            reading.lines += 1;
            if !has_end && line.len() > LINE_BYTES {
                reading.too_long.add(reading.lines, String::new);
                input.skip_until(b'\n')?;
                continue;
            }
            reading.add(&line, has_end);
        }
        reading.is_too_large |= !input.get_mut().fill_buf()?.is_empty();
        Ok(reading)
    }

    fn add(&mut self, bytes: &[u8], has_end: bool) {
        match ReadLine::of(bytes) {
            ReadLine::Known(Line { time, entry }) => {
                self.known += 1;
                self.add_entry(entry, &time);
                self.last = Some(time);
            }
            ReadLine::Unknown(reason) => {
                self.unknown.add(self.lines, || cut(&reason, REASON_CHARACTERS).into_owned())
            }
            ReadLine::Damaged if has_end => self.damaged.add(self.lines, String::new),
            ReadLine::Damaged => self.is_cut = true,
        }
    }

    fn add_entry(&mut self, entry: Entry<'_>, time: &str) {
        match entry {
            Entry::Begin { version, configuration } => {
                self.audits += 1;
                self.version.get_or_insert_with(|| version.into_owned());
                self.configuration.get_or_insert_with(|| configuration.into_owned());
                self.began.get_or_insert_with(|| time.to_owned());
                self.result = None;
            }
            Entry::Call { method, call } => self.sums.add(&method, call),
            Entry::Full { message } => self.full = Some(message),
            Entry::End { result } => self.result = Some(result),
        }
    }

    fn report(self, objects: usize) -> Report {
        let incomplete = self.incomplete();
        let ended = if self.result.is_some() { self.last } else { None };
        Report {
            version: self.version,
            configuration: self.configuration,
            began: self.began,
            ended,
            result: self.result,
            methods: self.sums.finish(objects),
            incomplete,
        }
    }

    /// Says what is missing in the audit or will be left out of the report.
    fn incomplete(&self) -> Vec<String> {
        let Self { audits, lines, last, .. } = self;
        let mut says = Vec::new();
        let mut say = |is: bool, what: &dyn Fn() -> String| {
            if is {
                says.push(what());
            }
        };
        let skipped = |skipped: &Skipped, what: &str| {
            let Skipped { lines, first } = skipped;
            let (first, reason) = first.as_ref().map_or((0, ""), |(line, reason)| (*line, reason.as_str()));
            let colon = if reason.is_empty() { "" } else { ": " };
            let lines = if *lines == 1 { "1 line".to_owned() } else { format!("{lines} lines") };
            format!("{lines} {what} (the first: line {first}{colon}{reason})")
        };
        say(*audits == 0, &|| "the line that begins an audit is missing".to_owned());
        say(*audits > 1, &|| format!("the file has {audits} audits, and this report adds them up"));
        say(self.damaged.lines > 0, &|| skipped(&self.damaged, "cannot be read"));
        say(self.too_long.lines > 0, &|| {
            skipped(&self.too_long, &format!("of more than {LINE_BYTES} bytes, left out"))
        });
        say(self.unknown.lines > 0, &|| {
            let version = self.version.as_deref().unwrap_or("unknown");
            let own = env!("CARGO_PKG_VERSION");
            let what = format!("not known to this version, {own} (the audit's is {version})");
            skipped(&self.unknown, &what)
        });
        say(self.is_cut, &|| format!("the last line, {lines}, is cut off"));
        say(self.full.is_some(), &|| self.full.clone().unwrap_or_default());
        say(self.is_too_large, &|| {
            format!("the file is larger than an audit: only its first {} were read", Bytes(LIMITS.file_bytes))
        });
        say(self.result.is_none() && !self.is_too_large, &|| {
            let last = last.as_deref().unwrap_or_default();
            format!(
                "the line that ends an audit is missing: the run was killed, goes on, or could not write the file any more; \
                 the last one that can be read was written at {last}"
            )
        });
        say(self.sums.not_added > 0, &|| {
            format!("{} calls of further methods were left out", self.sums.not_added)
        });
        say(self.sums.was_shrunk, &|| {
            "there are too many different objects: small ones were left out while the file was read, so the amounts of an object \
             may be too small; those of a capability are right"
                .to_owned()
        });
        says
    }
}

#[cfg(test)]
mod tests;
