//! A primary, its backups, and runs of the program that restore these backups.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tests::primary::Primary;
use tests::replica_folder::{Ended, ReplicaFolder};
use tests::server::run;

/// A primary and its backups.
pub(crate) struct Scene {
    pub(crate) primary: Primary,
    next: AtomicU32,
}

/// The names that may exist in a replica's folder after a run.
const EXPECTED_NAMES: [&str; 6] = ["data", "wal", "fast", "understudy.toml", "output", "report.json"];

impl Scene {
    pub(crate) fn new(name: &str) -> Self {
        Self::with_primary(Primary::start(name, 2_000).unwrap())
    }

    /// Creates the scene with this primary.
    pub(crate) fn with_primary(primary: Primary) -> Self {
        Self { primary, next: AtomicU32::new(0) }
    }

    /// Creates the scene with a backup that pg_basebackup takes with these options.
    pub(crate) fn with_backup(name: &str, options: &[&str]) -> (Self, PathBuf) {
        let scene = Self::new(name);
        let backup = scene.primary.tar_backup("latest", options).unwrap();
        (scene, backup)
    }

    /// Returns the `tarball` section that restores a backup from a directory.
    pub(crate) fn directory_section(&self, backup: &Path) -> String {
        self.section(
            &format!("directory = \"{}\"", backup.display()),
            &format!("read = [\"{}\"]", self.primary.playground.path("backups").display()),
        )
    }

    /// Returns the `tarball` section that restores a backup from the keys below `prefix` in a store. `store` has the lines for
    /// `grants.stores.repo`.
    pub(crate) fn store_section(&self, prefix: &str, store: &str) -> String {
        self.section(
            &format!("store = \"repo\"\nprefix = \"{prefix}\""),
            &format!("[method.tarball.grants.stores.repo]\n{store}"),
        )
    }

    /// Returns the `tarball` section that restores the newest backup from the whole store.
    pub(crate) fn whole_store_section(&self, store: &str) -> String {
        self.section("store = \"repo\"", &format!("[method.tarball.grants.stores.repo]\n{store}"))
    }

    fn section(&self, options: &str, grants: &str) -> String {
        format!(
            "[method.tarball]\nno_leader = true\n[method.tarball.options]\n{options}\n[method.tarball.grants]\n{grants}\n"
        )
    }

    /// Creates a replica's folder with these sections and without a source.
    pub(crate) fn replica(&self, sections: &str) -> ReplicaFolder {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let folder = ReplicaFolder::new(&self.primary.playground, &format!("replica-{number}"))
            .unwrap()
            .with_shared_state(&self.primary.playground);
        let oid = "SELECT oid FROM pg_tablespace WHERE spcname = 'fast'";
        let mapped =
            folder.mapping_lines(&self.primary.tablespace(), &self.primary.server.psql(oid).unwrap());
        folder.configure(&format!("methods = [\"tarball\"]\n{mapped}"), sections).unwrap();
        folder
    }

    /// Returns all files in the playground except the replicas and the files that the server changes by itself.
    fn outside(&self) -> BTreeSet<String> {
        let root = self.primary.playground.path("");
        let output = run(Command::new("/usr/bin/find").arg(&root).args([
            "(",
            "-name",
            "replica-*",
            "-o",
            "-name",
            "state",
            "-o",
            "-name",
            "primary",
            "-o",
            "-name",
            "fast-disks",
            ")",
            "-prune",
            "-o",
            "-printf",
            "%p %y %s\n",
        ]))
        .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| !line.contains("/log-")).map(str::to_owned).collect()
    }

    /// Runs the program. Checks that it fails with these messages, leaves no pg_control, and writes nothing outside the replica's folder.
    pub(crate) fn fails(&self, what: &str, sections: &str, says: &[&str]) -> Ended {
        let replica = self.replica(sections);
        let before = self.outside();
        let ended = replica.create(&[]).unwrap();
        self.assert_failed(what, &replica, &ended, says);
        let after = self.outside();
        let changed: Vec<&String> = before.symmetric_difference(&after).collect();
        assert!(changed.is_empty(), "{what}: written or removed outside: {changed:?}");
        std::fs::remove_dir_all(replica.path("")).unwrap();
        ended
    }

    /// Checks a finished run as [`Scene::fails`] does, except for files outside the replica's folder.
    pub(crate) fn assert_failed(&self, what: &str, replica: &ReplicaFolder, ended: &Ended, says: &[&str]) {
        let attempt = ended.attempt("tarball").to_string();
        assert!(
            matches!(ended.code(), Some(1 | 4 | 75)),
            "{what}: {:?}\n{attempt}\n{}",
            ended.status,
            ended.output
        );
        for word in says {
            assert!(attempt.contains(word), "{what}: `{word}` is not in {attempt}\n{}", ended.output);
        }
        assert!(!replica.is_sealed(), "{what}: there is a pg_control");
        for entry in std::fs::read_dir(replica.path("")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(EXPECTED_NAMES.contains(&name.as_str()), "{what}: {name} lies beside the data directory");
        }
    }

    /// Runs the program, and checks that it creates the replica and that the replica matches the backup's manifest.
    pub(crate) fn creates(&self, what: &str, sections: &str, manifest: &Path) -> (ReplicaFolder, Ended) {
        let replica = self.replica(sections);
        let ended = replica.created_by("tarball").unwrap_or_else(|error| panic!("{what}: {error:#}"));
        self.primary.verify(&replica, manifest).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        (replica, ended)
    }
}
