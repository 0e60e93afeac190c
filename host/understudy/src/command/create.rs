//! `create`: creates the replica.

use std::sync::Arc;

use replica::create_replica::Cancel;
use replica::{EventSink, Level, Report, RunResult, create_replica};
use serde::Serialize;
use tokio::runtime::Builder;

use super::config_source::ConfigSource;
use super::job::{AcceptedConfig, PreparedRun};
use super::{NotStarted, print};
use crate::cli::{CreateArgs, LogArgs, LogFormat, LogLevel, OutputArgs};
use crate::config::{Environment, Problem};
use crate::parent::Parents;
use crate::render::about::About;
use crate::render::audit::{Audit, audit_file};
use crate::render::output_file::OutputFile;
use crate::render::report::{ReportContent, ReportFile};
use crate::render::summary::{DatadirState, created, failed};
use crate::render::text::{json_line, printable};
use crate::render::{Fanout, Log, Terminal, progress};
use crate::root::drop_root_for;
use crate::signals::{self, CurrentStep, Signals};

/// Creates the replica and returns the exit code.
pub fn run(args: &CreateArgs, environment: Environment<'_>) -> u8 {
    let source = ConfigSource::File(&args.job);
    create(&Creation { source, log: args.job.log, output: &args.output, json: false }, environment)
}

/// A replica to create: where its configuration comes from, and how the run reports what happens.
pub(super) struct Creation<'a> {
    pub(super) source: ConfigSource<'a>,
    pub(super) log: LogArgs,
    pub(super) output: &'a OutputArgs,
    /// Whether to print the report to standard output.
    pub(super) json: bool,
}

/// Creates a replica and returns the exit code.
pub(super) fn create(creation: &Creation<'_>, environment: Environment<'_>) -> u8 {
    let terminal = Terminal::stderr();
    // This comes before anything that takes time: a parent that has ended cannot be found any more.
    let parents = Parents::of_this_process();
    let format = creation.log.format;
    let level = creation.log.level.unwrap_or(LogLevel::Info);
    let log = Log::new(terminal.clone(), format, level.into());
    // Both paths are made absolute before the current directory changes.
    let mut about = creation.source.about();
    let files = creation
        .output
        .report
        .as_deref()
        .map(ReportFile::new)
        .transpose()
        .and_then(|report| Ok((report, creation.output.audit.as_deref().map(audit_file).transpose()?)));
    let (mut report_file, audit_file) = match files {
        Ok(files) => files,
        Err(error) => {
            let output = Output { audit: None, log: &log, terminal: &terminal, json: creation.json };
            return not_started(&NotStarted::usage(error), &about, &output, format, None);
        }
    };
    let output = Output { audit: audit_file, log: &log, terminal: &terminal, json: creation.json };
    match attempt(creation, environment, parents, &mut about, &mut report_file, &output) {
        Ok(report) => ended(&report, &about, &output, format, report_file.as_ref()),
        Err(error) => not_started(&error, &about, &output, format, report_file.as_ref()),
    }
}

/// Where a run reports what happens, apart from its report.
struct Output<'a> {
    audit: Option<OutputFile>,
    log: &'a Log,
    terminal: &'a Terminal,
    /// Whether the report is also printed to standard output.
    json: bool,
}

/// Reads the configuration and runs the methods; returns the report of the run.
fn attempt(
    creation: &Creation<'_>,
    environment: Environment<'_>,
    parents: Parents,
    about: &mut About,
    report_file: &mut Option<ReportFile>,
    output: &Output<'_>,
) -> Result<Report, NotStarted> {
    let &Output { ref audit, log, terminal, .. } = output;
    let mut accepted = AcceptedConfig::read(&creation.source, environment)?;
    // If the file is refused, `report_file` stays `None`, so that nothing is written to it.
    if let Some(file) = report_file.take() {
        accepted.check_output(file.file())?;
        *report_file = Some(file);
    }
    if let Some(file) = audit {
        let is_report = report_file.as_ref().is_some_and(|report| report.file().path() == file.path());
        if is_report {
            return Err(NotStarted::usage(anyhow::anyhow!(
                "`--audit` and `--report` name the same file, {}: name two",
                file.path().display()
            )));
        }
        accepted.check_output(file)?;
    }
    accepted.warnings().iter().for_each(|warning| log.say(Level::Warn, warning));
    log.take_traces();
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(NotStarted::failed)?;
    let report = runtime.block_on(async {
        let signals = Signals::take().map_err(NotStarted::failed)?;
        let (cancel, step) = (Cancel::new(), CurrentStep::default());
        let watch = tokio::spawn({
            let (cancel, step, log) = (cancel.clone(), step.clone(), log.clone());
            async move { signals.watch(&cancel, &step, &log).await }
        });
        let orphaned = accepted.ends_with_parent().then(|| {
            let (cancel, step, log) = (cancel.clone(), step.clone(), log.clone());
            tokio::spawn(async move { signals::watch_parents(parents, &cancel, &step, &log).await })
        });
        let PreparedRun { job, candidates, run_directory: _run_directory } =
            accepted.prepare(cancel.token(), log.redactor()).await?;
        let mut readers: Vec<Arc<dyn EventSink>> = vec![Arc::new(step)];
        if let Some(file) = audit {
            let begun = Audit::begin(file, &about.configuration, log);
            let failed = |error| {
                anyhow::Error::new(error).context(format!("cannot write the audit {}", file.path().display()))
            };
            readers.push(Arc::new(begun.map_err(|error| NotStarted::failed(failed(error)))?));
        }
        // Progress comes before the log: the last line of progress is written before the line on the end of the attempt.
        readers.extend(progress(creation.output.progress, creation.log.format, terminal));
        readers.push(Arc::new(log.clone()));
        let events = creation.source.with_remedies(Arc::new(Fanout::new(readers)));
        let mut report = create_replica(&job, &candidates, events, &cancel).await;
        creation.source.write_remedies(&mut report);
        about.complete(job.source.as_deref(), &candidates, log.redactor());
        watch.abort();
        if let Some(orphaned) = orphaned {
            orphaned.abort();
        }
        Ok(report)
    });
    // A cancelled attempt may have left a check running, for which the program must not wait.
    runtime.shutdown_background();
    report
}

/// Writes the report, shows how the run ended, and returns the exit code.
fn ended(
    report: &Report,
    about: &About,
    output: &Output<'_>,
    format: LogFormat,
    file: Option<&ReportFile>,
) -> u8 {
    let &Output { log, terminal, json, .. } = output;
    let exit_code = report.result.exit_code();
    give_report(file, &ReportContent::Run { exit_code, about, report }, output);
    if report.result == RunResult::Created && !json {
        print(&format!("{}\n", created(report)));
    } else if report.result != RunResult::Created && format == LogFormat::Text {
        failed(report, DatadirState::of(report), log.logs_attempts())
            .iter()
            .for_each(|line| terminal.line(line));
    }
    exit_code
}

/// Writes the report, shows why the run did not begin, and returns the exit code.
fn not_started(
    error: &NotStarted,
    about: &About,
    output: &Output<'_>,
    format: LogFormat,
    file: Option<&ReportFile>,
) -> u8 {
    show_not_started(error, output.log, output.terminal, format);
    let NotStarted { exit_code, message, problems } = error;
    give_report(
        file,
        &ReportContent::NotStarted {
            exit_code: *exit_code,
            about,
            result: error.result_word(),
            message,
            problems,
        },
        output,
    );
    *exit_code
}

/// Shows each problem on a separate line, and then the reason on one line.
pub(super) fn show_not_started(error: &NotStarted, log: &Log, terminal: &Terminal, format: LogFormat) {
    for problem in &error.problems {
        match format {
            LogFormat::Text => terminal.line(&printable(&problem.to_string())),
            LogFormat::Json => log.json(&ProblemLine { event: "problem", problem }),
        }
    }
    match format {
        LogFormat::Text => {
            terminal.line(&format!("understudy: {}; nothing was touched", printable(&error.message)))
        }
        LogFormat::Json => log.say(Level::Error, &error.message),
    }
}

/// A problem as a line of the JSON log.
#[derive(Serialize)]
struct ProblemLine<'a> {
    event: &'static str,
    #[serde(flatten)]
    problem: &'a Problem,
}

/// Writes the report to its file, and prints it, if the flags say so.
fn give_report(file: Option<&ReportFile>, report: &ReportContent<'_>, output: &Output<'_>) {
    if output.json {
        print(&format!("{}\n", json_line(report)));
    }
    let Some(file) = file else { return };
    // If no configuration was accepted, nothing has named the user to become, and the program is still root.
    let written = drop_root_for(file.file().directory()).map_err(anyhow::Error::from);
    if let Err(error) = written.and_then(|()| Ok(file.write(report)?)) {
        output.log.say(
            Level::Error,
            &format!("cannot write the report {}: {error:#}", file.file().path().display()),
        );
    }
}
