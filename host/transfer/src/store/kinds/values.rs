//! Checks the values of settings, credentials and environment variables. The clouds' libraries panic on an invalid address and on a
//! header with characters other than ASCII, and do not report most other invalid values before the first request.

use std::path::Path;

use foundation::regular_file;
use reqwest::Url;

use super::url::check_address;

/// The values that a setting, a credential or an environment variable accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// `true` or `false`.
    Flag,
    /// A part of a host name or of a URL's path.
    Name,
    /// The URL of a server.
    Address,
    /// The path of a URL.
    UrlPath,
    /// The absolute path of a file.
    File,
    /// One line.
    Line,
    /// One line of visible ASCII characters, which is put into a header or a query unchanged.
    Token,
    /// A JSON object, which may have several lines.
    JsonObject,
}

/// The most bytes of a JSON object or a token.
const LONG: usize = 64 << 10;

/// The most bytes of any other value.
const SHORT: usize = 4096;

/// Returns what is wrong with a value; `None` if nothing wrong is found. A JSON object is checked only for its length. Never quotes the
/// value, because it may be secret.
pub(super) fn wrong(kind: ValueKind, value: &str) -> Option<String> {
    if value.is_empty() {
        return Some("is empty".to_owned());
    }
    let most = if matches!(kind, ValueKind::JsonObject | ValueKind::Token) { LONG } else { SHORT };
    if value.len() > most {
        return Some(format!("has {} bytes, more than {most}", value.len()));
    }
    if kind != ValueKind::JsonObject && value.contains(char::is_control) {
        return Some(
            "has a control character in it, such as the end of a line: it must be one line".to_owned(),
        );
    }
    match kind {
        ValueKind::Flag => (!matches!(value, "true" | "false")).then(|| "must be true or false".to_owned()),
        ValueKind::Name => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let other = value.chars().find(|character| !allowed(*character))?;
            Some(format!(
                "has the character {} in it: only letters, digits, `-`, `_` and `.` are allowed",
                shown(other)
            ))
        }
        ValueKind::Address => wrong_address(value),
        ValueKind::UrlPath => match value.starts_with('/') {
            true => wrong_characters(value),
            false => Some("is not the path of a URL, which begins with `/`".to_owned()),
        },
        ValueKind::File => {
            (!Path::new(value).is_absolute()).then(|| "is not the absolute path of a file".to_owned())
        }
        ValueKind::Token => {
            let other = value.chars().find(|character| !character.is_ascii_graphic())?;
            Some(format!("has the character U+{:04X} in it, which no credential can have", u32::from(other)))
        }
        ValueKind::Line | ValueKind::JsonObject => None,
    }
}

/// Returns why the file that a value names cannot be read; `None` if it can, or if the value is of another kind.
pub(super) fn unreadable(kind: ValueKind, value: &str) -> Option<String> {
    if kind != ValueKind::File {
        return None;
    }
    let path = Path::new(value);
    regular_file::open(path).err().map(|why| format!("names {}, which cannot be read: {why}", path.display()))
}

fn wrong_address(value: &str) -> Option<String> {
    let url = match Url::parse(value) {
        Ok(url) => url,
        Err(error) => {
            return Some(format!(
                "is not a URL: {error}; an address begins with https:// or http:// and has a host"
            ));
        }
    };
    check_address(&url).err().map(|error| error.message).or_else(|| wrong_characters(value))
}

/// Finds a character that must be percent-encoded in a URL: parsers treat it differently, and some refuse it.
fn wrong_characters(value: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
    let other = value.chars().find(|character| !allowed(*character))?;
    Some(format!("has the character {} in it, which must be percent-encoded in a URL", shown(other)))
}

/// Formats a character for a message; as its number if it is not visible ASCII.
fn shown(character: char) -> String {
    match character {
        seen if seen.is_ascii_graphic() => format!("`{seen}`"),
        unseen => format!("U+{:04X}", u32::from(unseen)),
    }
}

#[cfg(test)]
mod tests {
    use ValueKind::{Address, File, Flag, JsonObject, Line, Name, Token, UrlPath};

    use super::*;

    #[test]
    fn an_invalid_value_is_described_and_never_quoted() {
        let long = "x".repeat(SHORT + 1);
        let very_long = "x".repeat(LONG + 1);
        let address = "is not a URL: relative URL without a base; an address begins with https:// or http:// and has a host";
        for (kinds, value, says) in [
            (&[Flag, Name, Address, UrlPath, File, Line, Token, JsonObject][..], "", "is empty"),
            (&[Flag, Name, Address, UrlPath, File, Line], &long, "has 4097 bytes, more than 4096"),
            (&[Token, JsonObject], &very_long, "has 65537 bytes, more than 65536"),
            (&[Flag], "hunter2", "must be true or false"),
            (&[Address], "hunter2", address),
            (
                &[Address],
                "ftp://h/",
                "is not the address of a server, which begins with https:// or http:// and has a host",
            ),
            (
                &[Address],
                "http://hunter2:pass@h/",
                "has credentials in it: set them as `credentials` instead",
            ),
            (
                &[Address],
                "http://h/?hunter2",
                "has a query or a fragment (`?` or `#`), which the address of a server must not have",
            ),
            (
                &[Address],
                "http://h/hun ter2",
                "has the character U+0020 in it, which must be percent-encoded in a URL",
            ),
            (
                &[Name],
                "hun/ter2",
                "has the character `/` in it: only letters, digits, `-`, `_` and `.` are allowed",
            ),
            (
                &[Name],
                "hunter2\u{a0}",
                "has the character U+00A0 in it: only letters, digits, `-`, `_` and `.` are allowed",
            ),
            (&[Token], "hünter2", "has the character U+00FC in it, which no credential can have"),
            (&[File], "hunter2", "is not the absolute path of a file"),
            (&[UrlPath], "hunter2.example/", "is not the path of a URL, which begins with `/`"),
            (
                &[Flag, Name, Address, UrlPath, File, Line, Token],
                "/a\nb",
                "has a control character in it, such as the end of a line: it must be one line",
            ),
        ] {
            for kind in kinds {
                assert_eq!(wrong(*kind, value).as_deref(), Some(says), "{kind:?}");
            }
        }
        for (kind, value) in [
            (Flag, "false"),
            (Name, "eu-central-1"),
            (Address, "http://[::1]:9000"),
            (Address, "http://169.254.170.23/v1/credentials"),
            (Token, "t0ken/with+signs="),
            (UrlPath, "/v2/credentials/x"),
            (Line, "hünter 2"),
            (JsonObject, "a\nb"),
            (File, "/var/run/token"),
        ] {
            assert_eq!(wrong(kind, value), None, "{kind:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        assert_eq!(
            unreadable(File, "/no/such").as_deref(),
            Some("names /no/such, which cannot be read: No such file or directory (os error 2)")
        );
        assert_eq!(
            unreadable(File, "/").as_deref(),
            Some("names /, which cannot be read: it is not a regular file")
        );
        assert_eq!(unreadable(File, "/proc/self/exe"), None);
        assert_eq!(unreadable(Name, "/no/such"), None);
    }
}
