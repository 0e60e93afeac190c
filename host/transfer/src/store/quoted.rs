//! Error texts of parsers of JSON, which quote the value that they did not expect: of a key file, or of the answer of a service
//! that gives tokens, that value may be the secret.

/// How a parser of JSON (serde) begins to quote a value, and the character that ends the quotation.
const QUOTES: [(&str, char); 4] = [
    ("invalid type: string \"", '"'),
    ("invalid value: string \"", '"'),
    ("unknown variant `", '`'),
    ("unknown field `", '`'),
];

/// Puts `...` in place of the values that a parser quotes in an error text. What follows the last quotation mark stays.
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
    fn what_a_parser_quotes_is_taken_out() {
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
