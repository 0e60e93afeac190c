//! Incremental backups of PostgreSQL 17 and 18: the chain of a full and two incremental backups becomes what `pg_combinebackup` makes of
//! it, file for file.

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use tests::primary::Primary;
use tests::program::fast_or_full;
use tests::releases::playground;
use tests::server::run;

use super::scene::Scene;

/// The pg_basebackup options of a full backup and of the two incremental ones that follow it.
type Options = [&'static [&'static str]; 3];

const OPTIONS: [Options; 4] = [
    [&["--compress=client-gzip:1"], &[], &["--compress=server-lz4"]],
    [&["--compress=client-zstd:1"], &["--wal-method=fetch"], &["--manifest-checksums=SHA256"]],
    [&[], &["--compress=server-zstd:level=1"], &["--wal-method=fetch", "--compress=client-gzip:1"]],
    [&["--manifest-checksums=SHA512"], &["--compress=client-lz4"], &["--compress=client-zstd:1"]],
];

/// What happens on the primary before the full backup, and after each backup of the chain but the last.
const CHANGES: [&str; 3] = [
    "CREATE TABLE shrinks AS SELECT n, repeat('x', 100) AS body FROM generate_series(1, 60000) n;
     CREATE TABLE grows AS SELECT n, repeat('y', 100) AS body FROM generate_series(1, 5000) n;
     CREATE TABLE goes AS SELECT 1 AS n;
     CREATE TABLE placed (n int, body text) TABLESPACE fast;
     INSERT INTO placed SELECT n, repeat('z', 200) FROM generate_series(1, 20000) n;
     CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS n;
     CHECKPOINT",
    "UPDATE shrinks SET body = 'changed' WHERE n % 500 = 0;
     INSERT INTO grows SELECT n, repeat('y', 100) FROM generate_series(5001, 40000) n;
     DROP TABLE goes;
     CREATE TABLE comes AS SELECT n FROM generate_series(1, 3000) n;
     UPDATE placed SET body = 'changed' WHERE n BETWEEN 100 AND 200;
     CHECKPOINT",
    "DELETE FROM shrinks WHERE n > 10000;
     VACUUM (TRUNCATE) shrinks;
     TRUNCATE comes;
     INSERT INTO comes SELECT n FROM generate_series(1, 10) n;
     UPDATE placed SET body = 'again' WHERE n = 15000;
     CHECKPOINT",
];

/// A chain of three backups.
struct Backups {
    scene: Scene,
    /// The full backup, and the incremental backups that follow it.
    folders: [PathBuf; 3],
}

impl Backups {
    fn take(name: &str, major: u32, options: Options) -> Self {
        let playground = playground(name, major).unwrap();
        let scene = Scene::with_primary(Primary::start_in(playground, 2_000).unwrap());
        let server = &scene.primary.server;
        server.psql("ALTER SYSTEM SET summarize_wal = on").unwrap();
        server.psql("SELECT pg_reload_conf()").unwrap();
        server.wait_for("SHOW summarize_wal", "on").unwrap();
        let mut folders: Vec<PathBuf> = Vec::new();
        for (number, (changes, options)) in CHANGES.iter().zip(options).enumerate() {
            for change in changes.split(';') {
                server.psql(change).unwrap();
            }
            let mut options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            if let Some(before) = folders.last() {
                options.push(format!("--incremental={}", before.join("backup_manifest").display()));
            }
            let options: Vec<_> = options.iter().map(String::as_str).collect();
            folders.push(scene.primary.tar_backup(&format!("link-{number}"), &options).unwrap());
        }
        Self { scene, folders: folders.try_into().unwrap() }
    }

    /// Returns the section that restores the backup `name` of the chain from a directory.
    fn section(&self, name: &str) -> String {
        let backups = self.scene.primary.backups().unwrap();
        let section = self.scene.directory_section(&backups);
        section.replace("[method.tarball.grants]", &format!("backup = \"{name}\"\n[method.tarball.grants]"))
    }

    /// Combines the chain with `pg_combinebackup`, and returns the manifest of the result.
    fn combined(&self) -> PathBuf {
        let primary = &self.scene.primary;
        let root = primary.playground.directory("combining").unwrap();
        let oid = primary.server.psql("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'").unwrap();
        let user = primary.playground.user();
        let mut program = user.command(primary.playground.bin_dir().join("pg_combinebackup"));
        for (number, backup) in self.folders.iter().enumerate() {
            let (plain, placed) = (root.join(format!("{number}")), root.join(format!("{number}-fast")));
            for (archive, folder) in
                [("base", &plain), (oid.as_str(), &placed), ("pg_wal", &plain.join("pg_wal"))]
            {
                fs::create_dir_all(folder).unwrap();
                let Some(archive) = archive_of(backup, archive) else { continue };
                let mut tar = std::process::Command::new("tar");
                // tar itself knows the other compressions.
                if archive.extension().is_some_and(|ending| ending == "lz4") {
                    tar.arg("--use-compress-program=lz4");
                }
                run(tar.arg("--extract").arg("--file").arg(archive).arg("--directory").arg(folder)).unwrap();
            }
            fs::copy(backup.join("backup_manifest"), plain.join("backup_manifest")).unwrap();
            symlink(&placed, plain.join("pg_tblspc").join(&oid)).unwrap();
            program.arg(&plain);
            let map = format!("{}={}", placed.display(), root.join("whole-fast").display());
            program.arg(format!("--tablespace-mapping={map}"));
        }
        run(std::process::Command::new("chown")
            .arg("--recursive")
            .arg("--reference")
            .arg(&self.folders[0])
            .arg(&root))
        .unwrap();
        run(program.arg("--no-sync").arg("--output").arg(root.join("whole"))).unwrap();
        root.join("whole/backup_manifest")
    }
}

/// Returns the archive `stem` of a backup, however it is compressed; `None` if there is none.
fn archive_of(backup: &Path, stem: &str) -> Option<PathBuf> {
    let names = fs::read_dir(backup).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.into_iter().find(|name| name.starts_with(&format!("{stem}.tar"))).map(|name| backup.join(name))
}

fn becomes_what_pg_combinebackup_makes(major: u32) {
    let first = (major - 17) as usize;
    for step in 0..fast_or_full(1, 4) as usize {
        let options = OPTIONS[(first + step) % OPTIONS.len()];
        let chain = Backups::take(&format!("chain-{major}-{step}"), major, options);
        let manifest = chain.combined();
        let (replica, ended) =
            chain.scene.creates(&format!("{major} {options:?}"), &chain.section("link-2"), &manifest);
        assert!(ended.output.contains("adding the pages that only"), "{}", ended.output);
        let label = fs::read_to_string(replica.datadir().join("backup_label")).unwrap();
        assert_eq!(label, fs::read_to_string(manifest.with_file_name("backup_label")).unwrap());
        // The first two backups are a chain, too.
        chain.scene.replica(&chain.section("link-1")).created_by("tarball").unwrap();
        // Without a name, the newest backup is taken, and the replica follows the primary.
        let backups = chain.scene.primary.backups().unwrap();
        let section = chain.scene.primary.tarball(&backups);
        let replica = chain.scene.primary.replica("streams", &["tarball"], "", &section).unwrap();
        let ended = replica.created_by("tarball").unwrap();
        assert!(ended.output.contains("link-2"), "{}", ended.output);
        chain.scene.primary.streams_to(&replica).unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_chain_of_postgresql_17_becomes_what_pg_combinebackup_makes_of_it() {
    becomes_what_pg_combinebackup_makes(17);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_chain_of_postgresql_18_becomes_what_pg_combinebackup_makes_of_it() {
    becomes_what_pg_combinebackup_makes(18);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_chain_that_is_broken_or_damaged_is_refused_by_name() {
    let chain = Backups::take("broken-chain", 17, [&[], &[], &[]]);
    let section = chain.section("link-2");
    let [full, first, second] = &chain.folders;
    let away = chain.scene.primary.playground.path("away");
    for (folder, says) in
        [(full, "link-1/base.tar is an incremental backup"), (first, "link-2/base.tar is an incremental")]
    {
        fs::rename(folder, &away).unwrap();
        chain.scene.fails("a missing backup", &section, &[says, "no usable backup that began there"]);
        fs::rename(&away, folder).unwrap();
    }
    for folder in [full, first] {
        fs::rename(folder.join("backup_manifest"), &away).unwrap();
        chain.scene.fails("a missing manifest", &section, &["has no backup_manifest beside it"]);
        fs::rename(&away, folder.join("backup_manifest")).unwrap();
    }
    for folder in [full, first, second] {
        // The first byte of the last PG_VERSION in the archive.
        let path = folder.join("base.tar");
        let archive = fs::read(&path).unwrap();
        let name = b"PG_VERSION\0";
        let header = archive.windows(name.len()).rposition(|window| window == name).unwrap() / 512 * 512;
        let at = header as u64 + 512;
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"9", at).unwrap();
        chain.scene.fails("a flipped byte", &section, &["base.tar", "PG_VERSION", "checksum"]);
        file.write_all_at(&archive[at as usize..][..1], at).unwrap();
    }
    chain.scene.replica(&section).created_by("tarball").unwrap();
}
