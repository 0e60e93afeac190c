//! `https://host/path/` and `http://host/path/`: a directory of a web server.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use reqwest::Url;
use reqwest::header::HeaderValue;
use tokio::runtime::Handle;

use super::chosen::Chosen;
use super::values::ValueKind;
use super::{Credential, CredentialSet, Opened, Place, StoreKind, Tls, invalid};
use crate::error::Error;
use crate::store::http::{Origin, Web, redirects};
use crate::store::key::Prefix;
use crate::store::proxy::Proxies;
use crate::store::transport::{TrustRoots, client};

const USERNAME: Credential =
    Credential { name: "username", library: None, value: ValueKind::Line, optional: false };

const PASSWORD: Credential =
    Credential { name: "password", library: None, value: ValueKind::Line, optional: false };

const TOKEN: Credential =
    Credential { name: "token", library: None, value: ValueKind::Token, optional: false };

/// A web server that is reached by TLS.
pub(super) static HTTPS: StoreKind =
    StoreKind { scheme: "https", example: "https://host/path/", tls: Tls::Always, ..PLAIN };

/// A web server that is reached without TLS.
pub(super) static HTTP: StoreKind = PLAIN;

const PLAIN: StoreKind = StoreKind {
    scheme: "http",
    example: "http://host/path/",
    label: "a web server",
    place: Place::Server,
    settings: &[],
    credentials: &[
        CredentialSet { credentials: &[USERNAME, PASSWORD], needs: &[] },
        CredentialSet { credentials: &[TOKEN], needs: &[] },
    ],
    conflict: "are a `token` or a `username` and a `password`, not both",
    environment: &[],
    tls: Tls::Never,
    redirects: true,
    open,
};

fn open(chosen: &Chosen<'_>, runtime: &Handle) -> Result<Opened, Error> {
    let mut base = Url::parse(chosen.url()).map_err(|error| invalid(error.to_string()))?;
    if !base.path().ends_with('/') {
        let path = format!("{}/", base.path());
        base.set_path(&path);
    }
    let granted = chosen.redirects().iter().map(|place| {
        Origin::parse(place)
            .ok_or_else(|| invalid(format!("`{}` in `redirects` is not HOST:PORT", place.escape_debug())))
    });
    let granted = granted.collect::<Result<Vec<_>, Error>>()?;
    let authorities = chosen.authorities();
    let backend = Web {
        client: client(authorities, redirects(granted))?,
        runtime: runtime.clone(),
        base,
        authorization: authorization(chosen)?,
        trust_roots: if authorities.is_some() { TrustRoots::CaFile } else { TrustRoots::System },
        proxies: Proxies::from_environment(),
        idle: chosen.idle(),
    };
    Ok(Opened { prefix: Prefix::default(), backend: Box::new(backend) })
}

/// Makes the value of the `Authorization` header; `None` without credentials.
fn authorization(chosen: &Chosen<'_>) -> Result<Option<HeaderValue>, Error> {
    let value = match (chosen.value(USERNAME.name), chosen.value(PASSWORD.name), chosen.value(TOKEN.name)) {
        (Some(user), Some(password), _) => basic(user, password),
        (_, _, Some(token)) => format!("Bearer {token}"),
        _ => return Ok(None),
    };
    let mut value = HeaderValue::from_str(&value)
        .map_err(|_| invalid("a credential has a character that is not allowed in a header"))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Makes the value of the `Authorization` header for a user and a password (RFC 7617).
pub(in crate::store) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}
