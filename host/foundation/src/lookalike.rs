//! Finds texts that look like secrets, before any secret is known: addresses with a password, and pairs of a name and a value, such as
//! `password=x`, `--token x`, `?sig=x` and `{"api-key": "x"}`.
//!
//! A secret without a telling name is not found: the value of a short option (`-p x`), a part of a path.

use crate::logins::secrets_in;

/// Which names tell of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Names whose value hardly is anything else, such as `password`. For texts that are refused.
    Certain,
    /// Also names whose value may be something else, such as `key`. For texts that are left out.
    Doubtful,
}

/// Parts of certain names, without what separates words: `accesskey` is in `AWS_ACCESS_KEY` and in `access-key`.
const CERTAIN: [&str; 10] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "accesskey",
    "accountkey",
    "apikey",
    "privatekey",
    "sharedkey",
    "storagekey",
];

/// Words that are certain names alone and at the end.
const CERTAIN_WORDS: [&str; 8] =
    ["pass", "pwd", "pw", "sas", "bearer", "authorization", "credential", "credentials"];

/// Parts of doubtful names.
const DOUBTFUL: [&str; 2] = ["credential", "connectionstring"];

/// Words that are doubtful names alone and at the end.
const DOUBTFUL_WORDS: [&str; 6] = ["key", "auth", "cipher", "sig", "signature", "session"];

/// Returns whether `value` is or holds a secret, by its name, which may be empty, or by its own look. A path is no secret, and a name that
/// ends in `file` or `path` has none.
pub fn is_secret(name: &str, value: &str, names: Names) -> bool {
    let is_reference = value.is_empty() || value.starts_with('/');
    (tells(name, names) && !is_reference) || holds_secret(value, names)
}

/// Returns whether a text has a password in an address, or a pair whose name tells of a secret.
pub fn holds_secret(text: &str, names: Names) -> bool {
    !secrets_in(text).is_empty() || bearer(text).is_some() || pairs(text, names).next().is_some()
}

/// Returns whether a name tells of a secret.
pub(crate) fn tells(name: &str, names: Names) -> bool {
    let words = words(name);
    let Some(last) = words.last().map(String::as_str) else { return false };
    let joined = words.concat();
    // `--no-password` has no value.
    if joined.ends_with("file") || joined.ends_with("path") || words.first().is_some_and(|word| word == "no")
    {
        return false;
    }
    let has = |parts: &[&str]| parts.iter().any(|part| joined.contains(part));
    let has_token = words.iter().any(|word| word.ends_with("token"));
    let is_certain = has(&CERTAIN) || has_token || CERTAIN_WORDS.contains(&last);
    match names {
        // `AWS_ACCESS_KEY_ID` names a user.
        Names::Certain => is_certain && last != "id",
        Names::Doubtful => {
            is_certain
                || has(&DOUBTFUL)
                || DOUBTFUL_WORDS.contains(&last)
                || words.iter().any(|word| CERTAIN_WORDS.contains(&word.as_str()))
        }
    }
}

/// Returns the words of a name in lower case: `X-Amz-Signature`, `AccountKey` and `CLOUD_TOKEN` have several.
fn words(name: &str) -> Vec<String> {
    let mut words = Vec::new();
    for part in name.split(|c: char| !c.is_ascii_alphanumeric()) {
        let mut word = String::new();
        let mut before = 'A';
        for c in part.chars() {
            if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
                words.push(std::mem::take(&mut word));
            }
            word.push(c.to_ascii_lowercase());
            before = c;
        }
        words.push(word);
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Returns the token behind the word `bearer` in a text, as a header of HTTP has it.
pub(crate) fn bearer(text: &str) -> Option<&str> {
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let word = word.rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        if word.eq_ignore_ascii_case("bearer")
            && let Some(token) = words.peek()
        {
            return Some(token);
        }
    }
    None
}

fn is_blank_or_quote(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '\\')
}

/// Returns the pairs `NAME=VALUE` and `NAME:VALUE` in a text, also with blanks and quotation marks around, whose names tell of secrets.
/// Each value goes on to the end of the text.
pub(crate) fn pairs(text: &str, names: Names) -> impl Iterator<Item = (&str, &str)> {
    text.match_indices(['=', ':']).filter_map(move |(at, separator)| {
        let before = text[..at].trim_end_matches(is_blank_or_quote);
        let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let name = &before[before.trim_end_matches(of_name).len()..];
        if !tells(name, names) {
            return None;
        }
        let value = text[at + separator.len()..].trim_start_matches(is_blank_or_quote);
        let is_path = value.starts_with('/') && (separator == ":" || names == Names::Doubtful);
        let ends = value.starts_with(['&', ';', ',', ')', '}', ']']);
        (!(value.is_empty() || is_path || ends)).then_some((name, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs that no name but a certain one makes secrets.
    const CERTAIN: [(&str, &str); 26] = [
        ("PGPASSWORD", "x"),
        ("--password", "x"),
        ("db-pass", "x"),
        ("pw", "x"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("CLOUD_TOKEN", "x"),
        ("accessToken", "x"),
        ("", "postgres://u:x@h/db"),
        ("", "host=h password=x"),
        ("", "host=h password = 'x'"),
        ("", "host=h password=/x"),
        ("", "postgresql://h/db?password=x"),
        ("", "--password=x"),
        ("", "token:x"),
        ("", r#"{"password":"x"}"#),
        ("", r#"{"user": "u", "apiKey": "x"}"#),
        ("", r#"{\"password\": \"x\"}"#),
        ("", "AccountName=x;AccountKey=x"),
        ("", "PGPASSWORD=x /usr/bin/r"),
        ("", "export TOKEN=x; r"),
        ("credentials", "x"),
        ("", "Authorization: Basic x"),
        ("", "Authorization: Bearer x"),
        ("foo", "bearer x"),
        ("", "https://h/?sas=x"),
        ("", "-----\npassphrase: x"),
    ];

    /// Pairs that a doubtful name makes secrets.
    const DOUBTFUL: [(&str, &str); 9] = [
        ("--cipher-key", "x"),
        ("--auth", "x"),
        ("--key", "x"),
        ("AWS_SESSION", "x"),
        ("AWS_ACCESS_KEY_ID", "x"),
        ("AZURE_STORAGE_CONNECTION_STRING", "x"),
        ("", "https://h/p?sig=x"),
        ("", "https://h/p?a=b&X-Amz-Signature=x"),
        ("", "--cipher-key=x"),
    ];

    /// Pairs without a secret.
    const HARMLESS: [(&str, &str); 21] = [
        ("", ""),
        ("password", ""),
        ("PGPASSFILE", "/x"),
        ("password", "/etc/password"),
        ("token-file", "x"),
        ("key-type", "auto"),
        ("cipher-type", "aes-256-cbc"),
        ("tokenizer", "x"),
        ("--no-password", "restore"),
        ("monkey", "x"),
        ("compass", "x"),
        ("", "host=h port=5432 passfile=/x"),
        ("", "--password="),
        ("", "a&password=&b=c"),
        ("", r#"{"password": }"#),
        ("", "https://h:8080/p?x=1"),
        ("", "ssh://git@h/x"),
        ("", "10:20:30"),
        ("", "/srv/token:/srv/other"),
        ("", "the bearer"),
        ("", "restore"),
    ];

    #[test]
    fn a_text_with_a_telling_name_or_a_login_is_found() {
        for (name, value) in CERTAIN {
            for names in [Names::Certain, Names::Doubtful] {
                // A path behind a doubtful name is one.
                if value != "host=h password=/x" || names == Names::Certain {
                    assert!(is_secret(name, value, names), "{name} {value} {names:?}");
                }
            }
        }
        for (name, value) in DOUBTFUL {
            assert!(is_secret(name, value, Names::Doubtful), "{name} {value}");
            assert!(!is_secret(name, value, Names::Certain), "{name} {value}");
        }
    }

    #[test]
    fn other_texts_are_not_taken_for_secrets() {
        for (name, value) in HARMLESS {
            assert!(!is_secret(name, value, Names::Doubtful), "{name} {value}");
            assert!(!is_secret(name, value, Names::Certain), "{name} {value}");
        }
    }
}
