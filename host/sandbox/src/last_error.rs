//! The error that a component printed to standard error before it ended. The message of a panic or an exception says more than
//! the trap, which names only an instruction.

/// How many characters of the error are reported.
const CHARACTERS: usize = 1000;

/// The line before the call stack of an exception in Python.
const TRACEBACK: &str = "Traceback (most recent call last)";

/// Texts that mark a line of output as the message of an error.
const ERRORS: [&str; 3] = [TRACEBACK, "rror:", "xception"];

/// Returns the error that ended a component, from its last lines on standard error. `None` if the lines contain no error.
///
/// Rust writes `thread '..' panicked at FILE:LINE:COLUMN:`, the message on the next lines, and then a note. Python and most other
/// languages write the line that names the error last. A component of componentize-py panics after the line with the exception, and the
/// message of that panic does not name the exception.
pub(crate) fn find(lines: &[String]) -> Option<String> {
    let is_note = |line: &&String| line.trim_start().starts_with("note: ");
    let panicked = lines.iter().rposition(|line| line.contains("panicked at "));
    let before_panic = &lines[..panicked.unwrap_or_default()];
    let lines = match before_panic.iter().any(|line| line.contains(TRACEBACK)) {
        true => before_panic,
        false => lines,
    };
    let panicked = panicked.filter(|at| *at < lines.len());
    let word = match panicked {
        Some(at) => {
            let place = lines[at].rsplit("panicked at ").next().unwrap_or_default().trim_end_matches(':');
            let said = lines[at + 1..]
                .iter()
                .take_while(|line| !is_note(line) && !line.starts_with("stack backtrace"));
            let said = said.map(|line| line.trim()).collect::<Vec<_>>().join(" ");
            match said.is_empty() {
                true => format!("the method panicked: {place}"),
                false => format!("the method panicked: {said} ({place})"),
            }
        }
        None => {
            let names_an_error = |line: &String| ERRORS.iter().any(|word| line.contains(word));
            lines.iter().any(names_an_error).then_some(())?;
            let last = lines.iter().rev().find(|line| !is_note(line) && !line.trim().is_empty())?;
            format!("the method ended with: {}", last.trim())
        }
    };
    Some(crate::text::printable(&word, CHARACTERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_text(text: &str) -> Option<String> {
        find(&text.lines().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn the_message_of_a_panic_comes_with_its_place() {
        let text = "starting\nthread '<unnamed>' (1) panicked at src/lib.rs:5:9:\nno manifest\nnote: run with `RUST_BACKTRACE=1`";
        assert_eq!(of_text(text).as_deref(), Some("the method panicked: no manifest (src/lib.rs:5:9)"));
        let older = "thread 'main' panicked at 'no manifest', src/lib.rs:5:9";
        assert_eq!(of_text(older).as_deref(), Some("the method panicked: 'no manifest', src/lib.rs:5:9"));
    }

    #[test]
    fn an_exception_is_the_last_line() {
        let text = "Traceback (most recent call last):\n  File \"app.py\", line 3\nValueError: no manifest\n";
        assert_eq!(of_text(text).as_deref(), Some("the method ended with: ValueError: no manifest"));
        let panicked = format!(
            "{text}\nthread '<unnamed>' (1) panicked at runtime/src/lib.rs:1293:21:\nPython function threw an unexpected exception\n"
        );
        assert_eq!(of_text(&panicked), of_text(text));
        assert_eq!(of_text(""), None);
        assert_eq!(of_text("copied 3 files"), None);
        assert!(
            of_text(&format!("Error: {}", "x".repeat(100_000))).unwrap().chars().count() <= CHARACTERS + 1
        );
    }
}
