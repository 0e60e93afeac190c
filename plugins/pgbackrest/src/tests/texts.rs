//! Tests with damaged and invalid text files in the repository.

use super::*;

#[test]
fn a_missing_or_damaged_text_is_replaced_by_its_copy_with_a_warning() {
    for (object, is_damaged) in [
        ("backup/main/backup.info", true),
        (MANIFEST, false),
        (MANIFEST, true),
        ("archive/main/archive.info", true),
    ] {
        let scene = Scene::new();
        let text = fs::read_to_string(scene.path("repo").join(object)).unwrap();
        scene.put(&format!("{object}.copy"), &text);
        if is_damaged {
            scene.put(object, text.replacen("\"15\"", "\"16\"", 1));
        } else {
            scene.remove(object);
        }
        let (plan, record) = scene.plan_of(&scene.request());
        assert_eq!(plan.unwrap().backup, INCREMENTAL);
        let warnings = warnings(&record);
        assert!(warnings.contains(&format!("took repo:{object}.copy instead")), "{warnings}");
        scene.put(&format!("{object}.copy"), "");
        let refusal = match scene.plan() {
            Err(failure) => failure.to_string(),
            Ok(plan) => panic!("{plan:?}"),
        };
        let why = if is_damaged { "is damaged: it has the checksum" } else { "is missing" };
        assert!(refusal.contains(why), "{refusal}");
    }
}

#[test]
fn a_text_that_pgbackrest_did_not_write_is_refused() {
    for (text, what) in [
        ("", "it has no backrest-format"),
        ("[backrest]\nbackrest-format=5\n", "has no backrest-checksum"),
        (&sealed("[backrest]\nbackrest-format=6\n"), "has the format 6"),
        ("x=1\n", "line 1 is in no section"),
        ("[]\n", "line 1 is a section without a name"),
        ("[a]\nx=1\ny=2\nx=1\n", "line 4 repeats a name of this section"),
        ("[a]\nx=1\n[b]\nx=1\n[a]\ny=1\n", "line 5 repeats a section"),
        ("[a]\nx\n", "line 2 is not a name with a JSON value"),
        ("[a]\nx={\n", "line 2 is not a name with a JSON value"),
        ("[backup:current]\n20261126-043406F=1\n", "expected what is known of a backup, by names"),
        ("[backup:current]\n20261126-043406F=[]\n", "expected what is known of a backup, by names"),
        ("[backup:current]\n../x={\"backup-timestamp-stop\":1,\"db-id\":1}\n", "is not a label"),
        (
            "[db:history]\n1={\"db-system-id\":1,\"db-version\":\"../15\"}\n",
            "has an invalid PostgreSQL version",
        ),
    ] {
        let scene = Scene::new();
        scene.put("backup/main/backup.info", text);
        let refusal = scene.refusal();
        assert!(refusal.contains(what), "{text:?} {refusal}");
    }
}

#[test]
fn an_endless_line_and_json_that_is_too_deep_are_refused() {
    let scene = Scene::new();
    scene.put("backup/main/backup.info", format!("[a]\nx=\"{}\"\n", "y".repeat(5 << 20)));
    assert!(scene.refusal().contains("line 2 is longer than"));
    for deep in ["[", "{\"a\":"] {
        scene.put("backup/main/backup.info", format!("[a]\nx={}\n", deep.repeat(500_000)));
        assert!(scene.refusal().contains("line 2 is not a name with a JSON value"));
    }
}

#[test]
fn a_name_may_contain_an_equals_sign() {
    let scene = Scene::new();
    scene.put(&format!("backup/main/{INCREMENTAL}/pg_data/a=1"), b"15\n");
    let line = format!("pg_data/a=1={{\"checksum\":\"{}\",\"size\":3,\"timestamp\":1}}\n", sha1(b"15\n"));
    // The checksum of the scene splits lines at the first equals sign.
    let text = fs::read_to_string(scene.path("repo").join(MANIFEST)).unwrap();
    let text = text.replacen("pg_data/backup_label=", &format!("{line}pg_data/backup_label="), 1);
    scene.put(MANIFEST, &text);
    let damaged = scene.refusal();
    let sum = damaged.split("it has the checksum ").nth(1).unwrap()[..40].to_owned();
    let said = damaged.split("and says ").nth(1).unwrap()[..40].to_owned();
    scene.put(MANIFEST, text.replace(&said, &sum));
    let (result, _) = scene.create_of(&scene.request());
    assert_eq!(result, Ok(()));
    assert_eq!(scene.read("data/a=1"), b"15\n");
}
