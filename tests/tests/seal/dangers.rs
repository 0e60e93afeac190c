//! The dangers that rule 30 lists, each created on purpose.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::process::Command;
use std::sync::Arc;

use tests::primary::Primary;
use tests::server::run;

use crate::scene::{Scene, SealInput, as_server_user, directories};

/// A test of one danger: the check that finds it, a part of its message, and the code that creates it.
macro_rules! danger {
    ($name:ident, $check:literal, $message:literal, |$scene:ident| $make:block) => {
        danger!($name, $check, $message, |$scene| $make, |_given| {});
    };
    ($name:ident, $check:literal, $message:literal, |$scene:ident| $make:block, |$given:ident| $change:block) => {
        #[test]
        #[ignore = "needs servers: cargo xtask test"]
        fn $name() {
            as_server_user(concat!("dangers::", stringify!($name)), || {
                let $scene = Scene::with_basebackup(stringify!($name));
                $make
                $scene.fails($check, $message, |$given: &mut SealInput| $change);
            });
        }
    };
}

danger!(rule_30_a_deleted_backup_label, "backup_label", "missing", |scene| {
    fs::remove_file(scene.main().join("backup_label")).unwrap();
});

danger!(rule_30_an_unreadable_backup_label, "backup_label", "line 3", |scene| {
    let label = fs::read_to_string(scene.main().join("backup_label")).unwrap();
    scene.write("backup_label", &label.replace("BACKUP METHOD: streamed\n", ""));
});

danger!(rule_30_an_incremental_backup, "incremental", "pg_combinebackup", |scene| {
    scene.append("backup_label", "INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n");
});

danger!(rule_30_a_file_of_an_incremental_backup, "incremental", "INCREMENTAL.1259", |scene| {
    scene.write("base/1/INCREMENTAL.1259", "");
});

danger!(rule_30_a_tablespace_map_that_names_another_directory, "tablespaces", "/elsewhere", |scene| {
    scene.write("tablespace_map", "99999 /elsewhere\n");
});

danger!(rule_30_a_tablespace_that_was_not_restored, "tablespaces", "PG_15_202209061", |scene| {
    fs::rename(scene.at("fast/PG_15_202209061"), scene.at("fast/PG_14_202107181")).unwrap();
});

danger!(rule_30_a_newer_major_version, "version", "PG_VERSION says 16", |scene| {
    scene.write("PG_VERSION", "16\n");
});

danger!(rule_30_a_lower_max_connections, "settings", "postgresql.auto.conf line", |scene| {
    scene.append("postgresql.auto.conf", "max_connections = 20\n");
});

danger!(rule_30_a_lower_max_wal_senders_in_an_included_file, "settings", "more.conf line 2", |scene| {
    scene.append("postgresql.conf", "\ninclude 'more.conf'\n");
    scene.write("more.conf", "# few\nmax_wal_senders = 1\n");
});

danger!(rule_30_a_link_to_outside, "links", "/etc/passwd", |scene| {
    symlink("/etc/passwd", scene.main().join("base/99999")).unwrap();
});

danger!(rule_30_a_pg_wal_that_leads_elsewhere, "links", "pg_wal", |scene| {
    fs::remove_file(scene.main().join("pg_wal")).unwrap();
    symlink(scene.primary.server.datadir().join("pg_wal"), scene.main().join("pg_wal")).unwrap();
});

danger!(rule_30_a_tablespace_link_that_leads_elsewhere, "links", "pg_tblspc", |scene| {
    symlink(scene.primary.tablespace(), scene.main().join("pg_tblspc/99999")).unwrap();
});

danger!(rule_30_a_fifo, "special files", "base/fifo", |scene| {
    run(Command::new("mkfifo").arg(scene.main().join("base/fifo"))).unwrap();
});

danger!(rule_30_a_hard_link_to_outside, "hard links", "PG_VERSION", |scene| {
    fs::hard_link(scene.main().join("base/1/PG_VERSION"), scene.at("second-name")).unwrap();
});

danger!(rule_30_a_damaged_pg_control, "pg_control", "checksum", |scene| {
    let path = scene.main().join("global/pg_control");
    let mut bytes = fs::read(&path).unwrap();
    bytes[200] ^= 1;
    fs::write(&path, bytes).unwrap();
});

danger!(rule_30_a_missing_pg_control, "pg_control", "not whole", |scene| {
    fs::remove_file(scene.main().join("global/pg_control")).unwrap();
});

danger!(
    rule_30_a_command_with_refuse_commands,
    "configuration",
    "archive_command",
    |scene| {
        scene.append("postgresql.auto.conf", "archive_command = 'curl evil'\n");
    },
    |given| {
        given.end.refuse_commands = true;
    }
);

danger!(a_method_that_requests_a_command, "auto.conf", "restore_command", |scene| {}, |given| {
    given.filled.recovery_settings.push(("restore_command".to_owned(), "touch /tmp/owned".to_owned()));
});

danger!(a_plan_of_another_backup, "system identifier", "the plan", |scene| {}, |given| {
    given.plan.system_identifier = Some(1);
    given.source = None;
});

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_30_another_clusters_backup() {
    as_server_user("dangers::rule_30_another_clusters_backup", || {
        let scene = Scene::with_basebackup("another-cluster");
        let other = Primary::start("the-other", 10).unwrap();
        let source = Arc::new(scene.source(&other.server));
        scene.fails("system identifier", "another cluster", |given| given.source = Some(source));
    });
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_30_a_future_timeline() {
    as_server_user("dangers::rule_30_a_future_timeline", || {
        let scene = Scene::with_basebackup("future");
        scene.seal(|_| {}).unwrap();
        let promoted = scene.streams();
        promoted.psql("SELECT pg_promote()").unwrap();
        promoted.wait_for("SELECT pg_is_in_recovery()", "f").unwrap();
        promoted.psql("CHECKPOINT").unwrap();
        let root = scene.primary.playground.directory("second").unwrap();
        let (primary, fast) = (scene.primary, scene.root.join("fast"));
        let scene = Scene { directories: directories(&root, fast.clone()), root, primary };
        for place in ["main", "wal", "fast"] {
            scene.primary.playground.user().directory(&scene.at(place)).unwrap();
        }
        run(promoted
            .client("pg_basebackup")
            .args(["--format=plain", "--checkpoint=fast", "--no-sync", "--pgdata"])
            .arg(scene.main())
            .arg("--waldir")
            .arg(scene.at("wal"))
            .arg(format!("--tablespace-mapping={}={}", fast.display(), scene.at("fast").display())))
        .unwrap();
        promoted.stop().unwrap();
        scene.fails("timeline", "timeline 2", |_| {});
    });
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_30_programs_of_another_major_version() {
    as_server_user("dangers::rule_30_programs_of_another_major_version", || {
        let scene = Scene::with_basebackup("programs");
        let programs = scene.at("bin");
        fs::create_dir(&programs).unwrap();
        let write = "echo '#!/bin/sh' > \"$1\" && echo 'echo \"postgres (PostgreSQL) 16.4\"' >> \"$1\" && chmod 755 \"$1\"";
        run(Command::new("/bin/sh").args(["-c", write, "sh"]).arg(programs.join("postgres"))).unwrap();
        scene.fails("version", "bin_dir", |given| given.bin_dir = programs);
    });
}

danger!(too_many_directories_without_permissions, "modes", "more than 1000", |scene| {
    for number in 0..=1000 {
        let path = scene.main().join(format!("base/closed-{number}"));
        fs::DirBuilder::new().mode(0o000).create(path).unwrap();
    }
});

danger!(rule_30_a_link_in_a_directory_without_permissions, "links", "closed/out", |scene| {
    let closed = scene.main().join("base/closed");
    fs::create_dir(&closed).unwrap();
    symlink("/etc/passwd", closed.join("out")).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
});
