//! `s3://bucket/prefix`: S3 and compatible stores.

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use tokio::runtime::Handle;

use super::chosen::Chosen;
use super::values::ValueKind;
use super::{
    ALLOW_HTTP, Credential, CredentialSet, Gives, Opened, Place, Setting, StoreKind, Tls, Unset, Variable,
    endpoint, no_retry,
};
use crate::error::Error;
use crate::store::cloud::Cloud;

const REGION: Setting = Setting {
    name: "region",
    library: Some("region"),
    value: ValueKind::Name,
    unset: Unset::Default("`us-east-1`"),
    doc: "the bucket's region",
};

const ENDPOINT: Setting = endpoint("endpoint");

const VIRTUAL_HOSTED_STYLE: Setting = Setting {
    name: "virtual_hosted_style",
    library: Some("virtual_hosted_style_request"),
    value: ValueKind::Flag,
    unset: Unset::Default("`false`"),
    doc: "put the bucket's name into the host name",
};

const ACCESS_KEY_ID: Credential = Credential {
    name: "access_key_id",
    library: Some("access_key_id"),
    value: ValueKind::Token,
    optional: false,
};

const SECRET_ACCESS_KEY: Credential = Credential {
    name: "secret_access_key",
    library: Some("secret_access_key"),
    value: ValueKind::Token,
    optional: false,
};

const SESSION_TOKEN: Credential =
    Credential { name: "session_token", library: Some("token"), value: ValueKind::Token, optional: true };

/// S3 and compatible stores.
pub(super) static KIND: StoreKind = StoreKind {
    scheme: "s3",
    example: "s3://bucket/prefix",
    label: "an s3 store",
    place: Place::Bucket,
    settings: &[REGION, ENDPOINT, ALLOW_HTTP, VIRTUAL_HOSTED_STYLE],
    credentials: &[CredentialSet {
        credentials: &[ACCESS_KEY_ID, SECRET_ACCESS_KEY, SESSION_TOKEN],
        needs: &[],
    }],
    conflict: "",
    environment: &[
        Variable { name: "AWS_REGION", gives: Gives::Setting(&REGION) },
        Variable { name: "AWS_DEFAULT_REGION", gives: Gives::Setting(&REGION) },
        Variable { name: "AWS_ACCESS_KEY_ID", gives: Gives::Credential(&ACCESS_KEY_ID) },
        Variable { name: "AWS_SECRET_ACCESS_KEY", gives: Gives::Credential(&SECRET_ACCESS_KEY) },
        Variable { name: "AWS_SESSION_TOKEN", gives: Gives::Credential(&SESSION_TOKEN) },
        Variable {
            name: "AWS_WEB_IDENTITY_TOKEN_FILE",
            gives: Gives::Chain { library: "web_identity_token_file", value: ValueKind::File },
        },
        Variable {
            name: "AWS_ROLE_ARN",
            gives: Gives::Chain { library: "role_arn", value: ValueKind::Line },
        },
        Variable {
            name: "AWS_ROLE_SESSION_NAME",
            gives: Gives::Chain { library: "role_session_name", value: ValueKind::Line },
        },
        Variable {
            name: "AWS_ENDPOINT_URL_STS",
            gives: Gives::Chain { library: "endpoint_url_sts", value: ValueKind::Address },
        },
        Variable {
            name: "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            gives: Gives::Chain { library: "container_credentials_relative_uri", value: ValueKind::UrlPath },
        },
        Variable {
            name: "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            gives: Gives::Chain { library: "container_credentials_full_uri", value: ValueKind::Address },
        },
        Variable {
            name: "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            gives: Gives::Chain { library: "container_authorization_token_file", value: ValueKind::File },
        },
    ],
    tls: Tls::Unless(&ENDPOINT),
    redirects: false,
    open,
};

fn open(chosen: &Chosen<'_>, runtime: &Handle) -> Result<Opened, Error> {
    let (bucket, prefix) = chosen.bucket()?;
    let host = format!("s3.{}.amazonaws.com", chosen.value("region").unwrap_or("us-east-1"));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_retry(no_retry())
        .with_http_connector(chosen.connector(host, runtime)?);
    for (key, value) in chosen.library_options::<AmazonS3ConfigKey>()? {
        builder = builder.with_config(key, value);
    }
    if chosen.is_anonymous() {
        builder = builder.with_skip_signature(true);
    }
    let store = builder.build().map_err(|error| chosen.failed(&error))?;
    Ok(Opened { prefix, backend: Box::new(Cloud::new(store, chosen.idle())) })
}
