//! Real servers of stores: what they hold becomes a replica, with the operator's credentials and with nothing seen of them.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc;

use tests::certificates::{Authority, Server};
use tests::faults::{Fate, Faults};
use tests::server::run;
use tests::stored::{EVERYWHERE, Grant, Place};
use tests::stores::{S3RVER, StoreServer, ensure_servers};

use super::scene::Scene;

/// Puts the files of a folder into the bucket `backups`, below `prefix`, with Amazon's own client.
pub(crate) fn upload(server: &StoreServer, folder: &Path, prefix: &str) {
    upload_to(&server.url(), folder, prefix);
}

/// The same for the server at this address.
pub(crate) fn upload_to(url: &str, folder: &Path, prefix: &str) {
    const PUT: &str = "import sys, os, boto3\n\
        s3 = boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id=sys.argv[4], aws_secret_access_key=sys.argv[4], region_name='us-east-1')\n\
        for name in sorted(os.listdir(sys.argv[2])):\n    \
            with open(os.path.join(sys.argv[2], name), 'rb') as body:\n        \
                s3.put_object(Bucket='backups', Key=sys.argv[3] + '/' + name, Body=body)\n";
    let python = ensure_servers().unwrap().join("venv/bin/python");
    run(Command::new(python).args(["-c", PUT, url]).arg(folder).args([prefix, S3RVER])).unwrap();
}

/// The lines of a grant of the bucket, asked at `endpoint`, with these credentials.
pub(crate) fn bucket(endpoint: &str, credentials: &str) -> String {
    format!(
        "url = \"s3://backups\"\nregion = \"us-east-1\"\nendpoint = \"{endpoint}\"\nallow_http = true\n\
         retry_for = \"30s\"\nidle_timeout = \"5s\"\ncredentials = {{ {credentials} }}\n"
    )
}

/// The port of `http://127.0.0.1:PORT`.
pub(crate) fn port(server: &StoreServer) -> u16 {
    server.url().rsplit(':').next().unwrap().parse().unwrap()
}

/// Credentials in files that only the server's user reads.
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
    let section = scene.in_store("pg/latest", &bucket(&server.url(), &files));
    scene.creates("by files", &section, &manifest);

    let environment = "access_key_id = { env = \"REPO_KEY\" }, secret_access_key = { env = \"REPO_SECRET\" }";
    let replica = scene
        .primary
        .replica("streams", &["tarball"], "", &scene.in_store("pg", &bucket(&server.url(), environment)))
        .unwrap();
    let mut command = replica.command("create");
    command.env("REPO_KEY", S3RVER).env("REPO_SECRET", S3RVER);
    run(&mut command).unwrap();
    scene.primary.verify(&replica, &manifest).unwrap();
    scene.primary.streams_to(&replica).unwrap();
}

/// The section that restores from a place: the newest of its backups where it can be listed, else the one that is named.
fn from_place(scene: &Scene, place: Place, grant: &Grant) -> String {
    match grant {
        Grant::Read(path) => scene.in_directory(path),
        Grant::Store(store) if place.lists() => scene.in_whole_store(store),
        Grant::Store(store) => scene.in_store("new", store),
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_comes_from_every_kind_of_store() {
    let scene = Scene::new("everywhere");
    scene.primary.tar_backup("old", &["--compress=client-gzip:1"]).unwrap();
    let backup = scene.primary.tar_backup("new", &["--compress=client-zstd:1"]).unwrap();
    let backups = backup.parent().unwrap();
    for place in EVERYWHERE {
        let stored = place.with(backups, &scene.primary.playground).unwrap();
        let section = from_place(&scene, place, &stored.grant);
        scene.creates(&format!("{place:?}"), &section, &backup.join("backup_manifest"));
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_backup_that_was_replaced_while_it_was_restored_is_told_wherever_it_is() {
    let scene = Scene::new("replaced");
    let backup = scene.primary.tar_backup("new", &["--compress=client-zstd:1"]).unwrap();
    for place in [Place::Moto, Place::Azurite] {
        let stored = place.with(backup.parent().unwrap(), &scene.primary.playground).unwrap();
        let server = stored.server.as_ref().unwrap();
        let other = tempfile::tempdir().unwrap();
        std::fs::create_dir(other.path().join("new")).unwrap();
        // The same archive with another end, which nobody sees who only unpacks it.
        let wal = [std::fs::read(backup.join("pg_wal.tar")).unwrap(), vec![0; 512]].concat();
        std::fs::write(other.path().join("new/pg_wal.tar"), wal).unwrap();
        let (address, mut replaced) = (server.url(), false);
        let faults = Faults::before(port(server), move |asked| {
            if asked.method == "GET" && asked.target.contains("pg_wal.tar") && !replaced {
                replaced = true;
                place.put(&address, other.path()).unwrap();
            }
            Fate::Passed
        })
        .unwrap();
        let Grant::Store(grant) = &stored.grant else { panic!("{place:?}") };
        let section = scene.in_whole_store(&grant.replace(&server.url(), &faults.url()));
        scene.fails(&format!("{place:?}"), &section, &["replaced"]);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn wrong_credentials_are_told_and_not_shown() {
    const WRONG: &str = "never-to-be-seen/0123+4567";
    let (scene, backup) = Scene::with_backup("s3-denied", &["--compress=client-zstd:1"]);
    let server = StoreServer::s3rver().unwrap();
    upload(&server, &backup, "pg/latest");
    let files = in_files(&scene, "NOBODY", WRONG);
    let section = scene.in_store("pg/latest", &bucket(&server.url(), &files));
    let replica = scene.replica(&section);
    let ended = replica.create(&["--log-level=trace"]).unwrap();
    scene.failed("a wrong secret", &replica, &ended, &["denied"]);
    for text in [&ended.output, &ended.report.to_string()] {
        assert!(!text.contains(WRONG) && !text.contains("never-to-be-seen%2F0123%2B4567"), "{text}");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_comes_from_a_web_server_that_knows_no_ranges() {
    let scene = Scene::new("web");
    let server = StoreServer::python_http().unwrap();
    for (name, options) in
        [("gzip", &["--compress=client-gzip:1"][..]), ("plain", &[]), ("lz4", &["--compress=server-lz4"])]
    {
        let backup = scene.primary.tar_backup(name, options).unwrap();
        run(Command::new("/bin/cp").arg("-r").arg(&backup).arg(server.folder().join(name))).unwrap();
        let store = format!("url = \"{}\"\nretry_for = \"10s\"\n", server.url());
        scene.creates(name, &scene.in_store(name, &store), &backup.join("backup_manifest"));
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_redirect_to_another_server_is_followed_only_where_it_is_granted() {
    let (scene, backup) = Scene::with_backup("redirected", &["--compress=client-gzip:1"]);
    let server = StoreServer::python_http().unwrap();
    run(Command::new("/bin/cp").arg("-r").arg(&backup).arg(server.folder().join("latest"))).unwrap();
    let other = Faults::before(port(&server), |_| Fate::Passed).unwrap();
    let elsewhere = other.port();
    let granted = Faults::before(port(&server), move |_| Fate::RedirectedTo(elsewhere)).unwrap();
    let store = format!("url = \"{}\"\nretry_for = \"10s\"\n", granted.url());
    let place = format!("127.0.0.1:{elsewhere}");
    let ended =
        scene.fails("not granted", &scene.in_store("latest", &store), &["denied", &place, "redirects = ["]);
    assert!(other.answers().is_empty(), "{:?}\n{}", other.answers(), ended.output);

    let store = format!("{store}redirects = [\"{place}\"]\n");
    scene.creates("granted", &scene.in_store("latest", &store), &backup.join("backup_manifest"));
    assert!(!other.answers().is_empty());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_server_that_sends_back_its_credential_ends_the_restore_and_shows_it_to_nobody() {
    const TOKEN: &str = "a-token-that-only-the-server-may-see-0123456789";
    let (scene, backup) = Scene::with_backup("echoed", &["--compress=client-gzip:1"]);
    let server = StoreServer::python_http().unwrap();
    run(Command::new("/bin/cp").arg("-r").arg(&backup).arg(server.folder().join("latest"))).unwrap();
    let token = scene.primary.playground.path("token");
    scene.primary.playground.user().write(&token, TOKEN).unwrap();
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for echoed in ["backup_manifest", "base.tar.gz"] {
        let faults = Faults::before(port(&server), move |asked| match asked.target.ends_with(echoed) {
            true => Fate::Echoed,
            false => Fate::Passed,
        })
        .unwrap();
        let store = format!(
            "url = \"{}\"\nretry_for = \"10s\"\ncredentials = {{ token = {{ file = \"{}\" }} }}\n",
            faults.url(),
            token.display()
        );
        let replica = scene.replica(&scene.in_store("latest", &store));
        let ended = replica.create(&["--log-level=trace"]).unwrap();
        scene.failed(echoed, &replica, &ended, &["sends back a credential"]);
        let here = run(Command::new("/bin/grep").args(["-rc", TOKEN]).arg(replica.path(""))).is_ok();
        assert!(!here && !ended.report.to_string().contains(TOKEN), "{echoed}: {}", ended.output);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_credential_that_auto_finds_in_the_environment_is_shown_to_nobody_either() {
    const TOKEN: &str = "a-session-token-that-only-the-server-may-see-0123456789";
    let (scene, backup) = Scene::with_backup("echoed-auto", &["--compress=client-gzip:1"]);
    let server = StoreServer::s3rver().unwrap();
    upload(&server, &backup, "pg/latest");
    let faults = Faults::before(port(&server), |asked| match asked.target.contains("backup_manifest") {
        true => Fate::Echoed,
        false => Fate::Passed,
    })
    .unwrap();
    let store = format!(
        "url = \"s3://backups\"\nregion = \"us-east-1\"\nendpoint = \"{}\"\nallow_http = true\nretry_for = \"10s\"\n\
         credentials = \"auto\"\n",
        faults.url()
    );
    let replica = scene.replica(&scene.in_store("pg/latest", &store));
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
fn a_web_server_with_a_certificate_of_a_private_authority_is_trusted_where_the_operator_says_so() {
    let (scene, backup) = Scene::with_backup("tls", &["--compress=client-gzip:1"]);
    let authority = Authority::new(&scene.primary.playground.path("authority")).unwrap();
    let server = StoreServer::python_https(authority.certify(Server::Right).unwrap()).unwrap();
    run(Command::new("/bin/cp").arg("-r").arg(&backup).arg(server.folder().join("latest"))).unwrap();
    let certificate = scene.primary.playground.path("ca.pem");
    let text = std::fs::read_to_string(authority.certificate()).unwrap();
    scene.primary.playground.user().write(&certificate, &text).unwrap();

    let store = format!("url = \"{}\"\nretry_for = \"10s\"\n", server.url());
    scene.fails("nobody vouches", &scene.in_store("latest", &store), &["denied", "ca_file"]);
    let store = format!("{store}ca_file = \"{}\"\n", certificate.display());
    scene.creates("its authority does", &scene.in_store("latest", &store), &backup.join("backup_manifest"));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_restore_goes_on_when_the_stores_server_was_killed_midway_and_started_again() {
    let (scene, backup) = Scene::with_backup("s3-killed", &[]);
    let mut server = StoreServer::s3rver().unwrap();
    upload(&server, &backup, "pg/latest");
    let (tell, told) = mpsc::channel();
    let mut reads = 0;
    let faults = Faults::before(port(&server), move |asked| {
        if asked.method != "GET" || !asked.target.contains("base.tar") {
            return Fate::Passed;
        }
        // The plan reads its beginning; the restore reads all.
        reads += 1;
        let _ = tell.send(reads);
        if asked.is_continued { Fate::Passed } else { Fate::CutAfter(6 << 20) }
    })
    .unwrap();
    let files = in_files(&scene, S3RVER, S3RVER);
    let replica = scene.replica(&scene.in_store("pg/latest", &bucket(&faults.url(), &files)));
    let running = replica.spawn(&[]).unwrap();
    // Until the first piece of base.tar was cut and asked for again.
    let patience = std::time::Duration::from_secs(60);
    while told.recv_timeout(patience).expect("base.tar is asked for again") < 3 {}
    server.kill().unwrap();
    let _ = told.recv_timeout(patience).expect("it goes on asking while the server is away");
    server.restart().unwrap();
    let ended = replica.ended(running).unwrap();
    assert_eq!(ended.code(), Some(0), "{}", ended.output);
    scene.primary.verify(&replica, &backup.join("backup_manifest")).unwrap();
}
