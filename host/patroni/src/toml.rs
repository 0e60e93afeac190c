//! Writes strings, keys and lists as TOML (<https://toml.io/en/v1.0.0#string>).

/// Returns a TOML basic string, in quotation marks and on one line.
pub(crate) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // These characters are invisible or look like others.
            _ if character.is_control() || is_hidden(character) => {
                out.push_str(&format!("\\U{:08X}", u32::from(character)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

fn is_hidden(character: char) -> bool {
    !character.is_ascii() && !foundation::printable::is_printable(&format!("a{character}"))
}

/// Returns a key: bare if possible, otherwise in quotation marks.
pub(crate) fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    match !name.is_empty() && name.chars().all(is_bare) {
        true => name.to_owned(),
        false => text(name),
    }
}

/// Returns a list of strings, on one line if it is short, and otherwise with one line for each string.
pub(crate) fn list<'t>(texts: impl IntoIterator<Item = &'t str>, indent: &str) -> String {
    const LINE: usize = 90;
    let items: Vec<_> = texts.into_iter().map(text).collect();
    let line = format!("[{}]", items.join(", "));
    if line.chars().count() <= LINE {
        return line;
    }
    let lines: String = items.iter().map(|item| format!("{indent}  {item},\n")).collect();
    format!("[\n{lines}{indent}]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_read_back_by_a_toml_parser() {
        for value in
            ["", "a", "\"'\\", "a\nb\tc\r\u{0}\u{7f}\u{85}", "ä\u{a0}\u{202e}🐘", "{{x}}", "'''", "#"]
        {
            let document = format!("{} = {}\n", key(value), text(value));
            let table: ::toml::Table = document.parse().unwrap();
            assert_eq!(table[value].as_str(), Some(value), "{document}");
        }
        let long = "x".repeat(60);
        let document = format!("a = {}", list([long.as_str(), &long], ""));
        let table: ::toml::Table = document.parse().unwrap();
        assert_eq!(table["a"].as_array().unwrap().len(), 2, "{document}");
    }
}
