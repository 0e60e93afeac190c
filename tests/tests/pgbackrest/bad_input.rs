//! Repositories that are damaged, incomplete, or from another cluster. Each problem has its own message, and old data stays if the
//! plan can notice the problem.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::pgbackrest::{BUNDLED, CODECS, ENCRYPTED, Info, PLAIN, Stanza};
use tests::primary::Primary;
use tests::server::run;

use super::scene::{OldData, fails, fails_in};

/// Returns the section that restores this backup from the first repository.
pub(crate) fn section_of(stanza: &Stanza, label: &str) -> String {
    stanza.method(&[1], "", &format!("backup = \"{label}\"\n"))
}

/// A folder in a repository, which a test damages, and a saved copy, from which the test restores the folder.
pub(crate) struct SavedFolder {
    folder: PathBuf,
    copy: PathBuf,
}

impl SavedFolder {
    pub(crate) fn new(folder: &Path) -> Self {
        let copy = folder.with_extension("kept");
        copy_folder(folder, &copy);
        Self { folder: folder.to_owned(), copy }
    }

    /// Restores the folder from the copy.
    pub(crate) fn restore(&self) {
        fs::remove_dir_all(&self.folder).unwrap();
        copy_folder(&self.copy, &self.folder);
    }
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    run(Command::new("/bin/cp").arg("--archive").arg(from).arg(to)).unwrap();
}

/// Changes one byte in the middle of a file.
pub(crate) fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(file, bytes).unwrap();
}

/// Returns the files in a backup's `pg_data/base/1`, largest first.
fn relations(stanza: &Stanza, number: usize, label: &str) -> Vec<PathBuf> {
    let folder = stanza.backups(number, &format!("{label}/pg_data/base/1"));
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|file| std::cmp::Reverse(fs::metadata(file).unwrap().len()));
    files
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_missing_or_incomplete_backup_is_reported() {
    let stanza = Stanza::start("pgbr-whole", 100, &[PLAIN], "gz").unwrap();
    let none = stanza.method(&[1], "", "");
    fails(&stanza, "no backup", &none, OldData::Untouched, &["demo", "no backup"]);
    let full = stanza.backup(1, "full", &[]).unwrap();
    let diff = stanza.backup(1, "diff", &[]).unwrap();
    let gone = stanza.backup(1, "incr", &[]).unwrap();
    run(&mut stanza.pgbackrest(&["--repo=1", &format!("--set={gone}"), "expire"])).unwrap();
    assert_eq!(stanza.labels(1).unwrap(), [full.clone(), diff.clone()]);

    let other = section_of(&stanza, &full).replace("stanza = \"demo\"", "stanza = \"other\"");
    fails(&stanza, "another stanza", &other, OldData::Untouched, &["other"]);
    fails(&stanza, "expired", &section_of(&stanza, &gone), OldData::Untouched, &[&gone]);
    fails(
        &stanza,
        "never taken",
        &section_of(&stanza, "20200101-000000F"),
        OldData::Untouched,
        &["20200101-000000F"],
    );

    // pgBackRest was killed during this backup: only the copy of its manifest exists, and backup.info does not list the backup.
    let unfinished = format!("{full}_20990101-000000I");
    let folder = stanza.backups(1, &unfinished);
    copy_folder(&stanza.backups(1, &full), &folder);
    fs::remove_file(folder.join("backup.manifest")).unwrap();
    fails(&stanza, "unfinished", &section_of(&stanza, &unfinished), OldData::Untouched, &[&unfinished]);
    let replica = stanza.replica(&stanza.method(&[1], "", "")).unwrap();
    assert_eq!(
        stanza.created(&replica).unwrap()["plan"]["backup"],
        diff,
        "the newest complete backup was not chosen"
    );

    let saved = SavedFolder::new(&stanza.backups(1, &full));
    fs::remove_dir_all(stanza.backups(1, &full)).unwrap();
    fails(&stanza, "reference gone", &section_of(&stanza, &diff), OldData::Untouched, &[&full]);
    copy_folder(&saved.copy, &stanza.backups(1, &full));
    fs::remove_dir_all(stanza.backups(1, &diff)).unwrap();
    fails(&stanza, "listed and gone", &section_of(&stanza, &diff), OldData::Untouched, &[&diff]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_damaged_index_is_reported_and_its_copy_is_used() {
    let stanza = Stanza::start("pgbr-index", 100, &[PLAIN], "lz4").unwrap();
    let full = stanza.backup(1, "full", &[]).unwrap();
    let user = stanza.primary.playground.user();
    let section = section_of(&stanza, &full);
    let manifest = format!("{full}/backup.manifest");
    let saved = SavedFolder::new(&stanza.backups(1, ""));
    for name in ["backup.info", &manifest] {
        let (file, copy) = (stanza.backups(1, name), stanza.backups(1, &format!("{name}.copy")));
        let file_name = file.file_name().unwrap().to_str().unwrap().to_owned();
        flip(&file);
        let replica = stanza.folder("", &section).unwrap();
        stanza
            .created(&replica)
            .unwrap_or_else(|error| panic!("{name} is broken, its copy is whole: {error:#}"));
        flip(&copy);
        fails(&stanza, "both are broken", &section, OldData::Untouched, &[&file_name]);
        saved.restore();
        fs::remove_file(&file).unwrap();
        let replica = stanza.folder("", &section).unwrap();
        stanza
            .created(&replica)
            .unwrap_or_else(|error| panic!("{name} is gone, its copy is whole: {error:#}"));
        fs::remove_file(&copy).unwrap();
        fails(&stanza, "both are gone", &section, OldData::Untouched, &[&file_name]);
        saved.restore();
        for broken in [&b""[..], b"hello", b"\xff\xfe\0"] {
            fs::write(&file, broken).unwrap();
            fs::write(&copy, broken).unwrap();
            fails(&stanza, "no such file", &section, OldData::Untouched, &[&file_name]);
        }
        saved.restore();
        for format in ["4", "6", "\"5\"", "null"] {
            let mut info = Info::read(&file).unwrap();
            info.set("backrest", "backrest-format", format).write(&file, user).unwrap();
            fails(&stanza, "another format", &section, OldData::Untouched, &[&file_name, "format"]);
        }
        saved.restore();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_damaged_file_is_reported_by_name_in_every_compression() {
    let mut stanza = Stanza::start("pgbr-damaged", 100, &[PLAIN, ENCRYPTED, BUNDLED], "gz").unwrap();
    for codec in CODECS {
        stanza.compress(codec).unwrap();
        let label = stanza.backup(1, "full", &[]).unwrap();
        let damaged = &relations(&stanza, 1, &label)[0];
        let name = damaged.file_stem().unwrap().to_str().unwrap();
        let saved = SavedFolder::new(&stanza.backups(1, &label));
        flip(damaged);
        let path = format!("base/1/{name}");
        fails(
            &stanza,
            &format!("flipped, {codec}"),
            &section_of(&stanza, &label),
            OldData::Emptied,
            &[&path],
        );
        saved.restore();
        let length = fs::metadata(damaged).unwrap().len();
        fs::File::options().write(true).open(damaged).unwrap().set_len(length / 2).unwrap();
        fails(
            &stanza,
            &format!("truncated, {codec}"),
            &section_of(&stanza, &label),
            OldData::Emptied,
            &[&path],
        );
        saved.restore();
        fs::remove_file(damaged).unwrap();
        fails(&stanza, &format!("gone, {codec}"), &section_of(&stanza, &label), OldData::Emptied, &[&path]);
        fs::remove_dir_all(stanza.backups(1, &label)).unwrap();
        fs::remove_dir_all(&saved.copy).unwrap();
    }
    stanza.compress("zst").unwrap();
    for (number, what) in [(2, "encrypted"), (3, "bundled")] {
        let label = stanza.backup(number, "full", &[]).unwrap();
        let damaged = match what {
            "bundled" => stanza.backups(number, &format!("{label}/bundle/1")),
            _ => relations(&stanza, number, &label)[0].clone(),
        };
        let section = stanza.method(&[number], "", &format!("backup = \"{label}\"\n"));
        let complete = fs::read(&damaged).unwrap();
        flip(&damaged);
        let old = if what == "bundled" { OldData::Either } else { OldData::Emptied };
        fails(&stanza, &format!("flipped, {what}"), &section, old, &[]);
        fs::write(&damaged, &complete[..complete.len() / 2]).unwrap();
        fails(&stanza, &format!("truncated, {what}"), &section, old, &[]);
        fs::write(&damaged, &complete).unwrap();
        stanza.created(&stanza.folder("", &section).unwrap()).unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_wrong_passphrase_is_reported_before_anything_is_touched() {
    let stanza = Stanza::start("pgbr-pass", 100, &[ENCRYPTED, PLAIN], "gz").unwrap();
    let section = stanza.method(&[1], "", "");
    stanza.backup(1, "full", &[]).unwrap();
    stanza.backup(2, "full", &[]).unwrap();
    let pass = stanza.primary.playground.path("secrets/repository.pass");
    for wrong in ["another pass phrase", "x"] {
        fs::write(&pass, wrong).unwrap();
        fails(&stanza, "wrong", &section, OldData::Untouched, &["pass phrase"]);
    }
    let without: String =
        section.lines().filter(|line| !line.starts_with("keys.")).map(|line| format!("{line}\n")).collect();
    fails(&stanza, "none", &without, OldData::Untouched, &["keys.repo"]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_repository_of_another_cluster_or_of_a_newer_server_is_rejected() {
    let stanza = Stanza::start("pgbr-other", 100, &[PLAIN], "gz").unwrap();
    let full = stanza.backup(1, "full", &[]).unwrap();
    let other = Primary::start("pgbr-another", 100).unwrap();
    let replica = stanza.replica_of(&other.server, &section_of(&stanza, &full)).unwrap();
    let system = "SELECT system_identifier FROM pg_control_system()";
    let (here, there) = (stanza.primary.server.psql(system).unwrap(), other.server.psql(system).unwrap());
    fails_in(&stanza, &replica, "another cluster", OldData::Untouched, &["rejected", &here, &there]);

    let user = stanza.primary.playground.user();
    let (info, manifest) =
        (stanza.backups(1, "backup.info"), stanza.backups(1, &format!("{full}/backup.manifest")));
    let mut newer = Info::read(&info).unwrap();
    newer.set("db", "db-version", "\"16\"").replace(
        "db:history",
        "1",
        "\"db-version\":\"15\"",
        "\"db-version\":\"16\"",
    );
    newer.write(&info, user).unwrap();
    let archive = stanza.repository(1).join("archive/demo/archive.info");
    let mut newer = Info::read(&archive).unwrap();
    newer.set("db", "db-version", "\"16\"").replace(
        "db:history",
        "1",
        "\"db-version\":\"15\"",
        "\"db-version\":\"16\"",
    );
    newer.write(&archive, user).unwrap();
    fs::rename(stanza.archive(1), stanza.archive(1).with_file_name("16-1")).unwrap();
    let mut newer = Info::read(&manifest).unwrap();
    newer.set("backup:db", "db-version", "\"16\"").write(&manifest, user).unwrap();
    fails(&stanza, "a newer server", &section_of(&stanza, &full), OldData::Untouched, &["16", "15"]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_block_incremental_backup_is_refused_by_name() {
    let stanza = Stanza::start("pgbr-block", 100, &[BUNDLED], "zst").unwrap();
    let label = stanza.backup(1, "full", &["--beta", "--repo1-block"]).unwrap();
    let manifest = stanza.backups(1, &format!("{label}/backup.manifest"));
    assert_eq!(Info::read(&manifest).unwrap().get("backup", "backup-block-incr"), Some("true"));
    fails(
        &stanza,
        "block incremental",
        &section_of(&stanza, &label),
        OldData::Untouched,
        &["take a new full backup with repo-block=n", &label],
    );
}
