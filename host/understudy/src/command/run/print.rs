//! `run --print-config`: the configuration file that does what the flags do.

use replica::create_replica::BASEBACKUP;
use sandbox::{OptionValue, Written};
use toml::Value;

use super::flags::{RunFlags, key};
use crate::cli::RunArgs;
use crate::command::NotStarted;
use crate::command::inspect::description;
use crate::config::{Environment, GivenOption};
use crate::render::Log;

/// Returns the configuration. The types of the options are those that the plugin describes.
pub(super) fn configuration(
    args: &RunArgs,
    environment: Environment<'_>,
    log: &Log,
) -> Result<String, NotStarted> {
    let flags = &RunFlags::of(args, environment)?;
    flags.config(environment)?;
    let given = &flags.overrides.options;
    let options = if given.is_empty() {
        Vec::new()
    } else if flags.method() == BASEBACKUP {
        given.iter().map(of_basebackup).collect()
    } else {
        typed(args, flags, environment, log)?
    };
    let mut text = HEAD.to_owned();
    if args.force {
        text.push_str(FORCED);
    }
    text.push_str(flags.text.text());
    for (name, value) in options {
        text.push_str(&format!("options.{} = {value}\n", key(&name)));
    }
    Ok(text)
}

/// The first lines of the file.
const HEAD: &str = "\
# Made by `understudy run --print-config`. To create the replica: understudy create --config FILE\n";

/// What the file cannot say.
const FORCED: &str = "# `--force` is no setting: pass it to `create`, too.\n";

/// Returns the options with the types of a configuration.
fn typed(
    args: &RunArgs,
    flags: &RunFlags,
    environment: Environment<'_>,
    log: &Log,
) -> Result<Vec<(String, Value)>, NotStarted> {
    let given = &flags.overrides.options;
    let places = given.iter().map(|option| (option.name.clone(), option.flag.clone()));
    let written = Written { section: Some("--option".to_owned()), options: places.collect() };
    let untyped = |option: &GivenOption| (option.name.clone(), OptionValue::Untyped(option.value.clone()));
    let untyped: Vec<_> = given.iter().map(untyped).collect();
    let described = description(&args.plugin, environment, log)?;
    let typed = described.typed_options(flags.method(), &untyped, &written);
    let typed = typed.map_err(|refusal| NotStarted::usage(anyhow::anyhow!(refusal.message)))?;
    Ok(typed.into_iter().map(|(name, value)| (name, toml_value(value))).collect())
}

fn toml_value(value: OptionValue) -> Value {
    match value {
        OptionValue::Text(text) | OptionValue::Untyped(text) => text.into(),
        OptionValue::Integer(number) => number.into(),
        OptionValue::Number(number) => number.into(),
        OptionValue::Flag(flag) => flag.into(),
        OptionValue::Texts(texts) => texts.into(),
    }
}

/// Returns an option of pg_basebackup, as the reader of flags understands it.
fn of_basebackup(given: &GivenOption) -> (String, Value) {
    let value = match given.value.as_str() {
        "" | "true" | "True" => true.into(),
        "false" | "False" => false.into(),
        text => text.into(),
    };
    (given.name.clone(), value)
}
