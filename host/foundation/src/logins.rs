//! Users and passwords in addresses, such as `s3://key:secret@bucket`.
//!
//! A password that is not percent-encoded may hold any character, even blanks and quotes, so only the last `@` certainly ends it.

use crate::redact::REDACTED;

/// The separator after the scheme of an address.
const SCHEME_END: &str = "://";

/// Returns the text with everything between the first `://` and the last `@` redacted. If the text has several addresses, the text between
/// them is redacted too. The address of a file (`file:///mnt/a@b`) has no host, and stays.
pub fn without_logins(text: &str) -> String {
    match login(text) {
        Some((begin, end)) => format!("{}{REDACTED}{}", &text[..begin], &text[end..]),
        None => text.to_owned(),
    }
}

/// Returns the secrets in the address in a value: the user and password together, and the password by itself. Returns nothing if the
/// address has no password, because the name of a user is not secret.
pub fn secrets_in(value: &str) -> Vec<&str> {
    let Some((begin, end)) = login(value) else { return Vec::new() };
    let login = &value[begin..end];
    match login.split_once(':') {
        Some((_, password)) if !password.is_empty() => vec![login, password],
        Some(_) | None => Vec::new(),
    }
}

/// Returns where the user and the password in the first address with a host begin and end.
fn login(text: &str) -> Option<(usize, usize)> {
    let begins = text.match_indices(SCHEME_END).map(|(at, scheme)| at + scheme.len());
    let begin = begins.into_iter().find(|begin| !text[*begin..].starts_with('/'))?;
    let length = text[begin..].rfind('@')?;
    Some((begin, begin + length))
}

/// Returns the text with its percent-encoded bytes decoded (RFC 3986, section 2.1).
pub fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, further @ ..] = rest {
        let digits = further.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits = digits.filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &further[2..];
            }
            None => {
                bytes.push(*first);
                rest = further;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_in_an_address_is_redacted_even_if_the_password_has_special_characters() {
        for (text, shown) in [
            ("not `http://user:hunter2@h/`, or so", "not `http://<secret>@h/`, or so"),
            ("`http://u:hunter2@h`, nor `a://b:hunter2/d@e`", "`http://<secret>@e`"),
            ("postgresql://rep:hunter2 and' more`\"@x@h/", "postgresql://<secret>@h/"),
            ("http://hunter2@h", "http://<secret>@h"),
            ("`file:///mnt/a@b` and s3://bucket", "`file:///mnt/a@b` and s3://bucket"),
            ("`file:///mnt/a` and s3://u:hunter2@bucket", "`file:///mnt/a` and s3://<secret>@bucket"),
            ("a@b", "a@b"),
            ("://", "://"),
        ] {
            assert_eq!(without_logins(text), shown);
        }
    }

    #[test]
    fn a_password_in_an_address_is_a_secret_and_a_user_is_not() {
        for (value, secrets) in [
            ("s3://AK:S3cret'x@b/p", vec!["AK:S3cret'x", "S3cret'x"]),
            ("http://u:a@b:c@h", vec!["u:a@b:c", "a@b:c"]),
            ("ssh://git@h/x", vec![]),
            ("http://u:@h", vec![]),
            ("file:///a:b@c", vec![]),
            ("a:b@c", vec![]),
        ] {
            assert_eq!(secrets_in(value), secrets, "{value}");
        }
    }
}
