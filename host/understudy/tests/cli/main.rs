//! Tests of the built program: usage, help, completions, wrong configurations. No test here needs a server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod installed;
mod new;
mod patroni;
mod places;
mod report;
mod reports;
mod run;
mod snapshots;
mod untold;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The user that the program becomes if these tests run as root. Every system has it.
const USER: &str = "nobody";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A temporary directory with the configuration file `u.toml`. The program runs in it with an empty environment.
struct ConfigDirectory(TempDir);

impl ConfigDirectory {
    fn with(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("u.toml"), config).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> ProgramOutput {
        let output = Command::new(env!("CARGO_BIN_EXE_understudy"))
            .args(arguments)
            .env_clear()
            .current_dir(self.0.path())
            .output()
            .unwrap();
        ProgramOutput(output)
    }

    fn create(&self, arguments: &[&str]) -> ProgramOutput {
        self.run(&[&["create", "--config", "u.toml"], arguments].concat())
    }

    fn report(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.path("report.json")).unwrap()).unwrap()
    }
}

struct ProgramOutput(Output);

impl ProgramOutput {
    fn code(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    fn err(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    #[track_caller]
    fn expect(&self, code: i32, parts: &[&str]) {
        let text = format!("{}{}", self.out(), self.err());
        assert_eq!(self.code(), code, "{text}");
        for part in parts {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}

fn empty_config() -> ConfigDirectory {
    ConfigDirectory::with("")
}

/// Every verb with a help and a manual page of its own, and a word of that help.
const VERBS: [(&str, &str); 8] = [
    ("create", "--report"),
    ("check", "--json"),
    ("run", "--print-config"),
    ("inspect", "PLUGIN2"),
    ("new", "--sdk"),
    ("patroni", "--dynamic"),
    ("report", "--objects"),
    ("completions", "bash"),
];

#[test]
fn the_help_names_every_verb_and_each_verb_has_a_help() {
    empty_config().run(&["--help"]).expect(0, &VERBS.map(|(verb, _)| verb));
    for (verb, part) in VERBS {
        empty_config().run(&[verb, "--help"]).expect(0, &[part]);
    }
    let help = empty_config().run(&["create", "--help"]);
    help.expect(0, &["As a Patroni method", "Exit codes:", "75  every failure was retry-later"]);
    assert!(!help.out().contains("keep_data <"), "the help shows a flag that is ignored");
}

#[test]
fn the_version_is_that_of_the_package() {
    empty_config().run(&["--version"]).expect(0, &[env!("CARGO_PKG_VERSION")]);
}

#[test]
fn completion_scripts_contain_verbs_and_flags() {
    for shell in ["bash", "zsh", "fish"] {
        empty_config().run(&["completions", shell]).expect(0, &["inspect", "from-leader", "print-config"]);
    }
    empty_config().run(&["completions", "dos"]).expect(2, &["dos"]);
}

#[test]
fn usage_errors_have_exit_code_2() {
    let directory = empty_config();
    for arguments in [
        &[][..],
        &["creat"],
        &["create", "--datadirr"],
        &["create", "--role=primary"],
        &["create", "--progress", "loud"],
        &["create", "--timeout", "-1s"],
        &["create", "--config="],
        &["create", "--scope="],
        &["create", "--role="],
        &["create", "--datadir="],
        &["create", "--bin-dir="],
        &["create", "--method="],
        &["create", "--timeout="],
        &["create", "--report="],
        &["create", "--log-level="],
        &["check", "--scope="],
        &["inspect"],
        &["inspect", ""],
    ] {
        assert_eq!(directory.run(arguments).code(), 2, "{arguments:?}");
    }
    directory.run(&["create", "--datadirr"]).expect(2, &["--datadir"]);
    directory.run(&["create", "--scope="]).expect(2, &["a value is required for '--scope <NAME>'"]);
}

#[test]
fn an_invalid_environment_variable_is_reported_with_the_store_that_reads_it() {
    let directory = with_missing_plugin();
    let text = std::fs::read_to_string(directory.path("u.toml")).unwrap();
    let store = "[method.acme.grants.stores.repo]\nurl = \"s3://b\"\ncredentials = \"auto\"\n";
    std::fs::write(directory.path("u.toml"), format!("{text}{store}")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(["create", "--config", "u.toml"])
        .env_clear()
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "no uri")
        .current_dir(directory.0.path())
        .output()
        .unwrap();
    let says = "`method.acme.grants.stores.repo.credentials` asks the environment: the variable \
                AWS_CONTAINER_CREDENTIALS_FULL_URI is not a URL: relative URL without a base; an address begins with https:// or \
                http:// and has a host";
    ProgramOutput(output).expect(2, &[says, "nothing was touched"]);
}

#[test]
fn a_missing_configuration_file_is_named() {
    empty_config()
        .run(&["create", "--config", "/no/such.toml"])
        .expect(2, &["/no/such.toml", "No such file"]);
}

#[test]
fn malformed_toml_is_reported_with_file_line_and_column() {
    let directory = ConfigDirectory::with("scope = \"batman\n[replica\ndatadir = \"/data\"\n");
    let output = directory.create(&[]);
    output.expect(2, &["u.toml:1:", "u.toml:2:", "not TOML", "nothing was touched"]);
}

/// A configuration with the six problems of [`PROBLEMS`].
const WRONG: &str = "\
scope = \"batman\"
[replica]
datadri = \"/data\"
bin_dir = 15
methods = [\"acne\"]
[method.acme]
no_leader = \"false\"
grants = { network = [\"h\"] }
";

const PROBLEMS: [&str; 6] = [
    "u.toml:2:2: `replica.datadir` is missing",
    "u.toml:3:1: unknown key `replica.datadri`: did you mean `datadir`?",
    "u.toml:4:11: `replica.bin_dir` must be a quoted string, not a whole number",
    "u.toml:5:12: unknown method `acne`",
    "u.toml:7:13: `method.acme.no_leader` must be true or false without quotes",
    "u.toml:8:23: `method.acme.grants.network[0]` names no port",
];

#[test]
fn all_problems_of_a_configuration_are_reported_at_once() {
    for verb in ["create", "check"] {
        let output = ConfigDirectory::with(WRONG).run(&[verb, "--config", "u.toml"]);
        output.expect(2, &PROBLEMS);
        output.expect(2, &["did you mean `acme`?", "the configuration has 6 problems; nothing was touched"]);
        assert_eq!(output.err().lines().count(), PROBLEMS.len() + 1);
    }
}

#[test]
fn the_report_has_the_problems_of_a_wrong_configuration() {
    let directory = ConfigDirectory::with(WRONG);
    directory.create(&["--report", "report.json"]).expect(2, &[]);
    let report = directory.report();
    assert_eq!((&report["result"], &report["exit_code"]), (&"usage".into(), &2.into()));
    assert_eq!(report["problems"].as_array().unwrap().len(), PROBLEMS.len());
    assert_eq!((&report["problems"][0]["line"], &report["problems"][0]["column"]), (&2.into(), &2.into()));
}

#[test]
fn a_json_log_stays_json_when_the_configuration_is_wrong() {
    let output = ConfigDirectory::with(WRONG).create(&["--log-format", "json"]);
    assert_eq!(output.code(), 2);
    let lines: Vec<serde_json::Value> =
        output.err().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), PROBLEMS.len() + 1);
    assert_eq!((&lines[0]["event"], &lines[0]["line"]), (&"problem".into(), &2.into()));
}

#[test]
fn a_key_in_the_configuration_cannot_send_escape_sequences_to_the_terminal() {
    let output = ConfigDirectory::with("\"\\u001b[2J\" = 1").create(&[]);
    assert_eq!(output.code(), 2);
    assert!(!output.err().contains('\u{1b}'), "{:?}", output.err());
}

/// Returns a valid configuration without methods and without a source.
fn valid_config(directory: &Path) -> String {
    format!(
        "scope = \"batman\"\n[replica]\ndatadir = \"{0}/data\"\nbin_dir = \"{0}/bin\"\nstate_dir = \"{0}/state\"\n",
        directory.display()
    )
}

#[test]
fn wrong_flags_are_refused_with_what_is_wrong() {
    let directory = empty_config();
    std::fs::write(directory.path("u.toml"), valid_config(directory.0.path())).unwrap();
    directory
        .create(&["--stanza=main"])
        .expect(2, &["--stanza: is not a flag of this program", "--method NAME"]);
    directory.create(&["--stanza=main", "--method", "basebakup"]).expect(2, &["did you mean `basebackup`?"]);
    directory.create(&["--from-leader"]).expect(2, &["--from-leader", "source"]);
    directory.create(&["--datadir=data"]).expect(2, &["--datadir: must be an absolute path"]);
    directory.create(&["--connstring=nonsense"]).expect(2, &["--connstring: is not a connection string"]);
    directory
        .create(&["--connstring=service=main"])
        .expect(2, &["--connstring: cannot be used", "`service`"]);
    let misspelt = ["check", "--config", "u.toml", "--connstring=host=h target_session_attrs=primay"];
    directory.run(&misspelt).expect(2, &["--connstring: cannot be used", "did you mean `primary`?"]);
    directory.create(&["--connstring=host=h\u{200b}"]).expect(2, &["--connstring: has a value of `host`"]);
    let missing = "--connstring=host=h sslmode=verify-full sslrootcert=/nowhere/ca.pem";
    directory.create(&[missing]).expect(2, &["`sslrootcert`", "/nowhere/ca.pem"]);
}

#[test]
fn nothing_is_created_before_the_whole_configuration_is_accepted() {
    let directory = with_missing_plugin();
    let config = std::fs::read_to_string(directory.path("u.toml")).unwrap();
    let source = "[source]\nconninfo = \"host=127.0.0.1 port=1 user=x\"\n";
    let standby = "configure_standby = true\nstandby_passfile = \"/no/such/pgpass\"\n[method.acme]";
    for (text, says) in [
        (format!("{}{source}", config.replace("[method.acme]", standby)), "standby_passfile"),
        (format!("{config}{source}passfile = \"/no/such/pgpass\"\n"), "source.passfile"),
        (format!("{config}{source}password = {{ file = \"/no/such/password\" }}\n"), "cannot use the secret"),
    ] {
        std::fs::write(directory.path("u.toml"), text).unwrap();
        for verb in ["check", "create"] {
            directory.run(&[verb, "--config", "u.toml"]).expect(2, &[says]);
            assert!(!directory.path("state").exists() && !directory.path("data").exists(), "{verb} {says}");
        }
    }
}

#[test]
fn inspect_names_a_file_that_is_not_a_component() {
    let directory = empty_config();
    std::fs::write(directory.path("x.wasm"), "not wasm").unwrap();
    directory.run(&["inspect", "x.wasm"]).expect(1, &["x.wasm"]);
    directory.run(&["inspect", "missing.wasm"]).expect(1, &["missing.wasm"]);
    directory
        .run(&["inspect", "acme"])
        .expect(2, &["there is no acme.wasm in /usr/local/lib/understudy/plugins"]);
}

/// Returns a directory that the user of the run owns, with a configuration whose only method has a plugin that is missing.
fn with_missing_plugin() -> ConfigDirectory {
    let directory = empty_config();
    let mut config = valid_config(directory.0.path());
    config.push_str("methods = [\"acme\"]\n");
    if is_root() {
        config.push_str(&format!("user = \"{USER}\"\n"));
        let user = nix::unistd::User::from_name(USER).unwrap().unwrap();
        std::os::unix::fs::chown(directory.0.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .unwrap();
    }
    config.push_str("[method.acme]\nplugin = \"/no/such/acme.wasm\"\nno_leader = true\n");
    std::fs::write(directory.path("u.toml"), config).unwrap();
    directory
}

#[test]
fn a_missing_plugin_fails_its_attempt_and_not_the_program() {
    let directory = with_missing_plugin();
    let output = directory.create(&["--report", "report.json"]);
    output
        .expect(1, &["no replica was created", "acme: rejected", "/no/such/acme.wasm", "data is as it was"]);
    let report = directory.report();
    assert_eq!((&report["result"], &report["exit_code"]), (&"failed".into(), &1.into()));
    assert_eq!(report["attempts"][0]["outcome"], "rejected");
    assert_eq!(report["attempts"][0]["touched"], false);
    let left = std::fs::read_dir(directory.path("state")).unwrap();
    let runs = left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("run-"));
    assert_eq!(runs.count(), 0, "the run's own directory was not removed");
}

#[test]
fn check_prints_text_and_json() {
    let directory = with_missing_plugin();
    directory.run(&["check", "--config", "u.toml"]).expect(1, &["acme  rejected", "no method would create"]);
    let output = directory.run(&["check", "--config", "u.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&output.out()).unwrap();
    assert_eq!((&json["exit_code"], &json["would_use"]), (&1.into(), &serde_json::Value::Null));
    assert_eq!(json["methods"][0]["ended"]["outcome"], "rejected");
    assert!(!directory.path("data").exists(), "check created the data directory");
}

#[test]
fn every_line_of_a_json_log_is_an_object() {
    let output = with_missing_plugin().create(&["--log-format", "json", "--log-level", "debug"]);
    assert_eq!(output.code(), 1);
    let lines: Vec<serde_json::Value> =
        output.err().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    for event in ["state", "attempt-started", "step", "attempt-ended", "run-ended"] {
        assert!(events.contains(&event), "{event} in {events:?}");
    }
}

#[test]
fn patronis_command_line_is_accepted() {
    let directory = with_missing_plugin();
    let datadir = format!("--datadir={}", directory.path("elsewhere").display());
    let output = directory.create(&[
        "--report",
        "report.json",
        "--keep_data=True",
        "--no_leader=1",
        "--no_params=",
        "--no_master=",
        "--scope=robin",
        "--role=replica",
        &datadir,
        "--connstring=",
    ]);
    output.expect(1, &["acme: rejected"]);
    let report = directory.report();
    assert_eq!(report["scope"], "robin");
    assert!(report["datadir"].as_str().unwrap().ends_with("/elsewhere"));
}

#[test]
fn rule_30_root_becomes_the_configured_user_before_any_file_is_created() {
    if !is_root() {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let directory = with_missing_plugin();
    directory.create(&["--report", "report.json"]).expect(1, &["acme: rejected"]);
    let user = nix::unistd::User::from_name(USER).unwrap().unwrap();
    for created in ["report.json", "state"] {
        let metadata = std::fs::metadata(directory.path(created)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (user.uid.as_raw(), user.gid.as_raw()), "{created}");
        assert_eq!(metadata.mode() & 0o077, 0, "{created}");
    }
    // The directory is of the configured user, and only that user may own it besides root.
    std::os::unix::fs::chown(directory.0.path(), Some(0), None).unwrap();
    std::os::unix::fs::chown(directory.path("u.toml"), Some(0), None).unwrap();
    let text = std::fs::read_to_string(directory.path("u.toml")).unwrap();
    for (name, says) in [("root", "is root itself"), ("no-such-user", "`user` below [replica] names no user")]
    {
        std::fs::write(directory.path("u.toml"), text.replace(USER, name)).unwrap();
        directory.create(&[]).expect(2, &[says, "nothing was touched"]);
    }
}

#[test]
fn further_options_are_for_the_method_that_the_flag_names() {
    let directory = with_missing_plugin();
    directory.create(&["--stanza=main", "--method=acme"]).expect(1, &["acme: rejected"]);
    directory.create(&["--stanza=main", "--method=acne"]).expect(2, &["did you mean `acme`?"]);
}

#[test]
fn a_configuration_that_others_may_change_is_refused_with_a_remedy() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for verb in ["create", "check"] {
        let directory = with_missing_plugin();
        let run = || directory.run(&[verb, "--config", "u.toml"]);
        // Root's group may change the file. Only root can give the file another group, and needs to.
        let _not_root = std::os::unix::fs::chown(directory.path("u.toml"), None, Some(65_534));
        for wrong in [0o664, 0o646, 0o666] {
            mode(&directory.path("u.toml"), wrong);
            run().expect(2, &["u.toml may be written by others", "chmod go-w", "nothing was touched"]);
        }
        mode(&directory.path("u.toml"), 0o644);
        mode(directory.0.path(), 0o777);
        run().expect(2, &["u.toml may be replaced by others", "chmod go-w"]);
        mode(directory.0.path(), 0o755);
        run().expect(1, &["acme"]);
    }
}

#[test]
fn a_password_that_others_may_read_causes_a_warning_without_the_password() {
    use std::os::unix::fs::PermissionsExt;
    let directory = with_missing_plugin();
    let text = std::fs::read_to_string(directory.path("u.toml")).unwrap();
    let conninfo = "host=127.0.0.1 port=1 user=r password=swordfish";
    std::fs::write(directory.path("u.toml"), format!("{text}[source]\nconninfo = \"{conninfo}\"\n")).unwrap();
    let warns = |mode| {
        std::fs::set_permissions(directory.path("u.toml"), std::fs::Permissions::from_mode(mode)).unwrap();
        let output = directory.create(&[]);
        assert!(!output.err().contains("swordfish"), "{}", output.err());
        output.err().contains("others may read it (mode 0644): `chmod 0600` it")
    };
    assert!(warns(0o644));
    assert!(!warns(0o600));
}

#[test]
fn a_passfile_that_libpq_would_ignore_is_refused_with_its_setting() {
    use std::os::unix::fs::PermissionsExt;
    let directory = with_missing_plugin();
    let text = std::fs::read_to_string(directory.path("u.toml")).unwrap();
    let passfile = directory.path("pgpass");
    let source = format!("[source]\nconninfo = \"host=h user=r\"\npassfile = \"{}\"\n", passfile.display());
    std::fs::write(directory.path("u.toml"), format!("{text}{source}")).unwrap();
    for verb in ["create", "check"] {
        let run = || directory.run(&[verb, "--config", "u.toml"]);
        run().expect(2, &["`source.passfile` names a file", "it does not exist", "nothing was touched"]);
        std::fs::write(&passfile, "*:*:*:*:x\n").unwrap();
        std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(0o644)).unwrap();
        run().expect(2, &["`source.passfile`", "mode 0644", "chmod 0600"]);
        std::fs::remove_file(&passfile).unwrap();
    }
    let standby =
        format!("configure_standby = true\nstandby_passfile = \"{}\"\n[method.acme]", passfile.display());
    let text = text.replace("[method.acme]", &standby);
    std::fs::write(directory.path("u.toml"), format!("{text}[source]\nconninfo = \"host=h user=r\"\n"))
        .unwrap();
    directory.create(&[]).expect(2, &["`replica.standby_passfile` names", "it does not exist"]);
}

#[test]
fn the_cause_of_a_failure_is_printed_once() {
    let output = with_missing_plugin().create(&[]);
    let text = output.err();
    assert_eq!(text.matches("/no/such/acme.wasm").count(), 1, "{text}");
    assert!(text.lines().last().unwrap().ends_with("data is as it was"), "{text}");
    // With this level the log shows no attempts, so the summary does.
    let quiet = with_missing_plugin().create(&["--log-level", "error"]).err();
    assert_eq!(quiet.matches("/no/such/acme.wasm").count(), 1, "{quiet}");
}

#[test]
fn the_report_has_version_configuration_and_machine() {
    let directory = with_missing_plugin();
    directory.create(&["--report", "report.json"]).expect(1, &[]);
    let report = directory.report();
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["configuration"], directory.path("u.toml").to_str().unwrap());
    assert_eq!(report["host"]["architecture"], std::env::consts::ARCH);
    assert!(report["server_version"].is_null());
}
