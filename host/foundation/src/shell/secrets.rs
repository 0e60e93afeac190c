//! Finds secrets in a command: in the variables that it sets, even within `env`, `sh -c` and the like, and in arguments whose names are
//! those of secrets.
//!
//! [`crate::lookalike`] decides which texts are secrets.

use super::starters::{is_shell, starts_others};
use super::{DEEPEST, SimpleCommand, Unreadable, is_assignment, simple_commands};
use crate::logins::secrets_in;
use crate::lookalike::{Names, bearer, pairs, tells};

/// Why a command must not be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandFault {
    /// The command sets variables, whose values may be secrets.
    SetsVariables,
    /// An argument has the name of a secret; the text is that name, without the value.
    Secret(String),
    /// The command has an address with a password.
    Login,
    /// The command cannot be read, so it may contain anything.
    Unreadable(Unreadable),
}

/// Options after which a user and a password follow (curl, wget and smbclient).
const LOGIN_OPTIONS: [&str; 4] = ["-u", "-U", "--user", "--proxy-user"];

/// Returns whether an option of a command and the argument after it are a login with a password, such as `-u backup:secret`.
pub fn is_login(option: &str, argument: &str) -> bool {
    LOGIN_OPTIONS.contains(&option) && has_login(argument)
}

/// Returns why a command for a shell must not be shown; `None` if no reason was found.
///
/// Variables count regardless of their values. A command that is the argument of a shell, or of a program such as `env`, is read as well.
pub fn fault(command: &str) -> Option<CommandFault> {
    fault_at(command, true, Names::Certain, 0)
}

/// Returns whether one word of a command holds a secret, or is itself a command that holds one, such as the argument of `sh -c`. A variable
/// in that command counts only if its name is that of a secret, be it certain or doubtful.
pub fn word_holds_secret(word: &str) -> bool {
    let holds = |fault| !matches!(fault, CommandFault::Unreadable(Unreadable::NotClosed(_)));
    fault_at(word, false, Names::Doubtful, 0).is_some_and(holds)
}

/// If `variables` is true, every variable counts; otherwise only one with the name of a secret counts.
fn fault_at(command: &str, variables: bool, names: Names, depth: usize) -> Option<CommandFault> {
    if depth > DEEPEST {
        return Some(CommandFault::Unreadable(Unreadable::TooDeep));
    }
    match simple_commands(command) {
        Err(why) => Some(CommandFault::Unreadable(why)),
        Ok(commands) => commands.iter().find_map(|command| fault_of(command, variables, names, depth)),
    }
}

fn fault_of(command: &SimpleCommand, variables: bool, names: Names, depth: usize) -> Option<CommandFault> {
    let rest = command.program_and_arguments();
    let prefix = &command.words[..command.words.len() - rest.len()];
    if variables && prefix.iter().any(|word| is_assignment(word)) {
        return Some(CommandFault::SetsVariables);
    }
    let runs_others = rest.first().is_some_and(|program| is_shell(program) || starts_others(program));
    let words = command.words.iter();
    let next = words.clone().skip(1).map(Some).chain([None]);
    words.zip(next).find_map(|(word, next)| {
        if runs_others && variables && sets_variable(word) {
            return Some(CommandFault::SetsVariables);
        }
        secret(word, next, names).or_else(|| {
            let inner = inner_command(word, runs_others)?;
            match fault_at(inner, variables && runs_others, names, depth + 1)? {
                // A text with one unpaired quotation mark, such as `it's`, is not a command.
                CommandFault::Unreadable(Unreadable::NotClosed(_)) if !runs_others => None,
                fault => Some(fault),
            }
        })
    })
}

/// Returns whether an argument of a program that runs others sets a variable: `NAME=value`, or the same directly after an option, as in
/// `env -SNAME=value`.
fn sets_variable(word: &str) -> bool {
    let after_option = || {
        let short = word.strip_prefix('-').filter(|rest| !rest.starts_with('-'))?;
        let mut rest = short.chars();
        rest.next();
        Some(rest.as_str())
    };
    is_assignment(word) || after_option().is_some_and(is_assignment)
}

/// Returns the part of an argument that may be a command; `None` if the argument has neither spaces nor operators.
fn inner_command(word: &str, of_another_program: bool) -> Option<&str> {
    // `-c'a command'` and `--command='a command'`.
    let after_option = match word.strip_prefix("--") {
        Some(long) => long.split_once('=').map(|(_, value)| value),
        None => word.strip_prefix('-').and_then(|short| short.get(1..)),
    };
    let text = match of_another_program {
        true => after_option.unwrap_or(word),
        false => word,
    };
    text.contains([' ', '\t', '\n', ';', '&', '|', '(', '`', '<', '>']).then_some(text)
}

/// Returns the secret in a word, or in a word and the next one.
fn secret(word: &str, next: Option<&String>, names: Names) -> Option<CommandFault> {
    if !secrets_in(word).is_empty() {
        return Some(CommandFault::Login);
    }
    let named = |name: &str| Some(CommandFault::Secret(name.trim_start_matches('-').to_owned()));
    // The shell replaces `$NAME` with a value that is not in the command, and a path is not a secret.
    let is_elsewhere = |value: &str| value.is_empty() || value.starts_with(['$', '/']);
    let next = next.map(String::as_str).filter(|next| !next.starts_with('-')).unwrap_or_default();
    if is_login(word, next) {
        return Some(CommandFault::Secret(word.to_owned()));
    }
    if let Some((name @ ("--user" | "--proxy-user"), value)) = word.split_once('=')
        && has_login(value)
    {
        return Some(CommandFault::Secret(name.to_owned()));
    }
    if let Some((name, _)) = pairs(word, names).find(|(_, value)| !is_elsewhere(value)) {
        return named(name);
    }
    if bearer(word).is_some_and(|token| !is_elsewhere(token)) {
        return named("bearer");
    }
    // `--password VALUE`
    let is_option = word.starts_with("--") && !word.contains('=');
    if is_option && tells(word, names) && !is_elsewhere(next) { named(word) } else { None }
}

/// Returns whether a value has the form `user:password`. A user without a password does not count, and neither does an address, a pair of
/// numbers or a pair of equal words, which are a user and a group.
fn has_login(value: &str) -> bool {
    let Some((user, password)) = value.split_once(':') else { return false };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let is_group = user == password || (is_number(user) && is_number(password));
    !password.is_empty() && !password.starts_with(['/', '$']) && !is_group
}
