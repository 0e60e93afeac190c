//! A SIGKILL of the host while it seals.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use replica::seal::{EndState, UNFINISHED_CONTROL_FILE};
use replica::{Plan, SealRequests, Signal};
use tests::server::{BIN_DIR, run};

use crate::scene::{Given, SEAL_ONLY, Scene, again, as_the_server, places, sealed};

#[test]
#[ignore = "run by another test, with a folder to seal"]
fn seals_the_folder_that_it_is_given() {
    let Ok(root) = std::env::var(SEAL_ONLY) else { return };
    let root = PathBuf::from(root);
    let fast = fs::read_to_string(root.join("location")).unwrap();
    let given = Given {
        bin_dir: BIN_DIR.into(),
        source: None,
        plan: Plan::default(),
        filled: SealRequests { signals: vec![Signal::Standby], ..SealRequests::default() },
        end: EndState::default(),
    };
    sealed(&places(&root, fast.into()), &root.join("state"), given).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_seal_that_is_killed_leaves_nothing_that_starts_unless_it_was_done() {
    as_the_server("killed::a_seal_that_is_killed_leaves_nothing_that_starts_unless_it_was_done", || {
        let scene = Scene::with_tar_backup("killed");
        // As a guest leaves it; what a native program leaves before the seal begins is by that program's own order.
        fs::rename(scene.main().join("global/pg_control"), scene.main().join(UNFINISHED_CONTROL_FILE))
            .unwrap();
        let pristine = scene.primary.playground.path("pristine");
        fs::rename(&scene.root, &pristine).unwrap();
        let began = std::time::Instant::now();
        let mut whole = Duration::from_millis(100);
        for round in 0..12 {
            let _ = fs::remove_dir_all(&scene.root);
            run(Command::new("/bin/cp").arg("--archive").arg(&pristine).arg(&scene.root)).unwrap();
            fs::write(scene.at("location"), scene.primary.tablespace().display().to_string()).unwrap();
            fs::create_dir(scene.at("state")).unwrap();
            fs::set_permissions(scene.at("state"), fs::Permissions::from_mode(0o700)).unwrap();
            let started = std::time::Instant::now();
            let mut child = again(&scene.primary.playground, "killed::seals_the_folder_that_it_is_given")
                .env(SEAL_ONLY, &scene.root)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            if round == 0 {
                assert!(child.wait().unwrap().success());
                whole = started.elapsed();
            } else {
                // The moment itself is what varies.
                std::thread::sleep(whole * round / 12);
                child.kill().unwrap();
                child.wait().unwrap();
            }
            if scene.main().join("global/pg_control").exists() {
                // Complete: everything that the seal writes is there.
                assert!(!scene.main().join("tablespace_map").exists(), "round {round}");
                assert!(scene.main().join("standby.signal").exists(), "round {round}");
                assert!(scene.main().join("pg_wal").is_symlink(), "round {round}");
            } else {
                scene.is_not_startable();
            }
        }
        assert!(began.elapsed() < Duration::from_secs(120));
    });
}
