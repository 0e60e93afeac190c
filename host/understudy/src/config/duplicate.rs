//! Finds the first place of a key or section that is written twice. The parser reports only the second place.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::problem::Place;

/// A key that marks a place in the text. Nobody has a reason to use this name in a configuration.
const MARK: &str = "understudy-was-here";

/// Texts that complete the document after a key: a value, the end of a section's head, or the end of inline tables and lists.
const ENDS: [&str; 6] = [" = 0\n", "]\n", "]]\n", " = 0 }\n", " = 0 } }\n", " = 0 } ]\n"];

/// Returns the message about the key at `second`, which repeats an earlier key; `None` if the earlier key is not found.
pub(super) fn message(text: &str, second: Range<usize>) -> Option<String> {
    let written = text.get(second.clone())?;
    let key = written.trim_matches(['"', '\'']);
    let before = text.get(..second.start)?;
    // The mark replaces the second key, so that the parser puts the mark into the table that has the first key.
    let first = ENDS.iter().find_map(|end| {
        let marked = format!("{before}{MARK}{end}");
        let (document, _) = DeTable::parse_recoverable(&marked);
        with_mark(document.get_ref(), key)
    })?;
    let line = Place::of(text, first).line;
    let begins = before.rfind('\n').map_or(0, |end| end + 1);
    if before.get(begins..)?.trim_start().starts_with('[') {
        return Some(format!(
            "the section `{}` appears twice, first in line {line}: put the keys of both under one head",
            key.escape_debug()
        ));
    }
    Some(format!("the key `{}` appears twice, first in line {line}: remove one of them", key.escape_debug()))
}

/// Returns the offset of `key` in the table that has the mark; `None` if there is no such table or key.
fn with_mark(table: &DeTable<'_>, key: &str) -> Option<usize> {
    if table.get(MARK).is_some() {
        return table.iter().find(|(name, _)| name.get_ref() == key).map(|(name, _)| name.span().start);
    }
    table.iter().find_map(|(_, value)| in_value(value.get_ref(), key))
}

fn in_value(value: &DeValue<'_>, key: &str) -> Option<usize> {
    match value {
        DeValue::Table(table) => with_mark(table, key),
        DeValue::Array(items) => items.iter().find_map(|item| in_value(item.get_ref(), key)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_two_keys_is_found_in_the_table_of_the_second() {
        for (text, key, line) in [
            ("a = 1\n[t]\na = 2\nb = 3\na = 4\n", "a", 3),
            ("[t]\na = 1\nu = { a = 2 }\na = 3\n", "a", 2),
            ("[t]\na = 1\n[u]\n[t]\n", "t", 1),
            ("[t.u]\na = 1\n[v]\n[t.u]\n", "u", 1),
            ("[t]\nu.a = 1\nv.a = 2\nu.a = 3\n", "a", 2),
            ("a = 0\nt = { b = 1, a = 2,\n a = 3 }\n", "a", 2),
            ("[t]\n\"a b\" = 1\n'a b' = 2\n", "a b", 2),
            ("a = 1\na.b = 2\n", "a", 1),
        ] {
            let (_, errors) = DeTable::parse_recoverable(text);
            let span = errors[0].span().unwrap();
            let message = message(text, span).unwrap();
            assert!(
                message.contains(&format!("`{key}` appears twice, first in line {line}: ")),
                "{text}: {message}"
            );
        }
        assert_eq!(message("a = 1\n", 0..1), None);
    }
}
