//! Reads the arguments of an interpreter, to find what the interpreter runs.

use foundation::shell::is_shell;

use crate::known::base_name;

/// What an interpreter runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runs<'a> {
    /// The text of one of its arguments.
    Command,
    /// The file at this path.
    Script(&'a str),
    /// A module, its standard input, or nothing.
    Neither,
}

/// The options of a language's interpreter. Each is one letter, and several letters may stand together behind one dash.
struct Options {
    /// The letters after which the text of a program follows.
    text: &'static str,
    /// The letters after which a module follows that is run.
    module: &'static str,
    /// The letters that have a value, which is the rest of the word or else the next word.
    valued: &'static str,
    /// The letters whose value, if any, is the rest of the word.
    attached: &'static str,
}

/// From "Command line and environment" of Python's manual, and the option table of Python's `Python/getopt.c`.
const PYTHON: Options = Options { text: "c", module: "m", valued: "WX", attached: "" };

/// From perlrun(1).
const PERL: Options = Options { text: "eE", module: "", valued: "I", attached: "CDdFiMmVx" };

/// From ruby(1).
const RUBY: Options = Options { text: "e", module: "", valued: "CEIr", attached: "FiKTWx" };

/// Returns what an interpreter runs with these arguments; `None` if `program` is not an interpreter.
pub(crate) fn runs<'a>(program: &str, arguments: &'a [String]) -> Option<Runs<'a>> {
    if is_shell(program) {
        return Some(of_shell(arguments));
    }
    // `python3.11`
    let language = base_name(program).trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    let options = match language {
        "python" => PYTHON,
        "perl" => PERL,
        "ruby" => RUBY,
        _ => return None,
    };
    Some(options.read(arguments))
}

/// Reads the arguments of a shell (sh(1) of POSIX, bash(1)).
fn of_shell(arguments: &[String]) -> Runs<'_> {
    let mut has_text = false;
    let mut rest = arguments.iter().map(String::as_str);
    let mut operand = None;
    while let Some(word) = rest.next() {
        match word {
            "-" | "--" => {
                operand = rest.next();
                break;
            }
            "--rcfile" | "--init-file" => drop(rest.next()),
            _ if word.starts_with("--") => {}
            _ if word.starts_with(['-', '+']) => {
                has_text |= word.starts_with('-') && word.contains('c');
                if word.starts_with('-') && word.contains('s') && !has_text {
                    return Runs::Neither;
                }
                // Each has its value in a word of its own: `-euo pipefail`.
                for _ in word.matches(['o', 'O']) {
                    rest.next();
                }
            }
            _ => {
                operand = Some(word);
                break;
            }
        }
    }
    match operand {
        _ if has_text => Runs::Command,
        Some(script) => Runs::Script(script),
        None => Runs::Neither,
    }
}

impl Options {
    fn read<'a>(&self, arguments: &'a [String]) -> Runs<'a> {
        let script = |word: Option<&'a str>| word.map_or(Runs::Neither, Runs::Script);
        let mut rest = arguments.iter().map(String::as_str);
        while let Some(word) = rest.next() {
            let Some(letters) = word.strip_prefix('-').filter(|_| word != "--") else {
                return script(if word == "--" { rest.next() } else { Some(word) });
            };
            match letters {
                // The program comes from standard input.
                "" => return Runs::Neither,
                "-check-hash-based-pycs" => drop(rest.next()),
                _ if letters.starts_with('-') => {}
                _ => {
                    for (at, letter) in letters.char_indices() {
                        if self.text.contains(letter) {
                            return Runs::Command;
                        }
                        if self.module.contains(letter) {
                            return Runs::Neither;
                        }
                        if self.valued.contains(letter) && at + letter.len_utf8() == letters.len() {
                            rest.next();
                        }
                        if self.valued.contains(letter) || self.attached.contains(letter) {
                            break;
                        }
                    }
                }
            }
        }
        Runs::Neither
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_the_script_or_neither_is_found_behind_the_options() {
        for (command, expected) in [
            ("sh -c x", Some(Runs::Command)),
            ("/bin/bash -lc x", Some(Runs::Command)),
            ("sh -ec /x", Some(Runs::Command)),
            ("dash -e -u -c x", Some(Runs::Command)),
            ("bash -c -e /x", Some(Runs::Command)),
            ("bash -euo pipefail -c x", Some(Runs::Command)),
            ("bash --noprofile --rcfile /rc -c x", Some(Runs::Command)),
            ("ash -c x", Some(Runs::Command)),
            ("bash /x -c y", Some(Runs::Script("/x"))),
            ("bash -o pipefail /x", Some(Runs::Script("/x"))),
            ("bash -eo pipefail +O extglob /x y", Some(Runs::Script("/x"))),
            ("bash --posix -- /x", Some(Runs::Script("/x"))),
            ("sh - /x", Some(Runs::Script("/x"))),
            ("sh x", Some(Runs::Script("x"))),
            ("sh", Some(Runs::Neither)),
            ("bash -s /x", Some(Runs::Neither)),
            ("python3 -c x", Some(Runs::Command)),
            ("/usr/bin/python3.11 -Ic x", Some(Runs::Command)),
            ("python3 -m pip", Some(Runs::Neither)),
            ("python3 -", Some(Runs::Neither)),
            ("python3 -W ignore -Xdev -u /x -c", Some(Runs::Script("/x"))),
            ("python --check-hash-based-pycs never /x", Some(Runs::Script("/x"))),
            ("perl -ne x", Some(Runs::Command)),
            ("perl -0777lE x", Some(Runs::Command)),
            ("perl -I /lib -Mstrict /x", Some(Runs::Script("/x"))),
            ("perl -c -w /x", Some(Runs::Script("/x"))),
            ("ruby -rjson -e x", Some(Runs::Command)),
            ("ruby -r json /x", Some(Runs::Script("/x"))),
            ("wal-g -c x", None),
            ("sudo sh -c x", None),
        ] {
            let words: Vec<_> = command.split(' ').map(str::to_owned).collect();
            assert_eq!(runs(&words[0], &words[1..]), expected, "{command}");
        }
    }
}
