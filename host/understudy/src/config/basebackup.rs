//! `[method.basebackup]`: the options of pg_basebackup, and how many times and for how long it is tried.

use std::time::Duration;

use ::replica::basebackup::{Basebackup, BasebackupOption, BasebackupOptions, OptionValue};
use ::replica::process::GuardExecutable;
use toml::de::DeValue;

use super::GivenOption;
use super::keys::Key;
use super::tree::{Name, Section, Value};

/// The keys of `[method.basebackup]`.
pub(super) const KEYS: &[Key] = &[
    Key::new(
        "options",
        "table, or list of flags and one-pair tables",
        "none",
        "long options of `pg_basebackup`, without dashes: see [basebackup](methods.md#basebackup). In a \
         table an option that is `false`, 0 or empty is left out",
    ),
    Key::new("tries", "1 to 100", "2", "how often `pg_basebackup` is tried"),
    Key::new("pause", "time", "`\"5s\"`", "the pause between two tries; `\"0s\"` is allowed"),
    Key::new("timeout", "time", "no limit", "how long all tries together may take"),
    Key::new(
        "stall_timeout",
        "time",
        "no limit",
        "how long `pg_basebackup` may report no progress. There is no default because a checkpoint may \
         take long",
    ),
];

/// `basebackup` as the operator configured it.
#[derive(Clone, Debug, Default)]
pub struct BasebackupSection {
    /// Options of pg_basebackup. They are checked when the method is tried (rules 19 and 20).
    options: Options,
    /// How many times pg_basebackup is tried; `None` means as many times as Patroni tries it (loop rule 18).
    pub tries: Option<u32>,
    /// The pause between two tries; `None` means as long as Patroni waits.
    pub pause: Option<Duration>,
    /// How long all tries together may take; `None` means no limit.
    pub timeout: Option<Duration>,
    /// How long pg_basebackup may report no progress. `None` means no limit, which is the default because the checkpoint that pg_basebackup
    /// waits for may take long.
    pub stall_timeout: Option<Duration>,
}

/// The two forms of the options, which Patroni reads differently.
#[derive(Clone, Debug)]
enum Options {
    Map(Vec<BasebackupOption>),
    List(Vec<BasebackupOption>),
}

impl Default for Options {
    fn default() -> Self {
        Self::Map(Vec::new())
    }
}

/// The maximum of `tries`. A larger number is likely a mistake.
const MOST_TRIES: u64 = 100;

/// Keys that only the sections of other methods have, and why they do not apply here.
const OF_COMPONENTS: [(&str, &str); 7] = [
    ("plugin", "does not apply to basebackup, which is not a plugin: it runs pg_basebackup from `bin_dir`"),
    ("plan_timeout", "does not apply to basebackup, which plans with what the source reports within 15 s"),
    ("grants", "does not apply to basebackup, which runs outside the sandbox"),
    ("keep_data", "does not apply to basebackup: pg_basebackup needs an empty directory"),
    ("no_leader", "does not apply to basebackup, which copies from the source"),
    ("no_master", "does not apply to basebackup, which copies from the source"),
    (
        "no_params",
        "does not apply to basebackup, which always needs the data directory and the connection string",
    ),
];

pub(super) fn read(section: Section<'_>) -> BasebackupSection {
    let tries = section.get("tries").and_then(|value| {
        let tries = value.count(1)?;
        if tries > MOST_TRIES {
            value.problem(format_args!("must be at most {MOST_TRIES}"));
        }
        u32::try_from(tries).ok()
    });
    let pause = section.get("pause").and_then(|value| value.duration_or_zero());
    let basebackup = BasebackupSection {
        options: section.get("options").and_then(|value| read_options(&value)).unwrap_or_default(),
        tries,
        pause,
        timeout: section.get("timeout").and_then(|value| value.duration()),
        stall_timeout: section.get("stall_timeout").and_then(|value| value.duration()),
    };
    for (key, why) in OF_COMPONENTS {
        section.refuse(key, why);
    }
    section.finish();
    basebackup
}

/// Reads a table, or a list of flags and of tables with one pair each (loop rule 19).
fn read_options(value: &Value<'_>) -> Option<Options> {
    match value.raw() {
        DeValue::Table(_) => Some(Options::Map(read_table(value)?)),
        DeValue::Array(_) => Some(Options::List(value.list()?.iter().filter_map(read_item).collect())),
        _ => {
            value.problem("must be a table, or a list such as [\"verbose\", { max-rate = \"100M\" }]");
            None
        }
    }
}

/// Reads an item of the list: a flag, `name=value`, or a table with one pair.
fn read_item(item: &Value<'_>) -> Option<BasebackupOption> {
    match item.raw() {
        DeValue::Table(_) => {
            let pairs = read_table(item)?;
            match <[_; 1]>::try_from(pairs) {
                Ok([pair]) => Some(pair),
                Err(_) => {
                    item.problem("must hold one pair, as in { max-rate = \"100M\" }");
                    None
                }
            }
        }
        DeValue::String(_) => {
            let text = item.text()?;
            Some(match text.split_once('=') {
                Some((name, value)) => option(name, OptionValue::Text(value.to_owned()), item.at()),
                None => option(text, OptionValue::Flag, item.at()),
            })
        }
        _ => {
            item.problem("must be a flag in quotes, or a table with one pair");
            None
        }
    }
}

fn read_table(value: &Value<'_>) -> Option<Vec<BasebackupOption>> {
    let table = value.table()?;
    let read = |(name, value): &(Name, Value<'_>)| {
        Some(option(&name.text, read_value(value)?, table.reader().at(name.place)))
    };
    Some(table.entries().iter().filter_map(read).collect())
}

fn read_value(value: &Value<'_>) -> Option<OptionValue> {
    match value.raw() {
        DeValue::Boolean(true) => Some(OptionValue::Flag),
        DeValue::Boolean(false) => Some(OptionValue::Off),
        DeValue::String(text) => Some(OptionValue::Text(text.to_string())),
        DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(number) => Some(OptionValue::Text(number.to_string())),
            Err(_) => {
                value.problem("does not fit in 64 bits");
                None
            }
        },
        DeValue::Float(number) => Some(OptionValue::Text(number.to_string())),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            value.problem("must be a string, a number, true or false");
            None
        }
    }
}

fn option(name: &str, value: OptionValue, place: String) -> BasebackupOption {
    BasebackupOption { name: name.to_owned(), value, place: Some(place) }
}

/// Returns an option that was given on the command line. An empty value, `true` and `True` set a flag; `false` and `False` leave it out.
pub(super) fn from_flag(given: &GivenOption) -> BasebackupOption {
    let value = match given.value.as_str() {
        "" | "true" | "True" => OptionValue::Flag,
        "false" | "False" => OptionValue::Off,
        text => OptionValue::Text(text.to_owned()),
    };
    option(&given.name, value, given.flag.clone())
}

impl BasebackupSection {
    /// Sets an option, in place of any option of the same name in the file.
    pub(super) fn set(&mut self, option: BasebackupOption) {
        let (Options::Map(options) | Options::List(options)) = &mut self.options;
        options.retain(|given| given.name != option.name);
        options.push(option);
    }

    /// Returns the method as configured. This program is its guard executable.
    pub fn method(&self, require_landlock: Option<u32>) -> Basebackup {
        let mut method =
            Basebackup::new(self.options(), GuardExecutable::this()).require_landlock(require_landlock);
        if let Some(tries) = self.tries {
            method = method.tries(tries);
        }
        if let Some(pause) = self.pause {
            method = method.pause(pause);
        }
        method
    }

    /// Returns the options in the form that the method takes.
    pub(super) fn options(&self) -> BasebackupOptions {
        match self.options.clone() {
            Options::Map(options) => BasebackupOptions::from_map(options),
            Options::List(options) => BasebackupOptions::from_list(options),
        }
    }
}
