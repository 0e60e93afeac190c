//! The error that a component printed to standard error before it ended. The message of a panic or an exception says more than
//! the trap, which names only an instruction.

/// How many characters of the error are reported.
const CHARACTERS: usize = 1000;

/// What a component of componentize-py says when it panics because of an exception, whose text it has printed before.
const OF_PYTHON: &str = "Python function threw an unexpected exception";

/// Texts that mark a line of output as the message of an error.
const ERRORS: [&str; 3] = ["Traceback (most recent call last)", "rror:", "xception"];

/// Returns the error that ended a component, from its last lines on standard error. `None` if the lines contain no error.
///
/// Rust writes `thread '..' panicked at FILE:LINE:COLUMN:`, the message on the next lines, and then a note. Python and many other languages
/// write the line that names the error last. componentize-py panics after that line, and StarlingMonkey (JavaScript) writes the message, the
/// line `Stack:` and the calls.
pub(crate) fn find(lines: &[String]) -> Option<String> {
    let is_note = |line: &&String| line.trim_start().starts_with("note: ");
    let last = |lines: &[String]| {
        let last = lines.iter().rev().find(|line| !is_note(line) && !line.trim().is_empty());
        last.map(|line| format!("the method ended with: {}", line.trim()))
    };
    let panicked = lines.iter().rposition(|line| line.contains("panicked at "));
    let stack = lines.iter().rposition(|line| line.trim() == "Stack:");
    let word = match (panicked, stack) {
        (Some(at), _) if lines[at..].iter().any(|line| line.contains(OF_PYTHON)) => last(&lines[..at]),
        (Some(at), _) => {
            let place = lines[at].rsplit("panicked at ").next().unwrap_or_default().trim_end_matches(':');
            let said = lines[at + 1..]
                .iter()
                .take_while(|line| !is_note(line) && !line.starts_with("stack backtrace"));
            let said = said.map(|line| line.trim()).collect::<Vec<_>>().join(" ");
            Some(match said.is_empty() {
                true => format!("the method panicked: {place}"),
                false => format!("the method panicked: {said} ({place})"),
            })
        }
        (None, Some(at)) => last(&lines[..at]),
        (None, None) => {
            let names_an_error = |line: &String| ERRORS.iter().any(|word| line.contains(word));
            lines.iter().any(names_an_error).then_some(())?;
            last(lines)
        }
    };
    Some(crate::text::printable(&word?, CHARACTERS))
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
        // Only the newest lines are kept, so the beginning of a long traceback is not there.
        assert_eq!(of_text(panicked.split_once('\n').unwrap().1), of_text(text));
        let of_rust = format!("{text}\nthread 'main' panicked at src/lib.rs:5:9:\nno backup\n");
        assert_eq!(of_text(&of_rust).as_deref(), Some("the method panicked: no backup (src/lib.rs:5:9)"));
        let of_javascript = "no manifest\nStack:\n  call@app.js:3:7\n  createReplica@app.js:9:1\n";
        assert_eq!(of_text(of_javascript).as_deref(), Some("the method ended with: no manifest"));
        assert_eq!(of_text(""), None);
        assert_eq!(of_text("copied 3 files"), None);
        assert!(
            of_text(&format!("Error: {}", "x".repeat(100_000))).unwrap().chars().count() <= CHARACTERS + 1
        );
    }
}
