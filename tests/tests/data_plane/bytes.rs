//! Flipped bytes in files, headers, padding, compressed streams, WAL and manifests, and truncated objects.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::program::fast_or_full;
use tests::server::{BIN_DIR, run};

use super::archive::{Member, members};
use super::scene::Scene;

/// A file with a flipped byte. Dropping the value restores the byte.
pub(crate) struct FlippedByte {
    file: File,
    at: u64,
}

impl FlippedByte {
    pub(crate) fn at(path: &Path, at: u64) -> Self {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let flipped = Self { file, at };
        flipped.flip();
        flipped
    }

    fn flip(&self) {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, self.at).unwrap();
        self.file.write_all_at(&[byte[0] ^ 0x10], self.at).unwrap();
    }
}

impl Drop for FlippedByte {
    fn drop(&mut self) {
        self.flip();
    }
}

/// Flips a byte, and checks that the restore fails with these messages.
fn assert_flipped_byte_fails(scene: &Scene, backup: &Path, object: &str, at: u64, says: &[&str]) {
    let flipped = FlippedByte::at(&backup.join(object), at);
    scene.fails(&format!("byte {at} of {object}"), &scene.directory_section(backup), says);
    drop(flipped);
}

/// Returns the members with these names, and the largest member.
fn chosen(archive: &Path, names: &[&str]) -> Vec<Member> {
    let mut all = members(archive);
    all.sort_by_key(|member| std::cmp::Reverse(member.size));
    let largest = all[0].clone();
    let mut chosen: Vec<Member> =
        all.into_iter().filter(|member| names.contains(&member.name.as_str())).collect();
    assert_eq!(chosen.len(), names.len(), "{chosen:?}");
    chosen.push(largest);
    chosen
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_flipped_byte_in_a_file_of_a_plain_archive_is_reported_with_the_file() {
    let (scene, backup) = Scene::with_backup("flip-files", &[]);
    let base = backup.join("base.tar");
    let names = ["backup_label", "PG_VERSION", "global/pg_control", "pg_xact/0000", "postgresql.conf"];
    for member in chosen(&base, &names) {
        for at in [0, member.size / 2, member.size - 1].into_iter().take(fast_or_full(1, 3) as usize) {
            assert_flipped_byte_fails(&scene, &backup, "base.tar", member.data + at, &[&member.name]);
        }
    }
    let tablespace = tablespace(&backup, ".tar");
    let member = chosen(&backup.join(&tablespace), &[]).remove(0);
    assert_flipped_byte_fails(&scene, &backup, &tablespace, member.data + member.size / 2, &[&member.name]);
    scene.creates("unharmed", &scene.directory_section(&backup), &backup.join("backup_manifest"));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_flipped_byte_in_a_header_or_in_padding_is_reported_with_the_archive() {
    let (scene, backup) = Scene::with_backup("flip-headers", &[]);
    let base = backup.join("base.tar");
    let member = chosen(&base, &["postgresql.conf"]).remove(0);
    // Name, mode, size, time, checksum, type, owner's name, unused bytes.
    for at in [0, 105, 134, 145, 150, 156, 265, 500] {
        assert_flipped_byte_fails(&scene, &backup, "base.tar", member.header + at, &["base.tar"]);
    }
    let label = chosen(&base, &["backup_label"]).remove(0);
    for padded in [&member, &label] {
        assert_ne!(padded.size % 512, 0, "{padded:?} has no padding");
        assert_flipped_byte_fails(&scene, &backup, "base.tar", padded.data + padded.size, &["base.tar"]);
    }
    // The two zero blocks after the last member.
    assert_flipped_byte_fails(
        &scene,
        &backup,
        "base.tar",
        base.metadata().unwrap().len() - 700,
        &["base.tar"],
    );
    assert_flipped_byte_fails(&scene, &backup, "base.tar", base.metadata().unwrap().len() - 1, &["base.tar"]);
}

/// Returns the name of the tablespace's archive.
fn tablespace(backup: &Path, suffix: &str) -> String {
    let names =
        std::fs::read_dir(backup).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .into_iter()
        .find(|name| name.ends_with(suffix) && name.starts_with(|c: char| c.is_ascii_digit()))
        .unwrap()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_flipped_byte_in_a_compressed_archive_is_reported_with_the_archive() {
    let scene = Scene::new("flip-compressed");
    for (suffix, option) in [
        (".tar.gz", "--compress=client-gzip:1"),
        (".tar.lz4", "--compress=client-lz4"),
        (".tar.zst", "--compress=client-zstd:1"),
    ] {
        let backup = scene.primary.tar_backup(suffix, &[option]).unwrap();
        let tablespace = tablespace(&backup, suffix);
        for object in [&format!("base{suffix}"), &tablespace] {
            let length = backup.join(object).metadata().unwrap().len();
            let samples =
                u64::from(if object == &tablespace { fast_or_full(1, 10) } else { fast_or_full(4, 60) });
            for sample in 0..samples {
                // The positions are spread evenly, without the first and last bytes, because some of these do not affect the content.
                let mut at = 32 + (length - 64) * (2 * sample + 1) / (2 * samples);
                if suffix == ".tar.lz4" {
                    at = changes_content(&backup.join(object), at);
                }
                assert_flipped_byte_fails(&scene, &backup, object, at, &[object]);
            }
            // A byte of the magic number.
            assert_flipped_byte_fails(&scene, &backup, object, 1, &[object]);
        }
        std::fs::remove_dir_all(backup).unwrap();
    }
}

/// Returns the position of the first byte from `at` on that changes the content of an lz4 archive if it is flipped. pg_basebackup writes lz4
/// without a checksum, and in a text that repeats itself, a reference to another place may have the same content.
fn changes_content(archive: &Path, at: u64) -> u64 {
    let content = || Command::new("lz4").arg("-dcq").arg(archive).output().unwrap();
    let original = content();
    assert!(original.status.success());
    (at..)
        .find(|at| {
            let flipped = FlippedByte::at(archive, *at);
            let read = content();
            drop(flipped);
            !read.status.success() || read.stdout != original.stdout
        })
        .unwrap()
}

/// The position of a WAL record in its segment.
struct Record {
    at: u64,
    length: u64,
}

/// Returns the backup's only segment, and the records between the start and the end of the backup as pg_waldump prints them.
fn records(scene: &Scene, backup: &Path) -> (Member, Vec<Record>) {
    let archive = backup.join("pg_wal.tar");
    let segment = members(&archive).into_iter().find(|member| member.size == 16 << 20).unwrap();
    let extracted = scene.primary.playground.directory("extracted").unwrap();
    run(Command::new("/bin/tar")
        .arg("--extract")
        .arg("--file")
        .arg(&archive)
        .arg("--directory")
        .arg(&extracted))
    .unwrap();
    let manifest = std::fs::read_to_string(backup.join("backup_manifest")).unwrap();
    let lsn = |key: &str| {
        manifest.split(&format!("\"{key}\": \"")).nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let dump = run(Command::new(Path::new(BIN_DIR).join("pg_waldump"))
        .args(["--start", &lsn("Start-LSN"), "--end", &lsn("End-LSN")])
        .arg(extracted.join(&segment.name)))
    .unwrap();
    std::fs::remove_dir_all(extracted).unwrap();
    let text = String::from_utf8(dump.stdout).unwrap();
    let records = text.lines().map(|line| {
        let after = |word: &str| line.split(word).nth(1).unwrap().trim().to_owned();
        let length = after("len (rec/tot):")
            .split('/')
            .nth(1)
            .unwrap()
            .split(',')
            .next()
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        let low = after("lsn:").split([',', ' ']).next().unwrap().split('/').nth(1).unwrap().to_owned();
        Record { at: u64::from_str_radix(&low, 16).unwrap() % (16 << 20), length }
    });
    (segment.clone(), records.collect())
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_flipped_byte_in_a_wal_record_or_between_two_is_reported_with_the_segment() {
    let (scene, backup) = Scene::with_backup("flip-log", &[]);
    let (segment, records) = records(&scene, &backup);
    assert!(records.len() >= 2, "the backup has fewer than two records");
    for record in &records {
        for at in [record.at, record.at + 20, record.at + record.length - 1] {
            assert_flipped_byte_fails(
                &scene,
                &backup,
                "pg_wal.tar",
                segment.data + at,
                &["pg_wal.tar", &segment.name],
            );
        }
    }
    let padded = records
        .iter()
        .find(|record| record.length % 8 != 0 && record.at % 8192 + record.length < 8192)
        .unwrap();
    assert_flipped_byte_fails(
        &scene,
        &backup,
        "pg_wal.tar",
        segment.data + padded.at + padded.length,
        &["pg_wal.tar", &segment.name],
    );
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_flipped_byte_in_the_manifest_is_reported() {
    let (scene, backup) = Scene::with_backup("flip-manifest", &[]);
    let length = backup.join("backup_manifest").metadata().unwrap().len();
    let samples = u64::from(fast_or_full(5, 50));
    let mut positions: Vec<u64> = (0..samples).map(|sample| length * sample / samples).collect();
    positions.extend([length - 10, length - 60, length - 95]);
    for at in positions {
        assert_flipped_byte_fails(&scene, &backup, "backup_manifest", at, &["backup_manifest"]);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_truncated_object_is_reported() {
    let scene = Scene::new("short");
    for (suffix, options) in [
        ("", &[][..]),
        (".gz", &["--compress=client-gzip:1"]),
        (".lz4", &["--compress=client-lz4"]),
        (".zst", &["--compress=client-zstd:1"]),
    ] {
        let backup = scene.primary.tar_backup(&format!("short{suffix}"), options).unwrap();
        let object = format!("base.tar{suffix}");
        let path: PathBuf = backup.join(&object);
        let complete = std::fs::read(&path).unwrap();
        for left in [complete.len() - 1500, complete.len() / 2, 0] {
            std::fs::write(&path, &complete[..left]).unwrap();
            scene.fails(
                &format!("{object} of {left} bytes"),
                &scene.directory_section(&backup),
                &["base.tar"],
            );
        }
        // The appended bytes are longer than one tar block (512 bytes).
        let mut longer = complete.clone();
        longer.extend_from_slice(&[7; 600]);
        std::fs::write(&path, longer).unwrap();
        scene.fails(&format!("{object}, longer"), &scene.directory_section(&backup), &["base.tar"]);
        std::fs::remove_dir_all(backup).unwrap();
    }
}
