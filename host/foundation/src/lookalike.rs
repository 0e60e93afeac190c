//! Finds texts that look like secrets, before any secret is known: addresses with a password, and pairs of a name and a value, such as
//! `password=x`, `--token x`, `?sig=x` and `{"api-key": "x"}`.
//!
//! Does not find a secret that neither its name nor its form reveals, such as the value of a short option (`-p x`) or a part of a path.

use crate::logins::secrets_in;

/// Which names mark their values as secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Names whose value is almost certainly a secret, such as `password`. The configuration refuses such values.
    Certain,
    /// Also names whose value may be something else, such as `key`. The conversion of Patroni's configuration leaves out such values.
    Doubtful,
}

/// Parts of certain names. Names are compared in lower case and without separators, so `accesskey` matches both `AWS_ACCESS_KEY` and
/// `access-key`.
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

/// Words that make a name certain if they are its last word. Anywhere else in a name, they make it doubtful.
const CERTAIN_WORDS: [&str; 8] =
    ["pass", "pwd", "pw", "sas", "bearer", "authorization", "credential", "credentials"];

/// Parts of doubtful names.
const DOUBTFUL: [&str; 2] = ["credential", "connectionstring"];

/// Words that make a name doubtful if they are its last word.
const DOUBTFUL_WORDS: [&str; 6] = ["key", "auth", "cipher", "sig", "signature", "session"];

/// The beginnings of tokens of GitHub, GitLab, Slack and Stripe.
const TOKENS: [&str; 9] =
    ["ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "sk_live_", "rk_live_"];

/// The minimum length in bytes of a word that counts as a token or a random key.
const RANDOM: usize = 16;

/// Returns whether `value` is a secret, because of `name`, which may be empty, or because of what it contains ([`holds_secret`]). A name
/// that ends in `file` or `path` marks no value.
///
/// - [`Names::Certain`]: a certain name marks every value except a path, that is, a value that begins with a slash and has a second one.
///   (Random text can begin with a slash.) A name whose last word is `key` also marks a value that looks random.
/// - [`Names::Doubtful`]: a certain or doubtful name marks every value that does not begin with a slash.
pub fn is_secret(name: &str, value: &str, names: Names) -> bool {
    let is_marked = match names {
        Names::Certain => {
            // The shell's own variables, whose values are directories.
            let is_directory = value.starts_with('/') && matches!(name, "PWD" | "OLDPWD");
            let is_path = value.starts_with('/') && value[1..].contains('/');
            (tells(name, Names::Certain) && !is_path && !is_directory)
                || (tells(name, Names::Doubtful) && ends_in_key(name) && is_random(value))
        }
        Names::Doubtful => tells(name, Names::Doubtful) && !value.starts_with('/'),
    };
    (is_marked && !value.is_empty()) || holds_secret(value, names)
}

/// Returns whether a text holds an address with a password, a private key, a token of a known form, a token after `bearer`, or a pair whose
/// name is that of a secret.
pub fn holds_secret(text: &str, names: Names) -> bool {
    !secrets_in(text).is_empty()
        || has_known_form(text)
        || bearer(text).is_some()
        || pairs(text, names).next().is_some()
}

fn has_known_form(text: &str) -> bool {
    let is_token = |word: &str| {
        let is_jwt = word.starts_with("eyJ") && word.matches('.').count() == 2;
        word.len() >= RANDOM && (is_jwt || TOKENS.iter().any(|token| word.starts_with(token)))
    };
    let of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (text.contains("-----BEGIN ") && text.contains("PRIVATE KEY"))
        || text.split(|c| !of_token(c)).any(is_token)
}

fn ends_in_key(name: &str) -> bool {
    words(name).last().is_some_and(|word| word == "key")
}

/// Returns whether a text looks like a random key: long, without white space, with letters and digits. An AWS access key ID, a fingerprint of
/// 40 hexadecimal digits, a text with a dot, and a path in small letters do not.
fn is_random(text: &str) -> bool {
    let has = |wanted: fn(&u8) -> bool| text.as_bytes().iter().any(wanted);
    let is_public = text.starts_with("AKIA")
        || text.starts_with("ASIA")
        || (text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let has_letters = if text.contains(['/', '-']) {
        has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase)
    } else {
        has(u8::is_ascii_alphabetic)
    };
    text.len() >= RANDOM
        && !is_public
        && !text.starts_with('/')
        && !text.contains(|c: char| c.is_whitespace() || c == '.')
        && has(u8::is_ascii_digit)
        && has_letters
}

/// Returns whether a name is that of a secret.
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
    let is_certain = has(&CERTAIN) || has_token || CERTAIN_WORDS.contains(&last) || last.ends_with("pwd");
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

/// Returns the words of a name in lower case. A separator, or a capital letter after a small one, begins a new word: `AccountKey` and
/// `CLOUD_TOKEN` have two words each.
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

/// Returns the word after `bearer` in a text, which is the token in an `Authorization` header of HTTP.
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

/// Finds `NAME=VALUE` and `NAME:VALUE` in a text, and returns the pairs whose name is that of a secret. Leaves out pairs whose value is
/// empty, and paths after a `:` or, with [`Names::Doubtful`], after either separator. Skips white space, quotation marks and backslashes
/// around the separator. Each value extends to the end of the text.
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

    /// Pairs that count as secrets with [`Names::Certain`].
    const CERTAIN: [(&str, &str); 32] = [
        ("USERPWD", "u:x"),
        ("", "-----BEGIN OPENSSH PRIVATE KEY-----\nx"),
        ("X", "ghp_0123456789abcdef"),
        ("", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"),
        ("ENCRYPTION_KEY", "c2VjcmV0LXNlY3JldA0123"),
        ("PGBACKREST_REPO1_AZURE_KEY", "c2VjcmV0LXNlY3JldA0123=="),
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

    /// Pairs that count as secrets only with [`Names::Doubtful`].
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
    const HARMLESS: [(&str, &str); 22] = [
        ("", ""),
        ("password", ""),
        ("PGPASSFILE", "/x"),
        ("DB_PASSWORD_FILE", "/etc/password"),
        ("", "ghp_short and eyJ.a.b"),
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
                // With `Names::Doubtful`, the value `/x` after `=` counts as a path and not as a secret.
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
    fn a_value_that_begins_with_a_slash_may_be_random() {
        assert!(is_secret("DB_PASSWORD", "/sl4shF1rst", Names::Certain));
        assert!(!is_secret("DB_PASSWORD", "/sl4shF1rst", Names::Doubtful), "taken for a path");
        for (name, value) in [
            ("SSL_KEY", "/etc/ssl/private/server1.key"),
            ("SORT_KEY", "created_at_descending"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "/etc/wal-g/gcs.json"),
            ("SSH_PRIVATE_KEY", "/home/postgres/.ssh/id_ed25519"),
            ("RESTIC_PASSWORD_COMMAND", "/usr/bin/pass x"),
            ("PWD", "/srv"),
            ("OLDPWD", "/srv/x"),
            ("BACKUP_KEY", "daily/2024-01-01/base"),
            ("--key", "base/20240101T000000/data.tar"),
            ("GPG_KEY", "0123456789abcdef0123456789abcdef01234567"),
            ("PGBACKREST_REPO1_S3_KEY", "AKIAIOSFODNN7EXAMPLE"),
        ] {
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
