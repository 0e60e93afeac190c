//! Reads the Python literals of `backup.info`. Barman writes them with `repr` and reads them with `ast.literal_eval` (barman/infofile.py).
//! Only what `repr` writes for texts, numbers, truth values, `None`, lists, tuples and dictionaries is read. Nothing is evaluated.

/// How deep lists, tuples and dictionaries may be nested. Barman's are three deep.
pub(crate) const DEEPEST: usize = 16;

/// The largest permitted number of values in a literal.
pub(crate) const MOST_VALUES: usize = 50_000;

/// A literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Literal {
    None,
    Text(String),
    Integer(i64),
    List(Vec<Literal>),
    Tuple(Vec<Literal>),
    /// `True`, `False`, a number with a fraction, or a dictionary. No key whose content is used has such a value.
    Other,
}

/// Parses a literal.
///
/// # Errors
/// The error says at which character the text is not a literal that Barman writes.
pub(crate) fn parse(text: &str) -> Result<Literal, String> {
    let mut reader = Reader { text, left: text, values: 0 };
    let literal = reader.value(0)?;
    reader.spaces();
    if reader.left.is_empty() { Ok(literal) } else { reader.fails("something after the value") }
}

struct Reader<'a> {
    text: &'a str,
    left: &'a str,
    values: usize,
}

impl<'a> Reader<'a> {
    fn fails<T>(&self, what: &str) -> Result<T, String> {
        let at = self.text.len().saturating_sub(self.left.len());
        let at = self.text.get(..at).map_or(0, |before| before.chars().count()) + 1;
        Err(format!("is not a literal that Barman writes: {what} at character {at}"))
    }

    fn spaces(&mut self) {
        self.left = self.left.trim_start_matches(' ');
    }

    fn takes(&mut self, token: &str) -> bool {
        match self.left.strip_prefix(token) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    fn value(&mut self, depth: usize) -> Result<Literal, String> {
        self.spaces();
        self.values += 1;
        if self.values > MOST_VALUES {
            return self.fails("more values than are read");
        }
        match self.left.chars().next() {
            None => self.fails("the end"),
            Some('\'' | '"') => Ok(Literal::Text(self.quoted()?)),
            Some('[' | '(' | '{') if depth == DEEPEST => self.fails("a value that is nested too deep"),
            Some('[') => self.list(depth),
            Some('(') => self.tuple(depth),
            Some('{') => self.dictionary(depth),
            Some('-' | '0'..='9') => self.number(),
            Some(_) => self.word(),
        }
    }

    fn word(&mut self) -> Result<Literal, String> {
        let end = self.left.find(|next: char| !next.is_alphanumeric() && next != '_');
        let (word, left) = self.left.split_at(end.unwrap_or(self.left.len()));
        let literal = match word {
            "None" => Literal::None,
            "True" | "False" => Literal::Other,
            _ => return self.fails("a name"),
        };
        self.left = left;
        Ok(literal)
    }

    fn number(&mut self) -> Result<Literal, String> {
        let is_part = |next: char| next.is_ascii_digit() || matches!(next, '-' | '+' | '.' | 'e');
        let (number, left) =
            self.left.split_at(self.left.find(|next| !is_part(next)).unwrap_or(self.left.len()));
        let literal = if number.contains(['.', 'e']) {
            number.parse::<f64>().ok().filter(|number| number.is_finite()).map(|_| Literal::Other)
        } else {
            number.parse().ok().map(Literal::Integer)
        };
        match literal {
            Some(literal) => {
                self.left = left;
                Ok(literal)
            }
            None => self.fails("a number that is not read"),
        }
    }

    /// Reads a text in single or double quotes.
    fn quoted(&mut self) -> Result<String, String> {
        let mut characters = self.left.chars();
        let quote = characters.next();
        let mut text = String::new();
        loop {
            let next = characters.next();
            match next {
                None => return self.fails("a text without an end"),
                Some(_) if next == quote => break,
                Some('\\') => match escaped(&mut characters) {
                    Some(character) => text.push(character),
                    None => return self.fails("a text with an escape that is not read"),
                },
                Some(character) => text.push(character),
            }
        }
        self.left = characters.as_str();
        Ok(text)
    }

    /// Reads the items up to `close`, and returns whether the last one was followed by a comma. `item` reads one.
    fn items(
        &mut self,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Result<(), String>,
    ) -> Result<bool, String> {
        self.spaces();
        if self.takes(close) {
            return Ok(false);
        }
        loop {
            item(self)?;
            self.spaces();
            if self.takes(close) {
                return Ok(false);
            }
            if !self.takes(",") {
                return self.fails("something other than a comma");
            }
            self.spaces();
            if self.takes(close) {
                return Ok(true);
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Literal, String> {
        self.takes("[");
        let mut items = Vec::new();
        self.items("]", |reader| {
            items.push(reader.value(depth + 1)?);
            Ok(())
        })?;
        Ok(Literal::List(items))
    }

    fn tuple(&mut self, depth: usize) -> Result<Literal, String> {
        self.takes("(");
        let mut items = Vec::new();
        let ends_with_comma = self.items(")", |reader| {
            items.push(reader.value(depth + 1)?);
            Ok(())
        })?;
        if items.len() == 1 && !ends_with_comma {
            return self.fails("a value in parentheses");
        }
        Ok(Literal::Tuple(items))
    }

    fn dictionary(&mut self, depth: usize) -> Result<Literal, String> {
        self.takes("{");
        self.items("}", |reader| {
            reader.value(depth + 1)?;
            reader.spaces();
            if !reader.takes(":") {
                return reader.fails("a key without a value");
            }
            reader.value(depth + 1).map(drop)
        })?;
        Ok(Literal::Other)
    }
}

/// Reads the rest of an escape that `repr` writes; `None` for any other.
fn escaped(characters: &mut std::str::Chars<'_>) -> Option<char> {
    let digits = match characters.next()? {
        same @ ('\\' | '\'' | '"') => return Some(same),
        'n' => return Some('\n'),
        'r' => return Some('\r'),
        't' => return Some('\t'),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        _ => return None,
    };
    let mut code: u32 = 0;
    for _ in 0..digits {
        code = code.checked_mul(16)?.checked_add(characters.next()?.to_digit(16)?)?;
    }
    char::from_u32(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Literal {
        Literal::Text(text.to_owned())
    }

    #[test]
    fn what_barman_writes_is_read() {
        let tablespace = |name: &str, oid, location: &str| {
            Literal::Tuple(vec![text(name), Literal::Integer(oid), text(location)])
        };
        for (written, literal) in [
            ("None", Literal::None),
            ("True", Literal::Other),
            ("-7", Literal::Integer(-7)),
            ("1.5e-05", Literal::Other),
            ("[]", Literal::List(Vec::new())),
            ("()", Literal::Tuple(Vec::new())),
            ("(1,)", Literal::Tuple(vec![Literal::Integer(1)])),
            ("{}", Literal::Other),
            ("{'copy_time': 1.25, 'per_item': {'pgdata': 0, 7: None}}", Literal::Other),
            (
                "'a\\nb\\t\\\\ \"c\" \\'d\\' \\x07\\u00e9\\U0001f600é'",
                text("a\nb\t\\ \"c\" 'd' \u{7}é\u{1f600}é"),
            ),
            ("\"it's\"", text("it's")),
            (
                "[('fast', 16384, '/srv/fast'), ('o\\'clock', 16385, \"/srv/o'clock\")]",
                Literal::List(vec![
                    tablespace("fast", 16384, "/srv/fast"),
                    tablespace("o'clock", 16385, "/srv/o'clock"),
                ]),
            ),
        ] {
            assert_eq!(parse(written), Ok(literal), "{written}");
        }
    }

    #[test]
    fn code_and_everything_else_is_refused() {
        for written in [
            "",
            " ",
            "__import__('os').system('id')",
            "open('/etc/passwd')",
            "Tablespace(name='fast', oid=16384, location='/srv/fast')",
            "lambda: 0",
            "[x for x in (1, 2)]",
            "1 + 1",
            "1+1",
            "'a' 'b'",
            "'a' + 'b'",
            "'a'.upper()",
            "('a')",
            "b'a'",
            "f'{x}'",
            "u'a'",
            "r'a'",
            "none",
            "null",
            "true",
            "inf",
            "1e999",
            "0x10",
            "1_000",
            "9223372036854775808",
            "--1",
            "1j",
            "{1, 2}",
            "{'a'}",
            "{'a': }",
            "{'a': 1",
            "[1, 2",
            "[1 2]",
            "[,]",
            "(,)",
            "'a",
            "\"a'",
            "'\\q'",
            "'\\N{BULLET}'",
            "'\\x4'",
            "'\\ud800'",
            "'\\U00110000'",
            "[1] # comment",
            "[1];import os",
        ] {
            let error = parse(written).unwrap_err();
            assert!(error.contains("at character"), "{written}: {error}");
        }
        assert!(parse("[1, é(2)]").unwrap_err().ends_with("a name at character 5"));
    }

    #[test]
    fn depth_and_number_of_values_are_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(DEEPEST)).is_ok());
        assert!(parse(&nested(DEEPEST + 1)).unwrap_err().contains("too deep"));
        assert!(parse(&nested(500_000)).unwrap_err().contains("too deep"));
        let many = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert!(parse(&many(MOST_VALUES - 1)).is_ok());
        assert!(parse(&many(MOST_VALUES)).unwrap_err().contains("more values"));
    }
}
