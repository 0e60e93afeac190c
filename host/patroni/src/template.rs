//! Detects templates, in which another program replaces placeholders before Patroni reads the file. A template cannot be converted,
//! because the result would contain the placeholders.

use foundation::shell::starts_others;

use crate::interpreter::{self, Runs};
use crate::yaml::Element;
use crate::{Unreadable, shlex};

/// The texts that begin and end a placeholder: in mustache (Spilo), Jinja and Helm, and in ERB.
const MARKS: [(&str, &str); 3] = [("{{", "}}"), ("{%", "%}"), ("<%", "%>")];

/// A placeholder in a template.
pub(crate) struct Placeholder {
    pub(crate) line: usize,
    mark: &'static str,
}

impl Placeholder {
    /// Returns the message about the placeholder.
    pub(crate) fn message(&self) -> String {
        let mark = self.mark;
        let by = match mark {
            "${" | "$" => "`envsubst`",
            _ => "its template program",
        };
        format!(
            "the file is a template, because it has `{mark}` here, which Patroni does not replace: pass the file that Patroni \
             reads after {by} has processed it (in a container, the file that the start script wrote)"
        )
    }
}

/// Returns the first placeholder in the lines of a file that is not YAML. Ignores comments.
pub(crate) fn first_line(text: &str) -> Option<Placeholder> {
    text.lines().enumerate().find_map(|(index, line)| {
        let content = match line.find(" #") {
            _ if line.starts_with('#') => "",
            Some(at) => &line[..at],
            None => line,
        };
        let (mark, _) = MARKS.into_iter().find(|(begin, _)| content.contains(begin))?;
        Some(Placeholder { line: index + 1, mark })
    })
}

/// Refuses a document in which a scalar has a placeholder.
///
/// # Errors
/// Fails with the line of the first placeholder.
pub(crate) fn refuse_placeholders(root: Element<'_>) -> Result<(), Unreadable> {
    for scalar in root.scalars() {
        let Some(text) = scalar.text() else { continue };
        let found = MARKS
            .into_iter()
            .find(|(begin, end)| text.find(begin).is_some_and(|at| text[at..].contains(end)));
        if let Some((mark, _)) = found {
            let placeholder = Placeholder { line: scalar.line(), mark };
            return Err(Unreadable::at(scalar.file(), placeholder.line, placeholder.message()));
        }
    }
    Ok(())
}

/// Refuses a setting that contains `${NAME}` or begins with `$NAME`, because neither Patroni nor Understudy replaces variables.
///
/// # Errors
/// Fails with the line of the first variable.
pub(crate) fn refuse_variables(setting: Element<'_>) -> Result<(), Unreadable> {
    for scalar in setting.scalars() {
        let Some(mark) = scalar.text().and_then(variable) else { continue };
        let placeholder = Placeholder { line: scalar.line(), mark };
        return Err(Unreadable::at(scalar.file(), placeholder.line, placeholder.message()));
    }
    Ok(())
}

/// Returns `${` or `$` if the text has a variable and is not a command for a shell.
fn variable(text: &str) -> Option<&'static str> {
    let is_name = |text: &str| text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if is_read_by_shell(text) {
        return None;
    }
    let is_braced = |(at, _): (usize, &str)| {
        let inner = &text[at + 2..];
        is_name(inner) && inner.contains('}')
    };
    if text.match_indices("${").any(is_braced) {
        return Some("${");
    }
    text.strip_prefix('$').is_some_and(is_name).then_some("$")
}

/// Returns whether a text is a command in which a shell or another interpreter gets the text of a program, in which it replaces variables
/// itself.
fn is_read_by_shell(text: &str) -> bool {
    let words = shlex::split(text).unwrap_or_default();
    let gets_text = |(at, word): (usize, &String)| {
        let arguments = words.get(at + 1..).unwrap_or_default();
        // `su` and `flock` start a shell.
        let starts_shell = || starts_others(word) && arguments.iter().any(|argument| argument == "-c");
        interpreter::runs(word, arguments) == Some(Runs::Command) || starts_shell()
    };
    words.iter().enumerate().any(gets_text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Document;

    #[test]
    fn placeholders_are_refused_with_their_line_and_without_their_text() {
        for (text, line, mark) in [
            ("scope: &x {{SCOPE}}\n", 1, "{{"),
            ("a: b\nscope: \"{{ S3cret }}\"\n", 2, "{{"),
            ("scope: x\n{{#USE_WALE}}\nname: y\n{{/USE_WALE}}\n", 2, "{{"),
            ("scope: x\n{% if S3cret %}\nname: y\n{% endif %}\n", 2, "{%"),
            ("# {{ no }}\nscope: <%= S3cret %>\n", 2, "<%"),
        ] {
            let read = Document::read("p.yml", text.as_bytes())
                .and_then(|document| refuse_placeholders(document.root()));
            let error = read.unwrap_err();
            assert_eq!(error.line, Some(line), "{text}: {error}");
            assert!(error.message.contains(&format!("template, because it has `{mark}`")), "{text}: {error}");
            assert!(!error.message.contains("S3cret"), "{error}");
        }
    }

    #[test]
    fn text_that_only_resembles_a_placeholder_is_accepted() {
        for text in ["a: '%p {} {x}'\n", "a: 'awk {{print}'\n", "a: {b: {c: d}}\n", "# {{ x }}\na: b\n"] {
            let document = Document::read("p.yml", text.as_bytes()).unwrap();
            refuse_placeholders(document.root()).unwrap();
        }
    }

    #[test]
    fn a_variable_in_a_setting_is_refused_unless_a_shell_reads_it() {
        for text in
            ["${PGDATA}", "/x/${A:-b}/y", "$PGDATA/data", "[a, {b: $X}]", "'x -c ${A}'", "'bash ${A} -c'"]
        {
            let document = Document::read("p.yml", text.as_bytes()).unwrap();
            let error = refuse_variables(document.root()).unwrap_err();
            assert!(error.message.contains("envsubst"), "{error}");
        }
        for text in [
            "'$'",
            "'a$b'",
            "'${1}'",
            "\"sh -c 'x ${A}'\"",
            "\"/bin/sh -ec 'x ${A}'\"",
            "\"nice bash -lc 'x ${A}'\"",
            "\"su postgres -c 'x ${A}'\"",
            "\"perl -e 'print ${a}'\"",
            "'$1'",
            "'100$'",
        ] {
            let document = Document::read("p.yml", text.as_bytes()).unwrap();
            refuse_variables(document.root()).unwrap();
        }
    }
}
