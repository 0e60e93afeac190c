//! Checks the characters of a file before it is parsed as YAML, and refuses those that PyYAML's reader and scanner refuse.

use super::FILE_LIMIT;
use crate::{Unreadable, template};

/// The message about a tab.
pub(super) const TAB: &str = "there is a tab here, which PyYAML accepts only in quotes: write spaces";

/// The message about a key that is a mapping or a list.
pub(super) const COLLECTION_AS_KEY: &str = "a mapping or a list cannot be a key";

/// Returns the text of a file without a byte order mark.
///
/// # Errors
/// Fails for a file that is too large, not UTF-8, or has a character that PyYAML refuses.
pub(super) fn read<'b>(file: &str, bytes: &'b [u8]) -> Result<&'b str, Unreadable> {
    if bytes.len() > FILE_LIMIT {
        let message =
            format!("the file is larger than {FILE_LIMIT} bytes, too large for a configuration of Patroni");
        return Err(Unreadable::whole(file, message));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count();
        let looks_like = match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => " (it looks like UTF-16)",
            _ if bytes.contains(&0) => " (it looks like a binary file)",
            _ => " (it may be Latin-1)",
        };
        Unreadable::at(file, line, format!("the line is not UTF-8{looks_like}: save the file as UTF-8"))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut line = 1;
    for character in text.chars() {
        let why = match character {
            '\n' => {
                line += 1;
                continue;
            }
            // PyYAML treats each of these as a line end, but `saphyr-parser` does not.
            '\u{85}' | '\u{2028}' | '\u{2029}' => "which PyYAML reads as a line end, unlike most programs",
            _ if !is_printable(character) => "which YAML does not allow",
            _ => continue,
        };
        let message = format!("the line has the character U+{:04X}, {why}: remove it", u32::from(character));
        return Err(Unreadable::at(file, line, message));
    }
    Ok(text)
}

/// Returns whether PyYAML's reader accepts the character (`NON_PRINTABLE` in `lib/yaml/reader.py`).
fn is_printable(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
        || character >= '\u{10000}'
}

/// A scalar in which tabs may be content.
pub(super) struct WithTabs {
    /// The line in which it begins, counted from 1.
    pub(super) line: usize,
    /// How many characters are before it in this line.
    pub(super) column: usize,
    /// The line in which it ends.
    pub(super) last_line: usize,
    /// Whether it is a block scalar, whose indentation may not have tabs. If not, it is a quoted scalar.
    pub(super) is_block: bool,
}

/// Returns the line of the first tab that is neither in a comment nor content of one of the scalars.
pub(super) fn misplaced_tab(text: &str, scalars: &[WithTabs]) -> Option<usize> {
    if !text.contains('\t') {
        return None;
    }
    let text: Vec<char> = text.chars().collect();
    let ends_line = |at: &usize| text[*at] == '\n' || (text[*at] == '\r' && text.get(at + 1) != Some(&'\n'));
    let mut starts = vec![0];
    starts.extend((0..text.len()).filter(ends_line).map(|at| at + 1));
    let mut is_content = vec![false; text.len()];
    for scalar in scalars {
        for place in content(&text, &starts, scalar) {
            is_content[place] = true;
        }
    }
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(text.len());
        let mut before = ' ';
        for at in *start..end {
            match text[at] {
                '#' if !is_content[at] && matches!(before, ' ' | '\t') => break,
                '\t' if !is_content[at] => return Some(index + 1),
                other => before = other,
            }
        }
    }
    None
}

/// Returns the places of the characters in a scalar's content. The parser reports only where a scalar begins and the line in which it ends.
fn content(text: &[char], starts: &[usize], scalar: &WithTabs) -> Vec<usize> {
    let start_of = |line: usize| starts.get(line).copied().unwrap_or(text.len());
    if scalar.is_block {
        let lines = scalar.line.saturating_sub(1)..scalar.last_line;
        let places = lines.map(|line| start_of(line)..start_of(line + 1));
        return places.filter(|places| text.get(places.start) != Some(&'\t')).flatten().collect();
    }
    let begin = start_of(scalar.line.saturating_sub(1)) + scalar.column;
    // An anchor or a tag may precede the quotation mark.
    let Some(open) = (begin..text.len()).find(|at| matches!(text[*at], '\'' | '"')) else {
        return Vec::new();
    };
    let mark = text[open];
    let mut at = open + 1;
    while at < text.len() {
        match text[at] {
            '\\' if mark == '"' => at += 1,
            '\'' if mark == '\'' && text.get(at + 1) == Some(&'\'') => at += 1,
            character if character == mark => break,
            _ => {}
        }
        at += 1;
    }
    (open..at.min(text.len())).collect()
}

/// Replaces the message about invalid YAML with a better one if the text is a template or is indented with tabs.
pub(super) fn explain(text: &str, error: Unreadable) -> Unreadable {
    if let Some(placeholder) = template::first_line(text) {
        return Unreadable { line: Some(placeholder.line), message: placeholder.message(), ..error };
    }
    let at = error.line.unwrap_or_default();
    let is_suspect = |number: usize, line: &str| {
        let is_indented_by_tab = line.trim_start_matches(' ').starts_with('\t');
        (number == at && line.contains('\t')) || (number.abs_diff(at) <= 1 && is_indented_by_tab)
    };
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let mut tabs = lines.filter(|(number, line)| is_suspect(*number, line));
    match tabs.next() {
        Some((line, _)) => Unreadable { line: Some(line), message: TAB.to_owned(), ..error },
        None => error,
    }
}
