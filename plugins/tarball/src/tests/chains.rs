use super::*;

/// Writes a backup that began at `lsn` and is based on the one that began at `from`.
fn link(scene: &Scene, folder: &str, lsn: &str, from: Option<&str>) {
    let mut label = LABEL.replace("0/2000028", lsn);
    if let Some(from) = from {
        label += &format!("INCREMENTAL FROM LSN: {from}\nINCREMENTAL FROM TLI: 1\n");
    }
    let other = Scene::new().with(file("backup_label", label.as_bytes()));
    let folder = format!("backup/{folder}");
    scene.write(&folder).manifest_at(&folder, "base/5/1259", lsn);
    scene.put(&folder, "base.tar", &archive(&other.base));
}

/// Makes a chain of three backups in one directory.
fn chain() -> Scene {
    let scene = Scene::new();
    link(&scene, "full", "0/2000028", None);
    link(&scene, "first", "0/3000028", Some("0/2000028"));
    link(&scene, "second", "0/4000028", Some("0/3000028"));
    scene
}

#[test]
fn the_newest_link_of_a_complete_chain_is_used() {
    let scene = chain();
    let plan = scene.plan().unwrap();
    assert!(plan.backup.starts_with("second: ") && plan.backup.contains(" on "), "{}", plan.backup);
    assert_eq!(plan.start_lsn, Some(0x0400_0028));
    let named = scene.plan_of(&scene.request().with("backup", "first")).0.unwrap();
    assert_eq!(named.start_lsn, Some(0x0300_0028));
    // What a chain may write is at most what all its backups have together.
    assert!(named.bytes.unwrap() > 2 * 5000 && plan.bytes.unwrap() > 3 * 5000);
}

#[test]
fn an_incomplete_chain_is_skipped_or_refused() {
    let scene = chain();
    fs::remove_dir_all(scene.path("backup/first")).unwrap();
    assert_eq!(scene.plan().unwrap().start_lsn, Some(0x0200_0028));
    let refusal = |scene: &Scene| match scene.plan_of(&scene.request().with("backup", "second")).0 {
        Err(Failure::Failed(why)) => why,
        other => panic!("{other:?}"),
    };
    let why = refusal(&scene);
    assert!(why.contains("incremental backup from 0/3000028") && why.contains("no usable backup"), "{why}");
    // A backup that began there on another timeline is another backup.
    link(&scene, "first", "0/3000028", Some("0/2000028"));
    let label = LABEL.replace("0/2000028", "0/3000028").replace("TIMELINE: 1", "TIMELINE: 2");
    let other = Scene::new().with(file("backup_label", label.as_bytes()));
    scene.put("backup/first", "base.tar", &archive(&other.base));
    assert!(refusal(&scene).contains("on timeline 1"));
    let scene = chain();
    fs::remove_file(scene.path("backup/full/backup_manifest")).unwrap();
    assert!(refusal(&scene).contains("has no backup_manifest"));
}

#[test]
fn a_backup_is_never_its_own_predecessor() {
    let scene = chain();
    link(&scene, "full", "0/2000028", Some("0/2000028"));
    let plan = scene.plan();
    assert!(matches!(&plan, Err(Failure::Failed(why)) if why.contains("no usable backup")), "{plan:?}");
    link(&scene, "full", "0/2000028", Some("0/4000028"));
    let plan = scene.plan();
    assert!(matches!(&plan, Err(Failure::Failed(why)) if why.contains("no usable backup")), "{plan:?}");
}

#[test]
fn an_incremental_backup_without_neighbours_says_where_they_must_be() {
    let scene = Scene::new();
    link(&scene, ".", "0/3000028", Some("0/2000028"));
    assert!(scene.refusal().contains("put that backup into a folder beside this one"));
}

#[test]
fn a_plan_whose_chain_has_changed_is_refused() {
    let scene = chain();
    let plan = scene.plan().unwrap();
    scene.put("backup/full", "pg_wal.tar", &archive(&[]));
    let (result, _) = scene.host().run(|| Tarball::create(&scene.request(), &plan));
    assert!(matches!(result, Err(Failure::RetryLater(_))), "{result:?}");
}
