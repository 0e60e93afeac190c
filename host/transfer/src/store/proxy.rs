//! Which proxy stands between, so that an error can name it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use hyper_util::client::proxy::matcher::Matcher;

use super::retry::Failure;
use crate::error::Kind;
use foundation::secret::Secret;

/// The variables that name proxies, in either case of their letters.
const VARIABLES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// Returns what must not be told of the proxies that the environment names: their passwords as they are written and as they are
/// sent, alone and behind the user (`USER:PASSWORD`, of which the header is made).
pub fn secrets_of_proxies(environment: &dyn Fn(&str) -> Option<OsString>) -> Vec<Secret> {
    let mut secrets = Vec::new();
    for Login { user, password } in logins(environment) {
        secrets.extend(user.map(|user| Secret::new([user.as_slice(), b":", &password].concat())));
        secrets.push(Secret::new(password));
    }
    secrets
}

/// A user and a password, as they are written or as they are sent.
struct Login {
    /// None where the address has nothing but a token in the user's place.
    user: Option<Vec<u8>>,
    password: Vec<u8>,
}

fn logins(environment: &dyn Fn(&str) -> Option<OsString>) -> Vec<Login> {
    VARIABLES
        .iter()
        .filter_map(|name| environment(name))
        .flat_map(|value| of_address(&value.into_vec()))
        .collect()
}

/// The same as [`Echo::learn`](super::echo::Echo::learn) takes credentials, one list for each login.
pub(super) fn credentials(environment: &dyn Fn(&str) -> Option<OsString>) -> Vec<Vec<(String, Secret)>> {
    let named = |login: Login| {
        let user = login.user.map(|user| ("username".to_owned(), Secret::new(user)));
        user.into_iter().chain([("password".to_owned(), Secret::new(login.password))]).collect()
    };
    logins(environment).into_iter().map(named).collect()
}

/// The login in the address of a proxy, which may have no scheme, as it is written and as it is sent. All that stands before the
/// last `@` belongs to it: a password with a `/` in it makes an address that nobody can use, and is no less secret.
fn of_address(address: &[u8]) -> Vec<Login> {
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
    let sent = Login { user: user.map(decoded), password: decoded(password) };
    let mut logins = vec![written, sent];
    logins.retain(|login| !login.password.is_empty());
    logins
}

/// With what is percent-encoded undone (RFC 3986, section 2.1).
fn decoded(text: &[u8]) -> Vec<u8> {
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

/// What a proxy that wants to know who asks answers, in the words of the client.
const WANTS_CREDENTIALS: &str = "proxy authorization required";

/// The proxies of a client, by the same rules that the client itself has.
#[derive(Debug)]
pub(super) struct Proxies(Matcher);

impl Proxies {
    /// Those that the environment names.
    pub(super) fn of_the_environment() -> Self {
        Self(Matcher::from_env())
    }

    /// The proxy by which this address is asked, without its user and password. `None` where it is asked itself.
    pub(super) fn between(&self, url: &str) -> Option<String> {
        let proxy = self.0.intercept(&url.parse().ok()?)?;
        let uri = proxy.uri();
        let scheme = uri.scheme_str().unwrap_or("http");
        let port = uri.port_u16().map_or(String::new(), |port| format!(":{port}"));
        Some(format!("{scheme}://{}{port}", uri.host()?.escape_debug()))
    }
}

/// A failure of a request that went by this proxy, where it did.
pub(super) fn named(failure: Failure, proxy: Option<&str>) -> Failure {
    let Some(proxy) = proxy else { return failure };
    if failure.error.message.contains(WANTS_CREDENTIALS) {
        let message = format!(
            "the proxy {proxy} wants a user and a password: they belong into HTTPS_PROXY or HTTP_PROXY of this program's \
             environment; NO_PROXY names the hosts that are asked without a proxy"
        );
        return Failure::never(Kind::Denied, message);
    }
    let message = format!(
        "{} (asked by the proxy {proxy}, which the environment names; NO_PROXY excepts hosts from it)",
        failure.error.message
    );
    Failure { error: crate::error::Error { message, ..failure.error }, ..failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_of_a_proxy_is_known_in_every_spelling() {
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
                    let told = redactor.redact(text);
                    assert!(
                        told.contains("<secret>") && !told.contains("of-"),
                        "{variable}={address}: {told}"
                    );
                }
                let echo = crate::store::echo::Echo::default();
                for login in credentials(&environment) {
                    echo.learn(&login).unwrap();
                }
                assert!(echo.is_in(sent.as_bytes()), "{address}");
                assert!(!address.contains("somebody") || echo.is_in(basic.as_bytes()), "{address}");
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
    fn a_proxy_is_named_without_its_password_and_only_where_it_is_asked() {
        let proxies = proxies("http://somebody:hunter2@proxy.example:3128/", "backups.example,10.0.0.0/8");
        for url in ["https://s3.eu-west-1.amazonaws.com/b", "http://other.example/"] {
            assert_eq!(proxies.between(url).as_deref(), Some("http://proxy.example:3128"), "{url}");
        }
        for url in ["https://backups.example/pg", "http://10.1.2.3:9000/", "not an address"] {
            assert_eq!(proxies.between(url), None, "{url}");
        }
        let failure = named(Failure::transient("connection refused"), Some("http://proxy.example:3128"));
        assert!(failure.error.message.contains("proxy.example:3128"), "{failure:?}");
        let failure =
            named(Failure::transient("tunnel error: proxy authorization required"), Some("http://p"));
        assert_eq!(failure.error.kind, Kind::Denied);
        assert_eq!(named(Failure::transient("x"), None), Failure::transient("x"));
    }
}
