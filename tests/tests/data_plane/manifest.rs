//! Restores with manifests that are wrong, invalid or too large.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use tests::server::run;

use super::scene::Scene;

/// A backup whose manifest is replaced.
struct ForgedManifest {
    scene: Scene,
    backup: PathBuf,
    original: String,
}

impl ForgedManifest {
    fn new(name: &str) -> Self {
        let (scene, backup) = Scene::with_backup(name, &[]);
        let original = std::fs::read_to_string(backup.join("backup_manifest")).unwrap();
        Self { scene, backup, original }
    }

    /// Writes this text as the manifest, and checks that the restore fails with these messages.
    fn fails(&self, what: &str, text: &[u8], says: &[&str]) {
        std::fs::write(self.backup.join("backup_manifest"), text).unwrap();
        self.scene.fails(what, &self.scene.directory_section(&self.backup), says);
    }

    /// Writes this text with a valid checksum as the manifest, and checks that the restore fails with these messages.
    fn fails_with_valid_checksum(&self, what: &str, text: &str, says: &[&str]) {
        assert_ne!(text, self.original, "{what}: the text was not changed");
        let text = with_checksum(text, &self.scene.primary.playground.path("unsigned"));
        self.fails(what, text.as_bytes(), says);
    }

    /// Returns the manifest's line for a file.
    fn line(&self, path: &str) -> &str {
        self.original.lines().find(|line| line.contains(&format!("\"Path\": \"{path}\""))).unwrap()
    }
}

/// Returns the manifest with a valid checksum of the text before it.
fn with_checksum(text: &str, scratch: &Path) -> String {
    let (before, _) = text.split_once("\"Manifest-Checksum\"").unwrap();
    std::fs::write(scratch, before).unwrap();
    let sum = run(Command::new("/usr/bin/sha256sum").arg(scratch)).unwrap();
    std::fs::remove_file(scratch).unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    format!("{before}\"Manifest-Checksum\": \"{}\"}}\n", sum.split(' ').next().unwrap())
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_wrong_manifest_entry_is_reported_with_the_file() {
    let forged = ForgedManifest::new("lies");
    let line = forged.line("PG_VERSION").to_owned();
    let other = forged.line("postgresql.conf").to_owned();
    let with = |line: &str, text: &str| forged.original.replace(line, text);
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
            "a size out of range",
            with(&line, &line.replace("\"Size\": 3", "\"Size\": 99999999999999999999")),
            "backup_manifest",
        ),
        ("another version", forged.original.replace("Manifest-Version\": 1", "Manifest-Version\": 99"), "99"),
        ("an unknown checksum", with(&line, &line.replace("CRC32C", "MD5")), "MD5"),
    ] {
        forged.fails_with_valid_checksum(what, &text, &[says]);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_manifest_that_requires_missing_wal_is_reported_with_the_archive() {
    let forged = ForgedManifest::new("more-log");
    let end = forged.original.split("\"End-LSN\": \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    forged.fails_with_valid_checksum(
        "further",
        &forged.original.replace(&end, "0/F0000028"),
        &["pg_wal.tar"],
    );
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn an_invalid_manifest_is_reported() {
    let forged = ForgedManifest::new("no-manifest");
    let deep = "[".repeat(1 << 20);
    for (what, text) in [
        ("empty", &b""[..]),
        ("text", b"hello"),
        ("half", &forged.original.as_bytes()[..forged.original.len() / 2]),
        ("more after it", &[forged.original.as_bytes(), b"{}"].concat()),
        ("not UTF-8", b"{ \"\xff\xfe\": 1 }"),
        ("a list", b"[1, 2, 3]"),
        ("deep", deep.as_bytes()),
        ("no checksum", b"{ \"PostgreSQL-Backup-Manifest-Version\": 1, \"Files\": [] }\n"),
    ] {
        forged.fails(what, text, &["backup_manifest"]);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_manifest_of_more_than_a_gigabyte_is_refused_without_reading_it_all() {
    let forged = ForgedManifest::new("huge");
    let manifest = std::fs::File::options().write(true).open(forged.backup.join("backup_manifest")).unwrap();
    manifest.set_len((1 << 30) + (1 << 20)).unwrap();
    let begun = Instant::now();
    forged.scene.fails("huge", &forged.scene.directory_section(&forged.backup), &["backup_manifest"]);
    assert!(begun.elapsed().as_secs() < 20, "it took {:?}", begun.elapsed());
}
