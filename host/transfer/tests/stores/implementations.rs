//! Runs the suite against every kind of store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use foundation::secret::Secret;
use futures_util::StreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, HeaderMap, ObjectStore, ObjectStoreExt};
use tests::stores::{AZURITE_ACCOUNT, AZURITE_KEY, S3RVER, StoreServer};
use tokio::runtime::Handle;
use transfer::error::Kind;
use transfer::store::{Credentials, Page, Retry, Store, StoreConfig};

use crate::suite::{self, Features, OUTSIDE, objects};

/// Makes a configuration with these options and credentials.
pub(crate) fn config(
    url: impl Into<String>,
    options: &[(&str, &str)],
    credentials: &[(&str, &str)],
) -> StoreConfig {
    let own = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
    StoreConfig {
        options: options.iter().map(own).collect(),
        credentials: Credentials::Given(
            credentials.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value))).collect(),
        ),
        // A test must end soon if a server fails.
        retry: Retry { at_most: Duration::from_secs(10), ..Retry::default() },
        ..StoreConfig::new(url)
    }
}

fn fill_directory(root: &Path) {
    for (key, bytes) in objects() {
        let path = root.join("backups/main").join(key);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    std::fs::write(root.join("backups").join(OUTSIDE), "outside").unwrap();
}

async fn fill(store: Arc<dyn ObjectStore>) {
    let mut all: Vec<(String, Vec<u8>)> =
        objects().into_iter().map(|(key, bytes)| (format!("backups/main/{key}"), bytes)).collect();
    all.push((format!("backups/{OUTSIDE}"), b"outside".to_vec()));
    all.push((format!("backups/main-{OUTSIDE}"), b"outside".to_vec()));
    let puts = futures_util::stream::iter(all).map(|(key, bytes)| {
        let store = Arc::clone(&store);
        async move { store.put(&ObjectPath::parse(key).unwrap(), bytes.into()).await }
    });
    let put: Vec<_> = puts.buffer_unordered(8).collect().await;
    assert!(put.iter().all(Result::is_ok));
}

/// A writing client for S3 on loopback.
pub(crate) fn s3_writer(server: &StoreServer, bucket: &str) -> Arc<dyn ObjectStore> {
    // The client needs a TLS provider, even if it does not use TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Tests without valid signatures read this bucket, too.
    let public = HeaderMap::from_iter([("x-amz-acl".parse().unwrap(), "public-read".parse().unwrap())]);
    let options = ClientOptions::new().with_allow_http(true).with_default_headers(public);
    let builder = AmazonS3Builder::new().with_client_options(options).with_endpoint(server.url());
    let builder = builder.with_access_key_id(S3RVER).with_secret_access_key(S3RVER);
    Arc::new(builder.with_bucket_name(bucket).build().unwrap())
}

/// Creates the bucket `backups`.
async fn make_bucket(server: &StoreServer) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made = reqwest::Client::new().put(format!("{}/backups", server.url())).send().await.unwrap();
    assert!(made.status().is_success(), "{made:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_local_directory_holds_the_suite() {
    let root = tempfile::tempdir().unwrap();
    fill_directory(root.path());
    let store = Store::directory(&root.path().join("backups/main")).unwrap();
    suite::run(&store, Features::EVERYTHING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_url_holds_the_suite() {
    let root = tempfile::tempdir().unwrap();
    fill_directory(root.path());
    let url = format!("file://{}/backups/main", root.path().display());
    let store = Store::open(&config(url, &[], &[]), &Handle::current()).unwrap();
    suite::run(&store, Features::EVERYTHING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: cargo xtask test"]
async fn s3_by_moto_holds_the_suite() {
    let server = StoreServer::moto().unwrap();
    make_bucket(&server).await;
    fill(s3_writer(&server, "backups")).await;
    let options =
        [("endpoint", server.url()), ("allow_http", "true".to_owned()), ("region", "us-east-1".to_owned())];
    let options: Vec<(&str, &str)> = options.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let credentials = [("access_key_id", "somebody"), ("secret_access_key", "something")];
    let store = Store::open(&config("s3://backups/backups/main", &options, &credentials), &Handle::current())
        .unwrap();
    suite::run(&store, Features::EVERYTHING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: cargo xtask test"]
async fn s3_by_s3rver_holds_the_suite_and_knows_its_users() {
    let server = StoreServer::s3rver().unwrap();
    fill(s3_writer(&server, "backups")).await;
    let url = server.url();
    let options = [("endpoint", url.as_str()), ("allow_http", "true")];
    let right = [("access_key_id", S3RVER), ("secret_access_key", S3RVER)];
    let store =
        Store::open(&config("s3://backups/backups/main/", &options, &right), &Handle::current()).unwrap();
    // This server sends the whole object for the range of the first byte.
    suite::run(&store, Features { first_byte_alone: false, ..Features::EVERYTHING }).await;

    let unknown = [("access_key_id", "nobody"), ("secret_access_key", "hunter2")];
    is_denied(
        &Store::open(&config("s3://backups/backups/main", &options, &unknown), &Handle::current()).unwrap(),
    )
    .await;
}

/// Placeholders of folders as consoles and tools of S3 create them: empty objects whose keys end with `/`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: cargo xtask test"]
async fn a_folders_marker_is_no_object() {
    let server = StoreServer::moto().unwrap();
    make_bucket(&server).await;
    let client = reqwest::Client::new();
    let put = async |key: &str, body: &'static str| {
        let put = client.put(format!("{}/backups/{key}", server.url())).header("x-amz-acl", "public-read");
        let put = put.body(body).send().await.unwrap();
        assert!(put.status().is_success(), "{put:?}");
    };
    for key in ["main/", "main/a%26b/", "main/pg_notify/", "main/pg_wal/"] {
        put(key, "").await;
    }
    // A real empty object, an object named like a placeholder but without the final `/`, and an object below that placeholder.
    for key in ["main/empty", "main/pg_wal", "main/pg_wal/0"] {
        put(key, "").await;
    }
    let url = server.url();
    let options = [("endpoint", url.as_str()), ("allow_http", "true")];
    for url in ["s3://backups/main", "gs://backups/main"] {
        let store = Store::open(&config(url, &options, &[]), &Handle::current()).unwrap();
        let page = store.scan("", None).await.unwrap();
        let keys: Vec<&str> = page.objects.iter().map(|object| object.key.as_str()).collect();
        assert_eq!(keys, ["empty", "pg_wal", "pg_wal/0"]);
        for key in keys {
            assert_eq!(store.head(key).await.unwrap().size, 0);
        }
        assert_eq!(store.scan("pg_notify/", None).await.unwrap(), Page::default());
    }
    // An object whose key ends with `/` but that has contents is not a placeholder. The listing fails and does not leave it out.
    put("main/odd/", "something").await;
    let store = Store::open(&config("s3://backups/main", &options, &[]), &Handle::current()).unwrap();
    let error = store.scan("", None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Failed, "{error}");
    assert!(error.message.contains("`odd/`"), "{error}");
}

/// Checks that every request reports a missing bucket, not a missing object.
async fn has_no_bucket(store: &Store, code: &str) {
    for error in [
        store.head("top").await.unwrap_err(),
        store.read("top", None).await.unwrap_err(),
        store.scan("", None).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, Kind::Failed, "{error}");
        assert!(error.message.contains("`url`") && error.message.contains(code), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: cargo xtask test"]
async fn a_missing_bucket_is_not_a_missing_object() {
    let s3 = StoreServer::moto().unwrap();
    let url = s3.url();
    for store in ["s3://bakcups/main", "gs://bakcups/main"] {
        let options = [("endpoint", url.as_str()), ("allow_http", "true")];
        let store = Store::open(&config(store, &options, &[]), &Handle::current()).unwrap();
        has_no_bucket(&store, "NoSuchBucket").await;
    }
    // The reverse: a missing object in an existing bucket.
    make_bucket(&s3).await;
    let options = [("endpoint", url.as_str()), ("allow_http", "true")];
    let store = Store::open(&config("s3://backups/main", &options, &[]), &Handle::current()).unwrap();
    for _ in 0..2 {
        assert_eq!(store.head("top").await.unwrap_err().kind, Kind::NotFound);
    }
    let azure = StoreServer::azurite().unwrap();
    let endpoint = format!("{}/{AZURITE_ACCOUNT}", azure.url());
    let options = [("account", AZURITE_ACCOUNT), ("endpoint", endpoint.as_str()), ("allow_http", "true")];
    let key = [("account_key", AZURITE_KEY)];
    let store = Store::open(&config("az://bakcups/main", &options, &key), &Handle::current()).unwrap();
    has_no_bucket(&store, "ContainerNotFound").await;
}

/// Checks that the store refuses every request, and that the messages contain no secret.
async fn is_denied(store: &Store) {
    for error in [
        store.head("top").await.unwrap_err(),
        store.read("top", None).await.unwrap_err(),
        store.scan("", None).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, Kind::Denied, "{error}");
        assert!(!error.message.contains("hunter2") && !error.message.contains("AKIA"), "{error}");
    }
}

/// Creates a user who may read, and makes moto check signatures from now on. Returns the user's key and secret.
async fn look_at_signatures(server: &StoreServer) -> (String, String) {
    let client = reqwest::Client::new();
    let ask = async |action: &str| {
        // moto reads the service from the credential scope of the signature.
        let scope = "AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=x";
        let body = format!("Action={action}&UserName=reader&Version=2010-05-08");
        let request = client.post(server.url()).header("authorization", scope).body(body);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.send().await.unwrap().error_for_status().unwrap().text().await.unwrap()
    };
    ask("CreateUser").await;
    // {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    ask("PutUserPolicy&PolicyName=read&PolicyDocument=%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B\
         %22Effect%22%3A%22Allow%22%2C%22Action%22%3A%22s3%3A%2A%22%2C%22Resource%22%3A%22%2A%22%7D%5D%7D")
    .await;
    let made = ask("CreateAccessKey").await;
    let part = |name: &str| {
        let (_, rest) = made.split_once(&format!("<{name}>")).unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    let strict = client.post(format!("{}/moto-api/reset-auth", server.url())).body("0");
    strict
        .header("content-type", "application/octet-stream")
        .send()
        .await
        .unwrap()
        .error_for_status()
        .unwrap();
    (part("AccessKeyId"), part("SecretAccessKey"))
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn s3_by_moto_is_read_with_the_right_signature_and_with_no_other() {
    let server = StoreServer::moto().unwrap();
    make_bucket(&server).await;
    s3_writer(&server, "backups").put(&ObjectPath::from("main/top"), "top".into()).await.unwrap();
    let (key, secret) = look_at_signatures(&server).await;
    let url = server.url();
    let options = [("endpoint", url.as_str()), ("allow_http", "true")];
    let open = |key: &str, secret: &str| {
        let credentials = [("access_key_id", key), ("secret_access_key", secret)];
        Store::open(&config("s3://backups/main", &options, &credentials), &Handle::current()).unwrap()
    };
    let store = open(&key, &secret);
    assert_eq!(suite::read(&store, "top", None).await, b"top");
    assert_eq!(store.scan("", None).await.unwrap().objects.len(), 1);
    is_denied(&open(&key, "hunter2")).await;
    is_denied(&open("AKIAIOSFODNN7EXAMPLE", "hunter2")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: cargo xtask test"]
async fn azure_by_azurite_holds_the_suite() {
    let server = StoreServer::azurite().unwrap();
    let endpoint = format!("{}/{AZURITE_ACCOUNT}", server.url());
    make_container(&server).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let writer = MicrosoftAzureBuilder::new()
        .with_account(AZURITE_ACCOUNT)
        .with_access_key(AZURITE_KEY)
        .with_endpoint(endpoint.clone())
        .with_allow_http(true)
        .with_container_name("backups")
        .build()
        .unwrap();
    fill(Arc::new(writer)).await;
    let options = [("account", AZURITE_ACCOUNT), ("endpoint", endpoint.as_str()), ("allow_http", "true")];
    let right = [("account_key", AZURITE_KEY)];
    let store =
        Store::open(&config("az://backups/backups/main", &options, &right), &Handle::current()).unwrap();
    suite::run(&store, Features::EVERYTHING).await;

    let anonymous =
        Store::open(&config("az://backups/backups/main", &options, &[]), &Handle::current()).unwrap();
    let error = anonymous.read("top", None).await.unwrap_err();
    assert!(matches!(error.kind, Kind::Denied | Kind::NotFound), "{error}");
}

/// Creates the container `backups`, for which object_store has no function.
async fn make_container(server: &StoreServer) {
    use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
    use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.method_mut() = reqwest::Method::PUT;
    *request.uri_mut() =
        format!("{}/{AZURITE_ACCOUNT}/backups?restype=container", server.url()).parse().unwrap();
    request.headers_mut().insert("content-length", "0".parse().unwrap());
    let key = AzureCredential::AccessKey(AzureAccessKey::try_new(AZURITE_KEY).unwrap());
    AzureAuthorizer::new(&key, AZURITE_ACCOUNT).try_authorize(&mut request).unwrap();
    let made = HttpClient::new(reqwest::Client::new()).execute(request).await.unwrap();
    assert!(made.status().is_success(), "{made:?}");
}

/// Google Cloud Storage's XML interface is the same as that of S3, so moto can serve it. The emulators of Google's
/// service that package registries have cannot. Credentials are not checked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: cargo xtask test"]
async fn google_by_its_interface_of_s3_holds_the_suite() {
    let server = StoreServer::moto().unwrap();
    make_bucket(&server).await;
    fill(s3_writer(&server, "backups")).await;
    let url = server.url();
    let options = [("endpoint", url.as_str()), ("allow_http", "true")];
    let store = Store::open(&config("gs://backups/backups/main", &options, &[]), &Handle::current()).unwrap();
    suite::run(&store, Features::EVERYTHING).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: cargo xtask test"]
async fn a_web_server_with_ranges_holds_the_suite() {
    let server = StoreServer::moto().unwrap();
    make_bucket(&server).await;
    fill(s3_writer(&server, "backups")).await;
    let url = format!("{}/backups/backups/main", server.url());
    let store = Store::open(&config(url, &[], &[]), &Handle::current()).unwrap();
    suite::run(&store, Features { listings: false, ..Features::EVERYTHING }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs servers: cargo xtask test"]
async fn a_web_server_without_ranges_holds_the_suite() {
    let server = StoreServer::python_http().unwrap();
    fill_directory(&server.folder());
    let url = format!("{}/backups/main/", server.url());
    let store = Store::open(&config(url, &[], &[]), &Handle::current()).unwrap();
    suite::run(&store, Features { listings: false, ..Features::EVERYTHING }).await;
}
