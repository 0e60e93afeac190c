//! Which proxy stands between, so that an error can name it.

use hyper_util::client::proxy::matcher::Matcher;

use super::retry::Failure;
use super::transport::Settings;
use crate::error::Kind;

/// What a proxy that wants to know who asks answers, in the words of the client.
const WANTS_CREDENTIALS: &str = "proxy authorization required";

/// The proxies of one client, by the same rules that the client itself has.
#[derive(Debug)]
pub(super) struct Proxies(Matcher);

impl Proxies {
    /// Those of these settings, or else those that the environment names.
    pub(super) fn of(settings: &Settings) -> Self {
        Self(match &settings.proxy_url {
            None => Matcher::from_env(),
            Some(url) => {
                let excluded = settings.proxy_excludes.clone().unwrap_or_default();
                Matcher::builder().all(url.clone()).no(excluded).build()
            }
        })
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

    fn proxies(url: &str, excluded: &str) -> Proxies {
        Proxies::of(&Settings {
            proxy_url: Some(url.to_owned()),
            proxy_excludes: Some(excluded.to_owned()),
            ..Settings::default()
        })
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
