//! Broken methods and unsuitable data directories: each attempt ends with its own outcome, and the next method is tried.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::symlink;
use std::path::Path;

use tests::primary::Primary;
use tests::replica_folder::ReplicaFolder;

/// Runs this method and then basebackup, which must create the replica. Returns the outcome of the method's attempt, and the report.
fn outcome_before_basebackup(primary: &Primary, name: &str, method: &str, section: &str) -> (String, String) {
    let replica = primary.replica(name, &[method, "basebackup"], "", section).unwrap();
    let ended = replica.created_by("basebackup").unwrap();
    let attempt = ended.attempt(method);
    let result = (attempt["outcome"].as_str().unwrap().to_owned(), attempt.to_string());
    assert!(!result.1.contains("ESCAPED"), "{name}: {}", result.1);
    std::fs::remove_dir_all(replica.path("")).unwrap();
    result
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_file_that_is_not_a_plugin_is_rejected_before_anything_is_touched() {
    let primary = Primary::start("no-plugin", 100).unwrap();
    let complete = std::fs::read(tests::program::component("tarball").unwrap()).unwrap();
    for (name, content) in [
        ("missing", None),
        ("empty", Some(&b""[..])),
        ("text", Some(b"#!/bin/sh\n")),
        ("core-module", Some(b"\0asm\x01\0\0\0")),
        ("truncated", Some(&complete[..complete.len() / 2])),
    ] {
        let file = primary.playground.path(&format!("{name}.wasm"));
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let section = format!("[method.broken]\nplugin = \"{}\"\n", file.display());
        let (outcome, attempt) = outcome_before_basebackup(&primary, name, "broken", &section);
        assert_eq!(outcome, "rejected", "{name}: {attempt}");
        assert!(attempt.contains("\"touched\":false") && attempt.contains(".wasm"), "{name}: {attempt}");
    }
    for (name, says) in [
        ("no-exports", "replica-method"),
        ("foreign-import", "import"),
        ("describe-loops", "describe"),
        ("describe-traps", "describe"),
    ] {
        let file = primary.playground.path(&format!("{name}.wasm"));
        std::fs::copy(tests::program::component(name).unwrap(), &file).unwrap();
        primary.playground.user().own(&file).unwrap();
        let section = format!("[method.broken]\nplugin = \"{}\"\n", file.display());
        let (outcome, attempt) = outcome_before_basebackup(&primary, name, "broken", &section);
        assert_eq!(outcome, "rejected", "{name}: {attempt}");
        assert!(attempt.contains(says), "{name}: {attempt}");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_plugin_that_misbehaves_ends_with_the_outcome_of_its_fault() {
    let primary = Primary::start("misbehaves", 100).unwrap();
    let outside = primary.playground.directory("outside").unwrap();
    let fifo = outside.join("fifo");
    tests::server::run(primary.playground.user().command("/usr/bin/mkfifo").arg(&fifo)).unwrap();
    let path = |path: &Path| format!("path = \"{}\"", path.display());
    for (behave, more, options, outcomes) in [
        ("trap", "", String::new(), &["trapped"][..]),
        ("loop", "timeout = \"1s\"", String::new(), &["timed-out"]),
        ("memory", "grants = { memory = \"32MiB\" }", String::new(), &["out-of-memory"]),
        ("log-flood", "timeout = \"20s\"", String::new(), &["failed"]),
        ("stdout-flood", "timeout = \"20s\"", String::new(), &["failed"]),
        ("write-outside", "", path(&outside.join("owned")), &["denied", "failed"]),
        ("read-outside", "", path(Path::new("/etc/passwd")), &["denied"]),
        ("traverse", "", path(&outside), &["denied", "failed"]),
        ("ungranted", "", String::new(), &["denied"]),
        ("fail", "", String::new(), &["failed"]),
        ("retry-later", "", String::new(), &["retry-later"]),
        ("control-file", "", String::new(), &["denied", "failed"]),
        ("environment", "", String::new(), &["failed"]),
    ] {
        let section = format!("{}{options}\n", primary.hostile(behave, more));
        let (outcome, attempt) = outcome_before_basebackup(&primary, behave, "hostile", &section);
        assert!(outcomes.contains(&outcome.as_str()), "{behave}: {attempt}");
    }
    let section = format!(
        "{}{}\n",
        primary.hostile("fifo", &format!("grants = {{ read = [\"{}\"] }}", outside.display())),
        path(&fifo)
    );
    let (outcome, attempt) = outcome_before_basebackup(&primary, "fifo", "hostile", &section);
    assert!(["denied", "failed"].contains(&outcome.as_str()), "{attempt}");
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "something was written outside");

    // Many denials do not hide the panic: the message begins with it, and the log shows the first denials only.
    let section = primary.hostile("denied-then-panics", "");
    let replica = primary.replica("panics", &["hostile", "basebackup"], "", &section).unwrap();
    let ended = replica.created_by("basebackup").unwrap();
    let attempt = ended.attempt("hostile");
    let message = attempt["message"].as_str().unwrap();
    assert_eq!(attempt["outcome"], "trapped", "{attempt}");
    assert!(message.starts_with("the method panicked: no module was found"), "{message}");
    assert!(message.ends_with("; and 17 more denials"), "{message}");
    assert_eq!(ended.denials("hostile").len(), 18, "{attempt}");
    assert_eq!(ended.output.matches("hostile: denied: ").count(), 3, "{}", ended.output);
}

fn refused(replica: &ReplicaFolder, says: &str) {
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.code(), Some(3), "{}", ended.output);
    assert_eq!(ended.report["result"], "refused");
    assert!(ended.output.contains(says), "`{says}` is not in: {}", ended.output);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_25_a_data_directory_with_foreign_content_is_refused_and_stays_unchanged() {
    let primary = Primary::start("not-ours", 100).unwrap();
    let replica = primary.replica("file", &["basebackup"], "", "").unwrap();
    std::fs::write(replica.datadir(), "a file").unwrap();
    refused(&replica, "directory");
    assert_eq!(std::fs::read_to_string(replica.datadir()).unwrap(), "a file");

    let replica = primary.replica("foreign", &["basebackup"], "", "").unwrap();
    primary.playground.user().directory(&replica.datadir()).unwrap();
    std::fs::write(replica.datadir().join("thesis.tex"), "years of work").unwrap();
    refused(&replica, "--force");
    assert_eq!(std::fs::read_to_string(replica.datadir().join("thesis.tex")).unwrap(), "years of work");
    let forced = replica.create(&["--force"]).unwrap();
    assert_eq!(forced.code(), Some(0), "{}", forced.output);

    let replica = primary.replica("dangling", &["basebackup"], "", "").unwrap();
    symlink(replica.path("nowhere"), replica.datadir()).unwrap();
    refused(&replica, "link");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_25_the_data_directory_of_a_running_server_is_refused() {
    let primary = Primary::start("in-use", 100).unwrap();
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    let config = replica.path("understudy.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let datadir = primary.server.datadir().display().to_string();
    std::fs::write(&config, text.replace(&replica.datadir().display().to_string(), &datadir)).unwrap();
    refused(&replica, "server running");
    assert_eq!(primary.server.psql("SELECT count(*) FROM letters").unwrap(), "100");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_23_a_data_directory_that_is_a_link_is_filled_at_its_target_and_the_link_stays() {
    let primary = Primary::start("linked", 100).unwrap();
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    let target = replica.path("target");
    primary.playground.user().directory(&target).unwrap();
    symlink(&target, replica.datadir()).unwrap();
    replica.created_by("basebackup").unwrap();
    assert!(std::fs::symlink_metadata(replica.datadir()).unwrap().is_symlink());
    assert!(target.join("global/pg_control").exists());
    primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_24_a_link_in_old_data_is_removed_and_its_target_stays() {
    let primary = Primary::start("planted", 100).unwrap();
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    replica.created_by("basebackup").unwrap();
    let victim = primary.playground.directory("victim").unwrap();
    std::fs::write(victim.join("precious"), "data").unwrap();
    symlink(&victim, replica.datadir().join("pg_tblspc/99999")).unwrap();
    replica.created_by("basebackup").unwrap();
    assert_eq!(std::fs::read_to_string(victim.join("precious")).unwrap(), "data");
    primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_disk_that_is_too_small_is_rejected_before_the_directory_is_touched() {
    let primary = Primary::start("small-disk", 20_000).unwrap();
    let backup = primary.tar_backup("latest", &[]).unwrap();
    let replica = primary.replica("replica", &["tarball"], "", &primary.tarball(&backup)).unwrap();
    let disk = replica.path("disk");
    primary.playground.user().directory(&disk).unwrap();
    let Ok(mounted) = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=8m,mode=0777", "tmpfs"])
        .arg(&disk)
        .status()
    else {
        panic!("mount does not run");
    };
    if !mounted.success() {
        // Only root can mount. The unit tests of `accept` test the same behaviour without mounting a file system.
        assert!(!rustix::process::geteuid().is_root(), "root could not mount a tmpfs");
        return;
    }
    let config = replica.path("understudy.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let mut inside = text;
    for directory in [replica.datadir(), replica.wal(), replica.fast()] {
        let moved = disk.join(directory.file_name().unwrap()).display().to_string();
        inside = inside.replace(&directory.display().to_string(), &moved);
    }
    std::fs::write(&config, inside).unwrap();
    let ended = replica.create(&[]);
    let unmounted = std::process::Command::new("umount").arg(&disk).status().unwrap();
    let ended = ended.unwrap();
    assert!(unmounted.success());
    assert_eq!(ended.attempts(), [("tarball", "rejected")], "{}", ended.output);
    assert!(ended.report.to_string().contains("space"), "{}", ended.report);
}
