//! Tests of the configuration of stores and of its error messages.

use std::collections::BTreeSet;
use std::str::FromStr;

use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;

use super::*;
use crate::store::Credentials;

fn config(url: &str, options: &[(&str, &str)], credentials: &[(&str, &str)]) -> StoreConfig {
    let secrets = credentials.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value)));
    StoreConfig {
        options: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        credentials: Credentials::Given(secrets.collect()),
        ..StoreConfig::new(url)
    }
}

async fn opened(config: &StoreConfig) -> Result<Store, String> {
    open(config, &|_| None, &Handle::current()).map_err(|error| {
        assert_eq!(error.kind, Kind::Invalid, "{error}");
        error.to_string()
    })
}

/// Returns the library's option names in the table of this kind that the library does not know.
fn unknown<K: FromStr>(kind: &StoreKind) -> Vec<&'static str> {
    let settings = kind.settings.iter().map(|setting| setting.library);
    let credentials = kind.all_credentials().map(|credential| credential.library);
    let variables = kind.environment.iter().map(|variable| variable.gives.library());
    let names = settings.chain(credentials).chain(variables).flatten();
    names.filter(|name| name.parse::<K>().is_err()).collect()
}

#[test]
fn the_libraries_know_the_names_of_all_options() {
    assert_eq!(unknown::<AmazonS3ConfigKey>(&s3::KIND), [""; 0]);
    assert_eq!(unknown::<AzureConfigKey>(&azure::KIND), [""; 0]);
    assert_eq!(unknown::<GoogleConfigKey>(&google::KIND), [""; 0]);
}

#[test]
fn every_kind_of_store_is_consistent() {
    for kind in KINDS {
        let settings = kind.settings.iter().map(|setting| setting.name);
        let names: Vec<_> =
            settings.chain(kind.all_credentials().map(|credential| credential.name)).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        // Variables and requirements refer to settings and credentials of this kind.
        let chain = |gives: &Gives| matches!(gives, Gives::Chain { .. });
        for Variable { name, gives } in kind.environment {
            assert!(chain(gives) || names.contains(&gives.name()), "{name}");
        }
        let needed = kind.credentials.iter().flat_map(|set| set.needs);
        assert!(needed.into_iter().all(|setting| names.contains(&setting.name)), "{}", kind.scheme);
        assert_eq!(kind.conflict.is_empty(), kind.credentials.len() < 2, "{}", kind.scheme);
        assert_eq!(StoreKind::of(kind.example).unwrap().scheme, kind.scheme);
        assert_eq!(url::wrong(kind, kind.example), None);
    }
}

#[tokio::test]
async fn for_an_unknown_kind_of_store_the_nearest_one_is_named() {
    for (url, nearest) in [
        ("s4://b/p", "`s3://`"),
        ("azure://c/p", "the kinds are s3, gs, az, "),
        ("htps://h/p", "`https://`"),
        ("gcs://b", "`gs://`"),
    ] {
        let error = opened(&config(url, &[], &[])).await.unwrap_err();
        assert!(error.contains(nearest), "{error}");
    }
    assert!(opened(&config("/var/backups", &[], &[])).await.is_err());
}

#[tokio::test]
async fn for_an_unknown_option_the_nearest_one_is_named() {
    for (url, option, nearest) in [
        ("s3://b/p", "regoin", "`region`"),
        ("s3://b/p", "alow_http", "`allow_http`"),
        ("az://c/p", "acount", "`account`"),
        ("gs://b/p", "endpiont", "`endpoint`"),
    ] {
        let error = opened(&config(url, &[(option, "x")], &[])).await.unwrap_err();
        assert!(error.contains(nearest), "{error}");
    }
}

#[tokio::test]
async fn options_that_only_the_library_knows_are_refused() {
    for option in [
        "checksum_algorithm",
        "conditional_put",
        "bucket",
        "timeout",
        "disable_tagging",
        "skip_signature",
        "role_arn",
        "proxy_url",
        "aws_region",
        "virtual_hosted_style_request",
    ] {
        let error = opened(&config("s3://b/p", &[(option, "x")], &[])).await.unwrap_err();
        assert!(error.contains("does nothing there"), "{error}");
    }
    assert!(opened(&config("file:///tmp", &[("region", "x")], &[])).await.is_err());
}

#[tokio::test]
async fn an_option_or_credential_that_is_given_twice_is_refused() {
    let region = ("region", "eu-west-1");
    assert!(opened(&config("s3://b/p", &[region], &[])).await.is_ok());
    assert!(opened(&config("s3://b/p", &[region, region], &[])).await.unwrap_err().contains("twice"));
    let token = ("token", "a");
    assert!(opened(&config("https://h/p", &[], &[token, token])).await.unwrap_err().contains("twice"));
}

#[tokio::test]
async fn plain_http_to_a_cloud_needs_allow_http_and_allow_http_needs_plain_http() {
    let http = ("endpoint", "http://127.0.0.1:9000");
    let allowed = ("allow_http", "true");
    assert!(opened(&config("s3://b/p", &[http], &[])).await.unwrap_err().contains("allow_http"));
    assert!(opened(&config("s3://b/p", &[http, ("allow_http", "false")], &[])).await.is_err());
    assert!(opened(&config("s3://b/p", &[http, ("allow_http", "yes")], &[])).await.is_err());
    assert!(opened(&config("s3://b/p", &[allowed], &[])).await.unwrap_err().contains("does nothing"));
    assert!(opened(&config("s3://b/p", &[("endpoint", "https://h"), allowed], &[])).await.is_err());
    assert!(opened(&config("s3://b/p", &[http, allowed], &[])).await.is_ok());
}

#[tokio::test]
async fn an_authority_must_be_a_certificate_and_needs_tls() {
    let with_authorities = |url: &str, options: &[(&str, &str)], authorities: &str| StoreConfig {
        authorities: Some(authorities.to_owned()),
        ..config(url, options, &[])
    };
    let long = " ".repeat(1 << 20);
    for (url, options) in [
        ("https://h/p", vec![]),
        ("s3://b/p", vec![("endpoint", "https://h")]),
        ("gs://b/p", vec![]),
        ("az://c/p", vec![("account", "a")]),
    ] {
        for (authorities, says) in [
            ("nothing in PEM", "holds no certificate"),
            (&long, "holds no certificate"),
            (
                "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
                "file of `ca_file` cannot be used",
            ),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be used"),
        ] {
            let error = opened(&with_authorities(url, &options, authorities)).await.unwrap_err();
            assert!(error.contains(says), "{url}: {error}");
        }
    }
    let plain = [("endpoint", "http://h"), ("allow_http", "true")];
    for (url, options) in [("http://h/p", &[][..]), ("s3://b/p", &plain), ("file:///tmp", &[])] {
        let error = opened(&with_authorities(url, options, "-----BEGIN CERTIFICATE-----")).await.unwrap_err();
        assert!(error.contains("does nothing without TLS"), "{url}: {error}");
    }
}

#[tokio::test]
async fn a_secret_is_not_accepted_as_an_option_or_in_a_url() {
    let error = opened(&config("s3://b/p", &[("secret_access_key", "hunter2")], &[])).await.unwrap_err();
    assert!(error.contains("is not a setting of an s3 store") && !error.contains("hunter2"), "{error}");
    assert!(opened(&config("s3://b/p", &[], &[("region", "x")])).await.is_err());
    for url in [
        "https://user:hunter2@h/p",
        "https://h/p?sig=hunter2",
        "s3://user:hunter2@b/p",
        "s3://b/p?key=hunter2",
        "https://user:ab/hunter2@h/p",
        "https://user:hunter2/cd@h/p",
        "https://user:hunter2?cd@h/p",
        "https://user:/hunter2@h/p",
        "s3://AKIA:hunter2/cd@bucket",
        "s3://AKIA:12/hunter2@bucket",
        "htps://user:hunter2/cd@h/p",
        "https://user:12/hunter2@h/p",
    ] {
        let error = opened(&config(url, &[], &[])).await.unwrap_err();
        let is_known = !url.starts_with("htps");
        assert!(!error.contains("hunter2"), "{error}");
        assert_eq!(error.contains("must not be in the URL"), is_known, "{error}");
    }
    let endpoint = [("endpoint", "https://user:hunter2@h")];
    assert!(!opened(&config("s3://b/p", &endpoint, &[])).await.unwrap_err().contains("hunter2"));
}

#[tokio::test]
async fn errors_about_credentials_do_not_quote_them() {
    for (url, options, credentials) in [
        ("s3://b/p", vec![], vec![("secret_access_key", "hunter2")]),
        ("az://c/p", vec![("account", "a")], vec![("account_key", "hunter2 is not base64")]),
        ("gs://b/p", vec![], vec![("service_account_key", "{\"private_key\": \"hunter2\"")]),
        ("https://h/p", vec![], vec![("username", "hunter2")]),
        ("https://h/p", vec![], vec![("token", "hunter2\u{7f}")]),
        ("s3://b/p", vec![], vec![("session_token", "")]),
    ] {
        let error = opened(&config(url, &options, &credentials)).await.unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_value_with_a_control_character_is_refused_by_its_name() {
    let secrets = [
        ("s3://b/p", &["access_key_id", "secret_access_key", "session_token"][..]),
        ("az://c/p", &["account_key", "sas_token", "client_secret"]),
        ("https://h/p", &["username", "password", "token"]),
    ];
    for (url, names) in secrets {
        let options = &[("account", "a")][..usize::from(url.starts_with("az"))];
        for (name, value) in
            names.iter().flat_map(|name| [(*name, "hunter2\nhunter2"), (*name, "hunter2\u{7f}")])
        {
            let error = opened(&config(url, options, &[(name, value)])).await.unwrap_err();
            assert!(error.contains(&format!("`{name}` has a control character")), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
    let error = opened(&config("s3://b/p", &[("region", "a\nb")], &[])).await.unwrap_err();
    assert!(error.contains("`region` has a control character"), "{error}");
    // The line end after a secret does not count.
    let s3 = [("access_key_id", "hunter2\r\n"), ("secret_access_key", "hunter2\n")];
    assert!(opened(&config("s3://b/p", &[], &s3)).await.is_ok());
}

#[tokio::test]
async fn a_service_accounts_key_cannot_set_the_address_of_the_store() {
    for address in ["http://127.0.0.1:1", "https://127.0.0.1:1"] {
        let key = format!(
            r#"{{"private_key": "", "private_key_id": "", "client_email": "", "disable_oauth": true, "gcs_base_url": "{address}"}}"#
        );
        let error = opened(&config("gs://b/p", &[], &[("service_account_key", &key)])).await.unwrap_err();
        assert!(error.contains("`endpoint`") && !error.contains("127.0.0.1"), "{error}");
    }
    let key = r#"{"private_key": "", "private_key_id": "", "client_email": "", "disable_oauth": true}"#;
    assert!(opened(&config("gs://b/p", &[], &[("service_account_key", key)])).await.is_ok());
}

#[tokio::test]
async fn credentials_must_be_one_complete_set() {
    let account = ("account", "a");
    let identity = [account, ("client_id", "c"), ("tenant_id", "t")];
    for (url, options, names, says) in [
        ("s3://b", &[][..], &["access_key_id", "secret_access_key"][..], None),
        ("s3://b", &[], &["access_key_id", "secret_access_key", "session_token"], None),
        ("s3://b", &[], &["access_key_id"], Some("lack `secret_access_key`")),
        ("s3://b", &[], &["session_token"], Some("lack `access_key_id`")),
        ("https://h", &[], &["username", "password"], None),
        ("https://h", &[], &["token"], None),
        ("https://h", &[], &["username"], Some("lack `password`")),
        ("https://h", &[], &["password"], Some("lack `username`")),
        ("https://h", &[], &["username", "password", "token"], Some("not both")),
        ("https://h", &[], &["username", "token"], Some("not both")),
        ("az://c", &[account], &["sas_token"], None),
        ("az://c", &[account], &["sas_token", "account_key"], Some("not several")),
        ("az://c", &identity, &["client_secret"], None),
        ("az://c", &identity[..2], &["client_secret"], Some("need the setting `tenant_id`")),
        ("az://c", &[account], &["client_secret"], Some("need the setting `client_id`")),
    ] {
        let secrets: Vec<_> = names.iter().map(|name| (*name, "aHVudGVyMg==")).collect();
        match (opened(&config(url, options, &secrets)).await, says) {
            (Ok(_), None) => {}
            (Err(error), Some(says)) => assert!(error.contains(says), "{url} {names:?}: {error}"),
            (Ok(_), Some(_)) => panic!("{url} {names:?} is accepted"),
            (Err(error), None) => panic!("{url} {names:?}: {error}"),
        }
    }
    for url in ["https://h/p", "http://h/p", "file:///tmp"] {
        let auto = StoreConfig { credentials: Credentials::Auto, ..StoreConfig::new(url) };
        assert!(opened(&auto).await.unwrap_err().contains("asks the environment"), "{url}");
    }
}

#[tokio::test]
async fn a_prefix_that_leads_elsewhere_is_refused() {
    for url in ["s3://b/../p", "gs://b/a//b", "az://c/a/./b", "s3:///p", "s3://"] {
        assert!(
            opened(&config(url, &[("account", "a")][..usize::from(url.starts_with("az"))], &[]))
                .await
                .is_err(),
            "{url}"
        );
    }
}

#[test]
fn a_user_and_a_password_are_encoded_as_in_rfc_7617() {
    assert_eq!(basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!(basic("a", "b"), "Basic YTpi");
    assert_eq!(basic("", "abc"), "Basic OmFiYw==");
}

#[tokio::test]
async fn a_key_that_is_too_long_for_its_store_is_refused_without_a_request() {
    // Nothing listens there, so a request would fail with another error.
    let endpoint = [("endpoint", "http://127.0.0.1:1"), ("allow_http", "true")];
    let azure = [endpoint[0], endpoint[1], ("account", "a")];
    for (url, options, sign, most) in [
        ("s3://bucket/of/demo", &endpoint[..], "k", 1024 - "of/demo/".len()),
        ("gs://bucket", &endpoint[..], "\u{e9}", 512),
        ("az://container/of", &azure[..], "\u{e9}", 1024 - "of/".len()),
        ("http://127.0.0.1:1/of/", &[][..], "k", 4095),
    ] {
        let mut config = config(url, options, &[]);
        config.retry.at_most = std::time::Duration::ZERO;
        let store = opened(&config).await.unwrap();
        for (length, is_taken) in [(most, true), (most + 1, false)] {
            let key = sign.repeat(length);
            let errors = [
                store.head(&key).await.map(drop).unwrap_err(),
                store.read(&key, None).await.map(drop).unwrap_err(),
            ];
            for error in errors {
                assert_eq!(error.kind != Kind::Invalid, is_taken, "{url} {length} {error}");
            }
            if !is_taken && !url.starts_with("http") {
                assert_eq!(store.scan(&key, None).await.unwrap_err().kind, Kind::Invalid, "{url}");
            }
        }
    }
}

#[tokio::test]
async fn variables_for_the_provider_chain_are_checked_before_the_library_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent");
    let s3 = StoreConfig { credentials: Credentials::Auto, ..StoreConfig::new("s3://b/p") };
    let chosen = |name: &str, value: &str| {
        let environment = |asked: &str| (asked == name).then(|| OsString::from(value));
        Chosen::of(&s3, &s3::KIND, &environment).map(|chosen| chosen.value("region").map(str::to_owned))
    };
    assert_eq!(chosen("AWS_DEFAULT_REGION", "eu-west-1\n").unwrap().as_deref(), Some("eu-west-1"));
    assert_eq!(chosen("AWS_DEFAULT_REGION", "").unwrap(), None);
    for (name, value, says) in [
        (
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "no uri",
            "is not a URL: relative URL without a base; an address begins with https:// or http:// and has a host".to_owned(),
        ),
        ("AWS_SESSION_TOKEN", "t\u{f6}ken", "has the character U+00F6 in it, which no credential can have".to_owned()),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "token", "is not the absolute path of a file".to_owned()),
        (
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            absent.to_str().unwrap(),
            format!("names {}, which cannot be read: No such file or directory (os error 2)", absent.display()),
        ),
    ] {
        let error = chosen(name, value).unwrap_err();
        assert_eq!(error.message, format!("the variable {name} {says}"));
    }
}
