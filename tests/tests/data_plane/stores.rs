//! Replicas from real store servers, with the operator's credentials, which are never shown.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

use tests::certificates::{Authority, ServerCertificate};
use tests::faults::{Action, FaultProxy};
use tests::server::run;
use tests::stored::{ALL_LOCATIONS, BackupLocation, Grant};
use tests::stores::{S3RVER, StoreServer, ensure_servers};

use super::scene::Scene;

/// Uploads the files in a folder to the bucket `backups` below `prefix`, with Amazon's own client.
pub(crate) fn upload(server: &StoreServer, folder: &Path, prefix: &str) {
    upload_to(&server.url(), folder, prefix);
}

/// Uploads the files as [`upload`] does, to the server at this address.
pub(crate) fn upload_to(url: &str, folder: &Path, prefix: &str) {
    const PUT: &str = "import sys, os, boto3\n\
        s3 = boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id=sys.argv[4], aws_secret_access_key=sys.argv[4], region_name='us-east-1')\n\
        for name in sorted(os.listdir(sys.argv[2])):\n    \
            with open(os.path.join(sys.argv[2], name), 'rb') as body:\n        \
                s3.put_object(Bucket='backups', Key=sys.argv[3] + '/' + name, Body=body)\n";
    let python = ensure_servers().unwrap().join("venv/bin/python");
    run(Command::new(python).args(["-c", PUT, url]).arg(folder).args([prefix, S3RVER])).unwrap();
}

/// Returns the lines that grant the bucket at `endpoint` with these credentials.
pub(crate) fn bucket(endpoint: &str, credentials: &str) -> String {
    format!(
        "url = \"s3://backups\"\nregion = \"us-east-1\"\nendpoint = \"{endpoint}\"\nallow_http = true\n\
         retry_for = \"30s\"\nidle_timeout = \"5s\"\ncredentials = {{ {credentials} }}\n"
    )
}

/// Returns the port of the server's URL.
pub(crate) fn port(server: &StoreServer) -> u16 {
    server.url().rsplit(':').next().unwrap().parse().unwrap()
}

/// Writes credentials to files that only the server's user may read, and returns the settings that name them.
pub(crate) fn in_files(scene: &Scene, key: &str, secret: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let mut credentials = Vec::new();
    for (name, value) in [("access_key_id", key), ("secret_access_key", secret)] {
        let path = scene.primary.playground.path(name);
        scene.primary.playground.user().write(&path, value).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        credentials.push(format!("{name} = {{ file = \"{}\" }}", path.display()));
    }
    credentials.join(", ")
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_from_s3_streams_with_credentials_from_files_or_the_environment() {
    let (scene, backup) = Scene::with_backup("s3", &["--compress=client-zstd:1"]);
    let server = StoreServer::s3rver().unwrap();
    upload(&server, &backup, "pg/latest");
    let manifest = backup.join("backup_manifest");

    let files = in_files(&scene, S3RVER, S3RVER);
    let section = scene.store_section("pg/latest", &bucket(&server.url(), &files));
    scene.creates("by files", &section, &manifest);

    let environment = "access_key_id = { env = \"REPO_KEY\" }, secret_access_key = { env = \"REPO_SECRET\" }";
    let replica = scene
        .primary
        .replica("streams", &["tarball"], "", &scene.store_section("pg", &bucket(&server.url(), environment)))
        .unwrap();
    let mut command = replica.command("create");
    command.env("REPO_KEY", S3RVER).env("REPO_SECRET", S3RVER);
    run(&mut command).unwrap();
    scene.primary.verify(&replica, &manifest).unwrap();
    scene.primary.streams_to(&replica).unwrap();
}

/// Returns the section that restores from a location: the newest backup if the location can be listed, otherwise the backup `new`.
fn section_for(scene: &Scene, location: BackupLocation, grant: &Grant) -> String {
    match grant {
        Grant::Read(path) => scene.directory_section(path),
        Grant::Store(store) if location.can_be_listed() => scene.whole_store_section(store),
        Grant::Store(store) => scene.store_section("new", store),
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_is_restored_from_every_kind_of_store() {
    let scene = Scene::new("everywhere");
    scene.primary.tar_backup("old", &["--compress=client-gzip:1"]).unwrap();
    let backup = scene.primary.tar_backup("new", &["--compress=client-zstd:1"]).unwrap();
    let backups = backup.parent().unwrap();
    for location in ALL_LOCATIONS {
        let stored = location.with(backups, &scene.primary.playground).unwrap();
        let section = section_for(&scene, location, &stored.grant);
        scene.creates(&format!("{location:?}"), &section, &backup.join("backup_manifest"));
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_backup_that_is_replaced_during_its_restore_is_reported() {
    let scene = Scene::new("replaced");
    let backup = scene.primary.tar_backup("new", &["--compress=client-zstd:1"]).unwrap();
    for location in [BackupLocation::Moto, BackupLocation::Azurite] {
        let stored = location.with(backup.parent().unwrap(), &scene.primary.playground).unwrap();
        let server = stored.server.as_ref().unwrap();
        let other = tempfile::tempdir().unwrap();
        std::fs::create_dir(other.path().join("new")).unwrap();
        // The archive is the same except for the bytes after its end, so unpacking alone does not notice the change.
        let wal = [std::fs::read(backup.join("pg_wal.tar")).unwrap(), vec![0; 512]].concat();
        std::fs::write(other.path().join("new/pg_wal.tar"), wal).unwrap();
        let (address, mut replaced) = (server.url(), false);
        let proxy = FaultProxy::start(port(server), move |request| {
            if request.method == "GET" && request.target.contains("pg_wal.tar") && !replaced {
                replaced = true;
                location.put(&address, other.path()).unwrap();
            }
            Action::Forward
        })
        .unwrap();
        let Grant::Store(grant) = &stored.grant else { panic!("{location:?}") };
        let section = scene.whole_store_section(&grant.replace(&server.url(), &proxy.url()));
        scene.fails(&format!("{location:?}"), &section, &["replaced"]);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn wrong_credentials_are_reported_and_not_shown() {
    const WRONG: &str = "never-to-be-seen/0123+4567";
    let (scene, backup) = Scene::with_backup("s3-denied", &["--compress=client-zstd:1"]);
    let server = StoreServer::s3rver().unwrap();
    upload(&server, &backup, "pg/latest");
    let files = in_files(&scene, "NOBODY", WRONG);
    let section = scene.store_section("pg/latest", &bucket(&server.url(), &files));
    let replica = scene.replica(&section);
    let ended = replica.create(&["--log-level=trace"]).unwrap();
    scene.assert_failed("a wrong secret", &replica, &ended, &["denied"]);
    for text in [&ended.output, &ended.report.to_string()] {
        assert!(!text.contains(WRONG) && !text.contains("never-to-be-seen%2F0123%2B4567"), "{text}");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_is_restored_from_a_web_server_without_ranges() {
    let scene = Scene::new("web");
    let server = StoreServer::python_http().unwrap();
    for (name, options) in
        [("gzip", &["--compress=client-gzip:1"][..]), ("plain", &[]), ("lz4", &["--compress=server-lz4"])]
    {
        let backup = scene.primary.tar_backup(name, options).unwrap();
        run(Command::new("/bin/cp").arg("-r").arg(&backup).arg(server.folder().join(name))).unwrap();
        let store = format!("url = \"{}\"\nretry_for = \"10s\"\n", server.url());
        scene.creates(name, &scene.store_section(name, &store), &backup.join("backup_manifest"));
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_redirect_to_another_server_is_followed_only_if_granted() {
    let (scene, backup) = Scene::with_backup("redirected", &["--compress=client-gzip:1"]);
    let server = StoreServer::python_http().unwrap();
    run(Command::new("/bin/cp").arg("-r").arg(&backup).arg(server.folder().join("latest"))).unwrap();
    let other = FaultProxy::start(port(&server), |_| Action::Forward).unwrap();
    let elsewhere = other.port();
    let granted = FaultProxy::start(port(&server), move |_| Action::RedirectTo(elsewhere)).unwrap();
    let store = format!("url = \"{}\"\nretry_for = \"10s\"\n", granted.url());
    let address = format!("127.0.0.1:{elsewhere}");
    let ended = scene.fails(
        "not granted",
        &scene.store_section("latest", &store),
        &["denied", &address, "redirects = ["],
    );
    assert!(other.responses().is_empty(), "{:?}\n{}", other.responses(), ended.output);

    let store = format!("{store}redirects = [\"{address}\"]\n");
    scene.creates("granted", &scene.store_section("latest", &store), &backup.join("backup_manifest"));
    assert!(!other.responses().is_empty());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_server_that_sends_a_credential_back_fails_the_restore_and_the_credential_is_not_shown() {
    const TOKEN: &str = "a-token-that-only-the-server-may-see-0123456789";
    let (scene, backup) = Scene::with_backup("echoed", &["--compress=client-gzip:1"]);
    let server = StoreServer::python_http().unwrap();
    run(Command::new("/bin/cp").arg("-r").arg(&backup).arg(server.folder().join("latest"))).unwrap();
    let token = scene.primary.playground.path("token");
    scene.primary.playground.user().write(&token, TOKEN).unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for echoed in ["backup_manifest", "base.tar.gz"] {
        let proxy = FaultProxy::start(port(&server), move |request| match request.target.ends_with(echoed) {
            true => Action::Echo,
            false => Action::Forward,
        })
        .unwrap();
        let store = format!(
            "url = \"{}\"\nretry_for = \"10s\"\ncredentials = {{ token = {{ file = \"{}\" }} }}\n",
            proxy.url(),
            token.display()
        );
        let replica = scene.replica(&scene.store_section("latest", &store));
        let ended = replica.create(&["--log-level=trace"]).unwrap();
        scene.assert_failed(echoed, &replica, &ended, &["sends back a credential"]);
        let here = run(Command::new("/bin/grep").args(["-rc", TOKEN]).arg(replica.path(""))).is_ok();
        assert!(!here && !ended.report.to_string().contains(TOKEN), "{echoed}: {}", ended.output);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_credential_found_in_the_environment_by_auto_is_not_shown() {
    const TOKEN: &str = "a-session-token-that-only-the-server-may-see-0123456789";
    let (scene, backup) = Scene::with_backup("echoed-auto", &["--compress=client-gzip:1"]);
    let server = StoreServer::s3rver().unwrap();
    upload(&server, &backup, "pg/latest");
    let proxy =
        FaultProxy::start(port(&server), |request| match request.target.contains("backup_manifest") {
            true => Action::Echo,
            false => Action::Forward,
        })
        .unwrap();
    let store = format!(
        "url = \"s3://backups\"\nregion = \"us-east-1\"\nendpoint = \"{}\"\nallow_http = true\nretry_for = \"10s\"\n\
         credentials = \"auto\"\n",
        proxy.url()
    );
    let replica = scene.replica(&scene.store_section("pg/latest", &store));
    let mut command = replica.command("create");
    command.arg("--log-level=trace").arg("--report").arg(replica.path("report.json"));
    command
        .env("AWS_ACCESS_KEY_ID", S3RVER)
        .env("AWS_SECRET_ACCESS_KEY", S3RVER)
        .env("AWS_SESSION_TOKEN", TOKEN);
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr, std::fs::read(replica.path("report.json")).unwrap()].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(said.contains("sends back a credential"), "{said}");
    let here = run(Command::new("/bin/grep").args(["-rc", TOKEN]).arg(replica.path(""))).is_ok();
    assert!(!here && !said.contains(TOKEN), "{said}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_web_server_with_a_private_certificate_authority_is_trusted_only_with_ca_file() {
    let (scene, backup) = Scene::with_backup("tls", &["--compress=client-gzip:1"]);
    let authority = Authority::new(&scene.primary.playground.path("authority")).unwrap();
    let server = StoreServer::python_https(authority.certify(ServerCertificate::Right).unwrap()).unwrap();
    run(Command::new("/bin/cp").arg("-r").arg(&backup).arg(server.folder().join("latest"))).unwrap();
    let certificate = scene.primary.playground.path("ca.pem");
    let text = std::fs::read_to_string(authority.certificate()).unwrap();
    scene.primary.playground.user().write(&certificate, &text).unwrap();

    let store = format!("url = \"{}\"\nretry_for = \"10s\"\n", server.url());
    scene.fails("no authority", &scene.store_section("latest", &store), &["denied", "ca_file"]);
    let store = format!("{store}ca_file = \"{}\"\n", certificate.display());
    scene.creates(
        "with its authority",
        &scene.store_section("latest", &store),
        &backup.join("backup_manifest"),
    );
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_restore_continues_after_the_server_of_the_store_is_killed_and_restarted() {
    let (scene, backup) = Scene::with_backup("s3-killed", &[]);
    let mut server = StoreServer::s3rver().unwrap();
    upload(&server, &backup, "pg/latest");
    let (sender, receiver) = mpsc::channel();
    let mut reads = 0;
    let proxy = FaultProxy::start(port(&server), move |request| {
        if request.method != "GET" || !request.target.contains("base.tar") {
            return Action::Forward;
        }
        // The plan reads only the beginning of the archive; the restore reads all of it.
        reads += 1;
        let _ = sender.send(reads);
        if request.is_continued { Action::Forward } else { Action::CutAfter(6 << 20) }
    })
    .unwrap();
    let files = in_files(&scene, S3RVER, S3RVER);
    let replica = scene.replica(&scene.store_section("pg/latest", &bucket(&proxy.url(), &files)));
    let running = replica.spawn(&[]).unwrap();
    // Waits until a response was cut short and the program has requested the rest.
    let patience = std::time::Duration::from_secs(60);
    while receiver.recv_timeout(patience).expect("base.tar was not requested again") < 3 {}
    server.kill().unwrap();
    let _ = receiver.recv_timeout(patience).expect("the program did not retry while the server was stopped");
    server.restart().unwrap();
    let ended = replica.wait_for_end(running).unwrap();
    assert_eq!(ended.code(), Some(0), "{}", ended.output);
    scene.primary.verify(&replica, &backup.join("backup_manifest")).unwrap();
}
