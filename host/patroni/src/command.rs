//! The command of a custom method: the program, its own arguments, and the arguments that Patroni adds from the method's section.

use std::path::Path;

use foundation::lookalike::{self, Names};
use foundation::printable::is_printable;
use foundation::shell::word_holds_secret;

use crate::remarks::Remarks;
use crate::settings::Setting;
use crate::{known, python, shlex};

/// A program as Patroni runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// The absolute path of the program.
    pub(crate) path: String,
    /// Whether `path` is a guess, because the command names the program without its directory.
    pub(crate) is_guess: bool,
    /// The words of the command after the program.
    pub(crate) words: Vec<String>,
    /// `key=value` for each key of the section that Patroni passes. Patroni's own arguments follow them.
    pub(crate) parameters: Vec<String>,
    /// Variables that `env` sets before the program.
    pub(crate) environment: Vec<(String, String)>,
    /// Files that the program must read: for an interpreter, the script.
    pub(crate) read: Vec<String>,
}

/// Keys that Patroni sets itself (`create_replica`) unless `no_params` is set. They replace the same keys of the section.
const OF_THE_CLUSTER: [&str; 4] = ["scope", "role", "datadir", "connstring"];

/// Keys that Patroni removes from the arguments if `no_params` is set.
const OF_PATRONI: [&str; 3] = ["no_params", "no_leader", "keep_data"];

/// The directory that is guessed for a program if the command names it without a directory.
const GUESSED: &str = "/usr/local/bin";

/// What a method runs.
#[derive(Debug)]
pub(crate) enum Runnable {
    Program(Command),
    /// Understudy itself.
    Understudy,
    /// Nothing, because Patroni could not run the command.
    Nothing,
}

impl Command {
    /// Reads the command of the method `name` from its section in Patroni's file. Adds a remark if it is not a program that is carried over.
    pub(crate) fn read(
        name: &Setting<'_>,
        section: Option<&Setting<'_>>,
        no_params: bool,
        remarks: &mut Remarks,
    ) -> Runnable {
        let given = section.and_then(|section| section.get("command"));
        let place = given.as_ref().unwrap_or(name);
        let Some(text) = place.value.text() else {
            remarks.not_carried(place, "the command is not a string, so Patroni fails on it");
            return Runnable::Nothing;
        };
        let mut words = match shlex::split(text) {
            Ok(words) => words,
            Err(why) => {
                remarks.not_carried(place, format!("Patroni cannot split the command into words: {why}"));
                return Runnable::Nothing;
            }
        };
        let environment = take_environment(&mut words, place, remarks);
        if words.is_empty() || words[0].is_empty() {
            remarks.not_carried(place, "the command names no program, so Patroni fails on it");
            return Runnable::Nothing;
        }
        let program = words.remove(0);
        if is_secret("", &program) {
            let reason = "the word in the place of the program has a secret, and Patroni fails on it";
            remarks.not_carried(place, reason);
            return Runnable::Nothing;
        }
        if known::base_name(&program) == "understudy" {
            remarks.not_carried(
                place,
                "the method already is Understudy: its methods are in the file that \
                 its command names with --config",
            );
            return Runnable::Understudy;
        }
        let (path, is_guess) = absolute(&program, place, remarks);
        let words = without_secrets(words, place, remarks);
        let read = known::script(&program, &words).into_iter().collect();
        if let Some(reason) = known::advice(&program, &words).refused {
            remarks.not_carried(place, reason);
        }
        let parameters = section.map(|section| of_section(section, no_params, remarks)).unwrap_or_default();
        let command = Self { path, is_guess, words, parameters, environment, read };
        Runnable::Program(command.with_parameters_for_the_plugin())
    }

    /// Turns the parameters into arguments if the plugin `command` would refuse them as `parameters`: if two have the same key, as with
    /// YAML's `1` and `'1'`, or if a key is empty or begins with a dash.
    fn with_parameters_for_the_plugin(mut self) -> Self {
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
        false => "is found in Patroni's PATH",
    };
    let reason = format!(
        "the program `{program}` {how}, but a grant needs its absolute path: this configuration guesses `{path}`; run `command -v {name}` \
         as Patroni's user to find the right path"
    );
    remarks.not_carried(place, reason);
    (path, true)
}

/// Splits a word `NAME=value` whose name is that of a variable.
fn variable(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    is_name.then_some((name, value))
}

/// Removes `env NAME=value`, or `NAME=value` as a shell would accept it, from the beginning of a command, and returns the variables.
fn take_environment(
    words: &mut Vec<String>,
    place: &Setting<'_>,
    remarks: &mut Remarks,
) -> Vec<(String, String)> {
    let mut environment = Vec::new();
    let is_env = words.first().is_some_and(|word| known::base_name(word) == "env");
    if is_env && words.get(1).is_some_and(|word| word.starts_with('-')) {
        return environment;
    }
    if is_env {
        words.remove(0);
    } else if words.first().is_some_and(|word| variable(word).is_some()) {
        let reason = "the command begins with variables, on which Patroni fails because it runs no shell: they become variables of the \
                      program";
        remarks.not_carried(place, reason);
    }
    let pair = |word: &String| {
        let (name, value) = if is_env { word.split_once('=') } else { variable(word) }?;
        Some((name.to_owned(), value.to_owned()))
    };
    while let Some((name, value)) = words.first().and_then(pair) {
        if is_secret(&name, &value) {
            let reason = format!(
                "the variable {name} has a secret, which must not be in Understudy's configuration: write env = {{ {name} = {{ key = \
                 \"NAME\" }} }} in the grant of the program, and grant keys.NAME = {{ file = \"/path\" }}"
            );
            remarks.not_carried(place, reason);
        } else {
            environment.push((name, value));
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
        let is_named = is_secret(&name, &value);
        if !is_named && !is_secret("", &word) {
            match is_seen(&word) {
                true => kept.push(word),
                false => remarks.not_carried(place, INVISIBLE),
            }
            continue;
        }
        if is_named && !word.contains('=') && !name.is_empty() {
            words.next();
        }
        // The part before the first `=` may contain the secret: `https://u:secret@h/?x=y`.
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let what = match is_named && !name.is_empty() && name.chars().all(is_name) {
            true => format!("the argument {name}"),
            false => "an argument".to_owned(),
        };
        remarks.not_carried(place, secret_argument(&what));
    }
    kept
}

fn secret_argument(what: &str) -> String {
    format!(
        "{what} has a secret and is left out, because the configuration and the list of processes would show it: let the program read the \
         secret from a file, or from a variable with env = {{ NAME = {{ key = \"NAME\" }} }} in its grant"
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
            remarks.note(&setting, "Patroni replaces this value with its own, and so does Understudy");
            continue;
        }
        let Some(value) = python::str(setting.value) else {
            remarks.not_carried(&setting, "the value cannot be converted to an argument: write it in quotes");
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

/// The message for an argument that is left out.
const INVISIBLE: &str = "an argument with a line end, another invisible character or a space at its end cannot be granted: \
                         write a script that passes the argument";

/// Returns whether a pattern in a grant can match this argument.
fn is_seen(argument: &str) -> bool {
    argument.is_empty() || (is_printable(argument) && argument.trim() == argument)
}

/// Returns a message if YAML gives the value another meaning than a person may expect: `0700` is the number 448.
fn reading(setting: &Setting<'_>, value: &str) -> Option<String> {
    use crate::yaml::Value;
    let is_own = OF_PATRONI.contains(&setting.name().as_str()) || setting.name() == "no_master";
    match setting.value.value() {
        Value::Text(_) => None,
        _ if is_own => None,
        Value::Integer(_) if !setting.value.is_rewritten() => None,
        _ => {
            Some(format!("without quotes, YAML 1.1 reads this value as `{value}`, and the program gets that"))
        }
    }
}

/// Returns whether an argument or a variable holds a secret: whether its name is that of a secret and its value is not a path, or whether
/// the value looks like a secret. The value may be a command, such as the argument of `sh -c`.
pub(crate) fn is_secret(name: &str, value: &str) -> bool {
    lookalike::is_secret(name, value, Names::Doubtful) || word_holds_secret(value)
}
