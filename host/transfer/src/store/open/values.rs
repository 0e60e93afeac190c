//! What the value of an option may be. The clouds' libraries panic on an address that is none and on a header with other
//! characters than ASCII, and say of most others nothing before the first request: what they cannot use is refused here.

use std::fs::File;
use std::path::Path;

use reqwest::Url;

use super::check_url;

/// What may have lines: certificates in PEM, and a key in JSON.
const LINES: [&str; 3] = ["ca_certificate", "proxy_ca_certificate", "service_account_key"];

/// Addresses of servers.
const ADDRESSES: [&str; 7] = [
    "endpoint",
    "base_url",
    "endpoint_url_sts",
    "metadata_endpoint",
    "container_credentials_full_uri",
    "authority_host",
    "msi_endpoint",
];

/// What becomes a part of the name of a host or of the path of an address.
const NAMES: [&str; 4] = ["region", "account_name", "client_id", "tenant_id"];

/// What stands in a header or in a query as it is.
const IN_HEADERS: [&str; 6] =
    ["access_key_id", "secret_access_key", "token", "bearer_token", "sas_token", "account_key"];

/// Files that the provider chain reads.
pub(super) const FILES: [&str; 5] = [
    "web_identity_token_file",
    "container_authorization_token_file",
    "federated_token_file",
    "service_account",
    "application_credentials",
];

/// The most bytes of a value that may have lines or is secret.
const LONG: usize = 64 << 10;

/// The most bytes of any other value.
const SHORT: usize = 4096;

/// Says what is wrong with the value of an option; `None` if it can be used. A value is never quoted: it may be secret.
pub(super) fn wrong(name: &str, value: &str) -> Option<String> {
    if value.is_empty() {
        return Some("is empty".to_owned());
    }
    let most = if LINES.contains(&name) || IN_HEADERS.contains(&name) { LONG } else { SHORT };
    if value.len() > most {
        return Some(format!("has {} bytes, more than {most}", value.len()));
    }
    if LINES.contains(&name) {
        return None;
    }
    if value.contains(char::is_control) {
        return Some(
            "has a control character in it, such as the end of a line: it must be one line".to_owned(),
        );
    }
    if IN_HEADERS.contains(&name) {
        let other = value.chars().find(|character| !character.is_ascii_graphic())?;
        return Some(format!("has the character U+{:04X} in it, which no credential has", u32::from(other)));
    }
    if NAMES.contains(&name) {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let other = value.chars().find(|character| !allowed(*character))?;
        return Some(format!(
            "has the character {} in it: it is made of letters, digits, `-`, `_` and `.`",
            shown(other)
        ));
    }
    if ADDRESSES.contains(&name) {
        return wrong_address(value);
    }
    if name == "container_credentials_relative_uri" {
        return match value.starts_with('/') {
            true => wrong_characters(value),
            false => Some("is no path of a server: it begins with `/`".to_owned()),
        };
    }
    if FILES.contains(&name) && !Path::new(value).is_absolute() {
        return Some("is no absolute path of a file".to_owned());
    }
    None
}

/// Says why the file of an option cannot be read; `None` if it can, or the option names none.
pub(super) fn unreadable(name: &str, value: &str) -> Option<String> {
    if !FILES.contains(&name) {
        return None;
    }
    let path = Path::new(value);
    // Looked at before it is opened, for who opens a FIFO waits for a writer.
    let opened = match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err("it is not a file".to_owned()),
        Ok(_) => File::open(path).map(drop).map_err(|error| error.to_string()),
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
    check_url(&url).err().map(|error| error.message).or_else(|| wrong_characters(value))
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
    use super::*;

    #[test]
    fn a_value_that_no_library_can_use_is_told_and_never_quoted() {
        let long = "x".repeat(SHORT + 1);
        let very_long = "x".repeat(LONG + 1);
        let address = "is no URL: relative URL without a base; an address begins with https:// or http:// and has a host";
        for (names, value, says) in [
            (&["region", "token", "endpoint", "ca_certificate", "role_arn"][..], "", "is empty"),
            (
                &["region", "endpoint", "role_arn", "federated_token_file"],
                &long,
                "has 4097 bytes, more than 4096",
            ),
            (&["token", "service_account_key"], &very_long, "has 65537 bytes, more than 65536"),
            (&ADDRESSES, "hunter2", address),
            (
                &ADDRESSES,
                "ftp://h/",
                "is no address of a server: it begins with https:// or http:// and has a host",
            ),
            (&ADDRESSES, "http://hunter2:pass@h/", "has credentials in it; they have a place of their own"),
            (
                &ADDRESSES,
                "http://h/?hunter2",
                "has a query or a fragment; options and credentials have places of their own",
            ),
            (
                &ADDRESSES,
                "http://h/hun ter2",
                "has the character U+0020 in it, which an address writes with `%`",
            ),
            (
                &NAMES,
                "hun/ter2",
                "has the character `/` in it: it is made of letters, digits, `-`, `_` and `.`",
            ),
            (
                &NAMES,
                "hunter2\u{a0}",
                "has the character U+00A0 in it: it is made of letters, digits, `-`, `_` and `.`",
            ),
            (&IN_HEADERS, "hünter2", "has the character U+00FC in it, which no credential has"),
            (&FILES, "hunter2", "is no absolute path of a file"),
            (
                &["container_credentials_relative_uri"],
                "hunter2.example/",
                "is no path of a server: it begins with `/`",
            ),
            (
                &["role_arn"],
                "a\nb",
                "has a control character in it, such as the end of a line: it must be one line",
            ),
        ] {
            for name in names {
                assert_eq!(wrong(name, value).as_deref(), Some(says), "{name}");
            }
        }
        for (name, value) in [
            ("region", "eu-central-1"),
            ("endpoint", "http://[::1]:9000"),
            ("token", "t0ken/with+signs="),
            ("container_credentials_full_uri", "http://169.254.170.23/v1/credentials"),
            ("container_credentials_relative_uri", "/v2/credentials/x"),
            ("password", "hünter 2"),
            ("ca_certificate", "a\nb"),
            ("federated_token_file", "/var/run/token"),
        ] {
            assert_eq!(wrong(name, value), None, "{name}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        assert_eq!(
            unreadable("service_account", "/no/such").as_deref(),
            Some("names /no/such, which cannot be read: No such file or directory (os error 2)")
        );
        assert_eq!(
            unreadable("federated_token_file", "/").as_deref(),
            Some("names /, which cannot be read: it is not a file")
        );
        assert_eq!(unreadable("federated_token_file", "/proc/self/exe"), None);
        assert_eq!(unreadable("region", "/no/such"), None);
    }
}
