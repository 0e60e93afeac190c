//! `stores.NAME`: places where backups are, and the secrets by which they are reached.

use foundation::nearest::nearest;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use replica::Redactor;
use sandbox::{Grants, Renewal, Secret, StoreConfig};

use super::by_name;
use crate::config::Environment;
use crate::config::authorities::Authorities;
use crate::config::problem::Problem;
use crate::config::secret::{SecretSource, Shape};
use crate::config::tree::{Section, Value};

/// The most requests that are made at once of one store.
const CONCURRENCY: usize = 256;
/// What the store calls the certificates that are in a `ca_file`.
const CA_CERTIFICATE: &str = "ca_certificate";

/// What may be said of a kind of store, besides what may be said of each.
pub(in crate::config) struct StoreKind {
    pub(in crate::config) scheme: &'static str,
    /// Its settings: the name here and the store's own.
    settings: &'static [(&'static str, &'static str)],
    /// Its flags.
    flags: &'static [(&'static str, &'static str)],
    /// Its secrets: the name here, the store's own, and what each is made of.
    pub(in crate::config) secrets: &'static [(&'static str, &'static str, Shape)],
    /// Secrets that make sense only together.
    pub(in crate::config) together: &'static [&'static str],
    /// Whether there is somebody to ask for credentials.
    auto: bool,
    /// Whether it is reached by TLS, so that somebody vouches for the server.
    tls: bool,
}

/// The kinds of stores. The store's own names are those of the crate `object_store`.
pub(in crate::config) const KINDS: [StoreKind; 6] = [
    StoreKind {
        scheme: "file",
        settings: &[],
        flags: &[],
        secrets: &[],
        together: &[],
        auto: false,
        tls: false,
    },
    StoreKind {
        scheme: "s3",
        settings: &[("region", "region"), ("endpoint", "endpoint")],
        flags: &[("allow_http", "allow_http"), ("virtual_hosted_style", "virtual_hosted_style_request")],
        secrets: &[
            ("access_key_id", "access_key_id", Shape::Line),
            ("secret_access_key", "secret_access_key", Shape::Line),
            ("session_token", "token", Shape::Line),
        ],
        together: &["access_key_id", "secret_access_key"],
        auto: true,
        tls: true,
    },
    StoreKind {
        scheme: "gs",
        settings: &[("endpoint", "base_url")],
        flags: &[("allow_http", "allow_http")],
        secrets: &[("service_account_key", "service_account_key", Shape::JsonObject)],
        together: &[],
        auto: true,
        tls: true,
    },
    StoreKind {
        scheme: "az",
        settings: &[
            ("account", "account_name"),
            ("endpoint", "endpoint"),
            ("client_id", "client_id"),
            ("tenant_id", "tenant_id"),
        ],
        flags: &[("allow_http", "allow_http")],
        secrets: &[
            ("account_key", "account_key", Shape::Line),
            ("sas_token", "sas_token", Shape::Line),
            ("client_secret", "client_secret", Shape::Line),
        ],
        together: &[],
        auto: true,
        tls: true,
    },
    HTTP,
    StoreKind { scheme: "https", tls: true, ..HTTP },
];

const HTTP: StoreKind = StoreKind {
    scheme: "http",
    settings: &[],
    flags: &[],
    secrets: &[
        ("username", "username", Shape::Line),
        ("password", "password", Shape::Line),
        ("token", "token", Shape::Line),
    ],
    together: &[],
    auto: false,
    tls: false,
};

/// Where the secrets of the stores come from, and who vouches for their servers.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoreSecrets {
    /// What the stores are called, whatever else is wrong with them.
    pub(super) names: Vec<String>,
    /// The credentials of each store, by its name: what each is called, and where it comes from.
    credentials: BTreeMap<String, Credentials>,
    /// Who vouches for the servers of a store, by its name, where it is not those whom this machine trusts.
    authorities: BTreeMap<String, Authorities>,
}

/// Reads the stores into `open`, all but their secrets.
pub(super) fn read(section: &Section<'_>, environment: Environment<'_>, open: &mut Grants) -> StoreSecrets {
    let mut secrets = StoreSecrets::default();
    for (name, value) in by_name(section.get("stores")) {
        secrets.names.push(name.clone());
        if let Some((config, credentials, authorities)) =
            value.section().and_then(|store| read_store(store, environment))
        {
            open.stores.insert(name.clone(), config);
            secrets.authorities.extend(authorities.map(|authorities| (name.clone(), authorities)));
            secrets.credentials.insert(name, credentials);
        }
    }
    secrets
}

/// What stores with `credentials = "auto"` find in the environment.
pub(super) fn ambient(open: &Grants, environment: Environment<'_>) -> Vec<Secret> {
    let found = open.stores.values().flat_map(|store| store.secrets_of_environment(environment));
    found.map(|(_, secret)| secret).collect()
}

/// Files with secrets to which the environment leads stores with `credentials = "auto"`.
pub(super) fn ambient_files(open: &Grants, environment: Environment<'_>) -> Vec<PathBuf> {
    open.stores.values().flat_map(|store| store.secret_files_of_environment(environment)).collect()
}

impl StoreSecrets {
    /// Reads the credentials and authorities of the stores.
    ///
    /// # Errors
    /// The first problem, at the setting that names the file.
    pub(super) fn resolve(&self, grants: &mut Grants) -> Result<(), Problem> {
        for (name, config) in &mut grants.stores {
            for (option, source) in self.credentials.get(name).into_iter().flatten() {
                config.credentials.push(((*option).to_owned(), source.resolve()?));
            }
            if let Some(authorities) = self.authorities.get(name) {
                config.options.push((CA_CERTIFICATE.to_owned(), authorities.resolve()?));
            }
        }
        Ok(())
    }

    /// Has each store read its credentials again from their files when it does not take them any more; `redactor` learns them before.
    pub(super) fn renew(&self, grants: &mut Grants, redactor: &Redactor) {
        for (name, config) in &mut grants.stores {
            let sources = self.credentials.get(name).map(Vec::as_slice).unwrap_or_default();
            if sources.iter().any(|(_, source)| source.file().is_some()) {
                let sources = sources.to_vec();
                config.renewal = Some(Arc::new(CredentialFiles { sources, redactor: redactor.clone() }));
            }
        }
    }

    /// Lists every file that holds a secret.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.credentials.values().flatten().filter_map(|(_, source)| source.file())
    }
}

/// The credentials of one store, as their files hold them now.
#[derive(Debug)]
struct CredentialFiles {
    sources: Vec<(&'static str, SecretSource)>,
    redactor: Redactor,
}

impl Renewal for CredentialFiles {
    fn credentials(&self) -> Result<Vec<(String, Secret)>, String> {
        let read = |(name, source): &(&'static str, SecretSource)| {
            let secret = source.resolve().map_err(|problem| problem.to_string())?;
            self.redactor.add(&secret).map_err(|error| error.to_string())?;
            Ok(((*name).to_owned(), secret))
        };
        self.sources.iter().map(read).collect()
    }
}

type Credentials = Vec<(&'static str, SecretSource)>;

fn read_store(
    section: Section<'_>,
    environment: Environment<'_>,
) -> Option<(StoreConfig, Credentials, Option<Authorities>)> {
    let Some(url) = section.get("url") else {
        section.missing("url", "write url = \"s3://bucket/prefix\", or another place where backups are");
        return None;
    };
    let (url, kind) = read_url(&url)?;
    let mut config = StoreConfig::new(url);
    for (key, own) in kind.settings {
        if let Some(text) = section.get(key).and_then(|value| value.word().map(str::to_owned)) {
            config.options.push(((*own).to_owned(), text));
        }
    }
    for (key, own) in kind.flags {
        if let Some(flag) = section.get(key).and_then(|value| value.flag()) {
            config.options.push(((*own).to_owned(), flag.to_string()));
        }
    }
    if let Some(concurrency) = section.get("concurrency").and_then(|value| value.number_to(CONCURRENCY)) {
        config.concurrency = concurrency.get();
    }
    if let Some(at_most) = section.get("retry_for").and_then(|value| value.duration()) {
        config.retry.at_most = at_most;
    }
    if let Some(value) = section.get("plan_retry_for")
        && let Some(at_most) = value.duration()
    {
        if at_most > config.retry.at_most {
            value.problem(
                "is longer than `retry_for`, which holds for every step: raise that, or take the line out",
            );
        }
        config.plan_retry_for = at_most;
    }
    if let Some(idle) = section.get("idle_timeout").and_then(|value| value.duration()) {
        config.retry.idle = idle;
    }
    let web = matches!(kind.scheme, "http" | "https");
    if let Some(list) = section.get("redirects").filter(|_| web).and_then(|value| value.list()) {
        for item in list {
            match item.word() {
                Some(place) if StoreConfig::is_redirect(place) => config.redirects.push(place.to_owned()),
                Some(_) => {
                    item.problem("names no server: write its name and port, such as \"cdn.example:443\"")
                }
                None => {}
            }
        }
    }
    if !web {
        section.refuse(
            "redirects",
            "is nothing that this kind of store has, none of whose redirects is followed: take the line out",
        );
    }
    let mut authorities = None;
    if kind.tls {
        let value = section.get("ca_file");
        let named = config.options.iter().find(|(name, _)| matches!(name.as_str(), "endpoint" | "base_url"));
        if let (Some(value), Some((_, address))) = (&value, named)
            && address.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http:"))
        {
            value.problem("does nothing where there is no TLS, and `endpoint` is http://: take one line out");
        }
        authorities = value.and_then(|value| Authorities::read(&value, section.reader().file()));
    } else {
        section.refuse(
            "ca_file",
            "does nothing where there is no TLS: take the line out, or name a server by https://",
        );
    }
    let mut credentials = Vec::new();
    match section.get("credentials") {
        Some(value) if kind.auto && value.raw().as_str() == Some("auto") => config.provider_chain = true,
        Some(value) => credentials = read_credentials(&value, kind, section.reader().file(), environment),
        None => {}
    }
    for (key, ..) in kind.secrets {
        section.refuse(key, &format!("belongs into `credentials`: {}", form(kind)));
    }
    for (key, schemes) in of_other_kinds(kind) {
        let schemes = schemes.join(", ");
        section.refuse(
            key,
            &format!(
                "is nothing that a `{}:` store has, but one of {schemes}: take the line out",
                kind.scheme
            ),
        );
    }
    tell_mistakes(&section, kind, &config, environment);
    check_together(&section, kind, &config, &credentials);
    section.finish();
    Some((config, credentials, authorities))
}

/// Settings that only other kinds of stores have, and which kinds those are.
fn of_other_kinds(kind: &StoreKind) -> Vec<(&'static str, Vec<String>)> {
    let keys =
        |kind: &StoreKind| kind.settings.iter().chain(kind.flags).map(|(key, _)| *key).collect::<Vec<_>>();
    let own = keys(kind);
    let mut others: Vec<&str> = KINDS.iter().flat_map(keys).filter(|key| !own.contains(key)).collect();
    others.sort_unstable();
    others.dedup();
    let having = |key: &str| {
        let kinds = KINDS.iter().filter(|other| keys(other).contains(&key));
        kinds.map(|other| format!("`{}:`", other.scheme)).collect()
    };
    others.into_iter().map(|key| (key, having(key))).collect()
}

/// Tells everything that is wrong with a store at the setting that is wrong.
fn tell_mistakes(
    section: &Section<'_>,
    kind: &StoreKind,
    config: &StoreConfig,
    environment: Environment<'_>,
) {
    for mistake in config.mistakes(environment) {
        let own = kind.settings.iter().chain(kind.flags).find(|(_, own)| *own == mistake.option);
        let key = own.map_or(mistake.option.as_str(), |(key, _)| *key);
        section.tell(key, &mistake.message);
    }
}

/// Credentials that make sense only together, or not together.
fn check_together(section: &Section<'_>, kind: &StoreKind, config: &StoreConfig, credentials: &Credentials) {
    let has = |name: &str| credentials.iter().any(|(own, _)| *own == name);
    let is_set = |name: &str| config.options.iter().any(|(own, _)| own == name);
    let why = match kind.scheme {
        "http" | "https" if credentials.is_empty() => None,
        "http" | "https" if has("token") && (has("username") || has("password")) => {
            Some("are a `token` or a `username` and a `password`, not both".to_owned())
        }
        "http" | "https" if has("username") != has("password") => {
            let missing = if has("username") { "password" } else { "username" };
            Some(format!("lack `{missing}`"))
        }
        "az" if credentials.len() > 1 => {
            Some("are one of `account_key`, `sas_token` and `client_secret`, not several".to_owned())
        }
        "az" if has("client_secret") => {
            let missing = ["client_id", "tenant_id"].into_iter().find(|name| !is_set(name));
            missing.map(|missing| format!("with a `client_secret` need `{missing}` beside them"))
        }
        _ => None,
    };
    if let Some(why) = why {
        section.tell("credentials", &why);
    }
}

/// How credentials of this kind of store are written.
fn form(kind: &StoreKind) -> String {
    let auto = if kind.auto { " or credentials = \"auto\"" } else { "" };
    match kind.secrets.first() {
        Some((name, ..)) => {
            format!("write credentials = {{ {name} = {{ file = \"/path\" }} }} with `file` or `env`{auto}")
        }
        None => "leave them out".to_owned(),
    }
}

/// The secrets of a store, each `{ file }` or `{ env }`.
fn read_credentials(
    value: &Value<'_>,
    kind: &StoreKind,
    config: &Path,
    environment: Environment<'_>,
) -> Credentials {
    if kind.secrets.is_empty() {
        value.problem(format_args!("are nothing that a `{}:` store has: leave them out", kind.scheme));
        return Vec::new();
    }
    if let Some(text) = value.raw().as_str() {
        match nearest(text.trim(), ["auto"]).filter(|_| kind.auto) {
            Some(near) => value.problem(format_args!("are no word that is known: did you mean \"{near}\"?")),
            None => value.problem(format_args!("must not stand in this file: {}", form(kind))),
        }
        return Vec::new();
    }
    let Some(section) = value.section() else { return Vec::new() };
    let mut given = Vec::new();
    let mut credentials = Vec::new();
    for (key, own, shape) in kind.secrets {
        let Some(value) = section.get(key) else { continue };
        given.push(*key);
        if let Some(source) = SecretSource::read(&value, *shape, config, environment) {
            credentials.push((*own, source));
        }
    }
    section.finish();
    let missing = kind.together.iter().find(|key| !given.contains(key));
    match missing {
        Some(missing) if !given.is_empty() => value.problem(format_args!("lack `{missing}`")),
        _ if given.is_empty() => value.problem(format_args!("are empty: {}", form(kind))),
        _ => {}
    }
    credentials
}

/// The address of a store, which names its kind and holds no secret.
fn read_url(value: &Value<'_>) -> Option<(String, &'static StoreKind)> {
    let text = value.word()?;
    let schemes = || KINDS.iter().map(|kind| kind.scheme);
    let Some((scheme, rest)) = text.split_once("://") else {
        value.problem(
            "is no address of a store: write such as \"s3://bucket/prefix\" or \"file:///mnt/backups\"",
        );
        return None;
    };
    let Some(kind) = KINDS.iter().find(|kind| kind.scheme == scheme) else {
        let hint = match nearest(scheme, schemes()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are {}", schemes().collect::<Vec<_>>().join(", ")),
        };
        value.problem(format_args!("names no kind of store that is known: {hint}"));
        return None;
    };
    if StoreConfig::has_credentials(text) {
        let what = if text.contains('@') {
            "holds a user or a password, which must not stand here (an `@` behind a port is written `%40`)"
        } else {
            "has a `:` without a port behind it, or in the name of a bucket, whose server `endpoint` names"
        };
        value.problem(format_args!("{what}: {}", form(kind)));
        return None;
    }
    if kind.scheme == "file" && rest.contains('%') {
        value.problem(
            "holds a `%`, which an address has for other characters: name the directory without one",
        );
        return None;
    }
    if rest.contains(['?', '#']) {
        value.problem(
            "holds a `?` or `#`: an address has neither, and a token that it carries must not stand here",
        );
        return None;
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if (kind.scheme == "file") != authority.is_empty() {
        value.problem(
            "lacks its host or bucket, or is a file's and has one: write such as \"file:///mnt/backups\"",
        );
        return None;
    }
    Some((text.to_owned(), kind))
}
