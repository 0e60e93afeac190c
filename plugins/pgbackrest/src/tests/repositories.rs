//! Several repositories, and backups from which a standby could not follow the source.

use super::*;

#[test]
fn the_first_repository_that_has_the_backup_is_used() {
    let scene = Scene::new();
    fs::create_dir(scene.path("empty")).unwrap();
    let request = scene.request().with("repositories", ["empty", "repo"].map(str::to_owned).to_vec());
    let host = || scene.host().store("empty", scene.path("empty"));
    let (plan, record) = host().run(|| PgBackRest::plan(&request));
    assert_eq!(plan.unwrap().backup, INCREMENTAL);
    assert!(warnings(&record).contains("no stanza main in the repository empty"), "{record:?}");
    let request = request.with("backup", "20250101-000000F");
    let (plan, _) = host().run(|| PgBackRest::plan(&request));
    assert!(
        matches!(&plan, Err(Failure::Failed(why)) if why.contains("repository empty") && why.contains("repository repo")),
        "{plan:?}"
    );
}

/// Makes a scene with a second, equal repository, and plans with both.
fn with_two_repositories(
    scene: &Scene,
    request: &Request,
    source: Option<Source>,
) -> (Result<Plan, Failure>, Record) {
    let host = scene.host().store("second", scene.path("second"));
    let host = source.into_iter().fold(host, Host::source);
    host.run(|| {
        PgBackRest::plan(&request.clone().with("repositories", vec!["repo".to_owned(), "second".to_owned()]))
    })
}

fn copied(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            copied(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_repository_whose_backup_cannot_be_restored_is_skipped() {
    let manifest = |from: &'static str, to: &'static str| {
        Box::new(move |scene: &Scene| {
            scene.edit_manifest(from, to);
        }) as Box<dyn Fn(&Scene)>
    };
    let removed =
        |object: String| Box::new(move |scene: &Scene| scene.remove(&object)) as Box<dyn Fn(&Scene)>;
    for (damage, what) in [
        (
            manifest("20000,\"timestamp\"", "20000,\"bim\":9,\"timestamp\""),
            "has a block map and no block size",
        ),
        (manifest("backup-lsn-stop=\"0/40000F0\"", "backup-lsn-stop=\"0/3000000\""), "begins at 0/4000028"),
        (removed(format!("backup/main/{FULL}/backup.manifest")), "is gone"),
        (removed(format!("backup/main/{INCREMENTAL}/pg_data/global/pg_control")), "pg_control is missing"),
    ] {
        let scene = Scene::new();
        copied(&scene.path("repo"), &scene.path("second"));
        damage(&scene);
        let (plan, record) = with_two_repositories(&scene, &scene.request(), None);
        let plan = plan.unwrap();
        assert_eq!(plan.backup, INCREMENTAL);
        let warnings = warnings(&record);
        assert!(warnings.contains("skipped a repository") && warnings.contains(what), "{warnings}");
        let request = scene.request().with("repositories", vec!["repo".to_owned(), "second".to_owned()]);
        let host = scene.host().store("second", scene.path("second"));
        assert_eq!(host.run(|| PgBackRest::create(&request, &plan)).0, Ok(()), "{what}");
    }
}

#[test]
fn a_repository_without_a_backup_that_leads_to_the_source_is_used_last() {
    let scene = Scene::new();
    copied(&scene.path("repo"), &scene.path("second"));
    let info = "backup/main/backup.info";
    scene.edit(info, &format!("[backup:current]\n{FULL}={{"), "[other]\n20250101-000000F={");
    scene.edit(info, &format!("\n{INCREMENTAL}={{"), &format!("\n[backup:current]\n{INCREMENTAL}={{"));
    let source = wal::source(&[(1, 0x21, 0)], 2);
    let request = scene.request().with("wal", "none");
    let (plan, record) = with_two_repositories(&scene, &request, Some(source.clone()));
    assert_eq!(plan.unwrap().backup, FULL);
    let warnings = warnings(&record);
    assert!(warnings.contains("skipped the repository repo"), "{warnings}");
    let (plan, _) = scene.host().source(source).run(|| PgBackRest::plan(&request));
    // The failure says what is wrong with the backup, not that there is none.
    assert!(plan.unwrap_err().to_string().contains(&format!("{FULL}, which backup.info does not list")));
}

#[test]
fn a_newer_backup_of_another_cluster_is_skipped_if_the_source_is_known() {
    let scene = Scene::new();
    scene.edit("backup/main/backup.info", "1795667654,\"db-id\":1", "1795667654,\"db-id\":2");
    scene.edit(
        "backup/main/backup.info",
        "[db:history]\n",
        "[db:history]\n2={\"db-system-id\":99,\"db-version\":\"15\"}\n",
    );
    let (plan, record) = scene.host().source(wal::source(&[], 1)).run(|| PgBackRest::plan(&scene.request()));
    assert_eq!(plan.unwrap().backup, FULL);
    assert!(warnings(&record).contains(&format!("skipped the backup {INCREMENTAL}")), "{record:?}");
}

#[test]
fn an_older_backup_is_restored_only_with_the_option_older() {
    type Damage = fn(&Scene);
    let damages: [(&str, Damage); 4] = [
        ("is missing", |scene| scene.remove(MANIFEST)),
        ("damaged", |scene| scene.put(MANIFEST, "x")),
        ("block incremental", |scene| {
            scene.edit_manifest("20000,\"timestamp\"", "20000,\"bim\":9,\"timestamp\"");
        }),
        ("pg_control is missing", |scene| {
            scene.remove(&format!("backup/main/{INCREMENTAL}/pg_data/global/pg_control"));
        }),
    ];
    for (what, damage) in damages {
        let scene = Scene::new();
        damage(&scene);
        let refusal = scene.refusal();
        let advice = format!("set `older = true` to try older backups automatically (the next is {FULL})");
        assert!(refusal.contains(&advice), "{what}: {refusal}");
        let request = scene.request().with("older", true);
        let (plan, record) = scene.plan_of(&request);
        assert_eq!(plan.unwrap().backup, FULL, "{what}");
        let warnings = warnings(&record);
        assert!(warnings.contains("skipped a newer backup") && warnings.contains(INCREMENTAL), "{warnings}");
        let (result, _) = scene.create_of(&request);
        assert_eq!(result, Ok(()), "{what}");
        assert_eq!(scene.read("data/backup_label"), format!("of {FULL}\n").as_bytes());
    }
    // There is no older backup.
    let scene = Scene::new();
    scene.remove(MANIFEST);
    scene.remove(&format!("backup/main/{FULL}/backup.manifest"));
    let refusal = scene.refusal_of(&scene.request().with("older", true));
    assert!(
        refusal.contains(INCREMENTAL) && refusal.contains(FULL) && !refusal.contains("older = true"),
        "{refusal}"
    );
}

#[test]
fn the_newest_of_another_repository_comes_before_an_older_one() {
    let scene = Scene::new();
    copied(&scene.path("repo"), &scene.path("second"));
    scene.remove(MANIFEST);
    let request = scene.request().with("older", true);
    let (plan, record) = with_two_repositories(&scene, &request, None);
    assert_eq!(plan.unwrap().backup, INCREMENTAL);
    assert!(warnings(&record).contains("skipped a repository"), "{record:?}");
    fs::remove_file(scene.path("second").join(MANIFEST)).unwrap();
    assert_eq!(with_two_repositories(&scene, &request, None).0.unwrap().backup, FULL);
}

#[test]
fn the_number_of_older_backups_that_are_tried_is_bounded() {
    let scene = Scene::new();
    let line =
        |number: usize| format!("20250101-{number:06}F={{\"backup-timestamp-stop\":{number},\"db-id\":1}}\n");
    for (count, is_told) in [(21, false), (22, true)] {
        let lines: String = (1..=count).map(line).collect();
        scene.put(
            "backup/main/backup.info",
            sealed(&format!("[backrest]\nbackrest-format=5\n\n[backup:current]\n{lines}")),
        );
        let refusal = scene.refusal_of(&scene.request().with("older", true));
        assert_eq!(refusal.contains("more than 20 older backups"), is_told, "{count} {refusal}");
        assert_eq!(refusal.contains("20250101-000001F"), !is_told, "{refusal}");
    }
}
