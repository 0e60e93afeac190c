//! Which backup is restored.

use tests::pgbackrest::{ENCRYPTED, PLAIN, Stanza};

use super::scene::{OldData, fails};

/// Returns the backup that the plan of `understudy check` names for this section.
fn chosen(stanza: &Stanza, section: &str) -> String {
    let folder = stanza.folder("", section).unwrap();
    let output = folder.command("check").arg("--json").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let checked: serde_json::Value = serde_json::from_str(&text).unwrap();
    checked["methods"][0]["plan"]["backup"].as_str().unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_newest_backup_is_restored_unless_one_is_named_or_a_target_comes_before_its_end() {
    let stanza = Stanza::start("pgbr-choice", 100, &[PLAIN], "gz").unwrap();
    let server = &stanza.primary.server;
    let mut marks = Vec::new();
    for kind in ["full", "diff", "incr"] {
        let label = stanza.backup(1, kind, &[]).unwrap();
        // pgBackRest stores times in whole seconds, so the target time is a second later.
        let time = "SELECT to_char(now() AT TIME ZONE 'UTC' + '1 second', 'YYYY-MM-DD HH24:MI:SS')";
        let (time, lsn) = (server.psql(time).unwrap(), server.psql("SELECT pg_current_wal_lsn()").unwrap());
        server.wait_for(&format!("SELECT now() > '{time}+00'::timestamptz + '1 second'"), "t").unwrap();
        marks.push((label, time, lsn));
    }
    let section = |options: &str| stanza.method(&[1], "", options);
    assert_eq!(chosen(&stanza, &section("")), marks[2].0);
    for (label, time, lsn) in &marks {
        assert_eq!(&chosen(&stanza, &section(&format!("backup = \"{label}\"\n"))), label);
        assert_eq!(&chosen(&stanza, &section(&format!("target-time = \"{time}+00\"\n"))), label);
        assert_eq!(&chosen(&stanza, &section(&format!("target-lsn = \"{lsn}\"\n"))), label);
    }
    for (option, value) in [("target-time", "2001-02-03 04:05:06+00"), ("target-lsn", "0/1000000")] {
        let section = section(&format!("{option} = \"{value}\"\n"));
        fails(&stanza, option, &section, OldData::Untouched, &["none that ended at or before"]);
    }
    assert_eq!(chosen(&stanza, &section("target-timeline = 1\n")), marks[2].0);
    fails(&stanza, "timeline", &section("target-timeline = 2\n"), OldData::Untouched, &["timeline 2"]);
    for (option, value) in [("target-time", "yesterday"), ("target-lsn", "16/ZZ")] {
        let section = section(&format!("{option} = \"{value}\"\n"));
        fails(&stanza, option, &section, OldData::Untouched, &[option, value]);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_backup_that_the_first_repository_lacks_is_restored_from_the_second() {
    let stanza = Stanza::start("pgbr-second", 100, &[PLAIN, ENCRYPTED], "zst").unwrap();
    let (both, section) = ([1, 2], stanza.method(&[1, 2], "", ""));
    let second = stanza.backup(2, "full", &[]).unwrap();
    let replica = stanza.replica(&section).unwrap();
    assert_eq!(
        stanza.created(&replica).unwrap()["plan"]["backup"],
        second,
        "the second repository was not used"
    );
    stanza.primary.streams_to(&replica).unwrap();
    let first = stanza.backup(1, "full", &[]).unwrap();
    assert_eq!(chosen(&stanza, &section), first);
    let named = stanza.method(&both, "", &format!("backup = \"{second}\"\n"));
    assert_eq!(chosen(&stanza, &named), second, "the second repository was not used");
    // A missing repository is treated as an empty one.
    std::fs::rename(stanza.repository(1).join("backup"), stanza.repository(1).join("elsewhere")).unwrap();
    assert_eq!(chosen(&stanza, &section), second);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn with_older_set_an_older_backup_is_restored_if_the_newest_cannot_be_read() {
    let stanza = Stanza::start("pgbr-older", 100, &[PLAIN], "gz").unwrap();
    let older = stanza.backup(1, "full", &[]).unwrap();
    let newest = stanza.backup(1, "full", &[]).unwrap();
    for name in ["backup.manifest", "backup.manifest.copy"] {
        std::fs::remove_file(stanza.backups(1, &format!("{newest}/{name}"))).unwrap();
    }
    let advice = format!("the next is {older}");
    let section = stanza.method(&[1], "", "");
    fails(&stanza, "the newest", &section, OldData::Untouched, &[&newest, "older = true", &advice]);
    let section = stanza.method(&[1], "", "older = true\n");
    let replica = stanza.replica(&section).unwrap();
    assert_eq!(stanza.created(&replica).unwrap()["plan"]["backup"], older);
    stanza.primary.streams_to(&replica).unwrap();
    let both = stanza.method(&[1], "", &format!("older = true\nbackup = \"{newest}\"\n"));
    fails(&stanza, "a contradiction", &both, OldData::Untouched, &["`backup`", "`older = true`"]);
}
