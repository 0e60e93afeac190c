//! Manifests that lie, that are none, or that are too much.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use tests::server::run;

use super::scene::Scene;

/// A backup whose manifest is written again.
struct Lies {
    scene: Scene,
    backup: PathBuf,
    honest: String,
}

impl Lies {
    fn new(name: &str) -> Self {
        let (scene, backup) = Scene::with_backup(name, &[]);
        let honest = std::fs::read_to_string(backup.join("backup_manifest")).unwrap();
        Self { scene, backup, honest }
    }

    /// With this text, which must fail and say this.
    fn fails(&self, what: &str, text: &[u8], says: &[&str]) {
        std::fs::write(self.backup.join("backup_manifest"), text).unwrap();
        self.scene.fails(what, &self.scene.in_directory(&self.backup), says);
    }

    /// With this text and the checksum that belongs to it.
    fn lies(&self, what: &str, text: &str, says: &[&str]) {
        assert_ne!(text, self.honest, "{what}: it is another one");
        let text = signed(text, &self.scene.primary.playground.path("unsigned"));
        self.fails(what, text.as_bytes(), says);
    }

    /// The line of a file.
    fn line(&self, path: &str) -> &str {
        self.honest.lines().find(|line| line.contains(&format!("\"Path\": \"{path}\""))).unwrap()
    }
}

/// The manifest with the checksum of what stands before it.
fn signed(text: &str, scratch: &Path) -> String {
    let (before, _) = text.split_once("\"Manifest-Checksum\"").unwrap();
    std::fs::write(scratch, before).unwrap();
    let sum = run(Command::new("/usr/bin/sha256sum").arg(scratch)).unwrap();
    std::fs::remove_file(scratch).unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    format!("{before}\"Manifest-Checksum\": \"{}\"}}\n", sum.split(' ').next().unwrap())
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_manifest_that_lies_about_a_file_is_told_with_the_file() {
    let lies = Lies::new("lies");
    let line = lies.line("PG_VERSION").to_owned();
    let other = lies.line("postgresql.conf").to_owned();
    let with = |line: &str, text: &str| lies.honest.replace(line, text);
    let checksum = line.split("\"Checksum\": \"").nth(1).unwrap().split('"').next().unwrap();
    for (what, text, says) in [
        ("smaller", with(&line, &line.replace("\"Size\": 3", "\"Size\": 2")), "PG_VERSION"),
        ("larger", with(&line, &line.replace("\"Size\": 3", "\"Size\": 4")), "PG_VERSION"),
        ("another checksum", with(&line, &line.replace(checksum, "00000000")), "PG_VERSION"),
        ("not listed", with(&format!("{line}\n"), ""), "PG_VERSION"),
        (
            "listed and not there",
            with(&line, &format!("{}\n{line}", line.replace("PG_VERSION", "base/5/99999"))),
            "base/5/99999",
        ),
        ("listed twice", with(&line, &format!("{line}\n{line}")), "PG_VERSION"),
        (
            "outside",
            with(&other, &other.replace("postgresql.conf", "../postgresql.conf")),
            "../postgresql.conf",
        ),
        ("absolute", with(&other, &other.replace("postgresql.conf", "/etc/passwd")), "/etc/passwd"),
        (
            "a size that no number is",
            with(&line, &line.replace("\"Size\": 3", "\"Size\": 99999999999999999999")),
            "backup_manifest",
        ),
        ("another version", lies.honest.replace("Manifest-Version\": 1", "Manifest-Version\": 99"), "99"),
        ("an unknown checksum", with(&line, &line.replace("CRC32C", "MD5")), "MD5"),
    ] {
        lies.lies(what, &text, &[says]);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_manifest_that_asks_for_more_log_than_there_is_is_told_with_the_segment() {
    let lies = Lies::new("more-log");
    let end = lies.honest.split("\"End-LSN\": \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    lies.lies("further", &lies.honest.replace(&end, "0/F0000028"), &["pg_wal.tar"]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn what_is_no_manifest_is_told() {
    let lies = Lies::new("no-manifest");
    let deep = "[".repeat(1 << 20);
    for (what, text) in [
        ("empty", &b""[..]),
        ("text", b"hello"),
        ("half", &lies.honest.as_bytes()[..lies.honest.len() / 2]),
        ("more after it", &[lies.honest.as_bytes(), b"{}"].concat()),
        ("not UTF-8", b"{ \"\xff\xfe\": 1 }"),
        ("a list", b"[1, 2, 3]"),
        ("deep", deep.as_bytes()),
        ("no checksum", b"{ \"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [] }\n"),
    ] {
        lies.fails(what, text, &["backup_manifest"]);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_manifest_of_more_than_a_gigabyte_is_refused_without_reading_it_all() {
    let lies = Lies::new("huge");
    let manifest = std::fs::File::options().write(true).open(lies.backup.join("backup_manifest")).unwrap();
    manifest.set_len((1 << 30) + (1 << 20)).unwrap();
    let begun = Instant::now();
    lies.scene.fails("huge", &lies.scene.in_directory(&lies.backup), &["backup_manifest"]);
    assert!(begun.elapsed().as_secs() < 20, "it took {:?}", begun.elapsed());
}
