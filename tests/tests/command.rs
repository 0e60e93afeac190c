//! Tests the method `command`, which runs restore scripts and programs as Patroni would, and confines them. Runs the examples
//! `wal-e-script`, `pgbackrest-cli` and `barman-cloud` unchanged, and checks what a script can and cannot do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tests::barman::Release;
use tests::primary::Primary;
use tests::program::{project, understudy};
use tests::replica_folder::{Ended, ReplicaFolder};
use tests::server::{Playground, run};
use tests::stores::ensure_servers;

/// Runs an example unchanged. The example itself checks that the replica streams and has the primary's rows. Returns the example's output
/// and Understudy's log.
fn runs_unchanged(name: &str) -> String {
    let mut example = Command::new(project().join("examples").join(name).join("run.sh"));
    example.env("UNDERSTUDY", understudy().unwrap());
    let ended = run(&mut example).unwrap();
    let (output, log) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(output.contains("written while the replica streams"), "{output}");
    assert!(output.contains("the replica streams and has the same rows"), "{output}");
    for text in [&output, &log] {
        assert!(!text.contains("change-me"), "a secret is shown: {text}");
    }
    let folder = output.trim_end().rsplit(' ').next().unwrap();
    assert!(folder.starts_with("/tmp/") && !Path::new(folder).exists(), "{output}");
    format!("{output}{log}")
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_example_of_a_restore_script_runs_unchanged() {
    let output = runs_unchanged("wal-e-script");
    // The script restores the newest of two backups.
    assert!(output.contains("base_000000010000000000000004"), "{output}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_example_of_pgbackrests_own_program_runs_unchanged() {
    runs_unchanged("pgbackrest-cli");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_example_of_barmans_program_for_s3_runs_unchanged() {
    ensure_servers().unwrap();
    Release::Example.ensure().unwrap();
    runs_unchanged("barman-cloud");
}

/// A primary with a backup, and replicas that scripts create from it.
struct Scene {
    primary: Primary,
    backup: PathBuf,
}

/// The beginning of each script, which parses the arguments as scripts for Patroni do.
const ARGUMENTS: &str = "#!/bin/sh
set -eu
for argument; do
    case $argument in
    --*=*)
        name=${argument%%=*}
        read -r \"${name#--}\" <<END
${argument#*=}
END
        ;;
    esac
done
";

/// Unpacks the backup into the data directory, the WAL directory and the directory of the tablespace.
const RESTORE: &str = "
[ -d \"$datadir\" ] || mkdir -m 700 \"$datadir\"
tar -xf \"$backup/base.tar\" -C \"$datadir\"
tar -xf \"$backup/pg_wal.tar\" -C \"$wal\"
tar -xf \"$backup/$oid.tar\" -C \"$fast\"
";

impl Scene {
    fn start(name: &str) -> Self {
        let primary = Primary::start(name, 1000).unwrap();
        let backup = primary.tar_backup("backup", &[]).unwrap();
        Self { primary, backup }
    }

    fn playground(&self) -> &Playground {
        &self.primary.playground
    }

    /// Writes an executable script.
    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.playground().path(&format!("{name}.sh"));
        self.playground().user().write(&path, &format!("{ARGUMENTS}{text}")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        path
    }

    /// Creates a replica's folder whose first method runs a script with this text. `keys` has additional lines for the method's section.
    fn replica(&self, name: &str, text: &str, keys: &str) -> ReplicaFolder {
        let script = self.script(name, text);
        let folder = self.primary.replica(name, &["script"], "", "").unwrap();
        let oid = self.primary.server.psql("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'").unwrap();
        let parameters = [
            format!("backup={}", self.backup.display()),
            format!("oid={oid}"),
            format!("wal={}", folder.wal().display()),
            format!("fast={}", folder.fast().display()),
        ];
        let patterns: Vec<_> = parameters.iter().map(|parameter| format!("--{parameter}")).collect();
        let section = format!(
            "[method.script]\nplugin = \"command\"\n{keys}\n\
             [method.script.options]\nprogram = \"restore\"\nparameters = {parameters:?}\n\
             [method.script.grants.programs.restore]\npath = \"{script}\"\nargs = [{patterns}, \"{{patroni}}\"]\n\
             read = [\"{backups}\"]\n{RUNS}",
            script = script.display(),
            patterns = patterns.iter().map(|pattern| format!("{pattern:?}")).collect::<Vec<_>>().join(", "),
            backups = self.playground().path("backups").display(),
        );
        append(&folder, &section);
        folder
    }
}

/// The programs that the scripts run.
const RUNS: &str = "execute = [\"/usr/bin/tar\", \"/usr/bin/mkdir\"]\n";

fn append(folder: &ReplicaFolder, text: &str) {
    let path = folder.path("understudy.toml");
    let before = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{before}\n{text}")).unwrap();
}

fn rewrite(folder: &ReplicaFolder, from: &str, to: &str) {
    let path = folder.path("understudy.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

/// Checks that the method failed with this outcome and a message that contains these texts, and that PostgreSQL could not start from what is
/// left.
fn assert_fails(folder: &ReplicaFolder, ended: &Ended, outcome: &str, says: &[&str]) {
    assert_eq!(ended.attempts(), [("script", outcome)], "{}", ended.output);
    let message = ended.attempt("script")["message"].as_str().unwrap();
    for word in says {
        assert!(message.contains(word), "`{word}` is not in {message}\n{}", ended.output);
    }
    assert!(!folder.is_sealed(), "there is a pg_control");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_script_fills_the_data_directory_and_the_mapped_places_and_the_replica_streams() {
    let scene = Scene::start("script");
    let show = "for argument; do echo \"argument $argument\"; done\necho to stderr >&2\n";
    let replica = scene.replica("replica", &format!("{show}{RESTORE}"), "");
    let ended = replica.created_by("script").unwrap();
    // Rules 9 and 10: the method's own keys, then Patroni's four parameters in Patroni's order.
    let arguments: Vec<_> = ended
        .output
        .lines()
        .filter_map(|line| line.split_once("argument --")?.1.split_once('='))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        arguments,
        ["backup", "oid", "wal", "fast", "scope", "role", "datadir", "connstring"],
        "{}",
        ended.output
    );
    let datadir = replica.datadir();
    for shown in ["--scope=demo", "--role=replica", &format!("--datadir={}", datadir.display()), "to stderr"]
    {
        assert!(ended.output.contains(shown), "{shown}: {}", ended.output);
    }
    let plan = &ended.attempt("script")["plan"];
    assert_eq!(plan["backup"], "what the program `restore` restores", "{plan}");
    scene.primary.verify(&replica, &scene.backup.join("backup_manifest")).unwrap();
    scene.primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_12_after_a_script_fails_its_code_and_last_line_are_reported_and_the_next_method_is_tried() {
    let scene = Scene::start("script-fails");
    let half = format!("{RESTORE}\necho 'the WAL is missing' >&2\nexit 7\n");
    let replica = scene.replica("replica", &half, "");
    rewrite(&replica, "methods = [\"script\"]", "methods = [\"script\", \"basebackup\"]");
    let ended = replica.created_by("basebackup").unwrap();
    assert_eq!(ended.attempts(), [("script", "failed"), ("basebackup", "created")]);
    let message = ended.attempt("script")["message"].as_str().unwrap();
    assert!(message.contains("the program `restore` exited with code 7: the WAL is missing"), "{message}");
    scene.primary.streams_to(&replica).unwrap();

    let killed = scene.replica("killed", "echo working; kill -9 $$\n", "");
    let ended = killed.create(&[]).unwrap();
    assert_fails(&killed, &ended, "failed", &["was ended by signal 9: working"]);
    // This script does nothing and exits with code 0.
    let idle = scene.replica("idle", "", "");
    let ended = idle.create(&[]).unwrap();
    assert_fails(&idle, &ended, "check-failed", &["not whole"]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_script_reads_writes_and_starts_only_what_its_grant_names() {
    let scene = Scene::start("script-confined");
    let playground = scene.playground();
    let secret = playground.path("secret");
    playground.user().write(&secret, "hunter2 of the operator\n").unwrap();
    let outside = playground.path("outside");
    let (secret, outside) = (secret.display(), outside.display());
    // Each attempt runs in a subshell, because a failed redirection ends the shell.
    let attempts = format!(
        "(read -r line <{secret} && echo \"ESCAPED: read $line\") || :\n\
         (: >{outside} && echo 'ESCAPED: wrote') || :\n\
         (: >>\"$backup/base.tar\" && echo 'ESCAPED: wrote to the backup') || :\n\
         (/usr/bin/id && echo 'ESCAPED: started a program') || :\n\
         (read -r line <{pgpass} && echo \"ESCAPED: read $line\") || :\n",
        pgpass = playground.path("pgpass").display(),
    );
    let replica = scene.replica("replica", &format!("{attempts}{RESTORE}echo restored\n"), "");
    let ended = replica.created_by("script").unwrap();
    assert!(ended.output.contains("restored"), "{}", ended.output);
    assert!(!ended.output.contains("ESCAPED") && !ended.output.contains("hunter2"), "{}", ended.output);
    assert!(!Path::new(&outside.to_string()).exists());
    scene.primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_plan_is_denied_arguments_that_the_grant_does_not_cover_and_the_printed_line_allows_them() {
    let scene = Scene::start("script-arguments");
    let replica = scene.replica("replica", RESTORE, "");
    rewrite(&replica, "parameters = [", "arguments = [\"--verbose\"]\nparameters = [");
    let ended = replica.create(&[]).unwrap();
    assert_fails(&replica, &ended, "denied", &["--verbose"]);
    let attempt = ended.attempt("script");
    assert_eq!(attempt["touched"], false, "{attempt}");
    let line = attempt["denials"][0]["remedy"].as_str().unwrap();
    let (section, grant) = line.split_once("] ").unwrap();
    let path = replica.path("understudy.toml");
    let text = fs::read_to_string(&path).unwrap();
    let (before, _) = text.split_once("[method.script.grants.programs.restore]").unwrap();
    fs::write(&path, format!("{before}{section}]\n{grant}\n")).unwrap();
    replica.created_by("script").unwrap();
    scene.primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_17a_keep_data_needs_a_program_that_builds_on_old_data() {
    let scene = Scene::start("script-keeps");
    let replica = scene.replica("replica", RESTORE, "");
    replica.created_by("script").unwrap();
    rewrite(&replica, "plugin = \"command\"\n", "plugin = \"command\"\nkeep_data = true\n");
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.attempts(), [("script", "rejected")], "{}", ended.output);
    assert!(replica.is_sealed(), "the old data was touched");

    rewrite(&replica, "program = \"restore\"\n", "program = \"restore\"\nbuilds-on-existing = true\n");
    scene.script("replica", &format!("echo \"old version: $(cat \"$datadir/PG_VERSION\")\"\n{RESTORE}"));
    rewrite(&replica, RUNS, &RUNS.replace(']', ", \"/usr/bin/cat\"]"));
    let ended = replica.created_by("script").unwrap();
    assert!(ended.output.contains("old version: 15"), "{}", ended.output);
    scene.primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_10_a_program_without_patronis_parameters_gets_only_the_methods_own() {
    let scene = Scene::start("script-alone");
    let text = "for argument; do echo \"argument $argument\"; done\n";
    let replica = scene.replica("replica", text, "no_params = true\n");
    rewrite(&replica, ", \"{patroni}\"]", "]");
    let ended = replica.create(&[]).unwrap();
    assert_fails(&replica, &ended, "check-failed", &["not whole"]);
    let count = ended.output.lines().filter(|line| line.contains("argument --")).count();
    assert_eq!(count, 4, "{}", ended.output);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_script_that_is_cancelled_leaves_nothing_behind() {
    let scene = Scene::start("script-cancelled");
    let text =
        format!("{RESTORE}\ntrap '' TERM\necho filled\nwhile :; do echo >\"$datadir/written\"; done\n");
    let replica = scene.replica("replica", &text, "");
    let running = replica.spawn(&[]).unwrap();
    let begun = std::time::Instant::now();
    while !replica.datadir().join("written").exists() {
        assert!(begun.elapsed().as_secs() < 60, "the script did not begin");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    running.signal(Signal::TERM).unwrap();
    let ended = replica.wait_for_end(running).unwrap();
    assert_eq!(ended.code(), Some(143), "{}", ended.output);
    assert_eq!(ended.attempts(), [("script", "cancelled")], "{}", ended.output);
    let left = fs::read_dir(replica.datadir()).map(|entries| entries.count()).unwrap_or_default();
    assert_eq!(left, 0, "{}", ended.output);
    let processes =
        Command::new("pgrep").args(["-f", &replica.path("").display().to_string()]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&processes.stdout), "", "something is alive");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_that_is_missing_is_refused_before_anything_is_touched() {
    let scene = Scene::start("script-missing");
    let replica = scene.replica("replica", RESTORE, "");
    fs::remove_file(scene.playground().path("replica.sh")).unwrap();
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.attempts(), [("script", "rejected")], "{}", ended.output);
    assert_eq!(ended.attempt("script")["touched"], false);
    assert!(ended.output.contains("replica.sh"), "{}", ended.output);
    // The option names a program that is not granted.
    let other = scene.replica("other", RESTORE, "");
    rewrite(&other, "program = \"restore\"", "program = \"restor\"");
    let ended = other.create(&[]).unwrap();
    assert_eq!(ended.attempts(), [("script", "rejected")], "{}", ended.output);
    assert!(ended.output.contains("restor"), "{}", ended.output);
}
