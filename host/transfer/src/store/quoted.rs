//! Removes quoted values from the error texts of JSON parsers. If the parser read a key file or a response with a token, the value that it
//! quotes may be the secret.

/// How a JSON parser (serde) begins a quoted value, and the character that ends it.
const QUOTES: [(&str, char); 4] = [
    ("invalid type: string \"", '"'),
    ("invalid value: string \"", '"'),
    ("unknown variant `", '`'),
    ("unknown field `", '`'),
];

/// Replaces the values that a parser quotes in an error text with `...`. Keeps the text after the last quotation mark.
pub(super) fn without_values(text: &str) -> String {
    let mut text = text.to_owned();
    for (begin, end) in QUOTES {
        let Some(from) = text.find(begin).map(|at| at + begin.len()) else { continue };
        let to = text[from..].rfind(end).map_or(text.len(), |at| from + at);
        text.replace_range(from..to, "...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_a_parser_quotes_are_removed() {
        type Key = std::collections::BTreeMap<String, String>;
        let whole = serde_json::to_string(r#"{"private_key": "swordfish"}"#).unwrap();
        let error = serde_json::from_str::<Key>(&whole).unwrap_err().to_string();
        assert!(error.contains("swordfish"), "{error}");
        let shown = without_values(&format!("Unable to decode: {error}"));
        assert!(!shown.contains("swordfish") && shown.contains("expected a map"), "{shown}");
        assert_eq!(without_values("unknown variant `sword`, expected `fish`"), "unknown variant `...`");
        assert_eq!(without_values("connection refused"), "connection refused");
    }
}
