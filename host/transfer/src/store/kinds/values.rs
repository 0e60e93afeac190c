//! What the value of a setting may be. The clouds' libraries panic on an address that is none and on a header with other
//! characters than ASCII, and say of most others nothing before the first request: what they cannot use is refused here.

use std::fs;
use std::path::Path;

use reqwest::Url;

use super::url::check_address;

/// What the value of a setting, a credential or a variable may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueKind {
    /// `true` or `false`.
    Flag,
    /// A part of the name of a host or of the path of an address.
    Name,
    /// The address of a server.
    Address,
    /// The path of an address.
    UrlPath,
    /// The absolute path of a file.
    File,
    /// One line.
    Line,
    /// One line that stands in a header or in a query as it is.
    Token,
    /// A JSON object of any number of lines.
    JsonObject,
}

/// The most bytes of a value that may have lines or is secret.
const LONG: usize = 64 << 10;

/// The most bytes of any other value.
const SHORT: usize = 4096;

/// Says what is wrong with a value; `None` if it can be used. A value is never quoted: it may be secret.
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
                "has the character {} in it: it is made of letters, digits, `-`, `_` and `.`",
                shown(other)
            ))
        }
        ValueKind::Address => wrong_address(value),
        ValueKind::UrlPath => match value.starts_with('/') {
            true => wrong_characters(value),
            false => Some("is no path of a server: it begins with `/`".to_owned()),
        },
        ValueKind::File => {
            (!Path::new(value).is_absolute()).then(|| "is no absolute path of a file".to_owned())
        }
        ValueKind::Token => {
            let other = value.chars().find(|character| !character.is_ascii_graphic())?;
            Some(format!("has the character U+{:04X} in it, which no credential has", u32::from(other)))
        }
        ValueKind::Line | ValueKind::JsonObject => None,
    }
}

/// Says why a file cannot be read; `None` if it can, or the value names none.
pub(super) fn unreadable(kind: ValueKind, value: &str) -> Option<String> {
    if kind != ValueKind::File {
        return None;
    }
    let path = Path::new(value);
    // Looked at before it is opened, for who opens a FIFO waits for a writer.
    let opened = match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err("it is not a file".to_owned()),
        Ok(_) => fs::File::open(path).map(drop).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    opened.err().map(|why| format!("names {}, which cannot be read: {why}", path.display()))
}

fn wrong_address(value: &str) -> Option<String> {
    let url = match Url::parse(value) {
        Ok(url) => url,
        Err(error) => {
            return Some(format!(
                "is no URL: {error}; an address begins with https:// or http:// and has a host"
            ));
        }
    };
    check_address(&url).err().map(|error| error.message).or_else(|| wrong_characters(value))
}

/// What a parser of URLs would put right, and the library, which has another one, would not.
fn wrong_characters(value: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
    let other = value.chars().find(|character| !allowed(*character))?;
    Some(format!("has the character {} in it, which an address writes with `%`", shown(other)))
}

/// A character, by its number where it cannot be seen.
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
    fn a_value_that_no_library_can_use_is_told_and_never_quoted() {
        let long = "x".repeat(SHORT + 1);
        let very_long = "x".repeat(LONG + 1);
        let address = "is no URL: relative URL without a base; an address begins with https:// or http:// and has a host";
        for (kinds, value, says) in [
            (&[Flag, Name, Address, UrlPath, File, Line, Token, JsonObject][..], "", "is empty"),
            (&[Flag, Name, Address, UrlPath, File, Line], &long, "has 4097 bytes, more than 4096"),
            (&[Token, JsonObject], &very_long, "has 65537 bytes, more than 65536"),
            (&[Flag], "hunter2", "must be true or false"),
            (&[Address], "hunter2", address),
            (
                &[Address],
                "ftp://h/",
                "is no address of a server: it begins with https:// or http:// and has a host",
            ),
            (&[Address], "http://hunter2:pass@h/", "has credentials in it; they have a place of their own"),
            (
                &[Address],
                "http://h/?hunter2",
                "has a query or a fragment; options and credentials have places of their own",
            ),
            (
                &[Address],
                "http://h/hun ter2",
                "has the character U+0020 in it, which an address writes with `%`",
            ),
            (
                &[Name],
                "hun/ter2",
                "has the character `/` in it: it is made of letters, digits, `-`, `_` and `.`",
            ),
            (
                &[Name],
                "hunter2\u{a0}",
                "has the character U+00A0 in it: it is made of letters, digits, `-`, `_` and `.`",
            ),
            (&[Token], "hünter2", "has the character U+00FC in it, which no credential has"),
            (&[File], "hunter2", "is no absolute path of a file"),
            (&[UrlPath], "hunter2.example/", "is no path of a server: it begins with `/`"),
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
        assert_eq!(unreadable(File, "/").as_deref(), Some("names /, which cannot be read: it is not a file"));
        assert_eq!(unreadable(File, "/proc/self/exe"), None);
        assert_eq!(unreadable(Name, "/no/such"), None);
    }
}
