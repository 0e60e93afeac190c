//! Measures the restore of backups that barman-cloud has uploaded to an S3 server, compared with `barman-cloud-restore`.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tests::barman::Release;
use tests::server::run;
use tests::stores::{S3RVER, StoreServer};

use super::home::{quoted, shell, size};
use super::measure::{Contestant, Runs, race};
use super::ours::Job;
use super::{Bench, page};
use crate::say;
use crate::setup::BIN_DIR;

/// The compressions, each with the option of `barman-cloud-backup`.
const CODECS: [(&str, &str); 5] =
    [("gz", "--gzip"), ("none", ""), ("snappy", "--snappy"), ("lz4", "--lz4"), ("zst", "--zstd")];

/// The files and directories that only the seal writes.
const OWN: [&str; 3] = ["postgresql.auto.conf", "standby.signal", "archive_status"];

/// The wanted ratio to the wall time of `barman-cloud-restore`.
const OF_TOOL: f64 = 0.35;

/// The wanted upper limit of the peak memory in bytes.
const PEAK: u64 = 96 << 20;

pub(super) fn measure(bench: &Bench<'_>) -> Result<String> {
    let home = bench.home;
    let programs = home.path("barman");
    // The copy has the release that is installed now.
    home.remove(&programs)?;
    Release::Newest.install(&programs)?;
    let objects = upload(bench, &programs)?;
    let server = StoreServer::s3rver_in(&objects)?;
    let mut table = page::head("compression, target");
    let (mut verdicts, mut sizes, mut highest) = (String::new(), Vec::new(), 0);
    for (codec, _) in CODECS {
        let backup = objects.join("backups/barman").join(codec);
        sizes.push(format!("{codec} {} MB", size(&backup)? / 1_000_000));
        for &medium in bench.extent.media {
            let [ours, theirs] = ["barman-ours", "barman-theirs"].map(|name| home.target(medium, name));
            let contestants = [
                tool(bench, &server, &programs, (codec, &backup), &theirs),
                understudy(bench, &server, (codec, &backup), &ours)?,
            ];
            let runs = race(home, bench.extent.rounds, &contestants)?;
            bench.compare(&ours, &theirs, &OWN)?;
            home.remove(&ours)?;
            home.remove(&theirs)?;
            page::rows(&mut table, &format!("{codec}, {}", medium.name()), &runs, 0);
            highest = highest.max(runs[1].peak());
            let ratio = |of: fn(&Runs) -> f64| of(&runs[1]) / of(&runs[0]);
            let what = format!("- {codec}, target {}: the ratio of the wall times", medium.at());
            verdicts += &page::wanted(&what, ratio(Runs::wall), OF_TOOL);
        }
    }
    Ok(format!(
        "## Backups of barman-cloud\n\n\
         Backups of a cluster of {cluster} MB, half of it random bytes and half pgbench's tables, which {version} has uploaded to an S3 \
         server on this machine (`s3rver`, which keeps objects in files; these are in the page cache). Both programs restore the same \
         objects over HTTP. `barman-cloud-restore` is followed by a `sync`, and checks nothing. The time of `understudy create` includes \
         the checks and the sync of the seal. Neither restores archived WAL. The time of the server is in both times.\n\n\
         The backups take {sizes}.\n\n{table}\n{verdicts}{peak}",
        cluster = bench.extent.cluster / 1_000_000,
        version = version(bench, &programs)?,
        sizes = sizes.join(", "),
        peak = page::peak(highest, PEAK),
    ))
}

/// Returns the name and the release of Barman.
fn version(bench: &Bench<'_>, programs: &Path) -> Result<String> {
    let told = run(bench.home.user().command(programs.join("bin/barman")).arg("--version"))?;
    let text = String::from_utf8_lossy(&told.stdout);
    let number = text.split_whitespace().next().context("barman has no version")?;
    Ok(format!("Barman {number}"))
}

/// Returns the objects of a server whose bucket `backups` has, below `barman`, a backup of the cluster that most measurements use for each
/// compression, as the only backup of a Barman server with the name of the compression. Takes the backups if they are missing.
fn upload(bench: &Bench<'_>, programs: &Path) -> Result<PathBuf> {
    let (home, cluster) = (bench.home, bench.cluster()?);
    home.once(&format!("barman-{}", bench.extent.cluster / 1_000_000), |objects| {
        let store = StoreServer::s3rver_in(objects)?;
        let server = home.server(&cluster)?;
        for (codec, option) in CODECS {
            say(&format!("uploading a backup with barman-cloud, {codec}"));
            let script = barman(
                &store,
                programs,
                &format!(
                    "barman-cloud-backup --immediate-checkpoint {option} --host {} --port {} --user postgres",
                    quoted(server.sockets()),
                    server.port()
                ),
                codec,
            );
            let script = shell(&script);
            run(home.user().command(&script[0]).args(&script[1..]))?;
        }
        server.stop()
    })
}

/// Returns the command that runs one of Barman's programs for the Barman server with the name of a compression.
fn barman(store: &StoreServer, programs: &Path, words: &str, codec: &str) -> String {
    let (program, rest) = words.split_once(' ').unwrap_or((words, ""));
    // `s3rver` does not know the checksums that newer clients append to uploads.
    format!(
        "export AWS_ACCESS_KEY_ID={S3RVER} AWS_SECRET_ACCESS_KEY={S3RVER} AWS_DEFAULT_REGION=us-east-1\n\
         export AWS_REQUEST_CHECKSUM_CALCULATION=when_required AWS_RESPONSE_CHECKSUM_VALIDATION=when_required\n\
         {} --endpoint-url {} {rest} s3://backups/barman {codec}",
        quoted(&programs.join("bin").join(program)),
        store.url(),
    )
}

fn tool<'a>(
    bench: &Bench<'a>,
    store: &StoreServer,
    programs: &Path,
    (codec, backup): (&str, &Path),
    target: &Path,
) -> Contestant<'a> {
    let restore = barman(store, programs, "barman-cloud-restore", codec);
    let into = quoted(target);
    let (home, target, warm) = (bench.home, target.to_owned(), backup.to_owned());
    Contestant {
        name: "barman-cloud-restore, sync".to_owned(),
        leaves: Some(target.join("global/pg_control")),
        prepare: Box::new(move || {
            home.warm(&warm)?;
            home.fresh(&target)
        }),
        program: shell(&format!("{restore} auto {into}\nsync --file-system {into}")),
    }
}

fn understudy<'a>(
    bench: &Bench<'a>,
    store: &StoreServer,
    (codec, backup): (&str, &Path),
    target: &Path,
) -> Result<Contestant<'a>> {
    let (home, warm) = (bench.home, backup.to_owned());
    let key = |name: &str| -> Result<PathBuf> {
        let file = home.path(name);
        home.user().write(&file, S3RVER)?;
        std::fs::set_permissions(&file, Permissions::from_mode(0o600))?;
        Ok(file)
    };
    let job = Job {
        name: "understudy",
        method: "barman",
        options: format!("store = \"repo\"\nprefix = \"barman\"\nserver = \"{codec}\"\nwal = \"none\""),
        grants: format!(
            "stores.repo = {{ url = \"s3://backups\", endpoint = \"{}\", region = \"us-east-1\", allow_http = true, credentials = {{ \
             access_key_id = {{ file = \"{access}\" }}, secret_access_key = {{ file = \"{secret}\" }} }} }}, workers = 2",
            store.url(),
            access = key("s3-access-key")?.display(),
            secret = key("s3-secret-key")?.display(),
        ),
        target: target.to_owned(),
        keep_data: false,
        bin_dir: Path::new(BIN_DIR),
    };
    bench.ours.contestant(&job, move || home.warm(&warm))
}
