//! Formats columns, amounts and times for people. Re-exports [`replica::printable`], which makes untrusted text safe for a terminal.

use std::borrow::Cow;
use std::time::Duration;

use replica::Bytes;

pub use replica::printable::printable;
pub(crate) use replica::printable::{is_printable, printable_json};

/// Returns the value as JSON on one line. Escapes the characters that a terminal would interpret. serde_json leaves such characters only
/// inside strings, where the escape has the same meaning.
pub(crate) fn json_line(value: &impl serde::Serialize) -> String {
    match serde_json::to_string(value) {
        Ok(json) => printable_json(&json).into_owned(),
        Err(error) => serde_json::json!({ "event": "error", "message": error.to_string() }).to_string(),
    }
}

/// Returns at most `limit` characters. If the text is longer, the last character is `…`.
pub(crate) fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    if text.chars().count() <= limit {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().take(limit.saturating_sub(1)).chain(['…']).collect())
}

/// Formats a duration: `1.5 s`, `3 min 20 s`, `4 h 5 min`.
pub(crate) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// Formats the counts that are known: `1.5 GiB, 1200 files`.
pub(crate) fn amount(bytes: Option<u64>, files: Option<u64>) -> String {
    let bytes = bytes.map(|bytes| Bytes(bytes).to_string());
    let files = files.map(|files| format!("{files} file{}", if files == 1 { "" } else { "s" }));
    bytes.into_iter().chain(files).collect::<Vec<_>>().join(", ")
}

/// Formats rows of cells as left-aligned columns, two spaces apart. The last column is not padded.
pub(crate) fn columns(rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter(|row| column + 1 < row.len());
        cells.map(|row| row[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..rows.iter().map(Vec::len).max().unwrap_or(0)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_text_has_no_escape_sequence() {
        let nasty = "\u{1b}[2J\u{1b}]0;title\u{7}a\r\nb\u{9b}31m\u{202e}c\u{7f}\td";
        let shown = printable(nasty);
        assert!(is_printable(&shown), "{shown:?}");
        assert!(
            shown.contains("\\u{1b}[2J") && shown.contains("a\\r\\nb") && shown.ends_with(" d"),
            "{shown}"
        );
        assert_eq!(printable("Größe: 10 % – ok"), "Größe: 10 % – ok");
    }

    #[test]
    fn a_line_of_json_has_no_escape_sequence_and_the_same_value() {
        let nasty = "\u{1b}[2J\u{9b}31m\u{202e}\n\u{feff}\u{61c}\u{115f}\u{e0100}\u{2800}";
        let line = json_line(&nasty);
        assert!(is_printable(&line), "{line}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), nasty);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        assert_eq!(columns(&[row(&["a", "b", "c"]), row(&["long", "ü", ""])]), ["a     b  c", "long  ü"]);
    }

    #[test]
    fn times_and_amounts_read_well() {
        assert_eq!(time(Duration::from_millis(1540)), "1.5 s");
        assert_eq!(time(Duration::from_secs(200)), "3 min 20 s");
        assert_eq!(time(Duration::from_secs(14_700)), "4 h 5 min");
        assert_eq!(amount(Some(1536), Some(1)), "1.5 KiB, 1 file");
        assert_eq!(amount(None, Some(2)), "2 files");
        assert_eq!(cut("abcdef", 4), "abc…");
    }
}
