use postgres_formats::written::ControlFile;
use understudy::native::Host;

use super::scene::control as control_file;
use super::*;
use crate::chain::Chain;
use crate::create::Restored;
use crate::neighbours::Known;
use crate::plan::look_at;

/// Returns the label of a backup that began at `lsn` and is based on the one that began at `from`.
fn label_of(lsn: &str, from: Option<&str>) -> Vec<u8> {
    let mut label = LABEL.replace("0/2000028", lsn);
    if let Some(from) = from {
        label += &format!("INCREMENTAL FROM LSN: {from}\nINCREMENTAL FROM TLI: 1\n");
    }
    file("backup_label", label.as_bytes())
}

/// Writes a backup that began at `lsn` and is based on the one that began at `from`.
fn link(scene: &Scene, folder: &str, lsn: &str, from: Option<&str>) {
    let other = Scene::new().with(label_of(lsn, from));
    let folder = format!("backup/{folder}");
    scene.write(&folder).manifest_at(&folder, "base/5/1259", lsn);
    scene.put(&folder, "base.tar", &archive(&other.base));
}

/// Writes a backup as [`link`] does, with a small archive and no tablespace.
fn small_link(scene: &Scene, folder: &str, lsn: &str, from: Option<&str>) {
    let folder = format!("backup/{folder}");
    fs::create_dir_all(scene.path(&folder)).unwrap();
    scene.manifest_of(&folder, SYSTEM_IDENTIFIER, lsn);
    scene.put(&folder, "base.tar", &archive(&[label_of(lsn, from)]));
}

/// Plans the backup in this folder.
fn named(scene: &Scene, folder: &str) -> Result<Plan, Failure> {
    scene.plan_of(&scene.request().with("backup", folder)).0
}

/// Returns why the backup in this folder is refused.
fn refusal(scene: &Scene, folder: &str) -> String {
    match named(scene, folder) {
        Err(Failure::Failed(why)) => why,
        other => panic!("{other:?}"),
    }
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
    // The estimate is what all backups of the chain store.
    assert!(named.bytes.unwrap() > 2 * 5000 && plan.bytes.unwrap() > 3 * 5000);
}

#[test]
fn an_incomplete_chain_is_skipped_or_refused() {
    let scene = chain();
    fs::remove_dir_all(scene.path("backup/first")).unwrap();
    assert_eq!(scene.plan().unwrap().start_lsn, Some(0x0200_0028));
    let why = refusal(&scene, "second");
    assert!(why.contains("incremental backup from 0/3000028") && why.contains("no usable backup"), "{why}");
    // A backup that began there on another timeline is another backup.
    link(&scene, "first", "0/3000028", Some("0/2000028"));
    let label = LABEL.replace("0/2000028", "0/3000028").replace("TIMELINE: 1", "TIMELINE: 2");
    let other = Scene::new().with(file("backup_label", label.as_bytes()));
    scene.put("backup/first", "base.tar", &archive(&other.base));
    assert!(refusal(&scene, "second").contains("on timeline 1"));
    let scene = chain();
    fs::remove_file(scene.path("backup/full/backup_manifest")).unwrap();
    assert!(refusal(&scene, "second").contains("has no backup_manifest"));
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
fn an_incremental_backup_that_is_the_place_itself_says_how_to_name_it() {
    let scene = Scene::new();
    link(&scene, "daily/second", "0/3000028", Some("0/2000028"));
    link(&scene, "daily/full", "0/2000028", None);
    let root = scene.path("backup").to_str().unwrap().to_owned();
    for (request, what) in [
        (
            scene.request().with("prefix", "daily/second"),
            "set `prefix = \"daily\"` and `backup = \"second\"`",
        ),
        (
            Request::default()
                .with("directory", scene.path("backup/daily").to_str().unwrap())
                .with("prefix", "second"),
            "set `backup = \"second\"` instead of `prefix`",
        ),
        (
            Request::default().with("directory", scene.path("backup/daily/second").to_str().unwrap()),
            &format!(
                "set `directory = \"{root}/daily\"` and `backup = \"second\"`, and grant that directory"
            ),
        ),
    ] {
        let result = scene.plan_of(&request).0;
        assert!(matches!(&result, Err(Failure::Failed(why)) if why.contains(what)), "{what}: {result:?}");
    }
    let (result, _) = Host::new(scene.path("data"))
        .store("repo", scene.path("backup/daily/second"))
        .run(|| Tarball::plan(&Request::default().with("store", "repo")));
    assert!(matches!(&result, Err(Failure::Failed(why)) if why.contains("grant `repo` at the folder above")));
    // What the messages advise works.
    let request = scene.request().with("prefix", "daily").with("backup", "second");
    assert_eq!(scene.plan_of(&request).0.unwrap().start_lsn, Some(0x0300_0028));
}

#[test]
fn the_folders_beside_a_named_one_are_searched_at_any_depth() {
    let scene = Scene::new();
    link(&scene, "daily/full", "0/2000028", None);
    link(&scene, "daily/first", "0/3000028", Some("0/2000028"));
    link(&scene, "first", "0/3000028", Some("0/2000028"));
    let plan = named(&scene, "daily/first").unwrap();
    assert_eq!(plan.start_lsn, Some(0x0300_0028));
    assert!(refusal(&scene, "first").contains("put that backup into a folder beside this one"));
}

/// Every new cluster's first backup begins at the same position.
#[test]
fn candidates_of_another_cluster_and_without_a_manifest_are_passed_over() {
    let scene = Scene::new();
    for folder in ["a-copy", "b-other", "full"] {
        small_link(&scene, folder, "0/2000028", None);
    }
    small_link(&scene, "first", "0/3000028", Some("0/2000028"));
    fs::remove_file(scene.path("backup/a-copy/backup_manifest")).unwrap();
    scene.manifest_of("backup/b-other", 7, "0/2000028");
    let (plan, record) = scene.plan_of(&scene.request());
    assert!(plan.unwrap().backup.starts_with("first: "));
    assert!(!record.log.iter().any(|(level, _)| *level == Level::Warn), "{:?}", record.log);

    fs::remove_dir_all(scene.path("backup/full")).unwrap();
    let why = refusal(&scene, "first");
    for what in
        ["no usable backup that began there", "a-copy/base.tar has no backup_manifest", "from the cluster 7"]
    {
        assert!(why.contains(what), "{what}: {why}");
    }
    for number in 0..3 {
        let folder = format!("backup/c-other-{number}");
        small_link(&scene, &format!("c-other-{number}"), "0/2000028", None);
        scene.manifest_of(&folder, 8, "0/2000028");
    }
    assert!(refusal(&scene, "first").contains("and 2 more do not fit"));
}

#[test]
fn a_candidate_that_is_damaged_or_has_no_chain_itself_is_passed_over() {
    let scene = Scene::new();
    small_link(&scene, "full", "0/2000028", None);
    small_link(&scene, "first", "0/3000028", Some("0/2000028"));
    small_link(&scene, "a-first", "0/3000028", Some("0/1000028"));
    small_link(&scene, "b-first", "0/3000028", None);
    scene.put("backup/b-first", "backup_manifest", b"{");
    small_link(&scene, "c-first", "0/3000028", None);
    scene.put("backup/c-first", "16999.tar", &archive(&[]));
    small_link(&scene, "d-first", "0/3000028", None);
    scene.manifest_of("backup/d-first", SYSTEM_IDENTIFIER, "0/9000028");
    small_link(&scene, "second", "0/4000028", Some("0/3000028"));
    assert_eq!(named(&scene, "second").unwrap().bytes, Some(3 * 5000 + (16 << 20)));

    for folder in ["first", "a-first"] {
        fs::remove_dir_all(scene.path("backup").join(folder)).unwrap();
    }
    let why = refusal(&scene, "second");
    for what in
        ["b-first/backup_manifest is not a manifest", "16999.tar belongs to no", "belongs to another backup"]
    {
        assert!(why.contains(what), "{what}: {why}");
    }
}

#[test]
fn a_broken_folder_beside_a_chain_is_left_out() {
    let scene = chain();
    fs::create_dir(scene.path("backup/both")).unwrap();
    scene.put("backup/both", "base.tar", b"x");
    scene.put("backup/both", "base.tar.gz", b"x");
    assert_eq!(named(&scene, "second").unwrap().start_lsn, Some(0x0400_0028));
}

#[test]
fn more_backups_may_lie_beside_a_named_one_than_the_best_is_chosen_from() {
    let scene = Scene::new();
    small_link(&scene, "full", "0/2000028", None);
    small_link(&scene, "first", "0/3000028", Some("0/2000028"));
    let others = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            fs::create_dir(scene.path(&format!("backup/{number}"))).unwrap();
            scene.put(&format!("backup/{number}"), "base.tar", b"");
        }
    };
    others(0..998);
    assert!(scene.refusal().contains("more than 200 backups: name one backup"));
    assert_eq!(named(&scene, "first").unwrap().start_lsn, Some(0x0300_0028));
    others(998..999);
    assert!(
        refusal(&scene, "first").contains("more than 1000 backups: put the backups of a chain into a folder")
    );
}

#[test]
fn a_chain_has_a_bounded_length() {
    let scene = Scene::new();
    let lsn = |number: usize| format!("0/{:X}", 0x0200_0028 + (number << 12));
    for number in 0..=201_usize {
        let from = number.checked_sub(1).map(lsn);
        small_link(&scene, &format!("link-{number}"), &lsn(number), from.as_deref());
    }
    assert!(named(&scene, "link-200").is_ok());
    let why = refusal(&scene, "link-201");
    assert!(why.contains("link-201/base.tar depends on more than 200 backups"), "{why}");
}

#[test]
fn labels_and_manifests_are_read_once_for_a_plan() {
    let scene = chain();
    let (ends, _) = scene.host().run(|| {
        let place = Place::of(&scene.request().with("backup", "second"))?;
        let second = backup::find(&place, Search::Best, &mut |_, failure| Err(failure))?.remove(0);
        let (second, base) = look_at(&place, second, look::Wanted::All)?;
        let mut known = Known::default();
        let mut ends = Vec::new();
        for _ in 0..2 {
            let chain = Chain::of(&place, &second, &base, &mut known)?.unwrap();
            ends.push(chain.older.last().map(|older| older.backup.folder.clone()));
            // What is gone can only be known from before.
            for folder in ["full", "first"] {
                fs::remove_dir_all(scene.path("backup").join(folder)).ok();
            }
        }
        Ok::<_, Failure>(ends)
    });
    let full = Some("full".to_owned());
    assert_eq!(ends, Ok(vec![full.clone(), full]));
}

#[test]
fn a_backup_of_a_chain_without_checksums_is_used_with_a_warning() {
    let scene = Scene::new();
    small_link(&scene, "full", "0/2000028", None);
    small_link(&scene, "first", "0/3000028", Some("0/2000028"));
    scene.manifest_at("backup/full", "base/5/1259", "0/2000028");
    let (plan, record) = scene.plan_of(&scene.request().with("backup", "first"));
    assert!(plan.is_ok(), "{plan:?}");
    let warnings: Vec<_> = record.log.iter().filter(|(level, _)| *level == Level::Warn).collect();
    assert!(
        matches!(&warnings[..], [(_, line)] if line.contains("full/base.tar has no checksums")),
        "{warnings:?}"
    );
}

/// Increments without pages look alike for every size of pages, so only the control file says that files would be cut.
#[test]
fn a_chain_of_a_cluster_with_other_pages_or_segments_is_refused() {
    for (at, what) in [(216, "pages of 16384 bytes"), (220, "16384 pages in a segment")] {
        let scene = chain();
        let mut control = ControlFile::in_production(SYSTEM_IDENTIFIER);
        let control = control.put32(at, 16_384).bytes.clone();
        for (folder, label) in
            [("second", label_of("0/4000028", Some("0/3000028"))), ("full", label_of("0/2000028", None))]
        {
            let other = Scene::new().with(label).with(file("global/pg_control", &control));
            scene.put(&format!("backup/{folder}"), "base.tar", &archive(&other.base));
        }
        let why = refusal(&scene, "second");
        assert!(why.contains("second/base.tar") && why.contains(what), "{why}");
        // A full backup of such a cluster is restored as it is.
        assert!(named(&scene, "full").is_ok());

        // The control file of a compressed archive is known only after the restore.
        fs::create_dir(scene.path("data/global")).unwrap();
        let checked = |bytes: &[u8]| {
            fs::write(scene.path("data").join(UNFINISHED_CONTROL_FILE), bytes).unwrap();
            let (checked, _) = scene.host().run(|| {
                let place = Place::of(&scene.request().with("backup", "first"))?;
                let backup = &backup::find(&place, Search::Best, &mut |_, failure| Err(failure))?[0];
                let datadir = &Datadir::of(&scene.request())?;
                Restored { place: &place, backup, datadir }.check_relation_files()
            });
            checked
        };
        let result = checked(&control);
        assert!(matches!(&result, Err(Failure::Failed(why)) if why.contains(what)), "{result:?}");
        assert_eq!(checked(&control_file()), Ok(()));
    }
}

#[test]
fn a_plan_whose_chain_has_changed_is_refused() {
    let scene = chain();
    let plan = scene.plan().unwrap();
    scene.put("backup/full", "pg_wal.tar", &archive(&[]));
    let (result, _) = scene.host().run(|| Tarball::create(&scene.request(), &plan));
    assert!(matches!(result, Err(Failure::RetryLater(_))), "{result:?}");
    // A backup of the chain is gone.
    let (result, record) = {
        fs::remove_dir_all(scene.path("backup/first")).unwrap();
        scene.host().run(|| Tarball::create(&scene.request(), &plan))
    };
    assert!(
        matches!(&result, Err(Failure::RetryLater(why)) if why.contains("since the plan was made")),
        "{result:?}"
    );
    let logged = |(_, line): &(Level, String)| line.contains("no usable backup that began there");
    assert!(record.log.iter().any(logged), "{:?}", record.log);
}
