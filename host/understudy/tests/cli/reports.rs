//! Where a report is written, and which user owns it.

use super::*;

#[test]
fn a_report_that_only_another_user_could_replace_ends_the_program_before_the_run() {
    use std::os::unix::fs::PermissionsExt;
    if !is_root() {
        return;
    }
    let place = with_missing_plugin();
    let shared = place.path("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o1777)).unwrap();
    let report =
        "{\"exit_code\": 0, \"result\": \"created\", \"version\": \"1\", \"configuration\": \"/u.toml\"}";
    for content in [report, ""] {
        let file = shared.join("report.json");
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let answer = place.create(&["--report", "shared/report.json"]);
        answer.expect(2, &["cannot write the report", "has the sticky bit", "nothing was touched"]);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
        assert!(!place.path("state").exists());
    }
    // An earlier report and an empty file are replaced. `-` is not accepted as a file.
    std::fs::remove_file(shared.join("report.json")).unwrap();
    for _ in 0..2 {
        place.create(&["--report", "shared/report.json"]).expect(1, &["acme: rejected"]);
    }
    place.create(&["--report", "-"]).expect(2, &["name a file", "nothing was touched"]);
    assert!(!place.path("-").exists());
}

#[test]
fn a_report_that_could_not_be_written_ends_the_program_before_the_run() {
    let place = empty_config();
    std::fs::write(place.path("u.toml"), valid_config(place.0.path())).unwrap();
    let answer = place.create(&["--report", "/no/such/directory/report.json"]);
    answer.expect(2, &["cannot write the report /no/such/directory/report.json", "nothing was touched"]);
    assert!(!place.path("data").exists());
}

#[test]
fn a_file_that_is_not_a_report_is_not_replaced_even_if_the_configuration_is_wrong() {
    for config in [WRONG, "not TOML"] {
        let place = ConfigDirectory::with(config);
        std::fs::write(place.path("passwd"), "root:x:0:0\n").unwrap();
        std::os::unix::fs::symlink("passwd", place.path("link")).unwrap();
        for name in ["passwd", "link", "u.toml", "/dev/null"] {
            let says = format!("cannot write the report {}", place.path(name).display());
            place
                .create(&["--report", name])
                .expect(2, &[&says, "only an earlier report or an empty file is replaced"]);
        }
        assert_eq!(std::fs::read_to_string(place.path("passwd")).unwrap(), "root:x:0:0\n");
        assert!(place.path("link").is_symlink());
        assert_eq!(std::fs::read_to_string(place.path("u.toml")).unwrap(), config);
        // A missing file is written, an earlier report replaced.
        for _ in 0..2 {
            place.create(&["--report", "report.json"]).expect(2, &[]);
            assert_eq!(place.report()["exit_code"], 2);
        }
        assert_eq!(std::fs::read_dir(place.0.path()).unwrap().count(), 4, "nothing else is left");
    }
}

#[test]
fn rule_30_without_an_accepted_configuration_the_report_belongs_to_the_owner_of_its_directory() {
    if !is_root() {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let place = ConfigDirectory::with(WRONG);
    let user = nix::unistd::User::from_name(USER).unwrap().unwrap();
    std::os::unix::fs::chown(place.0.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    place.create(&["--report", "report.json"]).expect(2, &[]);
    assert_eq!(std::fs::metadata(place.path("report.json")).unwrap().uid(), user.uid.as_raw());
}

#[test]
fn an_audit_begins_and_ends_with_the_run_and_replaces_only_an_earlier_one() {
    let place = with_missing_plugin();
    let lines = || {
        let text = std::fs::read_to_string(place.path("audit.jsonl")).unwrap();
        let read = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
        text.lines().map(read).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        place.create(&["--audit", "audit.jsonl"]).expect(1, &["acme: rejected"]);
        let entries: Vec<_> = lines().iter().map(|line| line["entry"].as_str().unwrap().to_owned()).collect();
        assert_eq!(entries, ["begin", "end"], "the method never ran");
    }
    std::fs::write(place.path("text"), "root:x:0:0\n").unwrap();
    for (name, says) in [
        ("text", "only an earlier audit or an empty file is replaced"),
        ("u.toml", "only an earlier audit or an empty file is replaced"),
        ("data/audit", "would lie in"),
        ("missing/audit", "cannot write the audit"),
        ("-", "name a file"),
    ] {
        place.create(&["--audit", name]).expect(2, &[says, "nothing was touched"]);
    }
    assert_eq!(std::fs::read_to_string(place.path("text")).unwrap(), "root:x:0:0\n");
    let both = ["--audit", "both.json", "--report", "both.json"];
    place.create(&both).expect(2, &["name the same file", "nothing was touched"]);
}
