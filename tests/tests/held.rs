//! Resources that the host uses on behalf of a component: regardless of what the component does, the program stays within its limits for
//! memory and open files, reports the limit, and exits normally.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

use tests::primary::Primary;
use tests::replica_folder::{Ended, ReplicaFolder, RunningProgram};
use tests::server::{Playground, run};

/// The memory that the component is granted.
const GRANTED: u64 = 64 << 20;
/// The memory that the program may use in addition to the component's grant.
const OVERHEAD: u64 = 256 << 20;

/// A folder with the objects that the component reads.
struct Scene {
    playground: Playground,
    objects: PathBuf,
}

impl Scene {
    fn new(name: &str) -> Self {
        let playground = Playground::new(name).unwrap();
        let objects = playground.directory("objects").unwrap();
        let own = |path: &Path| playground.user().own(path).unwrap();
        let write = |name: &str, bytes: &[u8]| {
            std::fs::write(objects.join(name), bytes).unwrap();
            own(&objects.join(name));
        };
        write("large", &vec![7; 1 << 20]);
        write("zeros", &vec![0; 160 << 20]);
        run(Command::new("/usr/bin/zstd").arg("--long=27").arg("-q").arg(objects.join("zeros"))).unwrap();
        own(&objects.join("zeros.zst"));
        std::fs::remove_file(objects.join("zeros")).unwrap();
        let line = |number: usize| format!("{number}=\"{number:0>64}\"\n");
        write("keys", format!("[keys]\n{}", (0..65).map(line).collect::<String>()).as_bytes());
        let many = objects.join("many");
        for number in 0..3000 {
            std::fs::create_dir_all(many.join(number.to_string())).unwrap();
        }
        run(Command::new("/bin/chmod").args(["-R", "a+rX"]).arg(&many)).unwrap();
        Self { playground, objects }
    }

    /// Creates a replica with the component `hostile` and this behaviour.
    fn replica(&self, name: &str, behave: &str, options: &str, grants: &str) -> ReplicaFolder {
        let folder = ReplicaFolder::new(&self.playground, name).unwrap().with_shared_state(&self.playground);
        let objects = self.objects.display();
        let sections = format!(
            "[method.hostile]\nno_leader = true\ntimeout = \"120s\"\n[method.hostile.options]\nbehave = \"{behave}\"\n{options}\n\
             [method.hostile.grants]\nmemory = \"64MiB\"\nread = [\"{objects}\"]\nstores.repo = {{ url = \"file://{objects}\" }}\n{grants}\n",
        );
        folder.configure("methods = [\"hostile\"]", &sections).unwrap();
        folder
    }
}

/// Waits for the end of a run, and returns its result and its peak memory.
fn wait_with_peak_memory(replica: &ReplicaFolder, running: RunningProgram) -> (Ended, u64) {
    let mut peak = 0;
    while let Some(now) = running.peak_memory() {
        peak = peak.max(now);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    (replica.wait_for_end(running).unwrap(), peak)
}

/// Returns the message of the attempt, from the component or the host.
fn message(ended: &Ended) -> String {
    ended.attempt("hostile")["message"].as_str().unwrap_or_else(|| panic!("{}", ended.output)).to_owned()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn no_component_makes_the_program_exceed_its_memory_limit() {
    let scene = Scene::new("held");
    let objects = scene.objects.display().to_string();
    let path = |name: &str| format!("path = \"{name}\"\n");
    let count = |count: u64| format!("count = {count}\n");
    let slow = "rate = \"1KiB/s\"\nworkers = 2";
    let large = || path("large");
    let cases: Vec<(&str, String, &str, &[&str])> = vec![
        ("queues", large() + &count(60), slow, &["batches of long names", "host_memory"]),
        ("origins", path(&objects) + &count(2_000_000), "", &["origins", "host_memory"]),
        ("path-lists", large() + &count(60), slow, &["lists of paths", "host_memory"]),
        ("listed", count(500), "", &["batches of listed files", "host_memory"]),
        ("tolerated", count(500), "", &["lists of tolerated paths", "host_memory"]),
        ("outcomes", count(24), "", &["batches of failures"]),
        ("job-churn", count(300_000), "", &["jobs that are gone"]),
        ("windows", path("zeros.zst") + &count(16), "", &["windows", "host_memory"]),
        (
            "fetched-windows",
            path("zeros.zst") + &count(160),
            "workers = 6",
            &["all were fetched, but for []"],
        ),
        ("spellings", path(&objects) + &count(1500), "", &["1500 spellings"]),
        (
            "directories",
            path(&format!("{objects}/many")) + &count(3000),
            "",
            &["directories", "open files of this run"],
        ),
        ("dropped-descriptors", path(&format!("{objects}/large")) + &count(900), "", &["streams without"]),
        ("streams", large() + &count(100), "", &["16 open streams"]),
        ("derive-many", path("keys") + &count(100), "", &["64 derived keys"]),
        ("jobs", count(100), "", &["64 jobs"]),
        ("memory", String::new(), "", &["grants.memory"]),
        ("recursion", String::new(), "", &["trapped"]),
        ("handles", String::new(), "", &["open files"]),
        ("listings", path(&objects) + &count(100), "", &["64 open listings"]),
        ("pollables", count(1025), "", &["trapped"]),
        (
            "http-requests",
            count(1000),
            "host_memory = \"16MiB\"",
            &["trapped", "requests and responses of wasi:http"],
        ),
        ("long-call", count((16 << 20) + 1), "", &["trapped"]),
        ("log-flood", count(50_000), "", &["logged"]),
        ("stdout-flood", count(50_000), "", &["printed"]),
        ("stderr-endless-line", count(4096), "", &["printed"]),
        ("progress-flood", count(50_000), "", &["reported"]),
        ("many-files", count(5_000), "", &["made 5000 files"]),
        ("too-many-at-once", large(), "", &[]),
    ];
    let mut over = Vec::new();
    for (behave, options, grants, says) in cases {
        let replica = scene.replica(behave, behave, &options, grants);
        let (ended, peak) = wait_with_peak_memory(&replica, replica.spawn(&[]).unwrap());
        let said = message(&ended);
        eprintln!("{behave}: {} MiB; {said:.200}", peak >> 20);
        assert_eq!(ended.code(), Some(1), "{behave}: {}", ended.output);
        for part in says {
            assert!(said.contains(part), "{behave}: {part} in {said}");
        }
        if peak >= GRANTED + OVERHEAD {
            over.push(format!("{behave}: {} MiB", peak >> 20));
        }
    }
    assert!(over.is_empty(), "{over:?}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn no_component_uses_up_the_open_files_of_the_host() {
    let scene = Scene::new("held-files");
    let objects = scene.objects.display().to_string();
    for (behave, path, count) in [
        ("spellings", objects.clone(), 999),
        ("directories", format!("{objects}/many"), 2500),
        ("dropped-descriptors", format!("{objects}/large"), 999),
        ("handles", String::new(), 999),
    ] {
        for limit in [96, 256, 1024] {
            let options = format!("path = \"{path}\"\ncount = {count}\n");
            let replica = scene.replica(&format!("{behave}-{limit}"), behave, &options, "");
            let (ended, _) = wait_with_peak_memory(&replica, replica.spawn_with_files(limit, &[]).unwrap());
            let said = message(&ended);
            // The host itself did not run out of files: it wrote its report, and refused further files to the component.
            assert_eq!(ended.code(), Some(1), "{behave} of {limit}: {}", ended.output);
            for own in ["Too many open files", "os error 24", "trapped"] {
                assert!(!ended.output.contains(own), "{behave} of {limit}: {}", ended.output);
            }
            let expected = if behave == "spellings" { "999 spellings" } else { "refused: " };
            assert!(said.contains(expected), "{behave} of {limit}: {said}");
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_next_method_is_tried_after_one_that_used_much_memory() {
    let scene = Scene::new("held-then-next");
    let primary = Primary::start("held-and-followed", 100).unwrap();
    let objects = scene.objects.display();
    // On a slow machine, freeing this memory takes longer than the two seconds that the host waits for a hanging method.
    let sections = format!(
        "[method.hostile]\ntimeout = \"20s\"\n[method.hostile.options]\nbehave = \"queues\"\npath = \"large\"\ncount = 100000\n\
         [method.hostile.grants]\nmemory = \"64MiB\"\nhost_memory = \"1GiB\"\nrate = \"1KiB/s\"\nworkers = 2\n\
         stores.repo = {{ url = \"file://{objects}\" }}\n",
    );
    let replica = primary.replica("replica", &["hostile", "basebackup"], "", &sections).unwrap();
    let ended = replica.created_by("basebackup").unwrap();
    assert!(matches!(ended.attempts()[0], ("hostile", "failed" | "timed-out")), "{:?}", ended.attempts());
    assert!(!ended.output.contains("may still write"), "{}", ended.output);
}
