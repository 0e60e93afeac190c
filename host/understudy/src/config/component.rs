//! `[method.NAME]` for a method that is a WebAssembly component: its plugin, its options and its grants.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use sandbox::{OptionValue, Written};
use toml::de::DeValue;

use super::Environment;
use super::grants::{self, GrantsSection};
use super::keys::{Key, names};
use super::methods::is_method_name;
use super::tree::{Section, Value};

/// The keys of `[method.NAME]`.
pub(super) const KEYS: &[Key] = &[
    Key::new(
        "plugin",
        "path or name",
        "`NAME.wasm` in the plugin path, else the method `NAME` that is included in the program",
        "the component. A text with a `/`, or one that ends in `.wasm`, is the path of its file, absolute or \
         relative to the folder of the configuration file. Any other text is looked up in place of the \
         method's own name, so that several methods can use one plugin. A URL and a registry reference such \
         as `host/name:tag` are not supported and are refused",
    ),
    Key::new(
        "options",
        "table",
        "the method's own defaults",
        "the method's options, checked against what the component describes. A value is a text, a number, \
         a flag or a list of texts",
    ),
    Key::new(
        "keep_data",
        "flag",
        "`false`",
        "do not empty the directory; the method builds on the old files. The method is rejected unless its plan says \
         that it builds on old files, or the directory is empty or holds unfinished work",
    ),
    Key::new(
        "no_leader",
        "flag",
        "`false`",
        "also try the method without a source. Also read as `no_master`",
    )
    .also(&["no_master"]),
    Key::new(
        "no_params",
        "flag",
        "`false`",
        "do not give the method scope, role, data directory and connection string. The methods that come \
         with Understudy, except `command`, fail with this setting, because they need the data directory",
    ),
    Key::new("timeout", "time", "no limit", "how long one attempt may take"),
    Key::new("plan_timeout", "time", "`\"10m\"`", "how long the plan may take; `\"0s\"` means no limit"),
    Key::new(
        "stall_timeout",
        "time",
        "`\"15m\"`, or 5 minutes more than the longest `retry_for` of the method's stores if that is \
         longer",
        "how long the method may go without reading, writing or finishing anything while it fills the directory; `\"0s\"` \
         means no limit",
    ),
    Key::new(
        "cpu",
        "time",
        "`\"4h\"`",
        "how much processor time one attempt may use on the method's own thread, for the method's code and \
         for host functions. Threads that transfer files do not count. `\"0s\"` means no limit",
    ),
    Key::new("grants", "table", "nothing is granted", "[what the method may reach](#methodnamegrants)"),
];

/// The component that `plugin` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plugin {
    /// The component's file.
    File(PathBuf),
    /// A name, which is looked up in the plugin path and in the program in place of the method's own name.
    Name(String),
}

/// A component as the operator configured it.
#[derive(Clone, Debug, Default)]
pub struct ComponentSection {
    /// The component; `None` means that the method's own name is looked up (loop rule 6).
    pub plugin: Option<Plugin>,
    /// Whether to keep the files in the data directory, which the method then builds on.
    pub keep_data: bool,
    /// Whether the method is also tried without a source.
    pub no_leader: bool,
    /// Whether the method gets none of Patroni's four parameters.
    pub no_params: bool,
    /// How long one attempt may take; `None` means no limit.
    pub timeout: Option<Duration>,
    /// How long the plan may take; `None` means [`PLAN_TIMEOUT`], and zero means no limit.
    pub plan_timeout: Option<Duration>,
    /// How long the method may make no progress; `None` means the default of [`ComponentSection::stall_timeout`], and zero means no limit.
    pub stall_timeout: Option<Duration>,
    /// How much processor time one attempt may use; `None` means [`CPU`], and zero means no limit.
    pub cpu: Option<Duration>,
    /// The plugin's options, which are checked against the plugin's own description when it is loaded.
    pub options: Vec<(String, OptionValue)>,
    /// The places of the section and of its options in the file.
    pub written: Written,
    /// What the method may reach.
    pub grants: GrantsSection,
}

/// How long a plan may take by default: long enough to list some million files on a slow file system.
const PLAN_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// How long a method may go without reading, writing or finishing anything by default.
const STALL_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// How much processor time one attempt may use by default. This limit ends a method that calls the host in an endless loop. `stall_timeout`
/// does not end such a method, because every call counts as activity.
const CPU: Duration = Duration::from_secs(4 * 60 * 60);

/// The default `stall_timeout` exceeds the longest `retry_for` of the method's stores by at least this much, so that the store's own error
/// is reported first.
const AFTER_RETRIES: Duration = Duration::from_secs(5 * 60);

impl ComponentSection {
    /// Returns the name that is looked up for the method `method`; `None` if the section names the component's file.
    pub fn looked_up<'a>(&'a self, method: &'a str) -> Option<&'a str> {
        match &self.plugin {
            None => Some(method),
            Some(Plugin::Name(name)) => Some(name),
            Some(Plugin::File(_)) => None,
        }
    }

    /// Returns how long the plan may take; `None` if there is no limit.
    pub fn plan_timeout(&self) -> Option<Duration> {
        Some(self.plan_timeout.unwrap_or(PLAN_TIMEOUT)).filter(|limit| !limit.is_zero())
    }

    /// Returns how much processor time one attempt may use; `None` if there is no limit.
    pub fn cpu(&self) -> Option<Duration> {
        Some(self.cpu.unwrap_or(CPU)).filter(|limit| !limit.is_zero())
    }

    /// Returns how long the method may go without reading, writing or finishing anything; `None` if there is no limit.
    pub fn stall_timeout(&self) -> Option<Duration> {
        let retries = self.grants.open.stores.values().map(|store| store.retry.at_most).max();
        let default = || retries.map_or(STALL_TIMEOUT, |retries| STALL_TIMEOUT.max(retries + AFTER_RETRIES));
        Some(self.stall_timeout.unwrap_or_else(default)).filter(|limit| !limit.is_zero())
    }
}

pub(super) fn read(section: Section<'_>, environment: Environment<'_>) -> ComponentSection {
    let flag = |key| section.get(key).and_then(|value: Value<'_>| value.flag()).unwrap_or(false);
    let (options, places) = section.get("options").map(|value| read_options(&value)).unwrap_or_default();
    let component = ComponentSection {
        plugin: section.get("plugin").and_then(|value| read_plugin(&value)),
        keep_data: flag("keep_data"),
        // `|` and not `||`, so that both keys are read and checked (loop rule 4).
        no_leader: flag("no_leader") | flag("no_master"),
        no_params: flag("no_params"),
        timeout: section.get("timeout").and_then(|value| value.duration()),
        plan_timeout: section.get("plan_timeout").and_then(|value| value.duration_or_zero()),
        stall_timeout: section.get("stall_timeout").and_then(|value| value.duration_or_zero()),
        cpu: section.get("cpu").and_then(|value| value.duration_or_zero()),
        options,
        written: Written { section: Some(section.reader().at(section.place())), options: places },
        grants: section
            .get("grants")
            .and_then(|value| value.section(names(grants::KEYS)))
            .map(|section| grants::read(section, environment))
            .unwrap_or_default(),
    };
    let options = section.below("options");
    section.finish_with(|_, hint| {
        hint.or_else(|| Some(format!("no method has it; an option of the plugin belongs to `[{options}]`")))
    });
    component
}

/// Reads a name, or a path, which is absolute or relative to the folder of the configuration file. Returns a path as an absolute one.
fn read_plugin(value: &Value<'_>) -> Option<Plugin> {
    let text = value.word()?;
    if is_registry_reference(text) {
        // The message does not quote the text, because an address may contain a password.
        value.problem(
            "names an address or a registry's reference; neither is supported by this version: fetch the component and write its \
             path, which begins with `/` or `./` or ends with .wasm",
        );
        return None;
    }
    if !text.contains('/') && !text.ends_with(".wasm") {
        if !is_method_name(text) {
            value.problem(
                "is neither a path, which has a `/` or ends in `.wasm`, nor a name of letters, digits, `_`, `-` and `.`",
            );
            return None;
        }
        return Some(Plugin::Name(text.to_owned()));
    }
    // Made absolute without following links, so that messages name what the operator wrote.
    std::path::absolute(value.folder().join(text))
        .map_err(|error| value.problem(format_args!("cannot be used: {error}")))
        .ok()
        .inspect(|plugin| value.keep(plugin))
        .map(Plugin::File)
}

/// Returns whether a text looks like a URL or an OCI reference, `host.example/name:tag` or `host/name@sha256:...`, rather than a path.
fn is_registry_reference(text: &str) -> bool {
    let scheme = text.contains("://");
    if !scheme && (text.starts_with(['/', '.']) || text.ends_with(".wasm")) {
        return false;
    }
    let (first, rest) = text.split_once('/').unwrap_or(("", text));
    let host = first.contains(['.', ':']) || first == "localhost";
    let tagged = rest.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
    scheme || host || tagged
}

/// The options in the operator's order, and the place of each option by the option's name.
type Options = (Vec<(String, OptionValue)>, BTreeMap<String, String>);

/// Reads the table of the plugin's options. Only the plugin knows which keys are valid.
fn read_options(value: &Value<'_>) -> Options {
    let (mut options, mut places) = Options::default();
    let Some(table) = value.table() else { return (options, places) };
    for (name, value) in table.entries() {
        if let Some(option) = read_option(&value) {
            places.insert(name.text.clone(), table.reader().at(name.place));
            options.push((name.text, option));
        }
    }
    (options, places)
}

fn read_option(value: &Value<'_>) -> Option<OptionValue> {
    match value.raw() {
        DeValue::String(text) => Some(OptionValue::Text(text.to_string())),
        DeValue::Boolean(flag) => Some(OptionValue::Flag(*flag)),
        DeValue::Integer(digits) => match i64::from_str_radix(digits.as_str(), digits.radix()) {
            Ok(number) => Some(OptionValue::Integer(number)),
            Err(_) => {
                value.problem("does not fit in 64 bits");
                None
            }
        },
        DeValue::Float(digits) => match digits.as_str().parse::<f64>() {
            Ok(number) if number.is_finite() => Some(OptionValue::Number(number)),
            _ => {
                value.problem("must be a finite number");
                None
            }
        },
        DeValue::Array(_) => {
            let items = value.list()?;
            let texts = items.iter().map(|item| {
                let text = item.raw().as_str().map(str::to_owned);
                if text.is_none() {
                    item.problem("must be a quoted string: a list among the options holds texts only");
                }
                text
            });
            texts.collect::<Vec<_>>().into_iter().collect::<Option<_>>().map(OptionValue::Texts)
        }
        DeValue::Datetime(_) => {
            value.problem("must be quoted: options have no type for dates");
            None
        }
        DeValue::Table(_) => {
            value.problem("must not be a table: an option is a text, a number, a flag or a list of texts");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_reference_is_not_taken_for_a_path() {
        for reference in [
            "registry.example/acme/pgbackrest:1.4",
            "localhost:5000/x",
            "acme/pgbackrest:1.4",
            "oci://h/x",
            "h.example/x@sha256:00",
            "https://u:S3cret'x@h/t.wasm",
        ] {
            assert!(is_registry_reference(reference), "{reference}");
        }
        for path in [
            "/opt/x.wasm",
            "./acme/x:1",
            "../x",
            "plugins/x.wasm",
            "x.wasm",
            "x",
            "sub/x",
            "host.example/x.wasm",
        ] {
            assert!(!is_registry_reference(path), "{path}");
        }
    }
}
