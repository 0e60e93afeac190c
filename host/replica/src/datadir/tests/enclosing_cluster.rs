//! Directories of a run inside another cluster, and clusters inside such a directory.

use super::*;

impl Machine {
    /// Returns a machine with another cluster, in `main`, with a WAL directory and a tablespace outside.
    fn with_main() -> Self {
        let machine = Self::new();
        machine.cluster("main");
        fs::create_dir_all(machine.path("main-wal/archive_status")).unwrap();
        fs::create_dir_all(machine.path("main-ts/PG_15_202209061/5")).unwrap();
        machine
    }

    /// Asserts that a run and a check refuse the directories, with and without `--force`, and create nothing.
    #[track_caller]
    fn refuses_inside(&self, rule: Rule, shown: &str) {
        let before = entries(&self.root);
        for force in [false, true] {
            let state = self.path("state");
            let acquired = DataDirectory::acquire(&self.directories, &state, force).unwrap_err();
            let inspected = self.inspected(force).unwrap_err();
            let checked = check_places(&self.directories, &state).unwrap_err();
            for refusal in [acquired, inspected, checked] {
                assert_eq!(refusal.rule, rule, "{refusal}");
                assert!(refusal.message.contains("inside another cluster"), "{refusal}");
                assert!(refusal.message.contains(shown), "{shown}: {refusal}");
            }
        }
        assert_eq!(entries(&self.root), before, "something was made");
    }
}

#[test]
fn rule_25_a_place_inside_a_cluster_is_refused_even_with_force() {
    let mut machine = Machine::with_main();
    fs::create_dir(machine.path("main/base/empty")).unwrap();
    symlink(machine.path("main/base"), machine.path("link")).unwrap();
    symlink(machine.path("main-ts"), machine.path("main/pg_tblspc/16384")).unwrap();
    fs::create_dir(machine.path("elsewhere")).unwrap();
    let inside = [
        ("main/replica", "PG_VERSION"),
        ("main/base/replica", "PG_VERSION"),
        ("main/base/empty", "PG_VERSION"),
        ("link/replica", "PG_VERSION"),
        ("elsewhere/../main/base/replica", "PG_VERSION"),
        ("main/pg_tblspc/16384/replica", "PG_VERSION"),
        ("main-ts/PG_15_202209061/replica", "PG_15_202209061"),
        ("main-ts/PG_15_202209061", "PG_15_202209061"),
        ("main-wal/replica", "archive_status"),
    ];
    for (name, shown) in inside {
        machine.directories.datadir = machine.path(name);
        machine.refuses_inside(Rule::DataDirectory, shown);
    }
    machine.directories.datadir = machine.path("data");
    for (name, shown) in inside {
        machine.directories.wal = Some(machine.path(name));
        machine.refuses_inside(Rule::MappedPlace, shown);
        machine.directories.wal = None;
        machine.map_tablespaces(&[("16384", name)]);
        machine.refuses_inside(Rule::MappedPlace, shown);
        machine.map_tablespaces(&[]);
    }
    // Directories in the same folder as a cluster are allowed.
    machine.map_wal("wal");
    machine.map_tablespaces(&[("16384", "fast")]);
    machine.acquire().unwrap();
}

#[test]
fn rule_25_each_of_the_marks_of_a_cluster_is_enough() {
    for mark in ["PG_VERSION", "global/pg_control", "global/pg_control.understudy", "archive_status"] {
        let mut machine = Machine::new();
        let path = machine.path("main").join(mark);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        machine.directories.datadir = machine.path("main/deep/replica");
        fs::create_dir(machine.path("main/deep")).unwrap();
        machine.refuses_inside(Rule::DataDirectory, machine.path("main").to_str().unwrap());
        let way_out = format!("if that is not a cluster, rename or remove {}", path.display());
        machine.refuses_inside(Rule::DataDirectory, &way_out);
        fs::remove_file(path).unwrap();
        machine.acquire().unwrap();
    }
}

#[test]
fn rule_26_a_state_directory_inside_or_at_a_cluster_is_refused() {
    let machine = Machine::with_main();
    for name in ["main", "main/base", "main/base/state", "main-wal", "main-ts/PG_15_202209061/state"] {
        let before = entries(&machine.root);
        let state = machine.path(name);
        let refused = [
            DataDirectory::acquire(&machine.directories, &state, true).unwrap_err(),
            DataDirectory::inspect(&machine.directories, &state, true).unwrap_err(),
            check_places(&machine.directories, &state).unwrap_err(),
        ];
        for refusal in refused {
            assert_eq!(refusal.rule, Rule::StateDirectory, "{name}: {refusal}");
            assert!(refusal.message.contains("inside another cluster"), "{name}: {refusal}");
        }
        assert_eq!(entries(&machine.root), before, "something was made");
    }
}

#[test]
fn rule_25_a_bind_mount_of_a_directory_inside_a_cluster_is_refused() {
    if !with_own_mounts("enclosing_cluster::rule_25_a_bind_mount_of_a_directory_inside_a_cluster_is_refused")
    {
        return;
    }
    let mut machine = Machine::with_main();
    let bound = machine.path("bound");
    fs::create_dir_all(bound.join("hidden")).unwrap();
    fs::create_dir(machine.path("main/base/within")).unwrap();
    mount(&["--bind", machine.path("main/base").to_str().unwrap()], &bound);
    for name in ["bound/within", "bound/new"] {
        machine.directories.datadir = machine.path(name);
        machine.refuses_inside(Rule::DataDirectory, "PG_VERSION");
    }
    // Another file system now hides the cluster at that path.
    mount(&["-t", "tmpfs", "none"], &bound);
    machine.directories.datadir = machine.path("bound/new");
    machine.acquire().unwrap();
}

#[test]
fn rule_25_a_cluster_inside_what_is_emptied_stays_unless_forced() {
    let mut machine = Machine::with_cluster();
    machine.cluster("data/base/replica");
    let refusal = machine.refused();
    assert_eq!((refusal.rule, refusal.policy), (Rule::DataDirectory, true));
    assert!(refusal.message.contains(machine.path("data/base/replica").to_str().unwrap()), "{refusal}");
    assert!(refusal.remedy.unwrap().contains("--force"));
    machine.force().unwrap().state().run_ended(RunResult::Failed, false).unwrap();
    fs::remove_dir_all(machine.path("data/base/replica")).unwrap();
    machine.map_tablespaces(&[("16384", "fast")]);
    machine.cluster("fast/PG_15_202209061/5/replica");
    symlink(machine.path("fast"), machine.path("data/pg_tblspc/16384")).unwrap();
    let refusal = machine.refused();
    assert_eq!(refusal.rule, Rule::MappedPlace);
    assert!(refusal.message.contains("5/replica"), "{refusal}");
    fs::remove_dir_all(machine.path("fast/PG_15_202209061/5/replica")).unwrap();
    machine.acquire().unwrap();
}

#[test]
fn rule_25_a_part_of_a_cluster_inside_what_is_emptied_stays_unless_forced() {
    let mut machine = Machine::with_cluster();
    machine.map_wal("wal");
    machine.map_tablespaces(&[("16384", "fast")]);
    fs::create_dir_all(machine.path("wal/archive_status")).unwrap();
    fs::create_dir_all(machine.path("fast/PG_15_202209061/5")).unwrap();
    fs::write(machine.path("fast/PG_15_202209061/5/PG_VERSION"), "15\n").unwrap();
    fs::create_dir_all(machine.path("data/base/5")).unwrap();
    fs::write(machine.path("data/base/5/PG_VERSION"), "15\n").unwrap();
    // The cluster's own WAL directory and tablespaces, which lie in its data directory.
    for own in [
        "data/inside/PG_15_202209061/5",
        "data/pg_tblspc/16386/PG_15_202209061/5",
        "data/own_wal/archive_status",
    ] {
        fs::create_dir_all(machine.path(own)).unwrap();
    }
    for version in
        ["data/inside/PG_15_202209061/5/PG_VERSION", "data/pg_tblspc/16386/PG_15_202209061/5/PG_VERSION"]
    {
        fs::write(
            machine.path(version),
            "15
",
        )
        .unwrap();
    }
    symlink(machine.path("data/inside"), machine.path("data/pg_tblspc/16385")).unwrap();
    symlink(machine.path("fast"), machine.path("data/pg_tblspc/16384")).unwrap();
    symlink(machine.path("data/own_wal"), machine.path("data/pg_wal")).unwrap();
    assert!(machine.refused().message.contains("holds WAL, and no cluster"), "the mapped one is another's");
    machine.directories.wal = None;
    machine.acquire().unwrap().state().run_ended(RunResult::Failed, false).unwrap();
    fs::remove_file(machine.path("data/pg_wal")).unwrap();
    fs::remove_dir_all(machine.path("data/own_wal")).unwrap();
    machine.map_wal("wal");
    symlink(machine.path("wal"), machine.path("data/pg_wal")).unwrap();
    for (inside, rule, shown) in [
        ("data/backups/old/PG_VERSION", Rule::DataDirectory, "data/backups/old holds PG_VERSION"),
        (
            "data/replica/global/pg_control.understudy",
            Rule::DataDirectory,
            "data/replica holds global/pg_control",
        ),
        ("data/mytbs/PG_15_202209061/5/1", Rule::DataDirectory, "data/mytbs/PG_15_202209061 is the folder"),
        ("data/wal/archive_status/1.done", Rule::DataDirectory, "data/wal is a WAL directory"),
        ("data/base/5/PG_14_202107181/1", Rule::DataDirectory, "PG_14_202107181 is the folder"),
        ("data/inside/x/global/pg_control", Rule::DataDirectory, "data/inside/x holds global/pg_control"),
        ("fast/PG_15_202209061/5/old/PG_VERSION", Rule::MappedPlace, "5/old holds PG_VERSION"),
        ("fast/PG_15_202209061/5/wal/archive_status/1", Rule::MappedPlace, "5/wal is a WAL directory"),
        ("wal/archive_status/PG_15_202209061/5", Rule::MappedPlace, "PG_15_202209061 is the folder"),
    ] {
        let path = machine.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "15\n").unwrap();
        let refusal = machine.refused();
        assert_eq!((refusal.rule, refusal.policy), (rule, true), "{inside}: {refusal}");
        assert!(refusal.message.contains(shown), "{inside}: {refusal}");
        assert!(refusal.remedy.unwrap().contains("--force"), "{inside}");
        assert!(machine.inspected(true).is_ok(), "{inside}");
        fs::remove_file(&path).unwrap();
        // Only directories that are now empty are removed.
        let emptied = path.ancestors().skip(1).take_while(|directory| fs::remove_dir(directory).is_ok());
        assert!(emptied.count() > 0, "{inside}");
    }
    drop(machine.acquire().unwrap());
}

#[test]
fn what_a_person_keeps_in_a_data_directory_is_named() {
    let machine = Machine::with_cluster();
    let besides = || machine.inspected(false).unwrap().cluster.unwrap().besides();
    for known in
        ["postgresql.base.conf", "patroni.dynamic.json", "log", ".s.PGSQL.5432.lock", "backup_label.old"]
    {
        fs::write(machine.path("data").join(known), "").unwrap();
    }
    assert_eq!(besides(), None);
    fs::create_dir(machine.path("data/backups")).unwrap();
    fs::write(machine.path("data/backups/base.tar"), "").unwrap();
    fs::write(machine.path("data/server\n.key"), "").unwrap();
    assert_eq!(besides().as_deref(), Some("backups/, server\\n.key"));
    for number in 0..10 {
        fs::write(machine.path("data").join(format!("a{number}")), "").unwrap();
    }
    assert!(besides().unwrap().ends_with("a9 and 2 more"));
}

#[test]
fn a_file_in_a_place_of_the_run_is_known_by_every_path() {
    let mut machine = Machine::new();
    machine.map_wal("wal");
    machine.map_tablespaces(&[("16384", "fast")]);
    fs::create_dir(machine.path("data")).unwrap();
    symlink(machine.path("data"), machine.path("link")).unwrap();
    symlink(machine.path("elsewhere"), machine.path("data/link")).unwrap();
    symlink(machine.path("data/link"), machine.path("through")).unwrap();
    let state = machine.path("state");
    let around =
        |name: &str| place_around(&machine.directories, &state, &machine.path(name)).map(|(what, _)| what);
    for (name, what) in [
        ("data/report.json", Some("the data directory")),
        ("data", Some("the data directory")),
        ("link/report.json", Some("the data directory")),
        ("link/../data/deep/report.json", Some("the data directory")),
        ("data/link", Some("the data directory")),
        ("data/link/report.json", Some("the data directory")),
        ("through/report.json", Some("the data directory")),
        ("wal/report.json", Some("a mapped place")),
        ("fast/report.json", Some("a mapped place")),
        ("state/report.json", Some("the state directory")),
        ("report.json", None),
        ("database/report.json", None),
    ] {
        assert_eq!(around(name), what, "{name}");
    }
}
