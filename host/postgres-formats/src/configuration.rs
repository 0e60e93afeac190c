//! The grammar of `postgresql.conf`, of `postgresql.auto.conf` and of every file that they include:
//! `src/backend/utils/misc/guc-file.l`. A line is empty, a comment, or a name, an optional `=`, and one value. No value continues on
//! the next line.

/// A line of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Nothing, or a comment.
    Empty,
    /// A setting or an include.
    Setting {
        /// The name of the setting, in lower case, because PostgreSQL ignores case.
        name: String,
        /// The value of the setting, without quotes and escapes.
        value: String,
    },
    /// A line that PostgreSQL cannot parse; PostgreSQL does not start from a file with such a line.
    Malformed,
}

/// Parses one line, without its line feed.
pub fn parse_line(line: &[u8]) -> Line {
    let line = after_space(line);
    if is_end(line) {
        return Line::Empty;
    }
    let Some((name, rest)) = name(line) else { return Line::Malformed };
    let rest = after_space(rest);
    let rest = after_space(rest.strip_prefix(b"=").unwrap_or(rest));
    let value = match rest.first() {
        Some(b'\'') => quoted(&rest[1..]),
        _ => plain(rest),
    };
    match value {
        Some((value, rest)) if is_end(after_space(rest)) => {
            // The server keeps the value as a C string, which ends at a NUL (`\000`).
            let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
            Line::Setting { name, value: String::from_utf8_lossy(value).into_owned() }
        }
        _ => Line::Malformed,
    }
}

/// Returns each line without its line feed, with the line's number, counted from 1.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    bytes.split(|byte| *byte == b'\n').enumerate().map(|(index, line)| (index + 1, line))
}

/// Quotes a value as PostgreSQL itself writes it into `postgresql.auto.conf` (`write_auto_conf_file` in
/// `src/backend/utils/misc/guc.c`); `None` if it has a line feed, a carriage return or a NUL, which no line can hold.
pub fn quote(value: &str) -> Option<String> {
    if value.contains(['\n', '\r', '\0']) {
        return None;
    }
    Some(format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''")))
}

fn after_space(line: &[u8]) -> &[u8] {
    let end = line.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r')).unwrap_or(line.len());
    &line[end..]
}

fn is_end(line: &[u8]) -> bool {
    matches!(line.first(), None | Some(b'#'))
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// Parses a name, which may have two parts separated by a dot. Returns the name and the rest of the line.
fn name(line: &[u8]) -> Option<(String, &[u8])> {
    let part = |text: &[u8]| {
        if !text.first().is_some_and(|byte| is_letter(*byte)) {
            return 0;
        }
        text.iter().position(|byte| !is_letter(*byte) && !byte.is_ascii_digit()).unwrap_or(text.len())
    };
    let mut end = part(line);
    if end == 0 {
        return None;
    }
    if line.get(end) == Some(&b'.') {
        let second = part(&line[end + 1..]);
        if second > 0 {
            end += 1 + second;
        }
    }
    Some((String::from_utf8_lossy(&line[..end]).to_ascii_lowercase(), &line[end..]))
}

/// Parses a quoted value after its opening quote (`DeescapeQuotedString`). Returns the value and the rest of the line.
fn quoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    let mut at = 0;
    loop {
        match (*text.get(at)?, text.get(at + 1).copied()) {
            (b'\'', Some(b'\'')) => {
                value.push(b'\'');
                at += 2;
            }
            (b'\'', _) => return Some((value, &text[at + 1..])),
            (b'\\', Some(escaped)) => {
                let (byte, length) = unescaped(escaped, &text[at + 1..]);
                value.push(byte);
                at += 1 + length;
            }
            (b'\\', None) => return None,
            (byte, _) => {
                value.push(byte);
                at += 1;
            }
        }
    }
}

/// Parses an escape. Returns the byte that the escape represents, and the length of the escape without its backslash.
fn unescaped(escaped: u8, text: &[u8]) -> (u8, usize) {
    match escaped {
        b'b' => (0x08, 1),
        b'f' => (0x0C, 1),
        b'n' => (b'\n', 1),
        b'r' => (b'\r', 1),
        b't' => (b'\t', 1),
        b'0'..=b'7' => {
            let digits = text.iter().take(3).take_while(|byte| matches!(byte, b'0'..=b'7'));
            digits.fold((0, 0), |(value, length), digit| ((value << 3) + (digit - b'0'), length + 1))
        }
        other => (other, 1),
    }
}

/// Parses a value without quotes. Returns the value and the rest of the line. PostgreSQL's scanner is stricter about where digits may
/// appear; that makes no difference when checking a replica.
fn plain(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let belongs = |byte: u8| {
        is_letter(byte) || byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'_' | b':' | b'/')
    };
    let end = text.iter().position(|byte| !belongs(*byte)).unwrap_or(text.len());
    (end > 0).then(|| (text[..end].to_vec(), &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(line: &str) -> Option<(String, String)> {
        match parse_line(line.as_bytes()) {
            Line::Setting { name, value } => Some((name, value)),
            Line::Empty | Line::Malformed => None,
        }
    }

    #[test]
    fn a_setting_is_read_in_each_of_its_forms() {
        for (line, name, value) in [
            ("max_connections = 100", "max_connections", "100"),
            ("max_connections=100# few", "max_connections", "100"),
            ("  MAX_connections\t100 \r", "max_connections", "100"),
            ("shared_buffers = 128MB", "shared_buffers", "128MB"),
            ("a = 'it''s'", "a", "it's"),
            (r"a = 'it\'s \\ \t\101'", "a", "it's \\ \tA"),
            ("a = ''", "a", ""),
            ("a='#'#", "a", "#"),
            ("pg_stat.x = on", "pg_stat.x", "on"),
            ("include_dir 'conf.d'", "include_dir", "conf.d"),
            ("x = -1.5e3", "x", "-1.5e3"),
            (r"a = 'promote\000/../elsewhere'", "a", "promote"),
            (r"a = '\400x'", "a", ""),
        ] {
            assert_eq!(setting(line), Some((name.into(), value.into())), "{line}");
        }
    }

    #[test]
    fn comments_and_blanks_are_nothing() {
        for line in ["", "   ", "# max_connections = 1", "\t#", "\r"] {
            assert_eq!(parse_line(line.as_bytes()), Line::Empty, "{line:?}");
        }
    }

    #[test]
    fn lines_that_postgresql_cannot_parse_are_malformed() {
        for line in [
            "=",
            "a",
            "a =",
            "a = #",
            "a = 'x",
            r"a = 'x\",
            "a = 'x' y",
            "1 = 2",
            "'a' = 1",
            "a.b.c = 1",
            "a = b c",
        ] {
            assert_eq!(parse_line(line.as_bytes()), Line::Malformed, "{line}");
        }
    }

    #[test]
    fn a_quoted_value_is_read_back_as_it_was() {
        for value in ["", "host=a", "it's", r"C:\x\'", "''", "a # b", "é"] {
            assert_eq!(setting(&format!("a = {}", quote(value).unwrap())), Some(("a".into(), value.into())));
        }
        for value in ["a\nb = 'c'", "a\r", "a\0"] {
            assert_eq!(quote(value), None);
        }
    }

    #[test]
    fn lines_are_counted_from_one() {
        let found: Vec<_> = lines(b"a\n\nb").collect();
        assert_eq!(found, [(1, &b"a"[..]), (2, b""), (3, b"b")]);
    }
}
