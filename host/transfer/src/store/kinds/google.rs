//! `gs://bucket/prefix`: Google Cloud Storage.

use std::sync::Arc;

use object_store::StaticCredentialProvider;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use tokio::runtime::Handle;

use super::chosen::Chosen;
use super::values::ValueKind;
use super::{
    ALLOW_HTTP, Credential, CredentialSet, Gives, Opened, Place, Setting, StoreKind, Tls, Variable, endpoint,
    invalid, no_retry,
};
use crate::error::Error;
use crate::store::cloud::Cloud;

/// The host of Google Cloud Storage.
const HOST: &str = "storage.googleapis.com";

const ENDPOINT: Setting = endpoint("base_url");

const SERVICE_ACCOUNT_KEY: Credential = Credential {
    name: "service_account_key",
    library: Some("service_account_key"),
    value: ValueKind::JsonObject,
    optional: false,
};

/// Google Cloud Storage.
pub(super) static KIND: StoreKind = StoreKind {
    scheme: "gs",
    example: "gs://bucket/prefix",
    label: "a gs store",
    place: Place::Bucket,
    settings: &[ENDPOINT, ALLOW_HTTP],
    credentials: &[CredentialSet { credentials: &[SERVICE_ACCOUNT_KEY], needs: &[] }],
    conflict: "",
    environment: &[
        Variable {
            name: "GOOGLE_SERVICE_ACCOUNT",
            gives: Gives::Chain { library: "service_account", value: ValueKind::File },
        },
        Variable {
            name: "GOOGLE_APPLICATION_CREDENTIALS",
            gives: Gives::Chain { library: "application_credentials", value: ValueKind::File },
        },
    ],
    tls: Tls::Unless(&ENDPOINT),
    redirects: false,
    open,
};

/// Checks that a service account's key has no `gcs_base_url`, which is meant for emulators. The library would read objects from that
/// address, so the author of the key would decide from which server the objects come, and whether TLS is used.
fn refuse_an_address_in_the_key(chosen: &Chosen<'_>) -> Result<(), Error> {
    let key = chosen.value(SERVICE_ACCOUNT_KEY.name).map(serde_json::from_str::<serde_json::Value>);
    // The library reports a key that cannot be parsed.
    if let Some(Ok(key)) = key
        && key.get("gcs_base_url").is_some_and(|address| !address.is_null())
    {
        return Err(invalid(
            "the credential `service_account_key` contains an address of the store (`gcs_base_url`): remove it from the key, and set \
             `endpoint` instead",
        ));
    }
    Ok(())
}

fn open(chosen: &Chosen<'_>, runtime: &Handle) -> Result<Opened, Error> {
    let (bucket, prefix) = chosen.bucket()?;
    refuse_an_address_in_the_key(chosen)?;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        // Without this, a service account's key could set an address that was not checked.
        .with_config(GoogleConfigKey::BaseUrl, format!("https://{HOST}"))
        .with_retry(no_retry())
        .with_http_connector(chosen.connector(HOST.to_owned(), runtime)?);
    for (key, value) in chosen.library_options::<GoogleConfigKey>()? {
        builder = builder.with_config(key, value);
    }
    if chosen.is_anonymous() {
        // Without any credentials, the library would search for the user's own credentials.
        let nobody = StaticCredentialProvider::new(GcpCredential { bearer: String::new() });
        builder = builder.with_credentials(Arc::new(nobody)).with_skip_signature(true);
    }
    let store = builder.build().map_err(|error| chosen.failed(&error))?;
    Ok(Opened { prefix, backend: Box::new(Cloud::new(store, chosen.idle())) })
}
