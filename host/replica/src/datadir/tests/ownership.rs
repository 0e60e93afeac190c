//! Whether the data in a directory belongs to another cluster, to this program, or to neither.

use super::*;

const OTHER_CLUSTER: u64 = 7_000_000_000_000_000_002;

#[test]
fn rule_25_the_description_of_a_cluster_identifies_it() {
    let machine = Machine::with_cluster();
    symlink("/srv/fast", machine.path("data/pg_tblspc/16384")).unwrap();
    let found = machine.inspected(false).unwrap().cluster.unwrap();
    assert_eq!(found.system_identifier(), Some(OWN_CLUSTER));
    let description = found.to_string();
    for part in [
        "PostgreSQL 15 cluster",
        &OWN_CLUSTER.to_string(),
        "shut down",
        "0/2000060 on timeline 3",
        "2026-11-23T08:00:00Z",
        "KiB in 8 files",
        "tablespaces in /srv/fast",
    ] {
        assert!(description.contains(part), "{part}: {description}");
    }
    assert_eq!(machine.acquire().unwrap().cluster(), Some(&found));
}

#[test]
fn rule_25_another_cluster_is_not_replaced_without_force() {
    let machine = Machine::with_cluster();
    let directory = machine.acquire().unwrap();
    let found = directory.cluster().unwrap();
    assert_eq!(found.refuse_other(OWN_CLUSTER, "the source", false), Ok(()));
    let refusal = found.refuse_other(OTHER_CLUSTER, "the source", false).unwrap_err();
    assert_eq!((refusal.rule, refusal.policy), (Rule::AnotherCluster, true));
    assert!(refusal.remedy.unwrap().contains("--force"));
    assert!(refusal.message.contains(&OTHER_CLUSTER.to_string()), "{}", refusal.message);
    assert_eq!(found.refuse_other(OTHER_CLUSTER, "the source", true), Ok(()));
    // A cluster that is no longer complete is not reported.
    empty(&directory);
    assert_eq!(directory.cluster(), None);
}

#[test]
fn rule_25_a_cluster_with_an_unusable_pg_control_needs_force() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("No such file", |control| fs::remove_file(control).unwrap()),
        ("has 7 bytes", |control| fs::write(control, "control").unwrap()),
        ("checksum", |control| {
            let mut bytes = control_file(OWN_CLUSTER);
            bytes[0] ^= 1;
            fs::write(control, bytes).unwrap();
        }),
        ("longer than", |control| fs::write(control, vec![0; 8193]).unwrap()),
        ("symbolic link", |control| {
            fs::remove_file(control).unwrap();
            symlink("/etc/passwd", control).unwrap();
        }),
    ];
    for (says, damage) in damages {
        let machine = Machine::with_cluster();
        damage(&machine.path("data/global/pg_control"));
        let refusal = machine.refused();
        assert_eq!(refusal.rule, Rule::DataDirectory);
        assert!(refusal.message.contains(says), "{says}: {refusal}");
        assert!(refusal.remedy.unwrap().contains("--force"));
        assert_eq!(machine.inspected(true).unwrap().contents, Contents::Cluster);
        assert_eq!(machine.force().unwrap().contents().unwrap(), Contents::Cluster);
    }
}

#[test]
fn rule_26_a_directory_that_has_the_inode_of_an_unfinished_one_is_not_unfinished() {
    let machine = Machine::with_cluster();
    machine.killed(machine.acquire().unwrap(), &[]);
    fs::remove_file(machine.path("data/PG_VERSION")).unwrap();
    assert_eq!(machine.inspect(), Ok(Contents::Unfinished));
    // The file system decides whether a new directory gets the inode of the old one, so the test writes the inode to the state file.
    let data = machine.path("data");
    fs::remove_dir_all(&data).unwrap();
    fs::create_dir(&data).unwrap();
    fs::write(data.join("thesis.txt"), "").unwrap();
    let metadata = fs::metadata(&data).unwrap();
    machine.change_state(|state| {
        state["device"] = metadata.dev().into();
        state["inode"] = metadata.ino().into();
    });
    let refusal = machine.refused();
    assert!(refusal.message.contains("an older directory"), "{refusal}");
    assert!(data.join("thesis.txt").exists());
}

#[test]
fn rule_24_unfinished_work_in_a_mapped_place_stays_ours_if_the_data_directory_was_removed() {
    let mut machine = Machine::new();
    let wal = machine.map_wal("wal");
    machine.killed(machine.acquire().unwrap(), &[]);
    fs::create_dir(wal.join("archive_status")).unwrap();
    fs::write(wal.join("000000010000000000000001"), "").unwrap();
    fs::remove_dir_all(machine.path("data")).unwrap();
    assert_eq!(machine.inspect(), Ok(Contents::Nothing));
    // The mark also survives a run that ends before it empties anything.
    machine.acquire().unwrap().state().run_ended(RunResult::Failed, false).unwrap();
    let directory = machine.acquire().unwrap();
    assert_eq!(directory.contents().unwrap(), Contents::Unfinished);
    empty(&directory);
    assert!(fs::read_dir(&wal).unwrap().next().is_none());
    drop(directory);
    // Files that another program has put into a new data directory are foreign.
    machine.killed(machine.acquire().unwrap(), &[]);
    fs::remove_dir_all(machine.path("data")).unwrap();
    machine.cluster("data");
    fs::create_dir(wal.join("archive_status")).unwrap();
    fs::write(wal.join("000000010000000000000001"), "").unwrap();
    assert_eq!(machine.refused().rule, Rule::MappedPlace);
}

#[test]
fn rule_24_a_mapped_place_that_has_the_inode_of_another_is_not_ours() {
    let mut machine = Machine::new();
    let wal = machine.map_wal("wal");
    machine.killed(
        {
            let directory = machine.acquire().unwrap();
            fs::write(machine.path("data/left"), "").unwrap();
            directory
        },
        &[],
    );
    fs::write(wal.join("junk"), "").unwrap();
    assert!(machine.inspect().is_ok(), "the content is this program's");
    fs::remove_dir_all(&wal).unwrap();
    fs::create_dir(&wal).unwrap();
    fs::write(wal.join("thesis.txt"), "").unwrap();
    let inode = fs::metadata(&wal).unwrap().ino();
    machine.change_state(|state| state["places"][0]["inode"] = inode.into());
    assert_eq!(machine.refused().rule, Rule::MappedPlace);
}

#[test]
fn rule_24_a_place_that_no_cluster_in_the_data_directory_links_to_needs_force() {
    let mut machine = Machine::with_cluster();
    machine.map_wal("wal");
    machine.map_tablespaces(&[("/old/space", "space")]);
    for (folder, file) in [
        ("wal/archive_status", "wal/000000010000000000000001"),
        ("space/PG_15_202209061/5", "space/PG_15_202209061/5/1"),
    ] {
        fs::create_dir_all(machine.path(folder)).unwrap();
        fs::write(machine.path(file), "rows").unwrap();
        let refusal = machine.refused();
        assert_eq!(refusal.rule, Rule::MappedPlace);
        assert!(refusal.message.contains("no cluster in the data directory links to it"), "{refusal}");
        assert!(machine.inspected(true).is_ok());
        machine.force().unwrap().state().run_ended(RunResult::Failed, false).unwrap();
        let (link, to) = if folder.starts_with("wal") {
            ("data/pg_wal", "wal")
        } else {
            ("data/pg_tblspc/16384", "space")
        };
        symlink(machine.path(to), machine.path(link)).unwrap();
        assert_eq!(machine.inspect(), Ok(Contents::Cluster));
    }
    drop(machine.acquire().unwrap());
}

#[test]
fn a_refused_run_leaves_no_directory_that_it_created() {
    let mut machine = Machine::new();
    machine.map_wal("wal");
    machine.map_tablespaces(&[("/old/a", "a"), ("/old/b", "b")]);
    fs::create_dir(machine.path("b")).unwrap();
    fs::write(machine.path("b/thesis.txt"), "").unwrap();
    assert_eq!(machine.refused().rule, Rule::MappedPlace);
    assert_eq!(entries(&machine.root), ["b", "state"]);
    fs::remove_file(machine.path("b/thesis.txt")).unwrap();
    // A run locked the directories and did nothing in them.
    machine.acquire().unwrap().state().run_ended(RunResult::Failed, true).unwrap();
    assert_eq!(entries(&machine.root), ["b", "state"]);
    // After a method has worked in them they stay.
    let directory = machine.acquire().unwrap();
    empty(&directory);
    drop(directory);
    assert_eq!(entries(&machine.root), ["a", "b", "data", "state", "wal"]);
}

#[test]
fn rule_25_no_postmaster_pid_keeps_unfinished_work_from_the_next_run() {
    let machine = Machine::with_cluster();
    machine.killed(machine.acquire().unwrap(), &[]);
    let (pid, control) = (machine.path("data/postmaster.pid"), machine.path("data/global/pg_control"));
    let thread = std::thread::spawn(|| rustix::thread::gettid().as_raw_nonzero()).join().unwrap();
    let texts = [
        "1\n",
        "0\n",
        "-1\n",
        "-2147483648",
        "",
        "x",
        &format!("{}\n", std::process::id()),
        &format!("{thread}\n"),
    ]
    .map(str::to_owned);
    // With pg_control the directory looks whole, as if a method had been able to write it.
    for planted in [false, true] {
        if planted {
            fs::write(&control, control_file(OWN_CLUSTER)).unwrap();
        }
        for text in &texts {
            fs::write(&pid, text).unwrap();
            assert!(machine.inspect().is_ok(), "{text:?}");
            fs::remove_file(&pid).unwrap();
        }
        fs::write(&pid, vec![b'1'; 1 << 20]).unwrap();
        assert!(machine.inspect().is_ok());
        fs::remove_file(&pid).unwrap();
        fs::create_dir(&pid).unwrap();
        assert!(machine.inspect().is_ok());
        fs::remove_dir(&pid).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &pid, 0o600.into()).unwrap();
        assert!(machine.inspect().is_ok());
        fs::remove_file(&pid).unwrap();
        symlink("/etc/passwd", &pid).unwrap();
        assert!(machine.inspect().is_ok());
        fs::remove_file(&pid).unwrap();
    }
    // A server that was started there is found.
    let mut server = Command::new("sleep")
        .arg("600")
        .current_dir(machine.path("data"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    fs::write(&pid, format!("{}\n", server.id())).unwrap();
    assert_eq!(machine.refused().rule, Rule::RunningServer);
    server.kill().unwrap();
    server.wait().unwrap();
    // The run itself checks once more before its first change.
    fs::write(&pid, "1\n").unwrap();
    empty(&machine.acquire().unwrap());
    assert_eq!(entries(&machine.path("data")), [""; 0]);
}
