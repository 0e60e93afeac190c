//! Checks the URLs of stores, and formats them for messages.

use std::path::PathBuf;

use reqwest::Url;

use super::{Place, StoreKind, invalid};
use crate::error::Error;
use crate::store::key::Prefix;

/// Returns what is wrong with the URL of a store of this kind, to be put after the name of its setting; `None` if nothing is wrong.
/// Never quotes a part that could be a credential.
pub(super) fn wrong(kind: &StoreKind, url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    if has_credentials(url) {
        let what = if url.contains('@') {
            "contains a user or a password, which must not be in the URL (write an `@` after a port as `%40`)"
        } else {
            "has a `:` after which no port follows, or a `:` after the name of a bucket (set the server of a bucket as `endpoint`)"
        };
        return Some(format!("{what}: {}", kind.form()));
    }
    if kind.place == Place::Directory && rest.contains('%') {
        return Some(
            "contains a `%`, which begins an encoded character in a URL: use a path without `%`".to_owned(),
        );
    }
    if rest.contains(['?', '#']) {
        return Some(
            "contains a `?` or `#`: a query, a fragment or a token must not be in the URL".to_owned(),
        );
    }
    let authority = rest.split('/').next().unwrap_or_default();
    match (kind.place, authority.is_empty()) {
        (Place::Directory, false) => {
            return Some(
                "needs three slashes, because a directory has no host: file:///mnt/backups".to_owned(),
            );
        }
        (Place::Bucket | Place::Server, true) => {
            return Some(format!("lacks its host or bucket: write for example \"{}\"", kind.example));
        }
        (Place::Directory, true) | (Place::Bucket | Place::Server, false) => {}
    }
    let checked = match kind.place {
        Place::Directory => directory(url).map(drop),
        Place::Bucket => bucket(url).map(drop),
        Place::Server => match Url::parse(url) {
            Ok(url) => check_address(&url),
            Err(error) => return Some(format!("is not a URL: {error}")),
        },
    };
    checked.err().map(|error| format!("cannot be used: {}", error.message))
}

/// Splits a URL into its scheme, its authority (the host or bucket) and its path. Drops a query and a fragment.
fn parts(url: &str) -> (&str, &str, &str) {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (scheme, rest) = url[..end].split_once("://").unwrap_or(("", &url[..end]));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (scheme, authority, path)
}

/// Returns whether an authority is a bucket, or a host with or without a port. If the password in a URL contains a `/`, the authority ends
/// at that `/`, within the password. So text after a `:` that is not a number counts as the beginning of a password.
fn is_host(authority: &str) -> bool {
    // The brackets of an IPv6 address contain colons.
    let bracketed = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let rest = bracketed.map_or(authority, |(_, rest)| rest);
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    !rest.contains('@') && rest.split_once(':').is_none_or(|(_, port)| is_port(port))
}

/// Returns whether a URL has, or could have, a user or a password before its host or bucket. A number after a `:` is accepted as a port
/// only in the URL of a web server. If an `@` follows in the path, the number may be the beginning of a password with a `/` in it
/// (`https://user:12/cd@host`), so it is not accepted.
fn has_credentials(url: &str) -> bool {
    let (scheme, authority, path) = parts(url);
    let has_colon = authority.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
    let is_web = StoreKind::with_scheme(scheme).is_some_and(|kind| kind.place == Place::Server);
    !is_host(authority) || (has_colon && (!is_web || path.contains('@')))
}

/// Formats a URL for messages, without the parts that may be secret.
pub(super) fn shown(url: &str) -> String {
    let (scheme, authority, path) = parts(url);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if has_credentials(&format!("{scheme}://{host}{path}")) {
        return format!("{scheme}://");
    }
    format!("{scheme}://{}", format!("{host}{path}").escape_debug())
}

/// Returns the name of the bucket and the prefix in it. Decodes neither.
///
/// # Errors
/// `Invalid` if the URL names no bucket, or the prefix is not a valid key.
pub(super) fn bucket(url: &str) -> Result<(&str, Prefix), Error> {
    let (_, bucket, path) = parts(url);
    if bucket.is_empty()
        || bucket.contains(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.' | '$'))
    {
        return Err(invalid(format!(
            "`{}` is not the name of a bucket: write KIND://BUCKET/PREFIX",
            bucket.escape_debug()
        )));
    }
    Ok((bucket, Prefix::of_path(path.strip_prefix('/').unwrap_or(path))?))
}

/// Returns the directory that a `file:` URL names.
///
/// # Errors
/// `Invalid` if the URL names no directory.
pub(in crate::store) fn directory(url: &str) -> Result<PathBuf, Error> {
    let url = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
    match url.to_file_path() {
        Ok(path) if url.query().is_none() && url.fragment().is_none() => Ok(path),
        _ => Err(invalid("it is not an absolute path: write file:///DIRECTORY")),
    }
}

/// Checks that a URL is the address of a server, without credentials, query and fragment.
pub(super) fn check_address(url: &Url) -> Result<(), Error> {
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(invalid(
            "is not the address of a server, which begins with https:// or http:// and has a host",
        ));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("has credentials in it: set them as `credentials` instead"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid(
            "has a query or a fragment (`?` or `#`), which the address of a server must not have",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        assert_eq!(shown("https://u:p@host:1/a/b?c=d#e"), "https://host:1/a/b");
        assert_eq!(shown("s3://bucket/a@b"), "s3://bucket/a@b");
        assert_eq!(shown("https://[::1]/a@b"), "https://[::1]/a@b");
        assert_eq!(shown("https://[::1]:9000/a%40b"), "https://[::1]:9000/a%40b");
        for url in [
            "https://user:ab/cd@host/p",
            "https://u:p@user:ab/cd@host/p",
            "https://user:a?b@host",
            "https://u:/p",
        ] {
            assert_eq!(shown(url), "https://", "{url}");
        }
        assert_eq!(shown("s3://AKIA:12/cd@bucket"), "s3://");
    }
}
