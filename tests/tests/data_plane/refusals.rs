//! Messages about stores that cannot be reached, that refuse requests, or whose listings are incomplete, and the time until each
//! message appears.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::faults::{Action, FaultProxy};
use tests::replica_folder::ReplicaFolder;
use tests::stored::{BackupLocation, Grant};
use tests::stores::{S3RVER, StoreServer};

use super::scene::Scene;
use super::stores::{bucket, in_files, port, upload};

/// Returns a port on which no program listens.
fn closed() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// Runs `check`. Returns the exit code, the time since the plan began, and every retry event with its time since the plan began.
fn check(replica: &ReplicaFolder) -> (Option<i32>, Duration, Vec<(Duration, Value)>) {
    let mut command = replica.command("check");
    command.args(["--log-format=json", "--log-level=debug"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = command.spawn().unwrap();
    let (mut planned, mut retries) = (None, Vec::new());
    for line in BufReader::new(running.stderr.take().unwrap()).lines() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if event["event"] == "step" && event["step"] == "plan" {
            planned = Some(Instant::now());
        }
        if event["event"] == "retrying" {
            retries.push((planned.unwrap().elapsed(), event));
        }
    }
    let status = running.wait().unwrap();
    (status.code(), planned.unwrap().elapsed(), retries)
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn check_reports_an_unreachable_store_within_seconds_and_ends_soon() {
    let scene = Scene::new("unreachable");
    // First no program listens on the port; then a program listens and never responds.
    let silent = FaultProxy::start(closed(), |_| Action::Hang).unwrap();
    for (address, cause) in
        [(format!("http://127.0.0.1:{}", closed()), "onnect"), (silent.url(), "no response for 5.0 s")]
    {
        let store = format!(
            "url = \"s3://backups\"\nregion = \"us-east-1\"\nendpoint = \"{address}\"\nallow_http = true\n"
        );
        let replica = scene.replica(&scene.whole_store_section(&store));
        let (code, took, retries) = check(&replica);
        assert_eq!(code, Some(75), "{address}");
        assert!(took < Duration::from_secs(40), "{address}: {took:?}");
        let (at, first) = &retries[0];
        assert!(*at < Duration::from_secs(8), "{address}: {at:?}");
        assert_eq!((&first["store"], &first["attempt"]), (&"s3://backups".into(), &1.into()), "{first}");
        assert!(first["cause"].as_str().unwrap().contains(cause), "{first}");
        let last = &retries.last().unwrap().1;
        assert!(last["attempt"].as_u64().unwrap() >= 2, "{last}");
        assert!(retries.iter().any(|(_, event)| event["next_try_in_seconds"].is_number()), "{retries:?}");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn plan_retry_for_limits_the_retries_of_a_plan_and_create_and_check_log_each() {
    let scene = Scene::new("plan-retry");
    let store = format!("url = \"http://127.0.0.1:{}/\"\nplan_retry_for = \"2s\"\n", closed());
    let replica = scene.replica(&scene.store_section("pg", &store));
    let begun = Instant::now();
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.code(), Some(75), "{}", ended.output);
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(
        ended.output.contains("attempt 1: ") && ended.output.contains("asked again in"),
        "{}",
        ended.output
    );
    let kept = ended.attempt("tarball")["output"].to_string();
    assert!(kept.contains("attempt=1") && kept.contains("http://127.0.0.1"), "{kept}");
    // Without options for the log, `check` shows the attempts too.
    let begun = Instant::now();
    let output = replica.command("check").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(said.contains("attempt 1: ") && said.contains("asked again in"), "{said}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_refusal_of_a_store_is_reported_with_its_meaning_and_a_remedy() {
    let scene = Scene::new("refusals");
    for (status, body, says) in [
        (400, "<Error><Code>ExpiredToken</Code></Error>", &["ExpiredToken", "session_token"][..]),
        (
            400,
            "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>",
            &["AuthorizationHeaderMalformed", "region = \\\"eu-west-1\\\""],
        ),
        (403, "<Error><Code>AccessDenied</Code></Error>", &["denied", "s3:ListBucket"]),
        (403, "<Error><Code>RequestTimeTooSkewed</Code></Error>", &["clock"]),
        (200, "<!DOCTYPE html><html><body>Sign in</body></html>", &["is not a listing", "`html`"]),
        (200, "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", &["bug of the server"]),
    ] {
        let server = FaultProxy::start(closed(), move |_| Action::Respond(status, body)).unwrap();
        let files = in_files(&scene, "somebody", "something");
        let section = scene.whole_store_section(&bucket(&server.url(), &files));
        let ended = scene.fails(body, &section, says);
        assert_eq!(ended.code(), Some(1), "{body}: {}", ended.output);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn every_backup_is_found_in_a_truncated_listing_without_a_token() {
    let scene = Scene::new("cut");
    scene.primary.tar_backup("a-old", &["--compress=client-gzip:1"]).unwrap();
    let backup = scene.primary.tar_backup("b-new", &["--compress=client-gzip:1"]).unwrap();
    let stored = BackupLocation::Moto.with(backup.parent().unwrap(), &scene.primary.playground).unwrap();
    let server = stored.server.as_ref().unwrap();
    // The server has no continuation tokens. Its first page lists only the first backup, and says that the listing is truncated.
    let proxy = FaultProxy::start(port(server), |request| {
        if request.target.contains("list-type=2") { Action::ListWithoutToken(2) } else { Action::Forward }
    })
    .unwrap();
    let Grant::Store(grant) = &stored.grant else { panic!("moto is a store") };
    let section = scene.whole_store_section(&grant.replace(&server.url(), &proxy.url()));
    scene.creates("the newest", &section, &backup.join("backup_manifest"));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn credential_files_that_change_during_a_run_are_read_again() {
    let (scene, backup) = Scene::with_backup("renewed", &["--compress=client-zstd:1"]);
    let server = StoreServer::s3rver().unwrap();
    upload(&server, &backup, "pg/latest");
    let files = in_files(&scene, "EXPIRED", "something");
    let [key, secret] =
        ["access_key_id", "secret_access_key"].map(|name| scene.primary.playground.path(name));
    let mut refused = 0;
    let proxy = FaultProxy::start(port(&server), move |request| {
        // The files change during the first request, and again during the restore, as if an agent on the machine renewed them.
        if refused == 0 {
            refused += 1;
            std::fs::write(&key, S3RVER).unwrap();
            std::fs::write(&secret, S3RVER).unwrap();
        } else if refused == 1 && request.method == "GET" && request.target.contains("pg_wal.tar") {
            refused += 1;
            std::fs::write(&secret, format!("{S3RVER}-again")).unwrap();
            return Action::Respond(400, "<Error><Code>ExpiredToken</Code></Error>");
        }
        Action::Forward
    })
    .unwrap();
    let section = scene.store_section("pg/latest", &bucket(&proxy.url(), &files));
    let (_, ended) = scene.creates("renewed", &section, &backup.join("backup_manifest"));
    assert!(!ended.output.contains(&format!("{S3RVER}-again")), "{}", ended.output);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_proxy_that_cannot_be_reached_is_named_without_its_password() {
    let scene = Scene::new("proxy");
    let store = "url = \"http://backups.example/pg/\"\nplan_retry_for = \"1s\"\n";
    for (variable, excluded, is_named) in [
        ("HTTP_PROXY", "", true),
        ("http_proxy", "", true),
        ("ALL_PROXY", "", true),
        ("HTTP_PROXY", "backups.example", false),
    ] {
        let replica = scene.replica(&scene.store_section("latest", store));
        let proxy = format!("127.0.0.1:{}", closed());
        let mut command = replica.command("check");
        command.env(variable, format!("http://somebody:hunter2@{proxy}")).env("NO_PROXY", excluded);
        let output = command.output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(75), "{text}");
        assert_eq!(
            text.contains(&format!("http://{proxy}")) && text.contains("NO_PROXY"),
            is_named,
            "{text}"
        );
        assert!(!text.contains("hunter2"), "{text}");
    }
}
