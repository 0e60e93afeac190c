//! `az://container/prefix`: Azure Blob Storage.

use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use tokio::runtime::Handle;

use super::chosen::Chosen;
use super::values::ValueKind;
use super::{
    ALLOW_HTTP, Credential, CredentialSet, Gives, Opened, Place, Setting, StoreKind, Tls, Unset, Variable,
    endpoint, no_retry,
};
use crate::error::Error;
use crate::store::cloud::Cloud;

const ACCOUNT: Setting = Setting {
    name: "account",
    library: Some("account_name"),
    value: ValueKind::Name,
    unset: Unset::Missing("write account = \"NAME\" with the storage account of the container"),
    doc: "the storage account",
};

const ENDPOINT: Setting = endpoint("endpoint");

/// Makes a setting that identifies a client to Azure.
const fn identity(name: &'static str) -> Setting {
    Setting {
        name,
        library: Some(name),
        value: ValueKind::Name,
        unset: Unset::Default("none; required with `client_secret`"),
        doc: "for `client_secret`, or for a managed identity",
    }
}

const CLIENT_ID: Setting = identity("client_id");

const TENANT_ID: Setting = identity("tenant_id");

const ACCOUNT_KEY: Credential = Credential {
    name: "account_key",
    library: Some("account_key"),
    value: ValueKind::Token,
    optional: false,
};

const SAS_TOKEN: Credential =
    Credential { name: "sas_token", library: Some("sas_token"), value: ValueKind::Token, optional: false };

const CLIENT_SECRET: Credential = Credential {
    name: "client_secret",
    library: Some("client_secret"),
    value: ValueKind::Line,
    optional: false,
};

/// Azure Blob Storage.
pub(super) static KIND: StoreKind = StoreKind {
    scheme: "az",
    example: "az://container/prefix",
    label: "an az store",
    place: Place::Bucket,
    settings: &[ACCOUNT, ENDPOINT, CLIENT_ID, TENANT_ID, ALLOW_HTTP],
    credentials: &[
        CredentialSet { credentials: &[ACCOUNT_KEY], needs: &[] },
        CredentialSet { credentials: &[SAS_TOKEN], needs: &[] },
        CredentialSet { credentials: &[CLIENT_SECRET], needs: &[&CLIENT_ID, &TENANT_ID] },
    ],
    conflict: "are one of `account_key`, `sas_token` and `client_secret`, not several",
    environment: &[
        Variable { name: "AZURE_STORAGE_ACCOUNT_KEY", gives: Gives::Credential(&ACCOUNT_KEY) },
        Variable { name: "AZURE_STORAGE_SAS_TOKEN", gives: Gives::Credential(&SAS_TOKEN) },
        Variable { name: "AZURE_CLIENT_ID", gives: Gives::Setting(&CLIENT_ID) },
        Variable { name: "AZURE_TENANT_ID", gives: Gives::Setting(&TENANT_ID) },
        Variable { name: "AZURE_CLIENT_SECRET", gives: Gives::Credential(&CLIENT_SECRET) },
        Variable {
            name: "AZURE_FEDERATED_TOKEN_FILE",
            gives: Gives::Chain { library: "federated_token_file", value: ValueKind::File },
        },
        Variable {
            name: "AZURE_AUTHORITY_HOST",
            gives: Gives::Chain { library: "authority_host", value: ValueKind::Address },
        },
        Variable {
            name: "IDENTITY_ENDPOINT",
            gives: Gives::Chain { library: "msi_endpoint", value: ValueKind::Address },
        },
    ],
    tls: Tls::Unless(&ENDPOINT),
    redirects: false,
    open,
};

fn open(chosen: &Chosen<'_>, runtime: &Handle) -> Result<Opened, Error> {
    let (container, prefix) = chosen.bucket()?;
    let host = format!("{}.blob.core.windows.net", chosen.value(ACCOUNT.name).unwrap_or_default());
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(container)
        .with_retry(no_retry())
        .with_http_connector(chosen.connector(host, runtime)?);
    for (key, value) in chosen.library_options::<AzureConfigKey>()? {
        builder = builder.with_config(key, value);
    }
    if chosen.is_anonymous() {
        builder = builder.with_skip_signature(true);
    }
    let store = builder.build().map_err(|error| chosen.failed(&error))?;
    Ok(Opened { prefix, backend: Box::new(Cloud::azure(store, chosen.idle())) })
}
