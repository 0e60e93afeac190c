//! A key that stands twice: which one it is, and where it stood before. The parser tells the second place alone.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::problem::Place;

/// A key that nobody writes.
const MARK: &str = "understudy-was-here";

/// What may follow a key: a value, the end of a section's head, the end of a table in braces.
const ENDS: [&str; 6] = [" = 0\n", "]\n", "]]\n", " = 0 }\n", " = 0 } }\n", " = 0 } ]\n"];

/// Says which key stands twice, of the one at `second`, and where it stood before; `None` if that cannot be told.
pub(super) fn told(text: &str, second: Range<usize>) -> Option<String> {
    let written = text.get(second.clone())?;
    let key = written.trim_matches(['"', '\'']);
    let before = text.get(..second.start)?;
    // A key in the place of the second one is in the table in which the first one is.
    let first = ENDS.iter().find_map(|end| {
        let marked = format!("{before}{MARK}{end}");
        let (document, _) = DeTable::parse_recoverable(&marked);
        with_mark(document.get_ref(), key)
    })?;
    let line = Place::of(text, first).line;
    let begins = before.rfind('\n').map_or(0, |end| end + 1);
    if before.get(begins..)?.trim_start().starts_with('[') {
        return Some(format!(
            "the section `{}` stands twice, first in line {line}: put the keys of both below one",
            key.escape_debug()
        ));
    }
    Some(format!("the key `{}` stands twice, first in line {line}: take one of them out", key.escape_debug()))
}

/// Where `key` stands in the table that has the mark.
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
            let told = told(text, span).unwrap();
            assert!(
                told.contains(&format!("`{key}` stands twice, first in line {line}: ")),
                "{text}: {told}"
            );
        }
        assert_eq!(told("a = 1\n", 0..1), None);
    }
}
