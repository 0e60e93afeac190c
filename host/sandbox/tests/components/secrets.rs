//! Credentials and keys stay in the host. A component tries to get them by every import, file, log line and error text, and the tests
//! search everything that it got.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use replica::Outcome;
use sandbox::{Credentials, KeyGrant, Retry, Secret, StoreConfig};

use crate::stage::{Stage, text};

const PASS: &str = "the pass phrase of the repository: swordfish";
const TOKEN: &str = "t0ken-of-the-web-server/with+signs=";
const ACCESS: &str = "AKIAHOSTILEXAMPLE000";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
/// A key as pgBackRest makes them: 48 random bytes in base64.
const RANDOM: &str = "6+7UMQgZ1bHnAq4x2cV/9yTdkWmPzB3sLrJ0eXfGoCi8NhE5vKtDuFSwRjYlOaIp";
const DERIVED: &str = "derived-key-of-48-random-bytes-ZmlzaGFuZGNoaXBz";

/// Returns a text that holds a key.
fn ini() -> String {
    format!("[backrest]\nbackrest-format=5\n\n[backup]\nlabel=\"x\"\n\n[cipher]\ncipher-pass=\"{DERIVED}\"\n")
}

/// Encrypts a text as `openssl enc` does.
fn encrypted(plain: &[u8]) -> Vec<u8> {
    through(Command::new("openssl").args(["enc", "-aes-256-cbc", "-md", "sha1", "-pass", "env:PASS"]), plain)
}

/// Compresses a text as pgBackRest does with the manifests of expired backups.
fn compressed(plain: &[u8]) -> Vec<u8> {
    through(Command::new("gzip").arg("--no-name"), plain)
}

/// Returns the output of a program for `input`.
fn through(program: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = program
        .env("PASS", PASS)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl and gzip are installed");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// Starts a web server that has three objects. It answers any other request with the request itself, credentials included.
fn server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let locked = encrypted(ini().as_bytes());
    let history = encrypted(&compressed(ini().as_bytes()));
    thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let (locked, history) = (locked.clone(), history.clone());
            thread::spawn(move || {
                let mut asked = Vec::new();
                let mut buffer = [0; 4096];
                while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
                    match connection.read(&mut buffer) {
                        Ok(read) if read > 0 => asked.extend_from_slice(&buffer[..read]),
                        _ => return,
                    }
                }
                let asked = String::from_utf8_lossy(&asked).into_owned();
                let path = asked.split(' ').nth(1).unwrap_or_default();
                let (status, body) = match path {
                    "/plain.ini" => ("200 OK", ini().into_bytes()),
                    "/locked.ini" => ("200 OK", locked),
                    "/history.gz" => ("200 OK", history),
                    "/echoed" => ("200 OK", asked.clone().into_bytes()),
                    "/marked" => ("200 OK", b"x".to_vec()),
                    "/absent" => ("404 Not Found", asked.clone().into_bytes()),
                    "/refused" => ("403 Forbidden", asked.clone().into_bytes()),
                    _ => ("400 Bad Request", asked.clone().into_bytes()),
                };
                let range = asked.lines().find_map(|line| {
                    let line = line.to_ascii_lowercase();
                    let (from, to) = line.strip_prefix("range: bytes=")?.split_once('-')?;
                    let to: usize = to.parse().ok()?;
                    Some((from.parse::<usize>().ok()?, to.min(body.len() - 1)))
                });
                let (status, content_range, body) = match range {
                    Some((from, to)) if status == "200 OK" => (
                        "206 Partial Content",
                        format!("content-range: bytes {from}-{to}/{}\r\n", body.len()),
                        body[from..=to].to_vec(),
                    ),
                    _ => (status, String::new(), body),
                };
                let mark = match path {
                    "/marked" => format!("etag: \"{TOKEN}\"\r\n"),
                    _ => String::new(),
                };
                let mut answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{content_range}{mark}connection: close\r\n\r\n",
                    body.len()
                )
                .into_bytes();
                if !asked.starts_with("HEAD") {
                    answer.extend_from_slice(&body);
                }
                let _gone = connection.write_all(&answer);
            });
        }
    });
    address
}

fn quick(mut store: StoreConfig) -> StoreConfig {
    store.retry = Retry { at_most: Duration::from_millis(100), idle: Duration::from_secs(5), ..store.retry };
    store
}

/// Makes a stage with a granted key in a file, a web server with a token, and an S3 server that does not exist.
fn stage(behave: &str) -> (Stage, PathBuf) {
    let stage = Stage::hostile(behave);
    let file = stage.directory("secrets").join("pass");
    fs::write(&file, PASS).unwrap();
    let mut web = quick(StoreConfig::new(server()));
    web.credentials = Credentials::Given(vec![("token".to_owned(), Secret::new(TOKEN))]);
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut broken = quick(StoreConfig::new("s3://bucket/prefix"));
    broken.options = [
        ("region", "eu-central-1".to_owned()),
        ("endpoint", format!("http://{closed}")),
        ("allow_http", "true".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let credentials = [("access_key_id", ACCESS), ("secret_access_key", SECRET)];
    broken.credentials =
        Credentials::Given(credentials.map(|(name, secret)| (name.to_owned(), Secret::new(secret))).into());
    let stage = stage.grant(|grants| {
        grants.stores = [("repo".to_owned(), web), ("broken".to_owned(), broken)].into();
        grants.keys = [("pass".to_owned(), KeyGrant::new(Secret::new(PASS), ["repo".to_owned()]))].into();
    });
    (stage, file)
}

/// Returns every form in which a secret could be recognized.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let base64 = |alphabet: &[u8; 64]| {
        let mut text = Vec::new();
        for chunk in secret.as_bytes().chunks_exact(3) {
            let bits = u32::from_be_bytes([0, chunk[0], chunk[1], chunk[2]]);
            text.extend([18, 12, 6, 0].map(|shift| alphabet[(bits >> shift & 63) as usize]));
        }
        text
    };
    let mut percent = String::new();
    let mut hexadecimal = String::new();
    for byte in secret.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => percent.push(byte.into()),
            byte => _ = write!(percent, "%{byte:02X}"),
        }
        let _infallible = write!(hexadecimal, "{byte:02x}");
    }
    vec![
        secret.as_bytes().to_vec(),
        base64(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"),
        base64(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"),
        percent.into_bytes(),
        hexadecimal.into_bytes(),
    ]
}

fn holds(text: &[u8], secret: &str) -> bool {
    forms(secret).iter().any(|form| text.windows(form.len()).any(|part| part == form))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn a_component_gets_no_credential_and_no_key_by_any_import_file_log_or_error_text() {
    let (stage, file) = stage("secrets");
    let stage = stage.path(&file);
    let failure = stage.create().await.unwrap_err();
    assert!(failure.message.contains("refused"), "{}", failure.chain());
    let hidden = fs::read(stage.datadir().join("seen")).unwrap();
    let seen: Vec<u8> = hidden.iter().map(|byte| byte ^ 0x55).collect();
    let shown = String::from_utf8_lossy(&seen);
    // The component must have seen these, so that the checks below do not pass on an empty result.
    for expected in [
        "derived: locked.ini",
        "derived: plain.ini",
        "as it was derived: [backrest]",
        "decrypted: [backrest]",
        "holds keys",
        "decrypted and compressed: Err(",
        "holds keys, compressed with gzip",
        &format!("cipher-pass=\"{}\"", "*".repeat(DERIVED.len())),
        "sha1 of it: Ok(",
        "sha1 of a granted key: Err(Error::Denied(",
        "derived, wrongly: Err(",
        "sends back a credential",
    ] {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    for secret in [PASS, TOKEN, ACCESS, SECRET, DERIVED] {
        for form in forms(secret) {
            let at = seen.windows(form.len()).position(|part| part == form);
            let around = at.map(|at| String::from_utf8_lossy(&seen[at.saturating_sub(300)..at]).into_owned());
            assert_eq!(around, None, "it saw {secret}");
        }
    }
    let hidden_in = compressed(ini().as_bytes());
    let body = &hidden_in[10..hidden_in.len() - 8];
    assert!(!seen.windows(16).any(|part| part == &body[..16]), "it saw the compressed text, and so the key");
    let reported = format!("{:?} {}", stage.events(), failure.chain());
    for secret in [PASS, TOKEN, ACCESS, SECRET, DERIVED] {
        assert!(!holds(reported.as_bytes(), secret), "{secret} was reported");
    }
    // No file of the component holds a secret either.
    for entry in fs::read_dir(stage.datadir()).unwrap() {
        let content = fs::read(entry.unwrap().path()).unwrap_or_default();
        for secret in [PASS, DERIVED] {
            assert!(!holds(&content, secret), "a file holds {secret}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn the_directory_of_a_key_file_is_not_a_store_unless_it_is_granted() {
    let (stage, file) = stage("transfer");
    let folder = file.parent().unwrap().to_str().unwrap().to_owned();
    let stage = stage.option("store", text(&folder));
    stage.fails(Outcome::Denied).await;
    assert!(fs::read_dir(stage.datadir()).unwrap().next().is_none());
    assert!(Path::new(&file).exists());
}

/// Makes a directory with a text that holds a key, a compressed copy, a link to the directory and a subdirectory.
fn plain_texts(stage: &Stage) -> PathBuf {
    let place = stage.directory("texts");
    fs::create_dir(place.join("sub")).unwrap();
    fs::write(place.join("plain.ini"), ini()).unwrap();
    fs::write(place.join("sub/copy.ini"), ini()).unwrap();
    fs::hard_link(place.join("plain.ini"), place.join("sub/same.ini")).unwrap();
    std::os::unix::fs::symlink(&place, place.join("link")).unwrap();
    place
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn a_derived_key_cannot_be_read_under_another_name_or_in_parts() {
    let stage = Stage::hostile("aliases");
    let place = plain_texts(&stage);
    let store = StoreConfig::new(format!("file://{}", place.display()));
    let stage = stage.path(&place).grant(|grants| {
        grants.read.push(place.clone());
        grants.stores = [("repo".to_owned(), store)].into();
    });
    let failure = stage.create().await.unwrap_err();
    assert!(failure.message.contains("refused"), "{}", failure.chain());
    let hidden = fs::read(stage.datadir().join("seen")).unwrap();
    let seen: Vec<u8> = hidden.iter().map(|byte| byte ^ 0x55).collect();
    let shown = String::from_utf8_lossy(&seen);
    for expected in ["derived: plain.ini", "ranges of unencrypted objects", "whole: [backrest]"] {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
    assert!(!holds(&seen, DERIVED), "{shown}");
    for part in DERIVED.as_bytes().chunks_exact(12) {
        assert!(!seen.windows(12).any(|seen| seen == part), "a part of it in {shown}");
    }
    for entry in fs::read_dir(stage.datadir()).unwrap() {
        let content = fs::read(entry.unwrap().path()).unwrap_or_default();
        assert!(!holds(&content, DERIVED), "a file holds it");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn a_key_decrypts_only_the_objects_of_its_stores() {
    let stage = Stage::hostile("keys-elsewhere");
    let place = stage.directory("texts");
    fs::write(place.join("locked.ini"), encrypted(ini().as_bytes())).unwrap();
    let store = || StoreConfig::new(format!("file://{}", place.display()));
    let stage = stage.path(&place).grant(|grants| {
        grants.read.push(place.clone());
        grants.stores = [("repo".to_owned(), store()), ("other".to_owned(), store())].into();
        grants.keys = [("pass".to_owned(), KeyGrant::new(Secret::new(PASS), ["repo".to_owned()]))].into();
    });
    let failure = stage.create().await.unwrap_err();
    assert!(
        failure.message.contains("refused:") && !failure.message.contains("ESCAPED"),
        "{}",
        failure.chain()
    );
    let denials = stage.denials();
    let line = r#"[method.hostile.grants] keys.pass = { file = "/path", stores = ["other"] }"#;
    let reported = denials.iter().find(|denial| denial.what == "the key pass for objects of other");
    assert_eq!(
        reported.map(|denial| (denial.capability.word(), denial.remedy.as_deref())),
        Some(("key", Some(line))),
        "{denials:?}"
    );
    // No key is bound to a directory that was opened by its path.
    let what = format!("the key pass for objects of {}", place.display());
    let reported = denials.iter().find(|denial| denial.what == what);
    assert_eq!(reported.map(|denial| denial.remedy.as_deref()), Some(None), "{denials:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn a_grant_that_overlaps_what_is_written_is_refused() {
    for granted in ["data", "data/inside", "", "data/."] {
        for as_store in [false, true] {
            let stage = Stage::hostile("nothing");
            fs::create_dir(stage.datadir().join("inside")).unwrap();
            let place = stage.datadir().parent().unwrap().join(granted);
            let url = format!("file://{}", place.display());
            let stage = stage.grant(|grants| match as_store {
                false => grants.read.push(place),
                true => _ = grants.stores.insert("repo".to_owned(), StoreConfig::new(url)),
            });
            let refusal = stage.preflight().await.unwrap_err();
            assert!(refusal.policy && refusal.message.contains("lies apart"), "{granted}: {refusal}");
            let failure = stage.plan().await.unwrap_err();
            assert_eq!(failure.outcome, Outcome::Rejected, "{}", failure.chain());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn a_word_that_a_component_calls_a_key_stays_in_the_log() {
    let stage = Stage::hostile("derive-words");
    let place = stage.directory("texts");
    fs::write(
        place.join("words.ini"),
        format!("[w]\nword=\"understudy\"\npath=\"/var/lib/postgresql/15/main\"\nkey=\"{RANDOM}\"\n"),
    )
    .unwrap();
    let store = StoreConfig::new(format!("file://{}", place.display()));
    let stage = stage.grant(|grants| grants.stores = [("repo".to_owned(), store)].into());
    let redactor = crate::stage::redactor();
    let failure = stage.create().await.unwrap_err();
    assert!(failure.message.contains("refused"), "{}", failure.chain());
    for word in ["understudy", "/var/lib/postgresql/15/main"] {
        assert_eq!(redactor.redact(word), word, "it was removed from the log");
    }
    assert_eq!(redactor.redact(RANDOM), "<secret>");
    let said = "derived 3 keys: 1 of them are long and random";
    assert!(stage.lines().iter().any(|(_, _, line)| line.contains(said)), "{:?}", stage.lines());
}
