//! Reading `[method.NAME.grants]`: stores, keys, variables, servers and programs, and where their secrets come from.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::GrantsSection;

fn environment(name: &str) -> Option<OsString> {
    (name == "SECRET").then(|| "swordfish".into())
}

fn grants(lines: &str) -> Result<GrantsSection, Vec<String>> {
    let text = format!("{WHOLE}[method.acme.grants]\n{lines}\n");
    parse_with(&text, &Overrides::default(), &environment)
        .map(|config| config.components["acme"].grants.clone())
}

/// Returns the only problem in these lines, without the file's name and the line number, which is 7.
fn refused(lines: &str) -> String {
    let problems = grants(lines).map(|_| ()).unwrap_err();
    assert_eq!(problems.len(), 1, "{lines}: {problems:#?}");
    problems[0].strip_prefix(&format!("{FILE}:7:")).unwrap().to_owned()
}

#[test]
fn a_store_is_granted_with_the_settings_of_its_kind() {
    let section = grants(
        r#"stores.repo = { url = "s3://backups/pg", region = "eu-central-1", endpoint = "http://[::1]:9000", allow_http = true, concurrency = 8, retry_for = "2m", idle_timeout = "5s", credentials = { access_key_id = { env = "SECRET" }, secret_access_key = { env = "SECRET" } } }
stores.local = { url = "file:///mnt/backups" }
stores.cloud = { url = "gs://bucket", credentials = "auto" }
rate = "100MiB/s"
workers = 4"#,
    )
    .unwrap();
    let granted = section.resolve().unwrap();
    let repo = &granted.stores["repo"];
    assert_eq!(repo.url, "s3://backups/pg");
    let options: Vec<_> = repo.options.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        options,
        [("region", "eu-central-1"), ("endpoint", "http://[::1]:9000"), ("allow_http", "true")]
    );
    let credentials: Vec<_> =
        repo.credentials.given().iter().map(|(name, secret)| (name.as_str(), secret.expose())).collect();
    assert_eq!(
        credentials,
        [("access_key_id", b"swordfish".as_slice()), ("secret_access_key", b"swordfish".as_slice())]
    );
    assert_eq!(repo.concurrency.get(), 8);
    assert_eq!((repo.retry.at_most, repo.retry.idle), (Duration::from_secs(120), Duration::from_secs(5)));
    assert!(granted.stores["cloud"].credentials.is_auto());
    assert_eq!(granted.rate.unwrap().bytes(), Bytes(100 << 20));
    assert_eq!(granted.workers.unwrap().get(), 4);
    assert_eq!(granted.secrets().count(), 2);
    assert!(!format!("{section:?} {granted:?}").contains("swordfish"));
}

#[test]
fn plan_retry_for_sets_the_time_for_retries_while_a_method_plans() {
    let plan = |line: &str| {
        let section = grants(&format!("stores.repo = {{ url = \"s3://b\"{line} }}")).unwrap();
        section.resolve().unwrap().stores["repo"].clone().for_plan().retry.at_most
    };
    assert_eq!(plan(""), Duration::from_secs(20));
    assert_eq!(plan(", plan_retry_for = \"2m\""), Duration::from_secs(120));
    assert_eq!(plan(", retry_for = \"5s\""), Duration::from_secs(5));
    let problem = refused("stores.repo = { url = \"s3://b\", retry_for = \"1m\", plan_retry_for = \"2m\" }");
    assert!(problem.contains("is longer than `retry_for`"), "{problem}");
}

#[test]
fn credentials_in_files_are_read_again_and_given_to_the_redactor() {
    let file = |content: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    };
    let (id, secret) = (file("first-id-of-many"), file("first-secret-of-many"));
    let section = grants(&format!(
        "stores.repo = {{ url = \"s3://b\", credentials = {{ access_key_id = {{ file = {:?} }}, secret_access_key = {{ file = {:?} }} }} }}\n\
         stores.known = {{ url = \"https://h/\", credentials = {{ token = {{ env = \"SECRET\" }} }} }}",
        id.path(),
        secret.path()
    ))
    .unwrap();
    let mut granted = section.resolve().unwrap();
    let redactor = ::replica::Redactor::new();
    section.renew_credentials(&mut granted, &redactor);
    // Credentials from the environment cannot change, so the store has nothing to read again.
    assert!(granted.stores["known"].renewal.is_none());
    let renewal = granted.stores["repo"].renewal.clone().unwrap();
    assert_eq!(renewal.credentials().unwrap(), granted.stores["repo"].credentials.given());
    std::fs::write(secret.path(), "second-secret-of-many").unwrap();
    let found = renewal.credentials().unwrap();
    assert_eq!(found[1].1.expose(), b"second-secret-of-many");
    assert!(!redactor.redact("the second-secret-of-many").contains("second-secret"));
    // A file that others may read is refused each time that it is read.
    std::fs::set_permissions(secret.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(renewal.credentials().unwrap_err().contains("chmod"));
    assert!(!format!("{granted:?}").contains("of-many"));
}

#[test]
fn an_openpgp_key_is_opened_when_the_run_begins() {
    let (file, passphrase) =
        (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let section = grants(&format!(
        "keys.repo = {{ kind = \"openpgp\", file = \"{}\", passphrase = {{ file = \"{}\" }} }}\nstores.repo = {{ url = \"file:///b\" }}",
        file.path().display(),
        passphrase.path().display()
    ))
    .unwrap();
    assert_eq!(section.secret_files().collect::<Vec<_>>(), [file.path(), passphrase.path()]);
    let key = openpgp_key("pass phrase");
    std::fs::write(passphrase.path(), "pass phrase\n").unwrap();
    for content in ["swordfish", &key[..key.len() / 2]] {
        std::fs::write(file.path(), content).unwrap();
        let problem = section.resolve().unwrap_err().to_string();
        assert!(problem.starts_with(FILE) && problem.contains("no OpenPGP secret key"), "{problem}");
        assert!(!problem.contains("swordfish") && !problem.contains("pass phrase"), "{problem}");
    }
    std::fs::write(file.path(), &key).unwrap();
    let granted = section.resolve().unwrap();
    assert!(granted.keys["repo"].text().is_none());
    let secrets: Vec<_> = granted.secrets().map(|secret| secret.expose()).collect();
    assert_eq!(secrets, [key.as_bytes(), b"pass phrase"]);
    assert!(!format!("{granted:?}").contains("pass phrase"));
}

#[test]
fn a_key_comes_from_a_file_that_is_read_when_the_run_begins() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display();
    let section =
        grants(&format!(
            "keys.repo = {{ file = \"{path}\" }}\nkeys.other = {{ env = \"SECRET\", stores = [\"repo\"] }}\nstores.repo = {{ url = \"file:///b\" }}"
        )).unwrap();
    assert_eq!(section.secret_files().collect::<Vec<_>>(), [file.path()]);
    let problem = section.resolve().unwrap_err().to_string();
    assert!(problem.starts_with(&format!("{FILE}:7:")) && problem.contains("it is empty"), "{problem}");
    std::fs::write(file.path(), "pass phrase\n").unwrap();
    std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o600)).unwrap();
    let granted = section.resolve().unwrap();
    assert_eq!(granted.keys["repo"].text().unwrap().expose(), b"pass phrase");
    assert_eq!(granted.keys["other"].text().unwrap().expose(), b"swordfish");
    std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o644)).unwrap();
    let problem = section.resolve().unwrap_err().to_string();
    assert!(problem.contains("chmod 0600") && !problem.contains("pass phrase"), "{problem}");
}

#[test]
fn a_key_is_bound_to_the_stores_whose_objects_it_decrypts() {
    let stores = "stores.repo = { url = \"file:///b\" }\nstores.wal = { url = \"file:///w\" }";
    let bound = |key: &str| {
        grants(&format!("{key}\n{stores}"))
            .map(|section| section.resolve().unwrap().keys["repo"].stores.clone())
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(*bound("keys.repo = { env = \"SECRET\" }").unwrap(), names(&["repo"]));
    assert_eq!(*bound("keys.repo = { env = \"SECRET\", stores = [\"wal\"] }").unwrap(), names(&["wal"]));
    assert_eq!(
        *bound("keys.repo = { env = \"SECRET\", stores = [\"wal\", \"repo\"] }").unwrap(),
        names(&["repo", "wal"])
    );
    for (key, says) in [
        ("keys.other = { env = \"SECRET\" }", "decrypts nothing"),
        ("keys.repo = { env = \"SECRET\", stores = [] }", "names no store"),
        ("keys.repo = { env = \"SECRET\", stores = [\"rep\"] }", "did you mean `repo`?"),
        ("keys.repo = { env = \"SECRET\", stores = [\"/b\"] }", "names no store of these grants"),
        ("keys.repo = { env = \"SECRET\", kind = \"pgp\" }", "must be \"text\" or \"openpgp\""),
        (
            "keys.repo = { env = \"SECRET\", passphrase = { env = \"SECRET\" } }",
            "write kind = \"openpgp\" beside it",
        ),
        ("keys.repo = { env = \"SECRET\", store = [\"repo\"] }", "unknown key"),
    ] {
        let problems = bound(key).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(says)), "{key}: {problems:?}");
    }
}

#[test]
fn a_web_server_may_redirect_only_to_the_granted_servers() {
    let section = grants(
        "stores.repo = { url = \"https://host/\", redirects = [\"cdn.example:443\", \"[::1]:8443\"] }",
    );
    assert_eq!(section.unwrap().open.stores["repo"].redirects, ["cdn.example:443", "[::1]:8443"]);
    let no = refused("stores.repo = { url = \"https://host/\", redirects = [\"https://cdn.example\"] }");
    assert!(no.contains("cdn.example:443"), "{no}");
    let no = refused("stores.repo = { url = \"s3://b\", redirects = [\"cdn.example:443\"] }");
    assert!(no.contains("whose redirects are never followed"), "{no}");
}

#[test]
fn the_authorities_in_ca_file_are_read_for_each_store() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().display();
    for url in ["https://host/", "s3://b", "gs://b", "az://b\", account = \"a"] {
        let section = grants(&format!("stores.repo = {{ url = \"{url}\", ca_file = \"{path}\" }}")).unwrap();
        std::fs::write(file.path(), "").unwrap();
        let problem = section.resolve().unwrap_err().to_string();
        assert!(
            problem.starts_with(&format!("{FILE}:7:")) && problem.contains("no certificate"),
            "{problem}"
        );
        std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\n").unwrap();
        let granted = section.resolve().unwrap();
        let authorities = granted.stores["repo"].authorities.as_deref();
        assert_eq!(authorities, Some("-----BEGIN CERTIFICATE-----\n"), "{url}");
    }
    for url in ["http://host/", "file:///b"] {
        let problem = refused(&format!("stores.repo = {{ url = \"{url}\", ca_file = \"{path}\" }}"));
        assert!(problem.contains("has no effect without TLS"), "{problem}");
    }
    let plain = "endpoint = \"http://host\", allow_http = true";
    for url in ["s3://b", "gs://b", "az://b\", account = \"a"] {
        let problem = refused(&format!("stores.repo = {{ url = \"{url}\", {plain}, ca_file = \"{path}\" }}"));
        assert!(problem.contains("ca_file` has no effect without TLS"), "{problem}");
    }
    assert!(refused(&format!("ca_file = \"{path}\"")).contains("unknown key"));
    assert!(refused(r#"stores.repo = { url = "s3://b", ca_file = "ca.pem" }"#).contains("absolute path"));
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_quoted() {
    for lines in [
        r#"keys.repo = "swordfish""#,
        r#"stores.repo = { url = "s3://b", credentials = "swordfish" }"#,
        r#"stores.repo = { url = "s3://b", secret_access_key = "swordfish" }"#,
        r#"stores.repo = { url = "s3://b", credentials = { access_key_id = "swordfish", secret_access_key = { env = "SECRET" } } }"#,
        r#"stores.repo = { url = "https://user:swordfish@host/" }"#,
        r#"stores.repo = { url = "https://user:ab/swordfish@host/" }"#,
        r#"stores.repo = { url = "https://user:swordfish/cd@host/" }"#,
        r#"stores.repo = { url = "s3://AKIA:swordfish/cd@bucket" }"#,
        r#"stores.repo = { url = "https://host/?sig=swordfish" }"#,
    ] {
        let problem = refused(lines);
        assert!(problem.contains("env") || problem.contains("must not be in the URL"), "{problem}");
        assert!(!problem.contains("swordfish"), "{problem}");
    }
}

#[test]
fn each_wrong_grant_has_its_own_message() {
    for (lines, says) in [
        (r#"stores.repo = { region = "x" }"#, "`method.acme.grants.stores.repo.url` is missing"),
        (r#"stores.repo = { url = "/mnt" }"#, "is not the URL of a store"),
        (r#"stores.repo = { url = "s4://b" }"#, "did you mean `s3://`?"),
        (r#"stores.repo = { url = "file://mnt/backups" }"#, "file:///mnt/backups"),
        (r#"stores.repo = { url = "s3:///b" }"#, "lacks its host or bucket"),
        (r#"stores.repo = { url = "s3://b", regoin = "x" }"#, "did you mean `region`?"),
        (
            r#"stores.repo = { url = "az://b", account = "a", region = "x" }"#,
            "`method.acme.grants.stores.repo.region` is a setting of `s3:` stores, not of `az:` stores: remove the line",
        ),
        (r#"stores.repo = { url = "s3://b", concurrency = 0 }"#, "at least 1"),
        (r#"stores.repo = { url = "s3://b", concurrency = 1000 }"#, "at most 256"),
        (r#"stores.repo = { url = "s3://b", credentials = {} }"#, "are empty"),
        (
            r#"stores.repo = { url = "s3://b", credentials = { access_key_id = { env = "SECRET" } } }"#,
            "lack `secret_access_key`",
        ),
        (
            r#"stores.repo = { url = "file:///b", credentials = "auto" }"#,
            "are not a setting of `file:` stores",
        ),
        (r#"stores.repo = { url = "http://b", credentials = "auto" }"#, "must not be written in this file"),
        (r#"stores.repo = { url = "s3://b", credentials = "Auto" }"#, "did you mean \"auto\"?"),
        (r#"stores.repo = { url = "s3://b", credentials = "auto " }"#, "did you mean \"auto\"?"),
        (r#"stores."a/b" = { url = "s3://b" }"#, "letters, digits"),
        (r#"keys."../x" = { env = "SECRET" }"#, "letters, digits"),
        (r#"keys.repo = { env = "UNSET" }"#, "is not set"),
        (r#"keys.repo = { env = "SECRET", file = "/x" }"#, "needs one of"),
        (r#"keys.repo = { fil = "/x" }"#, "unknown key"),
        (r#"keys.repo = { file = "x" }"#, "must be an absolute path"),
        (r#"rate = "100MiB""#, "`100MiB` is not a speed"),
        (r#"rate = "0B/s""#, "is not a speed"),
        ("workers = 0", "at least 1"),
        ("workers = 65", "at most 64"),
    ] {
        let problems = grants(lines).map(|_| ()).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(says)), "{lines}: {problems:#?}");
    }
}

#[test]
fn a_mistake_in_a_store_is_reported_at_the_setting() {
    let store = "`method.acme.grants.stores.repo";
    for (lines, says) in [
        (
            r#"stores.repo = { url = "az://c" }"#,
            "8: STORE.account` is missing: write account = \"NAME\" with the storage account of the container",
        ),
        (
            r#"stores.repo = { url = "az://c", account = "a/b" }"#,
            "43: STORE.account` has the character `/` in it: only letters, digits, `-`, `_` and `.` are allowed",
        ),
        (
            r#"stores.repo = { url = "s3://b", region = "eu central" }"#,
            "42: STORE.region` has the character U+0020 in it: only letters, digits, `-`, `_` and `.` are allowed",
        ),
        (
            r#"stores.repo = { url = "s3://b", endpoint = "minio:9000" }"#,
            "44: STORE.endpoint` is not the address of a server, which begins with https:// or http:// and has a host",
        ),
        (
            r#"stores.repo = { url = "gs://b", endpoint = "localhost" }"#,
            "44: STORE.endpoint` is not a URL: relative URL without a base; an address begins with https:// or http:// and has a \
             host",
        ),
        (
            r#"stores.repo = { url = "s3://b", endpoint = "https://me:swordfish@h" }"#,
            "44: STORE.endpoint` has credentials in it: set them as `credentials` instead",
        ),
        (
            r#"stores.repo = { url = "s3://b", endpoint = "http://h" }"#,
            "44: STORE.endpoint` is http without TLS, so everybody on the network path can read the data: write https://, or set \
             allow_http = true",
        ),
        (
            r#"stores.repo = { url = "s3://b", allow_http = true }"#,
            "46: STORE.allow_http` does nothing without an `endpoint` that begins with http://: remove the line",
        ),
        (
            r#"stores.repo = { url = "s3://b ucket" }"#,
            "23: STORE.url` cannot be used: `b ucket` is not the name of a bucket: write KIND://BUCKET/PREFIX",
        ),
        (
            r#"stores.repo = { url = "https://h", credentials = { username = { env = "SECRET" } } }"#,
            "50: STORE.credentials` lack `password`",
        ),
        (
            r#"stores.repo = { url = "https://h", credentials = { username = { env = "SECRET" }, password = { env = "SECRET" }, token = { env = "SECRET" } } }"#,
            "50: STORE.credentials` are a `token` or a `username` and a `password`, not both",
        ),
        (
            r#"stores.repo = { url = "az://c", account = "a", credentials = { client_secret = { env = "SECRET" } } }"#,
            "62: STORE.credentials` with a `client_secret` also need the setting `client_id`",
        ),
        (
            r#"stores.repo = { url = "az://c", account = "a", credentials = { account_key = { env = "SECRET" }, sas_token = { env = "SECRET" } } }"#,
            "62: STORE.credentials` are one of `account_key`, `sas_token` and `client_secret`, not several",
        ),
    ] {
        assert_eq!(refused(lines), says.replace("STORE", store), "{lines}");
    }
}

#[test]
fn variables_are_strings_and_must_not_be_secrets() {
    let section =
        grants("environment = { LANG = \"C\", EMPTY = \"\" }\nenvironment.TWO_LINES = \"a\\nb\"").map(|_| ());
    assert!(section.is_err(), "a table that is written in one line is closed");
    let section = grants("environment = { LANG = \"C\", EMPTY = \"\", LINES = \"a\\nb\" }").unwrap();
    let set: Vec<_> = section.open.environment.iter().collect();
    assert_eq!(set, [("EMPTY", ""), ("LANG", "C"), ("LINES", "a\nb")]);
    for (lines, says) in [
        ("environment = [\"LANG=C\"]", "must be a table"),
        ("environment.A = 5", "must be a quoted string, not a whole number"),
        ("environment.A = { env = \"SECRET\" }", "A secret is not allowed here"),
        ("environment.\"A B\" = \"x\"", "is not the name of a variable"),
        ("environment.PGPASSWORD = \"x\"", "has the name of a secret"),
        ("environment.URL = \"https://u:hunter2@h/\"", "has the name of a secret or looks like one"),
        ("environment.DSN = \"host=h password=hunter2\"", "has the name of a secret or looks like one"),
        ("environment.A = \"x\\u0000\"", "has a NUL byte"),
    ] {
        let problem = refused(lines);
        assert!(problem.contains(says) && problem.contains("`method.acme.grants.environment"), "{problem}");
    }
    let long = "x".repeat(40 << 10);
    let problem = refused(&format!("environment.A = \"{long}\""));
    assert!(problem.contains("longer than 32768 bytes") && !problem.contains("xxx"), "{problem}");
}

#[test]
fn servers_are_granted_by_a_list_or_by_a_table_with_their_settings() {
    let section =
        grants("network = [\"api.example:443\", \"[::1]:8443\"]\nnetwork_bytes = \"5MiB\"").unwrap();
    let granted = section.resolve().unwrap();
    let servers: Vec<_> = granted.network.keys().map(ToString::to_string).collect();
    assert_eq!(servers, ["api.example:443", "[::1]:8443"]);
    assert_eq!(granted.network_bytes, Bytes(5 << 20));

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "t0ken-in-a-file\n").unwrap();
    let authorities = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(authorities.path(), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let (token, ca) = (file.path().display(), authorities.path().display());
    let section = grants(&format!(
        "network.\"API.example:443\" = {{ token = {{ file = \"{token}\" }}, ca_file = \"{ca}\", private = true, bytes = \"1MiB\" }}\n\
         network.\"b:1\" = {{ token = {{ env = \"SECRET\" }} }}\nnetwork.\"c:2\" = {{}}"
    ))
    .unwrap();
    assert_eq!(section.secret_files().collect::<Vec<_>>(), [file.path()]);
    let granted = section.resolve().unwrap();
    let api = &granted.network[&"api.example:443".parse().unwrap()];
    assert_eq!(api.token.as_ref().unwrap().expose(), b"t0ken-in-a-file");
    assert_eq!((api.private, api.bytes), (true, Some(Bytes(1 << 20))));
    assert_eq!(api.authorities.as_deref(), Some("-----BEGIN CERTIFICATE-----\n"));
    let settings = [
        ("bytes", "\"1MiB\"".to_owned()),
        ("ca_file", format!("\"{ca}\"")),
        ("private", "true".to_owned()),
        ("token", format!("{{ file = \"{token}\" }}")),
    ];
    assert_eq!(api.settings, settings.map(|(key, value)| (key.to_owned(), value)).into());
    assert!(granted.network[&"c:2".parse().unwrap()].settings.is_empty());
    // The settings that a remedy would repeat are read again with the same result.
    let line: Vec<_> = api.settings.iter().map(|(key, value)| format!("{key} = {value}")).collect();
    let again = format!("network = {{ \"api.example:443\" = {{ {} }} }}", line.join(", "));
    let again = grants(&again).unwrap().resolve().unwrap();
    assert_eq!(format!("{:?}", again.network.values().next().unwrap()), format!("{api:?}"));
    assert_eq!(again.network.values().next().unwrap().token, api.token);
    assert_eq!(granted.secrets().count(), 2);
    assert!(
        !format!("{section:?} {granted:?}").contains("t0ken")
            && !format!("{granted:?}").contains("swordfish")
    );

    std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o644)).unwrap();
    assert!(section.resolve().unwrap_err().to_string().contains("chmod"));
}

#[test]
fn the_message_for_a_refused_server_says_what_to_write() {
    for (lines, says) in [
        ("network = \"api.example:443\"", "must be a list, not a string"),
        ("network = [\"api.example\"]", "`method.acme.grants.network[0]` names no port"),
        ("network = [\"*.example:443\"]", "has a wildcard"),
        ("network = [\"https://api.example:443\"]", "names no host"),
        ("network = [\"0.0.0.0:443\"]", "no server has"),
        ("network = [\"224.0.0.1:443\"]", "no server has"),
        ("network = [\"a:1\", \"A:1\"]", "names a:1, which is listed already"),
        ("network = [{ to = \"a:1\" }]", "with settings, write network.\"HOST:PORT\""),
        ("network.\"a:0\" = {}", "names no port"),
        (
            "network.\"a:1\" = { privat = true }",
            "unknown key `method.acme.grants.network.\"a:1\".privat`: did you mean `private`?",
        ),
        ("network.\"a:1\" = { private = \"true\" }", "must be true or false without quotes"),
        ("network.\"a:1\" = { token = \"swordfish\" }", "must not be written in this file"),
        ("network.\"a:1\" = { bytes = \"0B\" }", "must not be 0"),
        ("network_bytes = 5", "must be a quoted size"),
    ] {
        let problem = refused(lines);
        assert!(problem.contains(says) && !problem.contains("swordfish"), "{problem}");
    }
}

#[test]
fn a_program_is_granted_with_its_patterns_and_the_keys_of_its_environment() {
    let section = grants(
        r#"keys.cloud = { env = "SECRET" }
programs.restore = { path = "/usr/bin/pgbackrest", args = ["restore", "--set={label}", "", "{patroni}"], env = { TOKEN = { key = "cloud" }, HOME = "/var/lib/x", EMPTY = "" }, read = ["/etc/pgbackrest"], write = ["/var/spool/x"], execute = ["/bin/tar"], network = [443, 53], timeout = "90s", memory = "64MiB", processes = 9 }
programs.other = { path = "/bin/true" }"#,
    )
    .unwrap();
    let granted = section.resolve().unwrap();
    let restore = &granted.programs["restore"];
    assert_eq!(restore.path, Path::new("/usr/bin/pgbackrest"));
    let args: Vec<_> = restore.args.iter().map(ToString::to_string).collect();
    assert_eq!(args, ["restore", "--set={label}", "", "{patroni}"]);
    let env: Vec<_> = restore.env.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let text = |text: &str| sandbox::EnvironmentValue::Text(text.to_owned());
    let key = sandbox::EnvironmentValue::Key("cloud".to_owned());
    assert_eq!(env, [("EMPTY", text("")), ("HOME", text("/var/lib/x")), ("TOKEN", key)]);
    assert_eq!(restore.read, [Path::new("/etc/pgbackrest")]);
    assert_eq!(restore.write, [Path::new("/var/spool/x")]);
    assert_eq!(restore.execute, [Path::new("/bin/tar")]);
    assert_eq!(restore.network, [443, 53]);
    assert_eq!((restore.timeout, restore.memory), (Some(Duration::from_secs(90)), Bytes(64 << 20)));
    assert_eq!(restore.processes, 9);
    let other = &granted.programs["other"];
    assert_eq!((other.args.len(), other.timeout, other.memory), (0, None, Bytes(1 << 30)));
    assert_eq!(other.processes, 512);
    // A key that only a program uses is bound to no store.
    assert!(granted.keys["cloud"].stores.is_empty());
    assert_eq!(granted.secrets().count(), 1);
}

#[test]
fn each_mistake_in_a_program_has_its_own_message() {
    for (keys, says) in [
        (r#"args = []"#, "`method.acme.grants.programs.x.path` is missing"),
        (r#"path = "bin/x""#, "absolute"),
        (r#"path = "/x", arg = []"#, "did you mean `args`?"),
        (r#"path = "/x", args = "restore""#, "must be a list"),
        (r#"path = "/x", args = [7]"#, "`method.acme.grants.programs.x.args[0]` must be a quoted string"),
        (r#"path = "/x", args = ["{lable}"]"#, "did you mean {label}?"),
        (r#"path = "/x", args = ["{label}{text}"]"#, "nothing between them"),
        (r#"path = "/x", args = ["{patroni}", "{patroni}"]"#, "has {patroni} twice"),
        (
            r#"path = "/x", env = { A = { key = "absent" } }"#,
            "names no key of these grants: write keys.absent",
        ),
        (r#"path = "/x", env = { A = { file = "/x" } }"#, "unknown key"),
        (r#"path = "/x", env = { A = 7 }"#, "must be a text, or { key"),
        (r#"path = "/x", env = { "A B" = "x" }"#, "is not the name of a variable"),
        (r#"path = "/x", env = { "1A" = "x" }"#, "is not the name of a variable"),
        (r#"path = "/x", env = { PGPASSWORD = "hunter2" }"#, "has the name of a secret"),
        (r#"path = "/x", env = { pgpassword = "" }"#, "has the name of a secret"),
        (r#"path = "/x", env = { WALG_PGP_KEY = "hunter2" }"#, "has the name of a secret"),
        (r#"path = "/x", env = { MY_TOKEN = "hunter2" }"#, "has the name of a secret"),
        (r#"path = "/x", env = { URL = "postgres://u:hunter2@h/x" }"#, "has the name of a secret"),
        (r#"path = "/x", env = { DSN = "host=h password=hunter2" }"#, "has the name of a secret"),
        (r#"path = "/x", args = ["--password=hunter2"]"#, "looks like a secret"),
        (r#"path = "/x", args = ["--token", "hunter2"]"#, "looks like a secret"),
        (r#"path = "/x", args = ["-u", "backup:hunter2"]"#, "looks like a secret"),
        (r#"path = "/x", args = ["--token=hunter2{text}"]"#, "looks like a secret"),
        (r#"path = "/x", read = ["etc"]"#, "absolute"),
        (
            r#"path = "/x", network = ["h:443"]"#,
            "the ports that a program connects to, not the hosts: write 443",
        ),
        (r#"path = "/x", network = [0]"#, "at least 1"),
        (r#"path = "/x", network = [65536]"#, "at most 65535"),
        (r#"path = "/x", timeout = "0s""#, "must not be 0"),
        (r#"path = "/x", memory = "0B""#, "must not be 0"),
        (r#"path = "/x", processes = 0"#, "at least 1"),
        (r#"path = "/x", processes = 65537"#, "at most 65536"),
    ] {
        let problems = grants(&format!("programs.x = {{ {keys} }}")).map(|_| ()).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(says)), "{keys}: {problems:#?}");
        assert!(!problems.concat().contains("hunter2"), "{problems:#?}");
    }
    let harmless = r#"path = "/x", env = { PGPASSFILE = "/x" }, args = ["--password={text}", "--token", "{text}", "--passfile", "x", "--token", "-x"]"#;
    grants(&format!("programs.x = {{ {harmless} }}")).unwrap();
    let problems = grants(r#"programs."../x" = { path = "/x" }"#).map(|_| ()).unwrap_err();
    assert!(problems[0].contains("letters, digits"), "{problems:?}");
    let near = "keys.cloud = { env = \"SECRET\", stores = [] }\nprograms.x = { path = \"/x\", env = { A = { key = \"clod\" } } }";
    let problems = grants(near).map(|_| ()).unwrap_err();
    assert!(problems.iter().any(|problem| problem.contains("did you mean `cloud`?")), "{problems:?}");
}
