//! Python's `shlex.split` with `posix=True` and `comments=False`, which Patroni uses to split a command into words.

/// Returns the words of a command.
///
/// # Errors
/// Fails with Python's message for a quotation mark that is not closed and for a backslash at the end.
pub(crate) fn split(command: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    // `None` between words. An empty string is a word, because `''` is a word without characters.
    let mut word: Option<String> = None;
    let mut characters = command.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\\' => match characters.next() {
                Some(next) => word.get_or_insert_default().push(next),
                None => return Err("No escaped character"),
            },
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some('\'') => break,
                        Some(inner) => word.push(inner),
                        None => return Err("No closing quotation"),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some('"') => break,
                        Some('\\') => match characters.next() {
                            Some(escaped @ ('"' | '\\')) => word.push(escaped),
                            Some(other) => word.extend(['\\', other]),
                            None => return Err("No escaped character"),
                        },
                        Some(inner) => word.push(inner),
                        None => return Err("No closing quotation"),
                    }
                }
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Removes quotation marks that enclose the whole text (`unquote` in `patroni/utils.py`).
pub(crate) fn unquote(text: &str) -> String {
    match split(text).map(<[String; 1]>::try_from) {
        Ok(Ok([only])) => only,
        Ok(Err(_)) | Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected words come from Python 3.11's `shlex.split`.
    #[test]
    fn a_command_is_split_as_python_splits_it() {
        for (command, words) in [
            ("", &[][..]),
            ("  a\tb\n c  ", &["a", "b", "c"]),
            ("a 'b c' \"d e\"", &["a", "b c", "d e"]),
            ("a'b'\"c\"d", &["abcd"]),
            ("''", &[""]),
            ("a \"\" b", &["a", "", "b"]),
            (r"a\ b \' \\", &["a b", "'", r"\"]),
            (r#""a\"b\\c\nd\$""#, &[r#"a"b\c\nd\$"#]),
            (r"'a\b'", &[r"a\b"]),
            ("a # no comment", &["a", "#", "no", "comment"]),
            ("a;b|c && $X", &["a;b|c", "&&", "$X"]),
            ("ä\u{a0}b", &["ä\u{a0}b"]),
        ] {
            assert_eq!(
                split(command).as_deref(),
                Ok(words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>().as_slice()),
                "{command}"
            );
        }
        for (command, error) in [
            ("a 'b", "No closing quotation"),
            ("a \"b", "No closing quotation"),
            ("a \"b\\", "No escaped character"),
            ("a\\", "No escaped character"),
        ] {
            assert_eq!(split(command), Err(error), "{command}");
        }
    }

    #[test]
    fn quotation_marks_around_a_whole_text_are_removed() {
        for (text, unquoted) in [
            ("\"bar baz\"", "bar baz"),
            ("\"a multi\" \"quoted string\"", "\"a multi\" \"quoted string\""),
            ("unbalanced \"quoted string", "unbalanced \"quoted string"),
            ("100M", "100M"),
            ("", ""),
            (r"/old\=x=/new", "/old=x=/new"),
        ] {
            assert_eq!(unquote(text), unquoted);
        }
    }
}
