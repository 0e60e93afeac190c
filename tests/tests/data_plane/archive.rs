//! Restores of archives with malicious or invalid content.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use tests::server::run;

use super::scene::Scene;

/// A member of a tar archive, with the offsets of its header and its data.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) header: u64,
    pub(crate) data: u64,
    pub(crate) size: u64,
}

/// Returns the members of an uncompressed archive that are not empty.
pub(crate) fn members(archive: &Path) -> Vec<Member> {
    all_members(archive).0.into_iter().filter(|member| member.size > 0).collect()
}

/// Returns all members, and the offset after the last one.
fn all_members(archive: &Path) -> (Vec<Member>, u64) {
    let mut file = File::open(archive).unwrap();
    let (mut found, mut at) = (Vec::new(), 0);
    loop {
        let mut header = [0; 512];
        file.seek(SeekFrom::Start(at)).unwrap();
        file.read_exact(&mut header).unwrap();
        if header.iter().all(|byte| *byte == 0) {
            return (found, at);
        }
        let text = |range: std::ops::Range<usize>| {
            let field = &header[range];
            let end = field.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(field.len());
            String::from_utf8(field[..end].to_vec()).unwrap()
        };
        let size = u64::from_str_radix(&text(124..136), 8).unwrap();
        found.push(Member { name: text(0..100), header: at, data: at + 512, size });
        at += 512 + size.next_multiple_of(512);
    }
}

/// Returns a header in the ustar interchange format (POSIX, pax(1)).
fn header(name: &str, size: u64, kind: u8, link: &str) -> [u8; 512] {
    let mut header = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"14000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// Appends these blocks after the last member of an uncompressed archive.
fn append(archive: &Path, blocks: &[u8]) {
    let end = all_members(archive).1;
    let mut file = File::options().write(true).open(archive).unwrap();
    file.set_len(end).unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(blocks).unwrap();
    file.write_all(&[0; 1024]).unwrap();
}

/// Returns the blocks of a member that is a file of a few bytes.
fn small_file(name: &str) -> Vec<u8> {
    let mut blocks = header(name, 5, b'0', "").to_vec();
    blocks.extend_from_slice(b"evil\n");
    blocks.resize(1024, 0);
    blocks
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn an_invalid_archive_member_fails_the_attempt_and_nothing_is_written_outside() {
    let (scene, backup) = Scene::with_backup("members", &[]);
    let outside = scene.primary.playground.path("evil").display().to_string();
    let base = backup.join("base.tar");
    let original = std::fs::read(&base).unwrap();
    let link = |kind: u8| {
        let mut blocks =
            header("base/link", 0, kind, &scene.primary.playground.path("").display().to_string()).to_vec();
        blocks.extend(small_file("base/link/evil"));
        blocks
    };
    let cases = [
        ("a parent", small_file("base/../../evil"), ".."),
        ("an absolute name", small_file(&outside), "evil"),
        ("a symbolic link", link(b'2'), "base/link"),
        ("a hard link", link(b'1'), "base/link"),
        ("a device", header("base/device", 0, b'3', "").to_vec(), "base/device"),
        ("a fifo", header("base/fifo", 0, b'6', "").to_vec(), "base/fifo"),
        ("a file twice", small_file("pg_ident.conf"), "pg_ident.conf"),
        ("a file of a tablespace that is none", small_file("pg_tblspc/99999/evil"), "pg_tblspc"),
        ("the unfinished control file", small_file("global/pg_control.understudy"), "pg_control"),
        ("a server's own file", small_file("postmaster.pid"), "postmaster.pid"),
        ("a file of an incremental backup", small_file("base/5/INCREMENTAL.1259"), "INCREMENTAL"),
    ];
    // Once with the manifest, which does not list the member, and once without a manifest.
    for has_manifest in [true, false] {
        if !has_manifest {
            std::fs::rename(backup.join("backup_manifest"), scene.primary.playground.path("manifest"))
                .unwrap();
        }
        for (what, blocks, says) in &cases {
            append(&base, blocks);
            scene.fails(
                &format!("{what}, manifest: {has_manifest}"),
                &scene.directory_section(&backup),
                &[says],
            );
            std::fs::write(&base, &original).unwrap();
        }
    }
    scene.replica(&scene.directory_section(&backup)).created_by("tarball").unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_decompression_bomb_ends_at_the_declared_size_or_the_disk_budget() {
    let scene = Scene::new("bomb");
    for (suffix, option, packer) in [
        (".gz", "--compress=client-gzip:1", "gzip -1"),
        (".zst", "--compress=client-zstd:1", "zstd -1 -q"),
        (".lz4", "--compress=client-lz4", "lz4 -1 -q"),
    ] {
        let backup = scene.primary.tar_backup(&format!("bomb{suffix}"), &[option]).unwrap();
        let path = backup.join(format!("base.tar{suffix}"));
        let plain = scene.primary.playground.path("bomb.tar");
        let script = |script: String| {
            run(Command::new("/bin/bash").args(["-c", &format!("set -e -o pipefail\n{script}")])).unwrap()
        };
        let (archive, bomb) = (path.display(), plain.display());
        script(format!("{} -dc {archive} >{bomb}", packer.split(' ').next().unwrap()));
        // The last member has 64 GiB of zeroes, which compress to a thousandth of that size.
        let end = all_members(&plain).1;
        File::options().write(true).open(&plain).unwrap().set_len(end).unwrap();
        let huge = 64_u64 << 30;
        let mut evil = header("base/5/70000", 0, b'0', "");
        evil[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0]);
        evil[148..156].copy_from_slice(b"        ");
        let sum: u32 = evil.iter().map(|byte| u32::from(*byte)).sum();
        evil[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(huge, 0x10_0000_0000);
        File::options().append(true).open(&plain).unwrap().write_all(&evil).unwrap();
        script(format!(
            "{packer} -c {bomb} >{archive}; head -c 64M /dev/zero | {packer} -c >{bomb}.piece; for i in $(seq 256); do cat {bomb}.piece; done >>{archive}; \
             chmod a+r {archive}; rm {bomb} {bomb}.piece"
        ));
        let manifest = backup.join("backup_manifest");
        let aside = scene.primary.playground.path("manifest");
        for has_manifest in [true, false] {
            if !has_manifest {
                std::fs::rename(&manifest, &aside).unwrap();
            }
            let begun = Instant::now();
            // Without a manifest, only the operator's disk budget limits the size of the file.
            let section = scene.directory_section(&backup);
            let section = section.replace("read = [", "disk = { bytes = \"300MiB\" }\nread = [");
            scene.fails(&format!("{suffix}, manifest: {has_manifest}"), &section, &["base.tar"]);
            assert!(begun.elapsed().as_secs() < 60, "{suffix} took {:?}", begun.elapsed());
        }
        std::fs::remove_dir_all(backup).unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_missing_archive_is_reported() {
    let (scene, backup) = Scene::with_backup("missing", &[]);
    let tablespace = std::fs::read_dir(&backup)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.starts_with(|c: char| c.is_ascii_digit()))
        .unwrap();
    let aside = scene.primary.playground.path("aside");
    for (object, says) in [(tablespace.as_str(), tablespace.split('.').next().unwrap()), ("pg_wal.tar", "")] {
        std::fs::rename(backup.join(object), &aside).unwrap();
        if says.is_empty() {
            // Without pg_wal.tar the backup looks as if it were taken with -X none: the log says that the source must have the WAL.
            let ended = scene.replica(&scene.directory_section(&backup)).create(&[]).unwrap();
            assert!(ended.output.contains("WAL"), "{}", ended.output);
        } else {
            scene.fails(object, &scene.directory_section(&backup), &[says]);
        }
        std::fs::rename(&aside, backup.join(object)).unwrap();
    }
}
