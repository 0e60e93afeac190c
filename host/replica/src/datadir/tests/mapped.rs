//! The mapped WAL directory and tablespaces. Loop rule 24.

use super::*;

const SEGMENT: &str = "000000010000000000000001";

/// Returns a machine with an old cluster whose WAL and one tablespace lie in mapped directories.
fn machine() -> Machine {
    let mut machine = Machine::with_cluster();
    machine.map_wal("wal");
    machine.map_tablespaces(&[("/old/space", "space")]);
    fs::create_dir_all(machine.path("wal/archive_status")).unwrap();
    fs::write(machine.path("wal").join(SEGMENT), "").unwrap();
    fs::write(machine.path("wal/00000002.history"), "").unwrap();
    fs::create_dir_all(machine.path("space/PG_15_202209061/5")).unwrap();
    fs::write(machine.path("space/PG_15_202209061/5/16385"), "rows").unwrap();
    fs::create_dir_all(machine.path("space/PG_14_202107181")).unwrap();
    symlink(machine.path("wal"), machine.path("data/pg_wal")).unwrap();
    symlink(machine.path("space"), machine.path("data/pg_tblspc/16384")).unwrap();
    machine
}

#[test]
fn rule_24_what_the_map_names_is_emptied_and_stays_as_a_directory() {
    let machine = machine();
    let directory = machine.acquire().unwrap();
    assert!(!empty(&directory).unfinished);
    for name in ["data", "wal", "space"] {
        assert_eq!(entries(&machine.path(name)), [""; 0], "{name}");
    }
}

#[test]
fn rule_24_missing_places_are_created_for_their_owner_alone() {
    let mut machine = Machine::new();
    machine.map_wal("wal");
    machine.map_tablespaces(&[("/old/a", "a"), ("16385", "b"), ("fast", "b")]);
    assert_eq!(machine.inspect(), Ok(Contents::Nothing));
    assert!(!machine.path("wal").exists());
    let directory = machine.acquire().unwrap();
    for name in ["wal", "a", "b"] {
        assert_eq!(fs::metadata(machine.path(name)).unwrap().permissions().mode() & 0o777, 0o700);
    }
    let mapped: Vec<_> = directory.mapped().iter().map(|place| (place.is_wal(), place.real_path())).collect();
    let (wal, a, b) = (machine.path("wal"), machine.path("a"), machine.path("b"));
    assert_eq!(mapped, [(true, wal.as_path()), (false, &a), (false, &b)]);
}

#[test]
fn rule_24_foreign_content_of_a_mapped_place_is_refused_with_the_line_to_change() {
    for (place, foreign, line) in [
        ("wal", "notes.txt", "wal_dir"),
        ("wal", "base", "wal_dir"),
        ("wal", ".hidden", "wal_dir"),
        ("wal", "lost+found", "wal_dir"),
        ("space", "notes.txt", "/old/space"),
        ("space", "16384", "/old/space"),
        ("space", "PG_VERSION", "/old/space"),
        ("space", "lost+found", "/old/space"),
    ] {
        let machine = machine();
        fs::create_dir(machine.path(place).join(foreign)).unwrap();
        let refusal = machine.refused();
        assert_eq!(refusal.rule, Rule::MappedPlace);
        assert!(refusal.message.contains(foreign), "{refusal}");
        assert!(refusal.remedy.unwrap().contains(line));
        assert!(machine.force().is_err(), "`--force` applies only to the data directory");
        assert!(machine.path("data/global/pg_control").exists());
    }
}

#[test]
fn rule_24_links_in_a_mapped_place_are_foreign() {
    let machine = machine();
    symlink("/", machine.path("space/PG_16_202307071")).unwrap();
    assert_eq!(machine.refused().rule, Rule::MappedPlace);
}

#[test]
fn rule_24_an_archive_of_wal_is_not_taken_for_the_wal_of_an_old_cluster() {
    let machine = machine();
    fs::remove_dir(machine.path("wal/archive_status")).unwrap();
    assert!(machine.refused().message.contains("archive"), "{}", machine.refused());
    assert!(machine.path("wal").join(SEGMENT).exists());
}

#[test]
fn rule_24_foreign_content_that_was_added_since_is_found_before_anything_is_removed() {
    let machine = machine();
    let directory = machine.acquire().unwrap();
    fs::write(machine.path("space/thesis.txt"), "").unwrap();
    directory.state().mark_unfinished("tarball").unwrap();
    let error = directory.empty(EmptyScope::Everything, None, &CancellationToken::new()).unwrap_err();
    assert!(error.to_string().contains("thesis.txt"), "{error}");
    assert!(machine.path("data/global/pg_control").exists() && machine.path("wal").join(SEGMENT).exists());
    directory.state().run_ended(RunResult::Failed, false).unwrap();
    drop(directory);
    assert!(machine.acquire().is_err(), "the content is not this program's in the next run either");
}

#[test]
fn rule_24_files_of_a_method_in_a_mapped_place_are_removed_regardless_of_their_names() {
    let machine = machine();
    let directory = machine.acquire().unwrap();
    empty(&directory);
    fs::write(machine.path("wal/junk"), "").unwrap();
    fs::create_dir_all(machine.path("space/junk/deep")).unwrap();
    assert_eq!(directory.contents().unwrap(), Contents::Unfinished, "the data directory itself is empty");
    machine.killed(directory, &[]);
    fs::write(machine.path("space/more"), "").unwrap();
    assert_eq!(machine.inspect(), Ok(Contents::Nothing));
    let next = machine.acquire().unwrap();
    assert!(!empty(&next).unfinished);
    assert_eq!(entries(&machine.path("wal")), [""; 0]);
    assert_eq!(entries(&machine.path("space")), [""; 0]);
    assert_eq!(next.contents().unwrap(), Contents::Nothing);
}

#[test]
fn rule_24_a_place_is_ours_until_a_replica_is_finished_and_only_that_very_directory() {
    let machine = machine();
    let directory = machine.acquire().unwrap();
    empty(&directory);
    fs::write(machine.path("data/left"), "").unwrap();
    directory.state().run_ended(RunResult::Failed, false).unwrap();
    drop(directory);
    fs::rename(machine.path("wal"), machine.path("moved")).unwrap();
    fs::create_dir(machine.path("wal")).unwrap();
    let own: Vec<_> = machine.acquire().unwrap().mapped().iter().map(MappedPlace::is_own_work).collect();
    assert_eq!(own, [false, true], "the WAL directory is another one, the tablespace's the same");
    let directory = machine.acquire().unwrap();
    empty(&directory);
    directory.state().run_ended(RunResult::Created, false).unwrap();
    drop(directory);
    fs::write(machine.path("space/thesis.txt"), "").unwrap();
    fs::create_dir_all(machine.path("data/base")).unwrap();
    assert!(machine.acquire().is_err());
}

#[test]
fn rule_24_places_may_not_lie_in_each_other() {
    type Map = &'static [(&'static str, &'static str)];
    let cases: [(Option<&str>, Map); 9] = [
        (Some("data"), &[]),
        (Some("data/pg_wal"), &[]),
        (Some("."), &[]),
        (None, &[("/old", "data/pg_tblspc/1")]),
        (Some("wal"), &[("/old", "wal")]),
        (Some("wal"), &[("/old", "wal/below")]),
        (None, &[("/a", "space"), ("/b", "space/below")]),
        (Some("link"), &[]),
        (Some("link/below"), &[]),
    ];
    for (wal, tablespaces) in cases {
        let mut machine = Machine::with_cluster();
        fs::create_dir(machine.path("wal")).unwrap();
        fs::create_dir(machine.path("space")).unwrap();
        symlink(machine.path("data"), machine.path("link")).unwrap();
        machine.map_tablespaces(tablespaces);
        if let Some(wal) = wal {
            machine.map_wal(wal);
        }
        let refusal = machine.refused();
        assert_eq!(refusal.rule, Rule::MappedPlace, "{wal:?} {tablespaces:?}");
        assert!(refusal.remedy.is_some());
    }
}

#[test]
fn rule_24_a_place_that_is_the_data_directory_under_another_name_is_refused() {
    if !with_own_mounts("mapped::rule_24_a_place_that_is_the_data_directory_under_another_name_is_refused") {
        return;
    }
    let mut machine = Machine::with_cluster();
    fs::create_dir(machine.path("bound")).unwrap();
    mount(&["--bind", machine.path("data").to_str().unwrap()], &machine.path("bound"));
    machine.map_wal("bound/pg_wal");
    assert!(machine.refused().message.contains("lie one inside the other"), "{}", machine.refused());
    machine.map_wal("bound");
    assert_eq!(machine.refused().rule, Rule::MappedPlace);
}

#[test]
fn rule_24_a_place_must_be_a_directory_or_have_a_parent() {
    let mut machine = Machine::with_cluster();
    fs::write(machine.path("file"), "").unwrap();
    for name in ["file", "no/parent", "file/below"] {
        machine.map_wal(name);
        assert!(machine.refused().remedy.unwrap().contains("wal_dir"));
    }
    machine.directories.wal = Some(PathBuf::from("relative"));
    assert!(machine.refused().message.contains("not an absolute path"));
    assert!(!machine.path("no").exists());
}

#[test]
fn rule_26_two_data_directories_cannot_share_a_mapped_place_at_once() {
    let mut one = Machine::with_cluster();
    one.map_wal("wal");
    let held = one.acquire().unwrap();
    let mut other = Machine::with_cluster();
    other.directories.wal = one.directories.wal.clone();
    let refusal = other.acquire().unwrap_err();
    assert!(refusal.message.contains("another data directory"), "{refusal}");
    drop(held);
    assert!(other.acquire().is_ok());
}
