//! The options and credentials that each kind of store knows. Of those that its library knows, only what changes how it is
//! read: an option that would do nothing is a mistake, and is told.

use foundation::nearest::nearest;
use std::ffi::OsString;
use std::fmt::Display;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::str::FromStr;

use super::super::StoreConfig;
use super::super::quoted::without_values;
use super::super::transport::Settings;
use super::values;
use crate::error::{Error, Kind};
use foundation::secret::Secret;

/// What an option is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// How the store is reached.
    Plain,
    /// Who reads it. Belongs into the credentials.
    Secret,
    /// Where the provider chain finds who reads it.
    Chain,
    /// How connections are made; this crate's own to read.
    Connection,
}

/// What a kind of store knows.
pub(super) struct Known {
    /// What it is called in messages.
    kind: &'static str,
    /// By the names that are documented.
    options: &'static [(&'static str, Use)],
    /// Other names of the same, which the clouds' own tools have.
    aliases: &'static [(&'static str, &'static str)],
    /// What the provider chain takes from the environment, by the option that it is.
    environment: &'static [(&'static str, &'static str)],
}

/// A local directory knows none.
pub(super) const FILE: Known = Known { kind: "a file store", options: &[], aliases: &[], environment: &[] };

/// A web server.
pub(super) const WEB: Known = Known {
    kind: "a web server",
    options: &[
        ("username", Use::Secret),
        ("password", Use::Secret),
        ("token", Use::Secret),
        ("ca_certificate", Use::Connection),
        ("user_agent", Use::Connection),
        ("proxy_url", Use::Connection),
        ("proxy_ca_certificate", Use::Connection),
        ("proxy_excludes", Use::Connection),
    ],
    aliases: &[("bearer_token", "token")],
    environment: &[],
};

/// S3 and what is compatible.
pub(super) const S3: Known = Known {
    kind: "an s3 store",
    options: &[
        ("region", Use::Plain),
        ("endpoint", Use::Plain),
        ("virtual_hosted_style_request", Use::Plain),
        ("unsigned_payload", Use::Plain),
        ("request_payer", Use::Plain),
        ("allow_http", Use::Connection),
        ("ca_certificate", Use::Connection),
        ("user_agent", Use::Connection),
        ("proxy_url", Use::Connection),
        ("proxy_ca_certificate", Use::Connection),
        ("proxy_excludes", Use::Connection),
        ("access_key_id", Use::Secret),
        ("secret_access_key", Use::Secret),
        ("token", Use::Secret),
        ("imdsv1_fallback", Use::Chain),
        ("metadata_endpoint", Use::Chain),
        ("container_credentials_relative_uri", Use::Chain),
        ("container_credentials_full_uri", Use::Chain),
        ("container_authorization_token_file", Use::Chain),
        ("web_identity_token_file", Use::Chain),
        ("role_arn", Use::Chain),
        ("role_session_name", Use::Chain),
        ("endpoint_url_sts", Use::Chain),
    ],
    aliases: &[
        ("default_region", "region"),
        ("endpoint_url", "endpoint"),
        ("endpoint_url_s3", "endpoint"),
        ("session_token", "token"),
    ],
    environment: &[
        ("AWS_REGION", "region"),
        ("AWS_DEFAULT_REGION", "region"),
        ("AWS_ACCESS_KEY_ID", "access_key_id"),
        ("AWS_SECRET_ACCESS_KEY", "secret_access_key"),
        ("AWS_SESSION_TOKEN", "token"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file"),
        ("AWS_ROLE_ARN", "role_arn"),
        ("AWS_ROLE_SESSION_NAME", "role_session_name"),
        ("AWS_ENDPOINT_URL_STS", "endpoint_url_sts"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "container_credentials_relative_uri"),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "container_credentials_full_uri"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "container_authorization_token_file"),
    ],
};

/// Google Cloud Storage.
pub(super) const GOOGLE: Known = Known {
    kind: "a gs store",
    options: &[
        ("base_url", Use::Plain),
        ("allow_http", Use::Connection),
        ("ca_certificate", Use::Connection),
        ("user_agent", Use::Connection),
        ("proxy_url", Use::Connection),
        ("proxy_ca_certificate", Use::Connection),
        ("proxy_excludes", Use::Connection),
        ("service_account_key", Use::Secret),
        ("bearer_token", Use::Secret),
        ("service_account", Use::Chain),
        ("application_credentials", Use::Chain),
    ],
    aliases: &[
        ("service_account_path", "service_account"),
        ("endpoint", "base_url"),
        ("token", "bearer_token"),
    ],
    environment: &[
        ("GOOGLE_SERVICE_ACCOUNT", "service_account"),
        ("GOOGLE_APPLICATION_CREDENTIALS", "application_credentials"),
    ],
};

/// Azure Blob Storage.
pub(super) const AZURE: Known = Known {
    kind: "an az store",
    options: &[
        ("account_name", Use::Plain),
        ("endpoint", Use::Plain),
        ("client_id", Use::Plain),
        ("tenant_id", Use::Plain),
        ("authority_host", Use::Plain),
        ("allow_http", Use::Connection),
        ("ca_certificate", Use::Connection),
        ("user_agent", Use::Connection),
        ("proxy_url", Use::Connection),
        ("proxy_ca_certificate", Use::Connection),
        ("proxy_excludes", Use::Connection),
        ("account_key", Use::Secret),
        ("sas_token", Use::Secret),
        ("bearer_token", Use::Secret),
        ("client_secret", Use::Secret),
        ("msi_endpoint", Use::Chain),
        ("object_id", Use::Chain),
        ("msi_resource_id", Use::Chain),
        ("federated_token_file", Use::Chain),
    ],
    aliases: &[
        ("access_key", "account_key"),
        ("sas_key", "sas_token"),
        ("token", "bearer_token"),
        ("authority_id", "tenant_id"),
        ("identity_endpoint", "msi_endpoint"),
    ],
    environment: &[
        ("AZURE_STORAGE_ACCOUNT_KEY", "account_key"),
        ("AZURE_STORAGE_SAS_TOKEN", "sas_token"),
        ("AZURE_CLIENT_ID", "client_id"),
        ("AZURE_TENANT_ID", "tenant_id"),
        ("AZURE_CLIENT_SECRET", "client_secret"),
        ("AZURE_FEDERATED_TOKEN_FILE", "federated_token_file"),
        ("AZURE_AUTHORITY_HOST", "authority_host"),
        ("IDENTITY_ENDPOINT", "msi_endpoint"),
    ],
};

/// What stands before a name in the clouds' own spelling (`aws_region`).
const CLOUDS: [&str; 4] = ["aws_", "google_", "azure_storage_", "azure_"];

impl Known {
    /// An option by the name that is documented, and what it is for.
    fn find(&self, name: &str) -> Option<(&'static str, Use)> {
        let lower = name.to_ascii_lowercase();
        let bare = CLOUDS.iter().find_map(|cloud| lower.strip_prefix(cloud)).unwrap_or(&lower);
        let name = self.aliases.iter().find(|(alias, _)| *alias == bare).map_or(bare, |(_, name)| name);
        self.options.iter().find(|(known, _)| *known == name).copied()
    }

    /// Returns the name that is documented for an option, by any of its names.
    pub(super) fn canonical(&self, name: &str) -> Option<&'static str> {
        self.find(name).map(|(name, _)| name)
    }

    /// Returns what the provider chain takes of the environment that is secret, by the option that it is.
    pub(super) fn secrets_of(&self, environment: &dyn Fn(&str) -> Option<OsString>) -> Vec<(String, Secret)> {
        let secret = |(variable, name): &(&str, &str)| {
            let (name, purpose) = self.find(name)?;
            let value = environment(variable)?.into_vec();
            (purpose == Use::Secret && !value.is_empty()).then(|| (name.to_owned(), Secret::new(value)))
        };
        self.environment.iter().filter_map(secret).collect()
    }

    /// Returns the files with secrets to which the environment leads the provider chain.
    pub(super) fn files_of(&self, environment: &dyn Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
        let named = self.environment.iter().filter(|(_, name)| values::FILES.contains(name));
        named.filter_map(|(variable, _)| environment(variable)).map(PathBuf::from).collect()
    }

    /// Returns what the environment gives the provider chain: the variable, the option that it is, and its value.
    ///
    /// # Errors
    /// `Invalid` for a variable that cannot be used, by its name.
    pub(super) fn found(
        &self,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Vec<(&'static str, &'static str, String)>, Error> {
        let mut found = Vec::new();
        for (variable, name) in self.environment {
            let Some(value) = environment(variable) else { continue };
            let invalid = |why: &str| Error::new(Kind::Invalid, format!("the variable {variable} {why}"));
            let value = value.into_string().map_err(|_| invalid("is not text in UTF-8"))?;
            let value = without_end(&value);
            // The clouds' own programs take an empty variable for one that is not set.
            if value.is_empty() {
                continue;
            }
            if let Some(why) = values::wrong(name, value) {
                return Err(invalid(&why));
            }
            found.push((*variable, *name, value.to_owned()));
        }
        Ok(found)
    }

    fn unknown(&self, name: &str) -> Error {
        let names: Vec<&str> = self.options.iter().map(|(name, _)| *name).collect();
        let shown = name.escape_debug();
        let message = if names.is_empty() {
            format!("`{shown}` is no option of {}, which has none", self.kind)
        } else {
            let hint = match nearest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", names.join(", ")),
            };
            format!("`{shown}` is no option of {}, or does nothing there; {hint}", self.kind)
        };
        Error::new(Kind::Invalid, message)
    }
}

/// What was chosen for a store, by the names that are documented.
pub(super) struct Chosen {
    kind: &'static str,
    values: Vec<(&'static str, Use, String)>,
    provider_chain: bool,
}

impl Chosen {
    /// Reads options and credentials.
    ///
    /// # Errors
    /// `Invalid` for one that is not known, stands in the wrong place or twice, or would do nothing.
    pub(super) fn of(
        config: &StoreConfig,
        known: &Known,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        let mut chosen = Self { kind: known.kind, values: Vec::new(), provider_chain: config.provider_chain };
        let invalid = |message: String| Error::new(Kind::Invalid, message);
        for (name, value) in &config.options {
            let (name, purpose) = known.find(name).ok_or_else(|| known.unknown(name))?;
            if purpose == Use::Secret {
                return Err(invalid(format!(
                    "`{name}` is secret: it belongs to the credentials, not to the options"
                )));
            }
            if purpose == Use::Chain && !config.provider_chain {
                return Err(invalid(format!(
                    "the option `{name}` does nothing where the provider chain is not asked"
                )));
            }
            chosen.add(name, purpose, value.clone())?;
        }
        for (name, secret) in &config.credentials {
            let (name, purpose) = known.find(name).ok_or_else(|| known.unknown(name))?;
            if purpose != Use::Secret {
                return Err(invalid(format!("`{name}` is no credential: it belongs to the options")));
            }
            let value = std::str::from_utf8(secret.expose())
                .map_err(|_| invalid(format!("the credential `{name}` is not text in UTF-8")))?;
            chosen.add(name, purpose, without_end(value).to_owned())?;
        }
        if config.provider_chain {
            if chosen.has(Use::Secret) {
                return Err(invalid(
                    "credentials are given, so that the provider chain would not be asked: choose one"
                        .to_owned(),
                ));
            }
            if known.environment.is_empty() {
                return Err(invalid(format!("{} has no provider chain to ask", known.kind)));
            }
            for (variable, name, value) in known.found(environment)? {
                // Two variables may name one thing, of which the first counts.
                if chosen.value(name).is_none() {
                    if let Some(why) = values::unreadable(name, &value) {
                        return Err(invalid(format!("the variable {variable} {why}")));
                    }
                    let (_, purpose) = known.find(name).ok_or_else(|| known.unknown(name))?;
                    chosen.values.push((name, purpose, value));
                }
            }
        }
        Ok(chosen)
    }

    fn add(&mut self, name: &'static str, purpose: Use, value: String) -> Result<(), Error> {
        if self.value(name).is_some() {
            return Err(Error::new(Kind::Invalid, format!("`{name}` is given twice")));
        }
        if let Some(why) = values::wrong(name, &value) {
            return Err(Error::new(Kind::Invalid, format!("`{name}` {why}")));
        }
        self.values.push((name, purpose, value));
        Ok(())
    }

    fn has(&self, purpose: Use) -> bool {
        self.values.iter().any(|(_, of, _)| *of == purpose)
    }

    /// What was chosen for an option.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(of, _, _)| *of == name).map(|(_, _, value)| value.as_str())
    }

    /// Whether nobody in particular reads it: requests are not signed.
    pub(super) fn is_anonymous(&self) -> bool {
        !self.provider_chain && !self.has(Use::Secret)
    }

    /// How connections are made.
    pub(super) fn settings(&self) -> Settings {
        let value = |name: &str| self.value(name).map(str::to_owned);
        Settings {
            ca_certificate: value("ca_certificate"),
            user_agent: value("user_agent"),
            proxy_url: value("proxy_url"),
            proxy_ca_certificate: value("proxy_ca_certificate"),
            proxy_excludes: value("proxy_excludes"),
        }
    }

    /// Everything else, as the cloud's library takes it.
    pub(super) fn of_the_cloud<K: FromStr<Err = object_store::Error>>(
        &self,
    ) -> Result<Vec<(K, &str)>, Error> {
        let of_the_cloud = self.values.iter().filter(|(_, purpose, _)| *purpose != Use::Connection);
        of_the_cloud
            .map(|(name, _, value)| Ok((name.parse().map_err(|error| self.failed(&error))?, value.as_str())))
            .collect()
    }

    /// The error of a library that cannot use what was chosen, without the secrets that it may hold.
    pub(super) fn failed(&self, error: &dyn Display) -> Error {
        let text = without_values(&error.to_string());
        let secrets = self.values.iter().filter(|(_, purpose, _)| *purpose == Use::Secret);
        let mut hidden =
            secrets.filter(|(_, _, secret)| text.contains(secret.as_str())).map(|(name, _, _)| *name);
        let message = match hidden.next() {
            Some(name) => format!("the credential `{name}` cannot be used"),
            None => format!("the options or credentials of {} cannot be used: {text}", self.kind),
        };
        Error::new(Kind::Invalid, message)
    }
}

/// A secret without the end of its line: one that was read from a file often has it.
fn without_end(secret: &str) -> &str {
    secret.trim_end_matches(['\r', '\n'])
}

/// `Authorization` of a user with a password (RFC 7617).
pub(in crate::store) fn basic(user: &str, password: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("Basic ");
    for three in format!("{user}:{password}").as_bytes().chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = char::from(ALPHABET[(bits >> (18 - 6 * place) & 63) as usize]);
            text.push(if place <= three.len() { letter } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use object_store::aws::AmazonS3ConfigKey;
    use object_store::azure::AzureConfigKey;
    use object_store::gcp::GoogleConfigKey;

    use super::*;

    /// The names that the library of a cloud does not know.
    fn unknown<K: FromStr>(known: &Known) -> Vec<&'static str> {
        let of_the_cloud = known.options.iter().filter(|(_, purpose)| *purpose != Use::Connection);
        of_the_cloud.map(|(name, _)| *name).filter(|name| name.parse::<K>().is_err()).collect()
    }

    #[test]
    fn every_option_is_one_that_the_library_knows() {
        assert_eq!(unknown::<AmazonS3ConfigKey>(&S3), [""; 0]);
        assert_eq!(unknown::<AzureConfigKey>(&AZURE), [""; 0]);
        assert_eq!(unknown::<GoogleConfigKey>(&GOOGLE), [""; 0]);
    }

    #[test]
    fn every_other_name_and_every_variable_leads_to_an_option() {
        for known in [&FILE, &WEB, &S3, &GOOGLE, &AZURE] {
            for (alias, name) in known.aliases.iter().chain(known.environment) {
                assert!(known.options.iter().any(|(option, _)| option == name), "{alias}");
            }
            for (alias, name) in known.aliases {
                assert_eq!(known.find(alias).map(|(found, _)| found), Some(*name));
            }
        }
    }
}
