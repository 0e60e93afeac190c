//! The command of a custom method: the program, its own arguments, and what Patroni adds from the method's section.

use std::path::Path;

use foundation::logins::secrets_in;
use foundation::printable::is_printable;

use crate::remarks::Remarks;
use crate::settings::Setting;
use crate::{known, python, shlex};

/// A program as Patroni runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// The absolute path of the program.
    pub(crate) path: String,
    /// Whether `path` is a guess, because Patroni looks the program up.
    pub(crate) is_guess: bool,
    /// The words of the command after the program.
    pub(crate) words: Vec<String>,
    /// `key=value` for each key of the section that Patroni passes, before those of the cluster.
    pub(crate) parameters: Vec<String>,
    /// Variables that `env` sets before the program.
    pub(crate) environment: Vec<(String, String)>,
    /// Files that an interpreter reads: the script that is its argument.
    pub(crate) read: Vec<String>,
}

/// Keys that Patroni sets itself when it passes the cluster (`create_replica`), so that those of the section do not count.
const OF_THE_CLUSTER: [&str; 4] = ["scope", "role", "datadir", "connstring"];

/// Keys that Patroni removes from the arguments if it passes nothing of the cluster.
const OF_PATRONI: [&str; 3] = ["no_params", "no_leader", "keep_data"];

/// The directory of a program of which only the name is known.
const GUESSED: &str = "/usr/local/bin";

impl Command {
    /// Reads the command of the method `name`, of which Patroni has this section. `None` if Patroni could not run it either, or it is
    /// Understudy; the remarks say why.
    pub(crate) fn read(
        name: &Setting<'_>,
        section: Option<&Setting<'_>>,
        no_params: bool,
        remarks: &mut Remarks,
    ) -> Option<Self> {
        let given = section.and_then(|section| section.get("command"));
        let place = given.as_ref().unwrap_or(name);
        let Some(text) = place.value.text() else {
            remarks.not_carried(place, "the command is no text, and Patroni fails on it");
            return None;
        };
        let mut words = match shlex::split(text) {
            Ok(words) => words,
            Err(why) => {
                remarks.not_carried(place, format!("Patroni cannot split the command into words: {why}"));
                return None;
            }
        };
        let environment = take_environment(&mut words, place, remarks);
        if words.is_empty() || words[0].is_empty() {
            remarks.not_carried(place, "the command names no program, and Patroni fails on it");
            return None;
        }
        let program = words.remove(0);
        if known::base_name(&program) == "understudy" {
            remarks.not_carried(
                place,
                "the method is Understudy already: its methods are in the file that \
                 --config of the command names",
            );
            return None;
        }
        let (path, is_guess) = absolute(&program, place, remarks);
        let words = without_secrets(words, place, remarks);
        let read = known::script(&program, &words).into_iter().collect();
        if let Some(reason) = known::advice(&program, &words).refused {
            remarks.not_carried(place, reason);
        }
        let parameters = section.map(|section| of_section(section, no_params, remarks)).unwrap_or_default();
        Some(
            Self { path, is_guess, words, parameters, environment, read }
                .with_parameters_as_the_plugin_takes_them(),
        )
    }

    /// Makes words of the parameters if the plugin `command` does not take them as parameters: two with the same key, which YAML can have
    /// (`1` and `'1'`), or a key with a dash at its beginning.
    fn with_parameters_as_the_plugin_takes_them(mut self) -> Self {
        let key = |parameter: &String| parameter.split('=').next().unwrap_or_default().to_owned();
        let mut keys: Vec<_> = self.parameters.iter().map(key).collect();
        let is_taken = keys.iter().all(|key| !key.is_empty() && !key.starts_with('-'));
        keys.sort_unstable();
        if !is_taken || keys.windows(2).any(|two| two[0] == two[1]) {
            self.words.extend(self.parameters.drain(..).map(|parameter| format!("--{parameter}")));
        }
        self
    }
}

/// Returns the absolute path of a program, and whether it is a guess.
fn absolute(program: &str, place: &Setting<'_>, remarks: &mut Remarks) -> (String, bool) {
    if Path::new(program).is_absolute() {
        return (program.to_owned(), false);
    }
    let name = known::base_name(program);
    let path = match known::path(name) {
        Some(path) => path.to_owned(),
        None => format!("{GUESSED}/{name}"),
    };
    let how = match program.contains('/') {
        true => "is relative to the directory in which Patroni was started",
        false => "is looked up in Patroni's PATH",
    };
    let reason = format!(
        "the program `{program}` {how}, and a grant needs its absolute path: `{path}` is written, compare it with `command -v {name}` as \
         Patroni's user"
    );
    remarks.not_carried(place, reason);
    (path, true)
}

/// Takes `env NAME=value` off the beginning of a command, and returns the variables.
fn take_environment(
    words: &mut Vec<String>,
    place: &Setting<'_>,
    remarks: &mut Remarks,
) -> Vec<(String, String)> {
    let mut environment = Vec::new();
    if words.first().is_none_or(|word| known::base_name(word) != "env")
        || words.get(1).is_some_and(|word| word.starts_with('-'))
    {
        return environment;
    }
    words.remove(0);
    while let Some((name, value)) = words.first().and_then(|word| word.split_once('=')) {
        if is_secret(name, value) {
            let reason = format!(
                "the variable {name} has a secret, which no configuration of Understudy holds: write env = {{ {name} = {{ key = \
                 \"NAME\" }} }} into the grant of the program, and keys.NAME = {{ file = \"/path\" }}"
            );
            remarks.not_carried(place, reason);
        } else {
            environment.push((name.to_owned(), value.to_owned()));
        }
        words.remove(0);
    }
    environment
}

/// Returns the words of a command without those that hold secrets.
fn without_secrets(words: Vec<String>, place: &Setting<'_>, remarks: &mut Remarks) -> Vec<String> {
    let mut kept = Vec::new();
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            // `--password VALUE`
            None if word.starts_with("--") => (word.clone(), words.peek().cloned().unwrap_or_default()),
            None => (String::new(), word.clone()),
        };
        if !is_secret(&name, &value) {
            match is_seen(&word) {
                true => kept.push(word),
                false => remarks.not_carried(place, INVISIBLE),
            }
            continue;
        }
        if !word.contains('=') && !name.is_empty() {
            words.next();
        }
        let what = if name.is_empty() { "an argument".to_owned() } else { format!("the argument {name}") };
        remarks.not_carried(place, secret_argument(&what));
    }
    kept
}

fn secret_argument(what: &str) -> String {
    format!(
        "{what} has a secret, which would stand in the configuration and in the list of processes, and is left out: let the program read \
         it from a file, or from a variable, env = {{ NAME = {{ key = \"NAME\" }} }} in its grant"
    )
}

/// Returns `key=value` for each key of a section that Patroni passes as `--key=value`, in the order of the file.
fn of_section(section: &Setting<'_>, no_params: bool, remarks: &mut Remarks) -> Vec<String> {
    let mut parameters = Vec::new();
    for setting in section.settings() {
        let name = setting.name();
        if name == "command" || (no_params && OF_PATRONI.contains(&name.as_str())) {
            continue;
        }
        if !no_params && OF_THE_CLUSTER.contains(&name.as_str()) {
            remarks.note(&setting, "Patroni replaces the value by its own, and so does Understudy");
            continue;
        }
        let Some(value) = python::str(setting.value) else {
            remarks
                .not_carried(&setting, "the value has no text that can be an argument: write it in quotes");
            continue;
        };
        if is_secret(&name, &value) {
            remarks.not_carried(&setting, secret_argument(&format!("the argument --{name}")));
            continue;
        }
        if let Some(says) = reading(&setting, &value) {
            remarks.note(&setting, says);
        }
        if !is_seen(&name) || !is_seen(&value) {
            remarks.not_carried(&setting, INVISIBLE);
            continue;
        }
        parameters.push(format!("{name}={value}"));
    }
    parameters
}

/// Why an argument is left out.
const INVISIBLE: &str = "an argument with a line end or another character that cannot be seen, or with a space at its end, \
                         cannot be granted: \
                         write a script that passes it";

/// Whether a pattern of Understudy's can cover this argument.
fn is_seen(argument: &str) -> bool {
    argument.is_empty() || (is_printable(argument) && argument.trim() == argument)
}

/// Says how a value is passed that a person may read otherwise: `0700` is the number 448.
fn reading(setting: &Setting<'_>, value: &str) -> Option<String> {
    use crate::yaml::Value;
    let is_own = OF_PATRONI.contains(&setting.name().as_str()) || setting.name() == "no_master";
    match setting.value.value() {
        Value::Text(_) => None,
        _ if is_own => None,
        Value::Integer(_) if !setting.value.is_rewritten() => None,
        _ => Some(format!(
            "without quotes YAML 1.1 makes `{value}` of the value, which is what the program gets"
        )),
    }
}

/// Parts of names of secrets.
const SECRETS: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "credential",
    "access_key",
    "access-key",
    "accesskey",
    "api_key",
    "api-key",
    "apikey",
    "private_key",
];

/// Words that are names of secrets alone or between other words.
const SECRET_WORDS: [&str; 4] = ["pass", "pwd", "pw", "sas"];

/// Returns whether an argument or a variable holds a secret: by its name, unless the value is a path, or because the value is an address
/// or a connection string with a password.
fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_lowercase();
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
    let named =
        SECRETS.iter().any(|secret| name.contains(secret)) || words.any(|word| SECRET_WORDS.contains(&word));
    let is_reference =
        value.is_empty() || value.starts_with('/') || name.ends_with("file") || name.ends_with("path");
    (named && !is_reference) || !secrets_in(value).is_empty() || value.contains("password=")
}
