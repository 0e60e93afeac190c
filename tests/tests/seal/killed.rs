//! Kills a host while it seals.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use replica::seal::{EndState, UNFINISHED_CONTROL_FILE};
use replica::{Plan, SealRequests, Signal};
use tests::server::{BIN_DIR, run};

use crate::scene::{SEAL_ONLY, Scene, SealInput, as_server_user, directories, rerun, run_seal};

#[test]
#[ignore = "run by another test, with a folder to seal"]
fn seals_the_given_folder() {
    let Ok(root) = std::env::var(SEAL_ONLY) else { return };
    let root = PathBuf::from(root);
    let fast = fs::read_to_string(root.join("location")).unwrap();
    let given = SealInput {
        bin_dir: BIN_DIR.into(),
        source: None,
        plan: Plan::default(),
        filled: SealRequests { signals: vec![Signal::Standby], ..SealRequests::default() },
        end: EndState::default(),
    };
    run_seal(&directories(&root, fast.into()), &root.join("state"), given).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_killed_seal_leaves_nothing_that_starts_unless_it_was_complete() {
    as_server_user("killed::a_killed_seal_leaves_nothing_that_starts_unless_it_was_complete", || {
        let scene = Scene::with_tar_backup("killed");
        // A component leaves pg_control under this name. A native program writes its files in its own order, which is not tested here.
        fs::rename(scene.main().join("global/pg_control"), scene.main().join(UNFINISHED_CONTROL_FILE))
            .unwrap();
        let pristine = scene.primary.playground.path("pristine");
        fs::rename(&scene.root, &pristine).unwrap();
        let began = std::time::Instant::now();
        let mut complete = Duration::from_millis(100);
        for round in 0..12 {
            let _ = fs::remove_dir_all(&scene.root);
            run(Command::new("/bin/cp").arg("--archive").arg(&pristine).arg(&scene.root)).unwrap();
            fs::write(scene.at("location"), scene.primary.tablespace().display().to_string()).unwrap();
            fs::create_dir(scene.at("state")).unwrap();
            fs::set_permissions(scene.at("state"), fs::Permissions::from_mode(0o700)).unwrap();
            let started = std::time::Instant::now();
            let mut child = rerun(&scene.primary.playground, "killed::seals_the_given_folder")
                .env(SEAL_ONLY, &scene.root)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            if round == 0 {
                assert!(child.wait().unwrap().success());
                complete = started.elapsed();
            } else {
                // This sleep does not synchronize anything: the moment of the kill is the input of the test.
                std::thread::sleep(complete * round / 12);
                child.kill().unwrap();
                child.wait().unwrap();
            }
            if scene.main().join("global/pg_control").exists() {
                // The seal was complete, so everything that it writes must exist.
                assert!(!scene.main().join("tablespace_map").exists(), "round {round}");
                assert!(scene.main().join("standby.signal").exists(), "round {round}");
                assert!(scene.main().join("pg_wal").is_symlink(), "round {round}");
            } else {
                scene.assert_does_not_start();
            }
        }
        assert!(began.elapsed() < Duration::from_secs(120));
    });
}
