//! Reads the words of a command for a POSIX shell without running anything, to find secrets in it and the name of its program.
//!
//! The reader follows "Shell Command Language" of POSIX.1-2024, chapters 2.2 (quoting) and 2.3 (tokens). It expands neither variables nor
//! patterns. It also returns the commands within `$(...)`, backquotes and parentheses.

use std::mem::take;
use std::str::Chars;

mod secrets;
mod starters;

pub use secrets::{CommandFault, fault, is_login, word_holds_secret};
pub use starters::{is_shell, starts_others};

/// The longest command that is read, in bytes. The kernel does not pass a longer single argument to a shell (`MAX_ARG_STRLEN`).
pub const LONGEST: usize = 128 << 10;

/// How deep commands may be nested.
pub const DEEPEST: usize = 8;

/// Why a command cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The command is longer than [`LONGEST`].
    #[error("is longer than {LONGEST} bytes")]
    TooLong,
    /// Commands are nested deeper than [`DEEPEST`].
    #[error("nests commands more than {DEEPEST} deep")]
    TooDeep,
    /// A quote or a bracket is never closed, and the shell refuses the command.
    #[error("has a {0} that is not closed")]
    NotClosed(&'static str),
}

/// A command of one program: assignments, the program and its arguments, without redirections and quotes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimpleCommand {
    /// The words in their order.
    pub words: Vec<String>,
    /// The number of commands that enclose this one.
    depth: usize,
}

impl SimpleCommand {
    /// Returns the program and its arguments, without the assignments and reserved words (`if`, `{`, `!`) that precede the program. Empty
    /// if the command only sets variables.
    pub fn program_and_arguments(&self) -> &[String] {
        let precedes = |word: &&String| is_assignment(word) || RESERVED.contains(&word.as_str());
        let prefix = self.words.iter().take_while(precedes).count();
        self.words.get(prefix..).unwrap_or_default()
    }
}

/// The reserved words after which another command begins.
const RESERVED: [&str; 9] = ["!", "{", "do", "elif", "else", "if", "then", "until", "while"];

/// Returns whether a word sets a variable: `NAME=value`, and `NAME+=value` and `NAME[0]=value` of other shells.
fn is_assignment(word: &str) -> bool {
    let Some((name, _)) = word.split_once('=') else { return false };
    let name = name.strip_suffix('+').unwrap_or(name);
    let name = name.strip_suffix(']').and_then(|name| Some(name.split_once('[')?.0)).unwrap_or(name);
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Reads all simple commands of a command. A command comes before the commands that are nested in it.
///
/// # Errors
/// Fails if the command is too long or nested too deep, or if a quote or a bracket is not closed.
pub fn simple_commands(command: &str) -> Result<Vec<SimpleCommand>, Unreadable> {
    if command.len() > LONGEST {
        return Err(Unreadable::TooLong);
    }
    let mut commands = commands_at(command, 0)?;
    commands.sort_by_key(|command| command.depth);
    Ok(commands)
}

/// Returns the first program of a command, as the command names it, so that a message can show it. `None` if there is no such program, if
/// its name has characters that are unusual in paths, or if the command cannot be read.
pub fn program(command: &str) -> Option<String> {
    let commands = simple_commands(command).ok()?;
    let first = commands.iter().find_map(|command| command.program_and_arguments().first())?;
    let is_of_a_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '/' | '+' | '-');
    first.chars().all(is_of_a_name).then(|| first.clone())
}

fn commands_at(text: &str, depth: usize) -> Result<Vec<SimpleCommand>, Unreadable> {
    let mut reader = Reader { rest: text.chars(), depth, commands: Vec::new() };
    reader.list(None)?;
    Ok(reader.commands)
}

struct Reader<'a> {
    rest: Chars<'a>,
    depth: usize,
    commands: Vec<SimpleCommand>,
}

/// The part of a simple command that was read so far.
#[derive(Default)]
struct Pending {
    words: Vec<String>,
    /// The word that is being read; `None` between two words.
    word: Option<String>,
    /// Whether the next word is the target of a redirection.
    redirected: bool,
}

impl Pending {
    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) {
        if let Some(word) = self.word.take()
            && !take(&mut self.redirected)
        {
            self.words.push(word);
        }
    }
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Unreadable>) -> Result<T, Unreadable> {
        if self.depth == DEEPEST {
            return Err(Unreadable::TooDeep);
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// Reads commands to the end of the text, or to the bracket `until`.
    fn list(&mut self, until: Option<char>) -> Result<(), Unreadable> {
        let mut pending = Pending::default();
        while let Some(c) = self.rest.next() {
            match c {
                _ if Some(c) == until => {
                    self.end(&mut pending);
                    return Ok(());
                }
                ' ' | '\t' => pending.end_word(),
                '\n' | ';' | '&' | '|' | ')' => self.end(&mut pending),
                '(' => {
                    self.end(&mut pending);
                    self.deeper(|reader| reader.list(Some(')')))?;
                }
                '<' | '>' => {
                    // `2>` redirects the descriptor 2.
                    let is_descriptor = |word: &String| word.chars().all(|c| c.is_ascii_digit());
                    pending.word.take_if(|word| is_descriptor(word));
                    pending.end_word();
                    while matches!(self.peek(), Some('<' | '>' | '&' | '|' | '-')) {
                        self.rest.next();
                    }
                    pending.redirected = true;
                }
                // A comment counts as a command, because a log shows it too. Quotes have no meaning in a comment.
                '#' if pending.word.is_none() => {
                    self.end(&mut pending);
                    let line: String = self.rest.by_ref().take_while(|c| *c != '\n').collect();
                    pending.words = line.split_whitespace().map(str::to_owned).collect();
                    self.end(&mut pending);
                }
                c => self.part(c, &mut pending)?,
            }
        }
        self.end(&mut pending);
        until.map_or(Ok(()), |_| Err(Unreadable::NotClosed("bracket")))
    }

    /// Ends a simple command.
    fn end(&mut self, pending: &mut Pending) {
        pending.end_word();
        pending.redirected = false;
        let words = take(&mut pending.words);
        if !words.is_empty() {
            self.commands.push(SimpleCommand { words, depth: self.depth });
        }
    }

    /// Reads a part of a word that begins with `c`.
    fn part(&mut self, c: char, pending: &mut Pending) -> Result<(), Unreadable> {
        match c {
            '\\' => match self.rest.next() {
                Some('\n') | None => {}
                Some(escaped) => pending.push(escaped),
            },
            '\'' => {
                pending.word.get_or_insert_default();
                loop {
                    match self.rest.next() {
                        Some('\'') => return Ok(()),
                        Some(c) => pending.push(c),
                        None => return Err(Unreadable::NotClosed("quote")),
                    }
                }
            }
            '"' => {
                pending.word.get_or_insert_default();
                self.double_quoted(pending)?;
            }
            '$' => self.expansion(pending, false)?,
            '`' => self.backquoted(pending)?,
            c => pending.push(c),
        }
        Ok(())
    }

    fn double_quoted(&mut self, pending: &mut Pending) -> Result<(), Unreadable> {
        loop {
            match self.rest.next() {
                Some('"') => return Ok(()),
                Some('\\') => match self.rest.next() {
                    Some('\n') | None => {}
                    Some(c @ ('$' | '`' | '"' | '\\')) => pending.push(c),
                    Some(c) => {
                        pending.push('\\');
                        pending.push(c);
                    }
                },
                Some('$') => self.expansion(pending, true)?,
                Some('`') => self.backquoted(pending)?,
                Some(c) => pending.push(c),
                None => return Err(Unreadable::NotClosed("quote")),
            }
        }
    }

    /// Reads what follows a `$`. The value is not known, so the word gets the `$` itself.
    fn expansion(&mut self, pending: &mut Pending, quoted: bool) -> Result<(), Unreadable> {
        pending.push('$');
        match self.peek() {
            Some('(') => {
                self.rest.next();
                self.deeper(|reader| reader.list(Some(')')))
            }
            Some('{') => {
                self.rest.next();
                self.deeper(|reader| reader.parameter(pending))
            }
            // `$'...'` has C's escapes.
            Some('\'') if !quoted => {
                self.rest.next();
                loop {
                    match self.rest.next() {
                        Some('\'') => return Ok(()),
                        Some('\\') => pending.word.get_or_insert_default().extend(self.rest.next()),
                        Some(c) => pending.push(c),
                        None => return Err(Unreadable::NotClosed("quote")),
                    }
                }
            }
            _ => Ok(()),
        }
    }

    /// Reads `NAME}` or `NAME operator word}`. `${NAME=word}` and `${NAME:=word}` set the variable, which counts as a separate command.
    fn parameter(&mut self, pending: &mut Pending) -> Result<(), Unreadable> {
        let mut inner = Pending::default();
        loop {
            match self.rest.next() {
                Some('}') => break,
                Some(c) => self.part(c, &mut inner)?,
                None => return Err(Unreadable::NotClosed("bracket")),
            }
        }
        let text = inner.word.unwrap_or_default();
        let assignment = text.replacen(":=", "=", 1);
        if is_assignment(&assignment) {
            self.commands.push(SimpleCommand { words: vec![assignment], depth: self.depth });
        }
        pending.word.get_or_insert_default().push_str(&text);
        Ok(())
    }

    /// Reads the command between two backquotes, in which a backslash quotes only a backquote, a `$` or a backslash.
    fn backquoted(&mut self, pending: &mut Pending) -> Result<(), Unreadable> {
        pending.push('$');
        let mut inner = String::new();
        loop {
            match self.rest.next() {
                Some('`') => break,
                Some('\\') => match self.rest.next() {
                    Some(c @ ('$' | '`' | '\\')) => inner.push(c),
                    Some(c) => inner.extend(['\\', c]),
                    None => {}
                },
                Some(c) => inner.push(c),
                None => return Err(Unreadable::NotClosed("backquote")),
            }
        }
        let depth = self.depth + 1;
        if depth > DEEPEST {
            return Err(Unreadable::TooDeep);
        }
        self.commands.extend(commands_at(&inner, depth)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
