//! The URLs of stores: what each kind's must be, and how one is shown.

use std::path::PathBuf;

use reqwest::Url;

use super::{Place, StoreKind, invalid};
use crate::error::Error;
use crate::store::key::Prefix;

/// Says what is wrong with the URL of a store of this kind, to be put behind the name of its setting; `None` if nothing is. What
/// could be a credential is never quoted.
pub(super) fn wrong(kind: &StoreKind, url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    if has_credentials(url) {
        let what = if url.contains('@') {
            "holds a user or a password, which must not stand here (an `@` behind a port is written `%40`)"
        } else {
            "has a `:` without a port behind it, or in the name of a bucket, whose server `endpoint` names"
        };
        return Some(format!("{what}: {}", kind.form()));
    }
    if kind.place == Place::Directory && rest.contains('%') {
        return Some(
            "holds a `%`, which an address has for other characters: name the directory without one"
                .to_owned(),
        );
    }
    if rest.contains(['?', '#']) {
        return Some(
            "holds a `?` or `#`: an address has neither, and a token that it carries must not stand here"
                .to_owned(),
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
            return Some(format!("lacks its host or bucket: write such as \"{}\"", kind.example));
        }
        (Place::Directory, true) | (Place::Bucket | Place::Server, false) => {}
    }
    let checked = match kind.place {
        Place::Directory => directory(url).map(drop),
        Place::Bucket => bucket(url).map(drop),
        Place::Server => match Url::parse(url) {
            Ok(url) => check_address(&url),
            Err(error) => return Some(format!("is no URL: {error}")),
        },
    };
    checked.err().map(|error| format!("cannot be used: {}", error.message))
}

/// A URL's scheme, what stands where its host or bucket belongs, and its path.
fn parts(url: &str) -> (&str, &str, &str) {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (scheme, rest) = url[..end].split_once("://").unwrap_or(("", &url[..end]));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (scheme, authority, path)
}

/// Whether something is a host and perhaps a port, or a bucket. Of a URL with a password that has a `/` in it, `USER:PASS` seems
/// to be the host: what follows a `:` and is no number is taken for a password.
fn is_host(authority: &str) -> bool {
    // An IPv6 address has colons in its brackets.
    let bracketed = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let rest = bracketed.map_or(authority, |(_, rest)| rest);
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    !rest.contains('@') && rest.split_once(':').is_none_or(|(_, port)| is_port(port))
}

/// Whether a URL has a user or a password where its host or bucket belongs, or what could be one. Only an address of the web
/// has a port, and what stands between that and an `@` may be the rest of a password.
fn has_credentials(url: &str) -> bool {
    let (scheme, authority, path) = parts(url);
    let has_colon = authority.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
    let is_web = StoreKind::with_scheme(scheme).is_some_and(|kind| kind.place == Place::Server);
    !is_host(authority) || (has_colon && (!is_web || path.contains('@')))
}

/// A URL without what may be secret in it.
pub(super) fn shown(url: &str) -> String {
    let (scheme, authority, path) = parts(url);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if has_credentials(&format!("{scheme}://{host}{path}")) {
        return format!("{scheme}://");
    }
    format!("{scheme}://{}", format!("{host}{path}").escape_debug())
}

/// A bucket's name and the prefix in it, both as they are written.
///
/// # Errors
/// `Invalid` for a URL that names none.
pub(super) fn bucket(url: &str) -> Result<(&str, Prefix), Error> {
    let (_, bucket, path) = parts(url);
    if bucket.is_empty()
        || bucket.contains(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.' | '$'))
    {
        return Err(invalid(format!(
            "`{}` is no name of a bucket: a URL is KIND://BUCKET/PREFIX",
            bucket.escape_debug()
        )));
    }
    Ok((bucket, Prefix::of_path(path.strip_prefix('/').unwrap_or(path))?))
}

/// The directory that a `file:` URL names.
///
/// # Errors
/// `Invalid` for a URL that names none.
pub(in crate::store) fn directory(url: &str) -> Result<PathBuf, Error> {
    let url = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
    match url.to_file_path() {
        Ok(path) if url.query().is_none() && url.fragment().is_none() => Ok(path),
        _ => Err(invalid("is no absolute path: a directory is file:///DIRECTORY")),
    }
}

/// Refuses a URL that has more in it than the address of a server.
pub(super) fn check_address(url: &Url) -> Result<(), Error> {
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(invalid("is no address of a server: it begins with https:// or http:// and has a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("has credentials in it; they have a place of their own"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("has a query or a fragment; options and credentials have places of their own"));
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
