//! Backups that barman-cloud uploads to a store.

use std::fs;

use tests::barman::{Barman, Release};
use tests::primary::Primary;
use tests::program::fast_or_full;

use super::same_files;

/// The compressions of backups, each with the option of `barman-cloud-backup`.
const CODECS: [(&str, &[&str]); 6] = [
    ("none", &[]),
    ("gz", &["--gzip"]),
    ("bz2", &["--bzip2"]),
    ("snappy", &["--snappy"]),
    ("lz4", &["--lz4"]),
    ("zst", &["--zstd"]),
];

/// The compressions of archived WAL, each as an option of `barman-cloud-wal-archive`.
const WAL: [&[&str]; 7] = [&["--gzip"], &["--bzip2"], &["--xz"], &["--snappy"], &["--zstd"], &["--lz4"], &[]];

/// Whether an archive is split into parts of 10 MB.
const SPLIT: [bool; 2] = [true, false];

struct Scene {
    primary: Primary,
    barman: Barman,
}

impl Scene {
    fn start() -> Self {
        let primary = Primary::start("barman-cloud", 2_000).unwrap();
        primary.server.psql("ALTER SYSTEM SET wal_keep_size = '1GB'").unwrap();
        primary.server.psql("SELECT pg_reload_conf()").unwrap();
        let barman = Barman::start(&primary.playground, Release::Newest).unwrap();
        Self { primary, barman }
    }

    /// Takes a backup, and archives its WAL.
    fn backup(&self, name: &str, options: &[&str], wal: &[&str]) {
        let server = &self.primary.server;
        server.psql(&format!("UPDATE letters SET body = body || '{name}' WHERE id % 97 = 0")).unwrap();
        let segment = || server.psql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())").unwrap();
        let first = segment();
        let options = [options, &["--name", name]].concat();
        self.barman.backup_with(server.sockets(), server.port(), &options).unwrap();
        server.psql("SELECT pg_switch_wal()").unwrap();
        let last = segment();
        let folder = server.datadir().join("pg_wal");
        for entry in fs::read_dir(&folder).unwrap() {
            let segment = entry.unwrap().file_name().into_string().unwrap();
            if segment.len() == 24 && first <= segment && segment < last {
                self.barman.archive(&folder.join(segment), wal).unwrap();
            }
        }
    }

    /// Creates a replica from the backup with this name, and restores it with Barman. Checks that both have the same files, and that the
    /// replica streams.
    fn same(&self, name: &str) {
        let playground = &self.primary.playground;
        let sections = format!(
            "[method.barman]\n[method.barman.options]\nstore = \"repo\"\nprefix = \"barman\"\nserver = \"example\"\n\
             backup = \"{name}\"\n[method.barman.grants]\n{}\n",
            self.barman.store("repo")
        );
        let replica = self.primary.replica("replica", &["barman"], "", &sections).unwrap();
        replica.created_by("barman").unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let [theirs, fast] = ["theirs", "theirs-fast"].map(|name| playground.path(name));
        self.barman.restore(name, &theirs, &fast).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        same_files(&replica, &theirs, &fast);
        self.primary.streams_to(&replica).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        for folder in [replica.path(""), theirs, fast] {
            fs::remove_dir_all(folder).unwrap();
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn cloud_backups_of_every_compression_become_replicas() {
    let scene = Scene::start();
    let mut ran = 0;
    for (at, (codec, options)) in CODECS.into_iter().enumerate() {
        // A fast run splits every second backup.
        for is_split in SPLIT.into_iter().cycle().skip(at % 2).take(fast_or_full(1, 2) as usize) {
            let (parts, split): (_, &[&str]) =
                if is_split { ("split", &["--max-archive-size=10MB"]) } else { ("whole", &[]) };
            let name = format!("{codec}-{parts}");
            scene.backup(&name, &[options, split].concat(), WAL[ran % WAL.len()]);
            println!("{name}");
            scene.same(&name);
            ran += 1;
        }
    }
    println!("{ran} of {} cells ran", CODECS.len() * SPLIT.len());
}
