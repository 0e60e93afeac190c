//! Repositories that are damaged, incomplete or another's: each has its own sentence, and what the plan can know leaves the old
//! data alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::pgbackrest::{BUNDLED, CODECS, ENCRYPTED, Info, PLAIN, Stanza};
use tests::primary::Primary;
use tests::server::run;

use super::scene::{Old, fails, fails_in};

/// The section that restores this backup of the first repository.
pub(crate) fn of(stanza: &Stanza, label: &str) -> String {
    stanza.method(&[1], "", &format!("backup = \"{label}\"\n"))
}

/// A folder of a repository beside itself, to be damaged and put back.
pub(crate) struct Kept {
    folder: PathBuf,
    copy: PathBuf,
}

impl Kept {
    pub(crate) fn new(folder: &Path) -> Self {
        let copy = folder.with_extension("kept");
        copied(folder, &copy);
        Self { folder: folder.to_owned(), copy }
    }

    /// As it was.
    pub(crate) fn back(&self) {
        fs::remove_dir_all(&self.folder).unwrap();
        copied(&self.copy, &self.folder);
    }
}

pub(crate) fn copied(from: &Path, to: &Path) {
    run(Command::new("/bin/cp").arg("--archive").arg(from).arg(to)).unwrap();
}

/// Changes one byte in the middle of a file.
pub(crate) fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(file, bytes).unwrap();
}

/// The files of a backup's `pg_data/base/1`, largest first.
fn relations(stanza: &Stanza, number: usize, label: &str) -> Vec<PathBuf> {
    let folder = stanza.backups(number, &format!("{label}/pg_data/base/1"));
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|file| std::cmp::Reverse(fs::metadata(file).unwrap().len()));
    files
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_backup_that_is_not_there_or_not_whole_is_told() {
    let stanza = Stanza::start("pgbr-whole", 100, &[PLAIN], "gz").unwrap();
    let none = stanza.method(&[1], "", "");
    fails(&stanza, "no backup", &none, Old::Untouched, &["demo", "no backup"]);
    let full = stanza.backup(1, "full", &[]).unwrap();
    let diff = stanza.backup(1, "diff", &[]).unwrap();
    let gone = stanza.backup(1, "incr", &[]).unwrap();
    run(&mut stanza.pgbackrest(&["--repo=1", &format!("--set={gone}"), "expire"])).unwrap();
    assert_eq!(stanza.labels(1).unwrap(), [full.clone(), diff.clone()]);

    let other = of(&stanza, &full).replace("stanza = \"demo\"", "stanza = \"other\"");
    fails(&stanza, "another stanza", &other, Old::Untouched, &["other"]);
    fails(&stanza, "expired", &of(&stanza, &gone), Old::Untouched, &[&gone]);
    fails(&stanza, "never taken", &of(&stanza, "20200101-000000F"), Old::Untouched, &["20200101-000000F"]);

    // One that pgBackRest was at when it was killed: the manifest is there as a copy alone, and backup.info has no line of it.
    let unfinished = format!("{full}_20990101-000000I");
    let folder = stanza.backups(1, &unfinished);
    copied(&stanza.backups(1, &full), &folder);
    fs::remove_file(folder.join("backup.manifest")).unwrap();
    fails(&stanza, "unfinished", &of(&stanza, &unfinished), Old::Untouched, &[&unfinished]);
    let replica = stanza.replica(&stanza.method(&[1], "", "")).unwrap();
    assert_eq!(stanza.created(&replica).unwrap()["plan"]["backup"], diff, "the newest that is whole");

    let kept = Kept::new(&stanza.backups(1, &full));
    fs::remove_dir_all(stanza.backups(1, &full)).unwrap();
    fails(&stanza, "reference gone", &of(&stanza, &diff), Old::Untouched, &[&full]);
    copied(&kept.copy, &stanza.backups(1, &full));
    fs::remove_dir_all(stanza.backups(1, &diff)).unwrap();
    fails(&stanza, "listed and gone", &of(&stanza, &diff), Old::Untouched, &[&diff]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_damaged_index_is_told_and_its_copy_used() {
    let stanza = Stanza::start("pgbr-index", 100, &[PLAIN], "lz4").unwrap();
    let full = stanza.backup(1, "full", &[]).unwrap();
    let user = stanza.primary.playground.user();
    let section = of(&stanza, &full);
    let manifest = format!("{full}/backup.manifest");
    let kept = Kept::new(&stanza.backups(1, ""));
    for name in ["backup.info", &manifest] {
        let (file, copy) = (stanza.backups(1, name), stanza.backups(1, &format!("{name}.copy")));
        let file_name = file.file_name().unwrap().to_str().unwrap().to_owned();
        flip(&file);
        let replica = stanza.folder("", &section).unwrap();
        stanza
            .created(&replica)
            .unwrap_or_else(|error| panic!("{name} is broken, its copy is whole: {error:#}"));
        flip(&copy);
        fails(&stanza, "both are broken", &section, Old::Untouched, &[&file_name]);
        kept.back();
        fs::remove_file(&file).unwrap();
        let replica = stanza.folder("", &section).unwrap();
        stanza
            .created(&replica)
            .unwrap_or_else(|error| panic!("{name} is gone, its copy is whole: {error:#}"));
        fs::remove_file(&copy).unwrap();
        fails(&stanza, "both are gone", &section, Old::Untouched, &[&file_name]);
        kept.back();
        for broken in [&b""[..], b"hello", b"\xff\xfe\0"] {
            fs::write(&file, broken).unwrap();
            fs::write(&copy, broken).unwrap();
            fails(&stanza, "no such file", &section, Old::Untouched, &[&file_name]);
        }
        kept.back();
        for format in ["4", "6", "\"5\"", "null"] {
            let mut info = Info::read(&file).unwrap();
            info.set("backrest", "backrest-format", format).write(&file, user).unwrap();
            fails(&stanza, "another format", &section, Old::Untouched, &[&file_name, "format"]);
        }
        kept.back();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_damaged_file_is_told_by_name_in_every_compression() {
    let mut stanza = Stanza::start("pgbr-damaged", 100, &[PLAIN, ENCRYPTED, BUNDLED], "gz").unwrap();
    for codec in CODECS {
        stanza.compress(codec).unwrap();
        let label = stanza.backup(1, "full", &[]).unwrap();
        let damaged = &relations(&stanza, 1, &label)[0];
        let name = damaged.file_stem().unwrap().to_str().unwrap();
        let kept = Kept::new(&stanza.backups(1, &label));
        flip(damaged);
        let path = format!("base/1/{name}");
        fails(&stanza, &format!("flipped, {codec}"), &of(&stanza, &label), Old::Emptied, &[&path]);
        kept.back();
        let length = fs::metadata(damaged).unwrap().len();
        fs::File::options().write(true).open(damaged).unwrap().set_len(length / 2).unwrap();
        fails(&stanza, &format!("truncated, {codec}"), &of(&stanza, &label), Old::Emptied, &[&path]);
        kept.back();
        fs::remove_file(damaged).unwrap();
        fails(&stanza, &format!("gone, {codec}"), &of(&stanza, &label), Old::Emptied, &[&path]);
        fs::remove_dir_all(stanza.backups(1, &label)).unwrap();
        fs::remove_dir_all(&kept.copy).unwrap();
    }
    stanza.compress("zst").unwrap();
    for (number, what) in [(2, "encrypted"), (3, "bundled")] {
        let label = stanza.backup(number, "full", &[]).unwrap();
        let damaged = match what {
            "bundled" => stanza.backups(number, &format!("{label}/bundle/1")),
            _ => relations(&stanza, number, &label)[0].clone(),
        };
        let section = stanza.method(&[number], "", &format!("backup = \"{label}\"\n"));
        let whole = fs::read(&damaged).unwrap();
        flip(&damaged);
        let old = if what == "bundled" { Old::Either } else { Old::Emptied };
        fails(&stanza, &format!("flipped, {what}"), &section, old, &[]);
        fs::write(&damaged, &whole[..whole.len() / 2]).unwrap();
        fails(&stanza, &format!("truncated, {what}"), &section, old, &[]);
        fs::write(&damaged, &whole).unwrap();
        stanza.created(&stanza.folder("", &section).unwrap()).unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_wrong_pass_phrase_is_told_before_anything_is_touched() {
    let stanza = Stanza::start("pgbr-pass", 100, &[ENCRYPTED, PLAIN], "gz").unwrap();
    let section = stanza.method(&[1], "", "");
    stanza.backup(1, "full", &[]).unwrap();
    stanza.backup(2, "full", &[]).unwrap();
    let pass = stanza.primary.playground.path("secrets/repository.pass");
    for wrong in ["another pass phrase", "x"] {
        fs::write(&pass, wrong).unwrap();
        fails(&stanza, "wrong", &section, Old::Untouched, &["pass phrase"]);
    }
    let without: String =
        section.lines().filter(|line| !line.starts_with("keys.")).map(|line| format!("{line}\n")).collect();
    fails(&stanza, "none", &without, Old::Untouched, &["keys.repo"]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_repository_of_another_cluster_or_of_a_newer_server_is_rejected() {
    let stanza = Stanza::start("pgbr-other", 100, &[PLAIN], "gz").unwrap();
    let full = stanza.backup(1, "full", &[]).unwrap();
    let other = Primary::start("pgbr-another", 100).unwrap();
    let replica = stanza.replica_of(&other.server, &of(&stanza, &full)).unwrap();
    let system = "SELECT system_identifier FROM pg_control_system()";
    let (here, there) = (stanza.primary.server.psql(system).unwrap(), other.server.psql(system).unwrap());
    fails_in(&stanza, &replica, "another cluster", Old::Untouched, &["rejected", &here, &there]);

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
    fails(&stanza, "a newer server", &of(&stanza, &full), Old::Untouched, &["16", "15"]);
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
        &of(&stanza, &label),
        Old::Untouched,
        &["take a new full backup with repo-block=n", &label],
    );
}
