//! `create`: the main job.

use std::sync::Arc;

use replica::create_replica::Cancel;
use replica::{EventSink, Level, Report, RunResult, create_replica};
use serde::Serialize;
use tokio::runtime::Builder;

use super::job::{Operator, Work};
use super::{NotRun, print};
use crate::cli::{CreateArgs, LogFormat, LogLevel};
use crate::config::{Environment, Problem};
use crate::parent::Parents;
use crate::render::about::About;
use crate::render::report::{ReportFile, Written};
use crate::render::summary::{Left, created, failed};
use crate::render::text::printable;
use crate::render::{Fanout, Log, Terminal, progress};
use crate::root::drop_root_for;
use crate::signals::{self, Doing, Signals};

/// Creates the replica and returns the exit code.
pub fn run(args: &CreateArgs, environment: Environment<'_>) -> u8 {
    let terminal = Terminal::stderr();
    // Before anything that takes time: who is gone by then is not found any more.
    let parents = Parents::of_this_process();
    let level = args.job.log_level.unwrap_or(LogLevel::Info);
    let log = Log::new(terminal.clone(), args.job.log_format, level.into());
    // These two are made absolute before anything changes the current directory.
    let mut about = About::of(&args.job.config);
    let mut report_file = match args.report.as_deref().map(ReportFile::new).transpose() {
        Ok(file) => file,
        Err(error) => {
            return not_run(&NotRun::usage(error), &about, &log, &terminal, args.job.log_format, None);
        }
    };
    match attempt(args, environment, parents, &mut about, &mut report_file, &log, &terminal) {
        Ok(report) => ended(&report, &about, &log, &terminal, args.job.log_format, report_file.as_ref()),
        Err(error) => not_run(&error, &about, &log, &terminal, args.job.log_format, report_file.as_ref()),
    }
}

/// From the configuration to the end of the run.
fn attempt(
    args: &CreateArgs,
    environment: Environment<'_>,
    parents: Parents,
    about: &mut About,
    report_file: &mut Option<ReportFile>,
    log: &Log,
    terminal: &Terminal,
) -> Result<Report, NotRun> {
    let operator = Operator::read(&args.job, environment)?;
    // One that is refused is not written: it stays taken.
    if let Some(file) = report_file.take() {
        operator.check_report(&file)?;
        *report_file = Some(file);
    }
    operator.warnings().iter().for_each(|warning| log.say(Level::Warn, warning));
    log.take_traces();
    let runtime = Builder::new_multi_thread().enable_all().build().map_err(NotRun::failed)?;
    let report = runtime.block_on(async {
        let signals = Signals::take().map_err(NotRun::failed)?;
        let (cancel, doing) = (Cancel::new(), Doing::default());
        let watch = tokio::spawn({
            let (cancel, doing, log) = (cancel.clone(), doing.clone(), log.clone());
            async move { signals.watch(&cancel, &doing, &log).await }
        });
        let orphaned = operator.ends_with_parent().then(|| {
            let (cancel, doing, log) = (cancel.clone(), doing.clone(), log.clone());
            tokio::spawn(async move { signals::watch_parents(parents, &cancel, &doing, &log).await })
        });
        let Work { job, candidates, run_directory: _held } =
            operator.prepare(cancel.token(), log.redactor()).await?;
        let mut readers: Vec<Arc<dyn EventSink>> = vec![Arc::new(doing)];
        // Before the log: the last word on progress comes before the word on how the attempt ended.
        readers.extend(progress(args.progress, args.job.log_format, terminal));
        readers.push(Arc::new(log.clone()));
        let report = create_replica(&job, &candidates, Arc::new(Fanout::new(readers)), &cancel).await;
        about.complete(job.source.as_deref(), &candidates, log.redactor());
        watch.abort();
        if let Some(orphaned) = orphaned {
            orphaned.abort();
        }
        Ok(report)
    });
    // A check that a cancelled attempt no longer waited for must not hold the program up.
    runtime.shutdown_background();
    report
}

/// Tells how the run ended.
fn ended(
    report: &Report,
    about: &About,
    log: &Log,
    terminal: &Terminal,
    format: LogFormat,
    file: Option<&ReportFile>,
) -> u8 {
    let exit_code = report.result.exit_code();
    write_report(file, &Written::Run { exit_code, about, report }, log);
    if report.result == RunResult::Created {
        print(&format!("{}\n", created(report)));
    } else if format == LogFormat::Text {
        failed(report, Left::of(report), log.tells_attempts()).iter().for_each(|line| terminal.line(line));
    }
    exit_code
}

/// Tells why there was no run.
fn not_run(
    error: &NotRun,
    about: &About,
    log: &Log,
    terminal: &Terminal,
    format: LogFormat,
    file: Option<&ReportFile>,
) -> u8 {
    tell_not_run(error, log, terminal, format);
    let NotRun { exit_code, message, problems } = error;
    write_report(
        file,
        &Written::NotRun { exit_code: *exit_code, about, result: error.word(), message, problems },
        log,
    );
    *exit_code
}

/// Every problem on a line of its own, then what follows from them.
pub(super) fn tell_not_run(error: &NotRun, log: &Log, terminal: &Terminal, format: LogFormat) {
    for problem in &error.problems {
        match format {
            LogFormat::Text => terminal.line(&printable(&problem.to_string())),
            LogFormat::Json => log.json(&Told { event: "problem", problem }),
        }
    }
    match format {
        LogFormat::Text => {
            terminal.line(&format!("understudy: {}; nothing was touched", printable(&error.message)))
        }
        LogFormat::Json => log.say(Level::Error, &error.message),
    }
}

#[derive(Serialize)]
struct Told<'a> {
    event: &'static str,
    #[serde(flatten)]
    problem: &'a Problem,
}

fn write_report(file: Option<&ReportFile>, report: &Written<'_>, log: &Log) {
    let Some(file) = file else { return };
    // The configuration, which names the user of the run, may not have been accepted.
    let written = drop_root_for(file.directory()).map_err(anyhow::Error::from);
    if let Err(error) = written.and_then(|()| Ok(file.write(report)?)) {
        log.say(Level::Error, &format!("cannot write the report {}: {error:#}", file.path().display()));
    }
}
