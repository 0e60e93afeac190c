//! `network`: the servers that the method may connect to, as a list of servers, or as a table with settings for each server.

use std::collections::BTreeMap;
use std::path::Path;

use sandbox::{Grants, Server, ServerGrant};
use toml::de::DeValue;

use crate::config::Environment;
use crate::config::authorities::Authorities;
use crate::config::keys::{Key, names};
use crate::config::problem::Problem;
use crate::config::secret::{SecretSource, Shape};
use crate::config::tree::{Section, Value};

/// The keys of `network."HOST:PORT"`.
pub(in crate::config) const KEYS: &[Key] = &[
    Key::new(
        "token",
        "secret",
        "none",
        "a token of at least 8 bytes that the host sends as `Authorization: Bearer` in every HTTPS request to the server. \
         The method never sees the token. The host refuses a response that contains the token or could hide it (a part, an \
         encoded one), a request without TLS, and a request that already has an `Authorization` header",
    ),
    Key::new(
        "ca_file",
        "path",
        "the machine's authorities",
        "a PEM file of at most 1 MiB that belongs to the program's user or root and that nobody else may change. The \
         server's certificate must then come from one of these authorities. The setting applies to `wasi:http`. A method \
         that implements TLS itself must have its own authorities",
    ),
    Key::new(
        "private",
        "flag",
        "`false`",
        "allow the server's name to resolve to a private address: a loopback, RFC 1918, unique local, shared or reserved \
         address. Link-local addresses and those of metadata services are refused in any case",
    ),
    Key::new(
        "bytes",
        "size",
        "only `network_bytes`",
        "how many bytes the method may exchange with this server in one run. A TCP connection counts for every granted \
         server at its address and port",
    ),
];

/// Where the tokens and authorities of the servers come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerSecrets(BTreeMap<Server, (Option<SecretSource>, Option<Authorities>)>);

/// Reads the servers into `open`, without reading the files of their tokens and authorities. Returns where these come from.
pub(super) fn read(section: &Section<'_>, environment: Environment<'_>, open: &mut Grants) -> ServerSecrets {
    let mut secrets = ServerSecrets::default();
    if let Some(bytes) = section.get("network_bytes").and_then(|value| value.nonzero_size()) {
        open.network_bytes = bytes;
    }
    open.connection_bytes = section.get("connection_bytes").and_then(|value| value.nonzero_size());
    let Some(value) = section.get("network") else { return secrets };
    if let DeValue::Table(_) = value.raw() {
        let table = value.table();
        for (name, value) in table.map(|table| table.entries()).unwrap_or_default() {
            let settings = value.section(names(KEYS)).map(|section| read_server(section, environment));
            if let (Some(server), Some((grant, source))) = (server(&name.text, &value, open), settings) {
                open.network.insert(server.clone(), grant);
                secrets.0.insert(server, source);
            }
        }
        return secrets;
    }
    for item in value.list().unwrap_or_default() {
        if let DeValue::Table(_) = item.raw() {
            item.problem(
                "must be a quoted string: for a server with settings, write network.\"HOST:PORT\" = { ... } instead of a list",
            );
            continue;
        }
        let Some(server) = item.word().and_then(|text| server(text, &item, open)) else { continue };
        open.network.insert(server, ServerGrant::default());
    }
    secrets
}

/// Parses the name of a server. A server that is granted already is a problem.
fn server(text: &str, value: &Value<'_>, open: &Grants) -> Option<Server> {
    let server: Server = text.parse().map_err(|why| value.problem(why)).ok()?;
    if open.network.contains_key(&server) {
        value.problem(format_args!("names {server}, which is listed already: remove one of the two"));
        return None;
    }
    Some(server)
}

fn read_server(
    section: Section<'_>,
    environment: Environment<'_>,
) -> (ServerGrant, (Option<SecretSource>, Option<Authorities>)) {
    let config = section.reader().file();
    let mut grant = ServerGrant::default();
    let mut token = None;
    if let Some(value) = section.get("token") {
        token = SecretSource::read(&value, Shape::Line, config, environment);
        grant.settings.extend(token.as_ref().and_then(|_| written("token", &value)));
    }
    let mut authorities = None;
    if let Some(value) = section.get("ca_file") {
        authorities = Authorities::read(&value, config);
        grant.settings.extend(authorities.as_ref().and_then(|_| written("ca_file", &value)));
    }
    if let Some(value) = section.get("private") {
        grant.private = value.flag().unwrap_or(false);
        grant.settings.extend(written("private", &value));
    }
    if let Some(value) = section.get("bytes") {
        grant.bytes = value.nonzero_size();
        grant.settings.extend(written("bytes", &value));
    }
    section.finish();
    (grant, (token, authorities))
}

/// Returns a setting as text of the configuration, for remedies, which repeat the existing grants. `None` if the value has an unexpected
/// type. The text names the sources of secrets, but contains no secret.
fn written(key: &str, value: &Value<'_>) -> Option<(String, String)> {
    Some((key.to_owned(), toml_text(value.raw())?))
}

fn toml_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(toml::Value::String(text.to_string()).to_string()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Table(table) => {
            let entries = table
                .iter()
                .map(|(key, value)| Some(format!("{} = {}", key.get_ref(), toml_text(value.get_ref())?)));
            Some(format!("{{ {} }}", entries.collect::<Option<Vec<_>>>()?.join(", ")))
        }
        _ => None,
    }
}

impl ServerSecrets {
    /// Reads the tokens and authorities of the servers into `grants`.
    ///
    /// # Errors
    /// The first problem, at the setting that names the file.
    pub(super) fn resolve(&self, grants: &mut Grants) -> Result<(), Problem> {
        for (server, (token, authorities)) in &self.0 {
            let Some(grant) = grants.network.get_mut(server) else { continue };
            grant.token = token.as_ref().map(SecretSource::resolve).transpose()?;
            grant.authorities = authorities.as_ref().map(Authorities::resolve).transpose()?;
        }
        Ok(())
    }

    /// Lists every file that holds a secret.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.0.values().filter_map(|(token, _)| token.as_ref().and_then(SecretSource::file))
    }
}
