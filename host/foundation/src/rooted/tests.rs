use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::{Duration, Instant};

use std::ops::ControlFlow;

use super::*;

fn path(text: impl AsRef<OsStr>) -> RelativePath {
    RelativePath::new(text).unwrap()
}

fn opened() -> (tempfile::TempDir, Directory) {
    let folder = tempfile::tempdir().unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    (folder, directory)
}

/// Runs the named test of this file again in a process with its own mounts. Returns true in that process.
fn with_own_mounts(test: &str) -> bool {
    alone(test, &["unshare", "--mount", "--propagation", "private"])
}

/// Runs the named test of this file again in a process that these programs start. Returns true in that process.
fn alone(test: &str, through: &[&str]) -> bool {
    if std::env::var_os("UNDERSTUDY_TEST_ALONE").is_some() {
        return true;
    }
    let mut command = through.iter().map(OsStr::new).map(OsStr::to_owned).collect::<Vec<_>>();
    if through.first() == Some(&"unshare") && !rustix::process::geteuid().is_root() {
        command.push("--map-root-user".into());
    }
    command.push(std::env::current_exe().unwrap().into());
    let output = Command::new(&command[0])
        .args(&command[1..])
        .args(["--exact", &format!("rooted::tests::{test}"), "--nocapture"])
        .env("UNDERSTUDY_TEST_ALONE", "1")
        .output()
        .unwrap_or_else(|error| panic!("this test needs {:?} (package util-linux): {error}", command[0]));
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "in a process of its own (root or user namespaces are needed): {text}");
    assert!(text.contains("1 passed"), "{text}");
    false
}

fn mount(at: &Path) {
    let status = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(at).status().unwrap();
    assert!(status.success(), "a tmpfs can be mounted at {}", at.display());
}

#[test]
fn no_operation_goes_through_a_link() {
    let (folder, directory) = opened();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "victim").unwrap();
    fs::create_dir(outside.path().join("folder")).unwrap();
    symlink(outside.path(), folder.path().join("link")).unwrap();
    fs::write(folder.path().join("own"), "own").unwrap();
    let victim = path("link/file");
    assert!(directory.open_directory(&path("link")).is_err());
    assert!(directory.open_directory(&path("link/folder")).is_err());
    assert!(directory.open_file(&victim).is_err());
    assert!(directory.read(&victim, 100).is_err());
    assert!(directory.create_file(&path("link/new"), 0o600).is_err());
    assert!(directory.create_directory(&path("link/new"), 0o700).is_err());
    assert!(directory.create_link(&path("link/new"), Path::new("x")).is_err());
    assert!(directory.metadata(&victim).is_err());
    assert!(directory.remove_file(&victim).is_err());
    assert!(directory.remove_directory(&path("link/folder")).is_err());
    assert!(directory.rename(&path("own"), &path("link/own")).is_err());
    assert!(directory.rename(&victim, &path("stolen")).is_err());
    assert!(directory.replace(&victim, b"new", 0o600).is_err());
    assert!(directory.set_mode(&victim, 0o777).is_err());
    assert!(directory.set_mode(&path("link"), 0o777).is_err());
    let error = directory.open_file(&victim).unwrap_err().to_string();
    assert!(error.contains("link/file") && error.contains("links are not followed"), "{error}");
    assert_eq!(fs::read(outside.path().join("file")).unwrap(), b"victim");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 2);
}

#[test]
fn a_link_in_the_place_of_a_file_is_not_followed_either() {
    let (folder, directory) = opened();
    let outside = tempfile::NamedTempFile::new().unwrap();
    symlink(outside.path(), folder.path().join("file")).unwrap();
    assert!(directory.open_file(&path("file")).is_err());
    assert_eq!(directory.create_file(&path("file"), 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(directory.metadata(&path("file")).unwrap().kind, Kind::Link);
    assert_eq!(directory.read_link(&path("file")).unwrap(), outside.path());
    directory.replace(&path("file"), b"own", 0o640).unwrap();
    assert_eq!(directory.metadata(&path("file")).unwrap().kind, Kind::File);
    assert_eq!(fs::read(outside.path()).unwrap(), b"");
}

#[test]
fn a_fifo_is_refused_without_waiting_for_its_writer() {
    let (folder, directory) = opened();
    assert!(Command::new("mkfifo").arg(folder.path().join("fifo")).status().unwrap().success());
    assert!(directory.open_file(&path("fifo")).unwrap_err().to_string().contains("not a regular file"));
    assert_eq!(directory.metadata(&path("fifo")).unwrap().kind, Kind::Special);
}

#[test]
fn reading_stops_at_its_bound() {
    let (folder, directory) = opened();
    fs::write(folder.path().join("file"), [b'x'; 100]).unwrap();
    assert_eq!(directory.read(&path("file"), 100).unwrap().len(), 100);
    assert_eq!(directory.read(&path("file"), 99).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
}

#[test]
fn files_directories_and_links_are_made_renamed_and_removed_below() {
    let (folder, directory) = opened();
    directory.create_directory(&path("global"), 0o700).unwrap();
    directory.create_file(&path("global/new"), 0o600).unwrap().write_all(b"control").unwrap();
    directory.rename(&path("global/new"), &path("global/pg_control")).unwrap();
    assert_eq!(directory.read(&path("global/pg_control"), 10).unwrap(), b"control");
    directory.create_link(&path("pg_wal"), Path::new("/elsewhere")).unwrap();
    assert_eq!(directory.read_link(&path("pg_wal")).unwrap(), Path::new("/elsewhere"));
    let taken = directory.rename_to_free_name(&path("global/pg_control"), &path("pg_wal")).unwrap_err();
    assert_eq!(taken.kind(), io::ErrorKind::AlreadyExists);
    directory.set_mode(&path("global/pg_control"), 0o640).unwrap();
    assert_eq!(directory.metadata(&path("global/pg_control")).unwrap().mode, 0o640);
    assert_eq!(directory.find(&path("global/none")).unwrap(), None);
    directory.remove_file(&path("global/pg_control")).unwrap();
    directory.remove_file(&path("pg_wal")).unwrap();
    assert!(!directory.is_empty().unwrap());
    directory.remove_directory(&path("global")).unwrap();
    assert!(directory.is_empty().unwrap());
    fs::write(folder.path().join(".dotfile"), "").unwrap();
    assert!(!directory.is_empty().unwrap());
}

#[test]
fn replacing_leaves_one_file_and_survives_a_leftover_from_a_killed_run() {
    let (folder, directory) = opened();
    fs::write(folder.path().join("file"), "old").unwrap();
    fs::write(folder.path().join("file.understudy-new"), "half").unwrap();
    directory.replace(&path("file"), b"new", 0o600).unwrap();
    assert_eq!(fs::read(folder.path().join("file")).unwrap(), b"new");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_walk_finds_everything_once_and_goes_through_no_link() {
    let (folder, directory) = opened();
    fs::create_dir_all(folder.path().join("base/1")).unwrap();
    fs::write(folder.path().join("base/1/1259"), "x").unwrap();
    symlink("/", folder.path().join("base/root")).unwrap();
    symlink(".", folder.path().join("self")).unwrap();
    let mut found = BTreeMap::new();
    directory
        .walk(8, &mut |entry| {
            assert!(found.insert(entry.path.to_owned(), entry.metadata.kind).is_none());
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    let expected = [
        ("base", Kind::Directory),
        ("base/1", Kind::Directory),
        ("base/1/1259", Kind::File),
        ("base/root", Kind::Link),
        ("self", Kind::Link),
    ];
    assert_eq!(found, expected.map(|(path, kind)| (PathBuf::from(path), kind)).into());
}

#[test]
fn a_walk_stops_at_its_depth_and_when_the_visitor_breaks() {
    let (folder, directory) = opened();
    fs::create_dir_all(folder.path().join("1/2/3/4")).unwrap();
    let mut found = Vec::new();
    directory
        .walk(2, &mut |entry| {
            found.push((entry.path.to_owned(), entry.boundary));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    let expected = [("1", None), ("1/2", None), ("1/2/3", Some(Boundary::TooDeep))];
    assert_eq!(found, expected.map(|(path, boundary)| (PathBuf::from(path), boundary)));
    let mut visits = 0;
    directory
        .walk(8, &mut |_| {
            visits += 1;
            Ok(ControlFlow::Break(()))
        })
        .unwrap();
    assert_eq!(visits, 1);
}

#[test]
fn another_file_system_is_neither_walked_nor_removed() {
    if !with_own_mounts("another_file_system_is_neither_walked_nor_removed") {
        return;
    }
    let (folder, directory) = opened();
    let mounted = folder.path().join("base/mounted");
    fs::create_dir_all(&mounted).unwrap();
    mount(&mounted);
    fs::write(mounted.join("victim"), "").unwrap();
    let mut boundaries = Vec::new();
    directory
        .walk(8, &mut |entry| {
            boundaries.push((entry.path.to_owned(), entry.boundary));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
    assert_eq!(boundaries, [("base".into(), None), ("base/mounted".into(), Some(Boundary::MountPoint))]);
    assert!(directory.is_mount_point(&path("base/mounted")).unwrap());
    assert!(!directory.is_mount_point(&path("base")).unwrap());
    let error = directory.remove_below(&|_| true, &Limit::NONE).unwrap_err().to_string();
    assert!(error.contains("base/mounted") && error.contains("mount point"), "{error}");
    assert!(mounted.join("victim").exists());
}

#[test]
fn only_wanted_entries_are_removed_and_never_the_target_of_a_link() {
    let (folder, directory) = opened();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("victim"), "").unwrap();
    fs::create_dir_all(folder.path().join("gone/deeper")).unwrap();
    symlink(outside.path(), folder.path().join("gone/deeper/folder")).unwrap();
    symlink(outside.path().join("victim"), folder.path().join("gone/file")).unwrap();
    symlink(outside.path(), folder.path().join("gone-too")).unwrap();
    fs::create_dir_all(folder.path().join("kept/gone")).unwrap();
    let removed = directory.remove_below(&|name| name != "kept", &Limit::NONE).unwrap();
    assert_eq!(removed, Removed { entries: 5, complete: true });
    assert!(outside.path().join("victim").exists());
    assert!(folder.path().join("kept/gone").is_dir());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_tree_of_any_depth_is_removed_with_a_bounded_number_of_descriptors() {
    if !alone("a_tree_of_any_depth_is_removed_with_a_bounded_number_of_descriptors", &["env"]) {
        return;
    }
    let (folder, directory) = opened();
    let mut here = directory.try_clone().unwrap();
    for level in 0..5000 {
        fs::write(format!("/proc/self/fd/{}/file", std::os::fd::AsRawFd::as_raw_fd(&here.as_fd())), "")
            .unwrap();
        let name = path(if level % 2 == 0 { "a" } else { "b" });
        here.create_directory(&name, 0o700).unwrap();
        here = here.open_directory(&name).unwrap();
        here.path = PathBuf::from("deep");
    }
    let most = Cell::new(0);
    let count = || {
        most.set(most.get().max(fs::read_dir("/proc/self/fd").unwrap().count()));
        false
    };
    let limit = Limit { deadline: None, cancelled: &count };
    assert!(directory.remove_below(&|_| true, &limit).unwrap().complete);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    assert!((16..64).contains(&most.get()), "{} descriptors", most.get());
}

/// Returns how many steps it takes to remove a chain of `levels` nested directories, each with a file.
fn calls_to_remove(levels: usize) -> u64 {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let directory = Directory::open(folder.path()).unwrap();
    let mut here = directory.try_clone().unwrap();
    for _ in 0..levels {
        drop(here.create_file(&path("file"), 0o600).unwrap());
        here.create_directory(&path("d"), 0o700).unwrap();
        here = here.open_directory(&path("d")).unwrap();
        here.path = PathBuf::from("deep");
    }
    let calls = Cell::new(0);
    let count = || {
        calls.set(calls.get() + 1);
        false
    };
    let limit = Limit { deadline: None, cancelled: &count };
    let removed = directory.remove_below(&|_| true, &limit).unwrap();
    assert_eq!(removed, Removed { entries: 2 * levels as u64, complete: true });
    calls.get()
}

#[test]
fn removing_a_deep_tree_takes_time_in_proportion_to_its_size() {
    // Each step reads one entry and removes, enters or moves it, so the number of steps measures the cost.
    let (one, two) = (calls_to_remove(10_000), calls_to_remove(20_000));
    assert!(one < 10 * 2 * 10_000, "{one} steps for 20,000 entries");
    assert!(two <= 2 * one + 1000, "{one} steps for 10,000 levels and {two} for 20,000");
}

#[test]
fn a_directory_that_takes_anothers_place_was_born_later() {
    let (folder, directory) = opened();
    let birth = directory.birth().unwrap();
    assert!(birth.is_some(), "the tests run on ext4, xfs, btrfs or tmpfs");
    assert_eq!(Directory::open(folder.path()).unwrap().birth().unwrap(), birth);
    fs::write(folder.path().join("file"), "").unwrap();
    assert_eq!(directory.birth().unwrap(), birth, "writing into the directory does not change its birth");
    // The clock of a file system has a resolution of some milliseconds.
    let deadline = Instant::now() + Duration::from_secs(20);
    while Directory::open(tempfile::tempdir().unwrap().path()).unwrap().birth().unwrap() == birth {
        assert!(Instant::now() < deadline, "the clock stands still");
    }
    assert_eq!(Directory::open(Path::new("/proc")).unwrap().birth().unwrap(), None);
}

#[test]
fn removing_a_hundred_thousand_files_takes_no_memory_for_each() {
    if !alone("removing_a_hundred_thousand_files_takes_no_memory_for_each", &["env"]) {
        return;
    }
    let peak = || -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    for number in 0..100_000 {
        fs::write(folder.path().join(format!("{number:0>200}")), "").unwrap();
    }
    let directory = Directory::open(folder.path()).unwrap();
    let before = peak();
    let removed = directory.remove_below(&|_| true, &Limit::NONE).unwrap();
    assert_eq!(removed, Removed { entries: 100_000, complete: true });
    let growth = peak() - before;
    assert!(growth < 2048, "{growth} kB for names of 20 MB in all");
}

#[test]
fn removing_stops_at_its_deadline_and_when_it_is_cancelled() {
    let (folder, directory) = opened();
    for number in 0..100 {
        fs::write(folder.path().join(number.to_string()), "").unwrap();
    }
    let over = Limit { deadline: Some(Instant::now()), cancelled: &|| false };
    assert_eq!(directory.remove_below(&|_| true, &over).unwrap(), Removed { entries: 0, complete: false });
    let asked = Cell::new(0);
    let after_fifty = || {
        asked.set(asked.get() + 1);
        asked.get() > 50
    };
    let limit = Limit { deadline: Some(Instant::now() + Duration::from_secs(60)), cancelled: &after_fifty };
    let removed = directory.remove_below(&|_| true, &limit).unwrap();
    assert!(!removed.complete && (40..=50).contains(&removed.entries), "{removed:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count() as u64, 100 - removed.entries);
}

/// Runs `work` on a thread without privileges, because modes do not restrict root.
fn as_an_ordinary_user(folder: &Path, work: impl FnOnce() + Send + 'static) {
    let nobody = 65534;
    if rustix::process::geteuid().is_root() {
        let owned = Command::new("chown").args(["-R", "65534:65534"]).arg(folder).status().unwrap();
        assert!(owned.success());
    }
    std::thread::spawn(move || {
        if rustix::process::geteuid().is_root() {
            let user = rustix::process::Uid::from_raw(nobody);
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        }
        work();
    })
    .join()
    .unwrap();
}

#[test]
fn a_directory_that_its_mode_protects_from_its_owner_is_removed_all_the_same() {
    let (folder, directory) = opened();
    for (name, mode) in [("none", 0o000), ("read-only", 0o500), ("write-only", 0o200)] {
        let protected = folder.path().join("tree").join(name);
        fs::create_dir_all(protected.join("inner")).unwrap();
        fs::write(protected.join("file"), "").unwrap();
        fs::set_permissions(&protected, fs::Permissions::from_mode(mode)).unwrap();
    }
    as_an_ordinary_user(folder.path(), move || {
        let removed = directory.remove_below(&|_| true, &Limit::NONE).unwrap();
        assert_eq!(removed, Removed { entries: 10, complete: true });
    });
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn an_emptied_directory_keeps_the_permissions_of_its_group() {
    let (folder, directory) = opened();
    fs::write(folder.path().join("file"), "").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o550)).unwrap();
    as_an_ordinary_user(folder.path(), move || {
        directory.remove_below(&|_| true, &Limit::NONE).unwrap();
    });
    assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o7777, 0o750);
}

#[test]
fn a_walk_reports_directories_that_it_may_not_read() {
    let (folder, directory) = opened();
    fs::create_dir(folder.path().join("closed")).unwrap();
    fs::set_permissions(folder.path().join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    as_an_ordinary_user(folder.path(), move || {
        let mut boundaries = Vec::new();
        directory
            .walk(8, &mut |entry| {
                boundaries.push(entry.boundary);
                Ok(ControlFlow::Continue(()))
            })
            .unwrap();
        assert_eq!(boundaries, [Some(Boundary::Unreadable)]);
    });
}
