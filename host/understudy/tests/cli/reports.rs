//! Where a report goes.

use super::*;

#[test]
fn a_report_that_only_another_user_could_replace_ends_the_program_before_the_run() {
    use std::os::unix::fs::PermissionsExt;
    if !is_root() {
        return;
    }
    let place = runnable();
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
    // Its own is replaced, and so is an empty one; a `-` is no file.
    std::fs::remove_file(shared.join("report.json")).unwrap();
    for _ in 0..2 {
        place.create(&["--report", "shared/report.json"]).expect(1, &["acme: rejected"]);
    }
    place.create(&["--report", "-"]).expect(2, &["name a file", "nothing was touched"]);
    assert!(!place.path("-").exists());
}
