//! Which files a component can reach.

use std::fs;
use std::os::unix::fs::symlink;

use replica::{Outcome, TablespaceKey, TablespaceMap};

use crate::stage::Stage;

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn the_data_directory_is_written_under_its_own_path() {
    let stage = Stage::hostile("write");
    stage.create().await.unwrap();
    assert_eq!(fs::read(stage.datadir().join("written")).unwrap(), b"x");
    assert_eq!(stage.denials(), []);
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_data_directory_behind_a_link_is_written_under_the_operators_path() {
    let mut stage = Stage::hostile("write");
    let link = stage.directory("links").join("data");
    symlink(stage.datadir(), &link).unwrap();
    let real = std::mem::replace(&mut stage.directories.datadir, link);
    stage.create().await.unwrap();
    assert_eq!(fs::read(real.join("written")).unwrap(), b"x");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn plan_cannot_write() {
    let stage = Stage::hostile("write").in_plan();
    stage.fails(Outcome::Denied).await;
    assert_eq!(fs::read_dir(stage.datadir()).unwrap().count(), 0);
    let denial = &stage.denials()[0];
    assert_eq!(denial.capability.word(), "write");
    assert_eq!(
        denial.what,
        format!("{}/written (nothing may be written in plan)", stage.datadir().display())
    );
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_plan_works_before_the_data_directory_exists() {
    let stage = Stage::hostile("nothing");
    fs::remove_dir(stage.datadir()).unwrap();
    stage.plan().await.unwrap();
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn nothing_leads_out_of_the_data_directory() {
    let stage = Stage::hostile("traverse");
    let outside = stage.directory("outside");
    let target = outside.join("secret");
    fs::write(&target, "secret").unwrap();
    let stage = stage.path(&target);
    stage.fails(Outcome::Denied).await;
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(&target).unwrap(), "secret");
    assert!(stage.denials().iter().any(|denial| denial.what.contains("leads out")), "{:?}", stage.denials());
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_granted_directory_is_read_and_never_changed() {
    let stage = Stage::hostile("write-granted");
    let granted = stage.directory("granted");
    fs::write(granted.join("victim"), "x").unwrap();
    let stage = stage.path(&granted).grant(|grants| grants.read.push(granted.clone()));
    stage.fails(Outcome::Denied).await;
    assert_eq!(fs::read_dir(&granted).unwrap().count(), 1);
    assert_eq!(fs::read(granted.join("victim")).unwrap(), b"x");
    assert!(
        stage.denials().iter().all(|denial| denial.capability.word() == "write"),
        "{:?}",
        stage.denials()
    );
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_fifo_is_not_opened() {
    let stage = Stage::hostile("fifo");
    let granted = stage.directory("granted");
    let fifo = granted.join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
    let stage = stage.path(&fifo).grant(|grants| grants.read.push(granted));
    stage.fails(Outcome::Denied).await;
    assert_eq!(stage.denials()[0].what, format!("{} (neither a file nor a directory)", fifo.display()));
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_component_cannot_create_the_control_file_under_its_final_name() {
    let stage = Stage::hostile("control-file");
    stage.fails(Outcome::Denied).await;
    assert!(!stage.datadir().join("global/pg_control").exists());
    let denial = &stage.denials()[0];
    let path = stage.datadir().join("global/pg_control");
    let path = path.display();
    assert_eq!(
        denial.what,
        format!("{path} (write {path}.understudy instead: the host renames it in the seal)")
    );
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_component_that_fails_half_way_leaves_no_control_file() {
    let stage = Stage::hostile("partial");
    stage.fails(Outcome::Failed).await;
    assert!(stage.datadir().join("global/pg_control.understudy").exists());
    assert!(!stage.datadir().join("global/pg_control").exists());
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn directories_that_the_operator_maps_can_be_written() {
    let mut stage = Stage::hostile("write-outside");
    let (wal, space) = (stage.directory("wal"), stage.directory("space"));
    stage.directories.wal = Some(wal.clone());
    let key = TablespaceKey::parse("/old/place");
    stage.directories.tablespaces = TablespaceMap::new(vec![(key, space.clone())]);
    for mapped in [wal.join("a"), space.join("b")] {
        stage.settings.options.retain(|(name, _)| name != "path");
        stage = stage.path(&mapped);
        // The component reports the write as an escape; here it must be able to write.
        let failure = stage.create().await.unwrap_err();
        assert!(failure.message.contains("ESCAPED"), "{failure}");
        assert!(mapped.is_file());
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_grant_that_holds_the_data_directory_is_refused() {
    let stage = Stage::hostile("read-outside");
    let outside = stage.directory("outside").join("file");
    fs::write(&outside, "x").unwrap();
    let stage = stage.path(&outside).grant(|grants| grants.read.push("/".into()));
    let failure = stage.create().await.unwrap_err();
    assert!(failure.message.contains("grant a directory that lies apart from it"), "{failure}");
    assert!(!failure.message.contains("ESCAPED"), "{failure}");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn only_the_thread_of_the_method_is_restricted() {
    let stage = Stage::hostile("write");
    stage.create().await.unwrap();
    let elsewhere = stage.directory("elsewhere").join("file");
    let written = tokio::task::spawn_blocking(move || fs::write(elsewhere, "x")).await.unwrap();
    written.unwrap();
}
