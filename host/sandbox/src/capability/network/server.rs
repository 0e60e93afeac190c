//! The servers that a network grant names, and the settings for connecting to them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use foundation::secret::Secret;
use replica::Bytes;

use super::address::Reach;

/// How many characters the name of a host may have (RFC 1035, 2.3.4, without the dot at the end).
const NAME: usize = 253;
/// How many characters a label of a name may have.
const LABEL: usize = 63;

/// A host and a port: `api.example:443`, `192.0.2.1:8443` or `[2001:db8::1]:443`. There are no wildcards.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    pub(super) host: Host,
    pub(super) port: u16,
}

/// The host of a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Host {
    /// A name of DNS or of the machine's own table of hosts, in lower case.
    Name(String),
    /// An address. An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`) is an IPv4 address here.
    Address(IpAddr),
}

/// Why a text does not name a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAServer {
    /// The port is missing or wrong.
    #[error("names no port: write the host and a port from 1 to 65535, such as \"api.example:443\"")]
    Port,
    /// The host has a wildcard.
    #[error("has a wildcard: name each server")]
    Wildcard,
    /// The host is neither a name nor an address.
    #[error(
        "names no host: write a name of ASCII letters, digits, `-` and `_`, an IPv4 address of four numbers, or an IPv6 address in \
         brackets, such as \"[2001:db8::1]:443\". Write a name in another script in Punycode (`xn--...`)"
    )]
    Host,
    /// No server has this address.
    #[error("is an address that no server has (unspecified, broadcast, multicast or reserved)")]
    NoServer,
}

impl Server {
    /// Makes a server from a port and a host, which is written as in a URL, with brackets around an IPv6 address.
    pub(super) fn new(host: &str, port: u16) -> Result<Self, NotAServer> {
        if port == 0 {
            return Err(NotAServer::Port);
        }
        let host = match host.strip_prefix('[') {
            Some(rest) => {
                let address: Ipv6Addr =
                    rest.strip_suffix(']').and_then(|text| text.parse().ok()).ok_or(NotAServer::Host)?;
                Host::Address(IpAddr::V6(address).to_canonical())
            }
            None => match host.parse::<Ipv4Addr>() {
                Ok(address) => Host::Address(address.into()),
                Err(_) => Host::Name(name(host)?),
            },
        };
        match &host {
            Host::Address(address) if Reach::of(*address) == Reach::Nothing => Err(NotAServer::NoServer),
            Host::Address(_) | Host::Name(_) => Ok(Self { host, port }),
        }
    }

    /// Makes a server from an address.
    pub(super) fn at(address: IpAddr, port: u16) -> Self {
        Self { host: Host::Address(address.to_canonical()), port }
    }

    /// Reads the server of an address such as `https://api.example/path`, or of a text such as `api.example:443`.
    pub(super) fn of_address(text: &str) -> Result<Self, NotAServer> {
        let (default, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Some(443), rest),
            Some(("http", rest)) => (Some(80), rest),
            Some(_) => (None, text),
            None => return text.parse(),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        match (authority.parse(), default) {
            (Err(NotAServer::Port), Some(port)) => Self::new(authority, port),
            (parsed, _) => parsed,
        }
    }

    /// Returns the port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Server {
    type Err = NotAServer;

    fn from_str(text: &str) -> Result<Self, NotAServer> {
        let (host, port) = text.rsplit_once(':').ok_or(NotAServer::Port)?;
        // An IPv6 address without brackets, or with brackets and without a port.
        if host.contains(':') && !host.starts_with('[') || port.ends_with(']') {
            return Err(if port.ends_with(']') { NotAServer::Port } else { NotAServer::Host });
        }
        // `u16` would also accept `+443` and `0443`, and one server would have several names.
        let is_plain = port.bytes().all(|byte| byte.is_ascii_digit()) && !port.starts_with('0');
        let port = port.parse().ok().filter(|_| is_plain).ok_or(NotAServer::Port)?;
        Self::new(host, port)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}:{}", self.port),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

/// Parses a host name. Refuses a name whose last label is a number, because resolvers interpret it as an IPv4 address in an old form:
/// `127.1` and `0x7f000001` are 127.0.0.1.
fn name(text: &str) -> Result<String, NotAServer> {
    if text.contains('*') {
        return Err(NotAServer::Wildcard);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_label = |label: &str| {
        (1..=LABEL).contains(&label.len()) && label.bytes().all(allowed) && !label.starts_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().next().is_some_and(|first| first.is_ascii_digit())
        && (last.bytes().all(|byte| byte.is_ascii_digit())
            || last.starts_with("0x")
            || last.starts_with("0X"));
    if text.len() > NAME || is_number || !text.split('.').all(is_label) {
        return Err(NotAServer::Host);
    }
    Ok(text.to_ascii_lowercase())
}

/// The settings for a method's connections to a server.
#[derive(Clone, Debug, Default)]
pub struct ServerGrant {
    /// Whether the name of the server may resolve to a private address, such as a loopback, RFC 1918 or unique local address.
    pub private: bool,
    /// The token that the host sends as `Authorization: Bearer` in every HTTPS request to the server. The component never sees it.
    pub token: Option<Secret>,
    /// The only authorities that are trusted for the server: certificates in PEM, as in the file that `ca_file` names. `None` for the
    /// authorities that this machine trusts.
    pub authorities: Option<String>,
    /// How many bytes may go to and come from the server in one run; `None` if only the limit for all servers together applies.
    pub bytes: Option<Bytes>,
    /// The settings as the configuration has them, each key with its value in TOML, for remedies that repeat the existing grants. They may
    /// name the file of a secret, but never contain the secret.
    pub settings: BTreeMap<String, String>,
}

/// Returns the settings of a server as the content of an inline table of TOML, without the braces.
pub(super) fn inline(settings: &BTreeMap<String, String>) -> String {
    let entries: Vec<_> = settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    entries.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_a_port() {
        for (text, shown) in [
            ("api.backup.example:443", "api.backup.example:443"),
            ("API.Example:8443", "api.example:8443"),
            ("localhost:1", "localhost:1"),
            ("my_host-2:65535", "my_host-2:65535"),
            ("192.0.2.1:80", "192.0.2.1:80"),
            ("[2001:DB8:0::1]:443", "[2001:db8::1]:443"),
            ("[::ffff:192.0.2.1]:443", "192.0.2.1:443"),
            ("169.254.169.254:80", "169.254.169.254:80"),
        ] {
            assert_eq!(
                text.parse::<Server>().map(|server| server.to_string()),
                Ok(shown.to_owned()),
                "{text}"
            );
        }
        for (text, why) in [
            ("", NotAServer::Port),
            ("api.example", NotAServer::Port),
            ("api.example:", NotAServer::Port),
            ("api.example:0", NotAServer::Port),
            ("api.example:65536", NotAServer::Port),
            ("api.example:+443", NotAServer::Port),
            ("api.example:0443", NotAServer::Port),
            ("api.example:443x", NotAServer::Port),
            ("[::1]", NotAServer::Port),
            (":443", NotAServer::Host),
            ("::1:443", NotAServer::Host),
            ("[::1:443", NotAServer::Host),
            ("[127.0.0.1]:443", NotAServer::Host),
            ("[fe80::1%eth0]:443", NotAServer::Host),
            ("a b:443", NotAServer::Host),
            ("a..b:443", NotAServer::Host),
            ("a.example.:443", NotAServer::Host),
            ("-a:443", NotAServer::Host),
            ("user@a:443", NotAServer::Host),
            ("https://a:443", NotAServer::Host),
            ("a/b:443", NotAServer::Host),
            ("größe.example:443", NotAServer::Host),
            ("127.1:443", NotAServer::Host),
            ("2130706433:443", NotAServer::Host),
            ("0x7f000001:443", NotAServer::Host),
            ("127.0.0.0x1:443", NotAServer::Host),
            ("1.2.3.4.5:443", NotAServer::Host),
            ("*.example:443", NotAServer::Wildcard),
            ("*:443", NotAServer::Wildcard),
            ("0.0.0.0:443", NotAServer::NoServer),
            ("[::]:443", NotAServer::NoServer),
            ("224.0.0.1:443", NotAServer::NoServer),
            ("255.255.255.255:443", NotAServer::NoServer),
            ("[ff02::1]:443", NotAServer::NoServer),
        ] {
            assert_eq!(text.parse::<Server>(), Err(why), "{text}");
        }
        let long = format!("{}a:1", "a.".repeat(126));
        assert!(long.parse::<Server>().is_ok() && format!("aa{long}").parse::<Server>().is_err());
        assert!(format!("{}:1", "a".repeat(LABEL + 1)).parse::<Server>().is_err());
    }

    #[test]
    fn an_address_of_a_service_names_its_server() {
        let of = |text| Server::of_address(text).map(|server| server.to_string());
        for (text, server) in [
            ("https://api.example/backups?x=1#y", "api.example:443"),
            ("http://api.example", "api.example:80"),
            ("https://api.example:8443?x", "api.example:8443"),
            ("https://[::1]/", "[::1]:443"),
            ("api.example:5432", "api.example:5432"),
        ] {
            assert_eq!(of(text), Ok(server.to_owned()), "{text}");
        }
        for text in
            ["api.example", "ftp://api.example/", "https://", "https://u:p@api.example/", "https://*/"]
        {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
