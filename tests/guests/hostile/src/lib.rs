//! A component that does what a method must not do. The option `behave` selects the behaviour, and the option `when` selects the
//! function in which the component does this.
//!
//! If the host prevents an attempt, the component fails with a message that begins with `refused`. If an attempt succeeds, the message
//! begins with `ESCAPED`. So a test checks the outcome, and checks that the message does not contain `ESCAPED`.

mod capabilities;
mod endings;
mod files;
mod held;
mod network;
mod plans;
mod resources;
mod secrets;
mod settings;
mod transfers;

use understudy::{Description, Failure, Method, Need, NeedKind, OptionSpec, Plan, Request};

/// A behaviour, selected by the value of `behave`.
type Behaviour = fn(&Request) -> Result<(), Failure>;

const BEHAVIOURS: &[(&str, Behaviour)] = &[
    ("trap", endings::trap),
    ("panic", endings::panic),
    ("denied-then-panics", endings::denied_then_panics),
    ("exit", endings::exit),
    ("fail", endings::fail),
    ("fail-at-length", endings::fail_at_length),
    ("retry-later", endings::retry_later),
    ("not-applicable", endings::not_applicable),
    ("loop", endings::busy_loop),
    ("sleep", endings::sleep),
    ("ignore-cancel", endings::ignore_cancel),
    ("cooperative-cancel", endings::cooperative_cancel),
    ("memory", resources::memory),
    ("recursion", resources::recursion),
    ("ask", resources::ask),
    ("handles", resources::handles),
    ("listings", resources::listings),
    ("deep", resources::deep),
    ("pollables", resources::pollables),
    ("random", resources::random),
    ("long-call", resources::long_call),
    ("log-flood", resources::log_flood),
    ("stdout-flood", resources::stdout_flood),
    ("stderr-endless-line", resources::stderr_endless_line),
    ("progress-flood", resources::progress_flood),
    ("terminal", resources::terminal),
    ("fill-disk", resources::fill_disk),
    ("many-files", resources::many_files),
    ("write-outside", files::write_outside),
    ("read-outside", files::read_outside),
    ("write-granted", files::write_granted),
    ("traverse", files::traverse),
    ("fifo", files::fifo),
    ("write", files::write),
    ("control-file", files::control_file),
    ("partial", files::partial),
    ("environment", capabilities::environment),
    ("variable", capabilities::variable),
    ("ungranted", capabilities::ungranted),
    ("run-program", capabilities::run_program),
    ("network", network::network),
    ("secrets", secrets::secrets),
    ("shout", secrets::shout),
    ("aliases", secrets::aliases),
    ("keys-elsewhere", secrets::keys_elsewhere),
    ("derive-words", secrets::derive_words),
    ("transfer", transfers::transfer),
    ("transfer-and-stay", transfers::transfer_and_stay),
    ("transfer-elsewhere", transfers::elsewhere),
    ("plant", transfers::plant),
    ("too-many-at-once", transfers::too_many_at_once),
    ("streams", transfers::streams),
    ("jobs", transfers::jobs),
    ("derive-many", transfers::derive_many),
    ("queues", held::queues),
    ("origins", held::origins),
    ("path-lists", held::path_lists),
    ("listed", held::listed),
    ("tolerated", held::tolerated),
    ("outcomes", held::outcomes),
    ("job-churn", held::job_churn),
    ("windows", held::windows),
    ("fetched-windows", held::fetched_windows),
    ("spellings", held::spellings),
    ("directories", held::directories),
    ("dropped-descriptors", held::dropped_descriptors),
    ("http-requests", held::http_requests),
    ("restore-and-ask", settings::restore_and_ask),
    ("nothing", endings::nothing),
];

struct Hostile;

impl Method for Hostile {
    fn describe() -> Description {
        Description::new("hostile", env!("CARGO_PKG_VERSION"), "does what a method must not do")
            // There are more behaviours than an option may have choices.
            .option(OptionSpec::text("behave").required().doc("what it does"))
            .option(OptionSpec::choice("when", ["plan", "create"]).default("create").doc("in which function"))
            .option(OptionSpec::text("path").doc("the file or folder that it goes for"))
            .option(
                OptionSpec::text("store").default("repo").doc("the store, or the directory, that it reads"),
            )
            .option(OptionSpec::text("program").default("tool").doc("the program that `run-program` runs"))
            .option(OptionSpec::texts("arguments").doc("the arguments of the program"))
            .option(OptionSpec::text("variable").doc("the variable of the environment that `variable` reads"))
            .option(OptionSpec::text("address").default("127.0.0.1:5432").doc("where `network` connects to"))
            .option(OptionSpec::integer("count").default(1_000_000).doc("how many lines or files at most"))
            .option(OptionSpec::text("system-identifier").doc("a claim of its plan, decimal"))
            .option(OptionSpec::integer("timeline").doc("a claim of its plan"))
            .option(OptionSpec::integer("major").doc("a claim of its plan"))
            .option(OptionSpec::integer("bytes").doc("a claim of its plan"))
            .option(OptionSpec::integer("files").doc("a claim of its plan"))
            .option(OptionSpec::text("backup").default("hostile").doc("the backup that its plan names"))
            .option(OptionSpec::texts("settings").doc("what `restore-and-ask` asks for, each `name=value`"))
            .option(OptionSpec::texts("tablespaces").doc("claims of its plan, each `oid=location`"))
            .option(OptionSpec::flag("builds-on-existing").default(false).doc("a claim of its plan"))
            .need(Need::new(NeedKind::Environment, "variable", "`variable` reads it").optional())
    }

    fn plan(request: &Request) -> Result<Plan, Failure> {
        behave(request, "plan")?;
        plans::claimed(request)
    }

    fn create(request: &Request, _: &Plan) -> Result<(), Failure> {
        behave(request, "create")
    }
}

fn behave(request: &Request, now: &str) -> Result<(), Failure> {
    if request.require::<String>("when")? != now {
        return Ok(());
    }
    let wanted: String = request.require("behave")?;
    match BEHAVIOURS.iter().find(|(name, _)| *name == wanted) {
        Some((_, behaviour)) => behaviour(request),
        None => Err(Failure::failed(format!("`{wanted}` is not a behaviour"))),
    }
}

/// Returns the failure for an attempt that the host prevented, with the host's answer.
fn refused(attempt: &str, answer: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("refused: {attempt}: {answer}"))
}

/// Returns the failure for an attempt that the host did not prevent.
fn escaped(attempt: &str) -> Failure {
    Failure::failed(format!("ESCAPED: {attempt}"))
}

/// Combines several attempts: `escaped` if any of them succeeded.
fn verdict(attempts: Vec<(String, Result<(), String>)>) -> Failure {
    let escapes: Vec<_> =
        attempts.iter().filter(|(_, answer)| answer.is_ok()).map(|(attempt, _)| attempt.as_str()).collect();
    if !escapes.is_empty() {
        return escaped(&escapes.join(", "));
    }
    let answers: Vec<_> = attempts
        .iter()
        .map(|(attempt, answer)| format!("{attempt}: {}", answer.as_ref().err().map_or("", String::as_str)))
        .collect();
    Failure::failed(format!("refused: {}", answers.join("; ")))
}

understudy::export!(Hostile);
