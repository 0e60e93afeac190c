//! The proxies that the environment names: their secrets, and their names in error messages.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use hyper_util::client::proxy::matcher::Matcher;

use super::retry::Failure;
use crate::error::Kind;
use foundation::logins::percent_decoded;
use foundation::secret::Secret;

/// The environment variables that name proxies. Both upper and lower case are in use.
const VARIABLES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Returns the secrets of the proxies that the environment names: each password as written and percent-decoded, by itself and after the
/// user (`USER:PASSWORD`, from which the `Proxy-Authorization` header is made).
pub fn secrets_of_proxies(environment: &dyn Fn(&str) -> Option<OsString>) -> Vec<Secret> {
    let mut secrets = Vec::new();
    for Login { user, password } in logins(environment) {
        secrets.extend(user.map(|user| Secret::new([user.as_slice(), b":", &password].concat())));
        secrets.push(Secret::new(password));
    }
    secrets
}

/// A user and a password, either as written in the address or percent-decoded, as the client sends them.
struct Login {
    /// `None` if the address has only a token in place of the user.
    user: Option<Vec<u8>>,
    password: Vec<u8>,
}

fn logins(environment: &dyn Fn(&str) -> Option<OsString>) -> Vec<Login> {
    VARIABLES
        .iter()
        .filter_map(|name| environment(name))
        .flat_map(|value| logins_of_address(&value.into_vec()))
        .collect()
}

/// Returns the logins of the proxies in the form that
/// [`CredentialDetector::learn`](super::credential_detector::CredentialDetector::learn) expects, one list for each login.
pub(super) fn credentials(environment: &dyn Fn(&str) -> Option<OsString>) -> Vec<Vec<(String, Secret)>> {
    let named = |login: Login| {
        let user = login.user.map(|user| ("username".to_owned(), Secret::new(user)));
        user.into_iter().chain([("password".to_owned(), Secret::new(login.password))]).collect()
    };
    logins(environment).into_iter().map(named).collect()
}

/// Returns the login in the address of a proxy, as written and percent-decoded; empty if there is none. The address may have no
/// scheme. Everything before the last `@` counts as the login: a password with a `/` makes the address unusable, but is still secret.
fn logins_of_address(address: &[u8]) -> Vec<Login> {
    let begin = address.windows(3).position(|three| three == b"://").map_or(0, |at| at + 3);
    let Some(end) = address.iter().rposition(|byte| *byte == b'@').filter(|end| *end > begin) else {
        return Vec::new();
    };
    let login = &address[begin..end];
    let (user, password) = match login.iter().position(|byte| *byte == b':') {
        Some(colon) if colon + 1 < login.len() => (Some(&login[..colon]), &login[colon + 1..]),
        Some(colon) => (None, &login[..colon]),
        None => (None, login),
    };
    let written = Login { user: user.map(<[u8]>::to_vec), password: password.to_vec() };
    let sent = Login { user: user.map(percent_decoded), password: percent_decoded(password) };
    let mut logins = vec![written, sent];
    logins.retain(|login| !login.password.is_empty());
    logins
}

/// The client's error text if a proxy requires credentials (status 407).
const WANTS_CREDENTIALS: &str = "proxy authorization required";

/// The proxies of a client, chosen by the client's own rules.
#[derive(Debug)]
pub(super) struct Proxies(Matcher);

impl Proxies {
    /// Reads the proxies from the environment.
    pub(super) fn from_environment() -> Self {
        Self(Matcher::from_env())
    }

    /// Returns the proxy for requests to this URL, without its user and password; `None` if they go directly to the server.
    pub(super) fn proxy_for(&self, url: &str) -> Option<String> {
        let proxy = self.0.intercept(&url.parse().ok()?)?;
        let uri = proxy.uri();
        let scheme = uri.scheme_str().unwrap_or("http");
        let port = uri.port_u16().map_or(String::new(), |port| format!(":{port}"));
        Some(format!("{scheme}://{}{port}", uri.host()?.escape_debug()))
    }
}

/// Adds the name of the proxy to the failure of a request that went through it; without a proxy, returns the failure unchanged.
pub(super) fn with_proxy_named(failure: Failure, proxy: Option<&str>) -> Failure {
    let Some(proxy) = proxy else { return failure };
    if failure.error.message.contains(WANTS_CREDENTIALS) {
        let message = format!(
            "the proxy {proxy} requires a user and a password: set them in HTTPS_PROXY or HTTP_PROXY in this program's \
             environment; NO_PROXY names the hosts that are requested without a proxy"
        );
        return Failure::never(Kind::Denied, message);
    }
    let message = format!(
        "{} (requested through the proxy {proxy}, which the environment names; NO_PROXY excludes hosts)",
        failure.error.message
    );
    Failure { error: crate::error::Error { message, ..failure.error }, ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_proxy_is_known_as_written_and_as_sent() {
        use foundation::redact::Redactor;
        for variable in VARIABLES {
            for (address, sent) in [
                ("http://somebody:p%40ss%2fw0rd-of-proxy@proxy.example:3128/", "p@ss/w0rd-of-proxy"),
                ("somebody:plain-w0rd-of-proxy@proxy.example:3128", "plain-w0rd-of-proxy"),
                ("http://somebody:slash/w0rd-of-proxy@proxy.example", "slash/w0rd-of-proxy"),
                ("socks5h://somebody:s0cks-w0rd-of-proxy@[::1]:1080", "s0cks-w0rd-of-proxy"),
                ("http://t0ken-of-the-proxy@proxy.example", "t0ken-of-the-proxy"),
                ("http://t0ken-of-the-proxy:@proxy.example", "t0ken-of-the-proxy"),
            ] {
                let environment = |name: &str| (name == variable).then(|| OsString::from(address));
                let redactor = Redactor::new();
                for secret in secrets_of_proxies(&environment) {
                    redactor.add(&secret).unwrap();
                }
                let basic = crate::store::kinds::basic("somebody", sent);
                for text in [address, sent, &basic] {
                    let redacted = redactor.redact(text);
                    assert!(
                        redacted.contains("<secret>") && !redacted.contains("of-"),
                        "{variable}={address}: {redacted}"
                    );
                }
                let detector = crate::store::credential_detector::CredentialDetector::default();
                for login in credentials(&environment) {
                    detector.learn(&login).unwrap();
                }
                assert!(detector.finds_in(sent.as_bytes()), "{address}");
                assert!(!address.contains("somebody") || detector.finds_in(basic.as_bytes()), "{address}");
            }
        }
        for address in
            ["http://proxy.example:3128", "http://@proxy.example", "http://:@proxy.example", "", "@"]
        {
            assert_eq!(secrets_of_proxies(&|_| Some(OsString::from(address))).len(), 0, "{address}");
        }
    }

    fn proxies(url: &str, excluded: &str) -> Proxies {
        Proxies(Matcher::builder().all(url).no(excluded).build())
    }

    #[test]
    fn a_proxy_is_named_without_its_password_and_only_if_it_is_used() {
        let proxies = proxies("http://somebody:hunter2@proxy.example:3128/", "backups.example,10.0.0.0/8");
        for url in ["https://s3.eu-west-1.amazonaws.com/b", "http://other.example/"] {
            assert_eq!(proxies.proxy_for(url).as_deref(), Some("http://proxy.example:3128"), "{url}");
        }
        for url in ["https://backups.example/pg", "http://10.1.2.3:9000/", "not an address"] {
            assert_eq!(proxies.proxy_for(url), None, "{url}");
        }
        let failure =
            with_proxy_named(Failure::transient("connection refused"), Some("http://proxy.example:3128"));
        assert!(failure.error.message.contains("proxy.example:3128"), "{failure:?}");
        let failure = with_proxy_named(
            Failure::transient("tunnel error: proxy authorization required"),
            Some("http://p"),
        );
        assert_eq!(failure.error.kind, Kind::Denied);
        assert_eq!(with_proxy_named(Failure::transient("x"), None), Failure::transient("x"));
    }
}
