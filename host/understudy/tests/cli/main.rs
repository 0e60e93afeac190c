//! The built program at its edges: usage, help, completions, configurations that are wrong. Nothing here needs a server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod places;
mod reports;
mod snapshots;
mod untold;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The user that the program becomes where these tests run as root: one that every system has.
const USER: &str = "nobody";

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory with a configuration file in it, and a program that sees no other environment.
struct Place(TempDir);

impl Place {
    fn with(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("u.toml"), config).unwrap();
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Answer {
        let output = Command::new(env!("CARGO_BIN_EXE_understudy"))
            .args(arguments)
            .env_clear()
            .current_dir(self.0.path())
            .output()
            .unwrap();
        Answer(output)
    }

    fn create(&self, arguments: &[&str]) -> Answer {
        self.run(&[&["create", "--config", "u.toml"], arguments].concat())
    }

    fn report(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.path("report.json")).unwrap()).unwrap()
    }
}

struct Answer(Output);

impl Answer {
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

fn no_config() -> Place {
    Place::with("")
}

#[test]
fn help_names_every_verb_and_each_verb_has_its_own() {
    no_config().run(&["--help"]).expect(0, &["create", "check", "inspect", "completions"]);
    for (verb, part) in
        [("create", "--report"), ("check", "--json"), ("inspect", "PLUGIN2"), ("completions", "bash")]
    {
        no_config().run(&[verb, "--help"]).expect(0, &[part]);
    }
    let help = no_config().run(&["create", "--help"]);
    help.expect(0, &["As a Patroni method", "Exit codes:", "75  every failure was retry-later"]);
    assert!(!help.out().contains("keep_data <"), "what is ignored is not advertised");
}

#[test]
fn the_version_is_that_of_the_package() {
    no_config().run(&["--version"]).expect(0, &[env!("CARGO_PKG_VERSION")]);
}

#[test]
fn completions_name_the_verbs_and_flags() {
    for shell in ["bash", "zsh", "fish"] {
        no_config().run(&["completions", shell]).expect(0, &["inspect", "from-leader"]);
    }
    no_config().run(&["completions", "dos"]).expect(2, &["dos"]);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let place = no_config();
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
        assert_eq!(place.run(arguments).code(), 2, "{arguments:?}");
    }
    place.run(&["create", "--datadirr"]).expect(2, &["--datadir"]);
    place.run(&["create", "--scope="]).expect(2, &["a value is required for '--scope <NAME>'"]);
}

#[test]
fn a_variable_that_a_store_cannot_use_is_told_where_the_store_asks_for_it() {
    let place = runnable();
    let text = std::fs::read_to_string(place.path("u.toml")).unwrap();
    let store = "[method.acme.grants.stores.repo]\nurl = \"s3://b\"\ncredentials = \"auto\"\n";
    std::fs::write(place.path("u.toml"), format!("{text}{store}")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(["create", "--config", "u.toml"])
        .env_clear()
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "no uri")
        .current_dir(place.0.path())
        .output()
        .unwrap();
    let says = "`method.acme.grants.stores.repo.credentials` asks the environment: the variable \
                AWS_CONTAINER_CREDENTIALS_FULL_URI is no URL: relative URL without a base; an address begins with https:// or \
                http:// and has a host";
    Answer(output).expect(2, &[says, "nothing was touched"]);
}

#[test]
fn a_missing_configuration_file_is_named() {
    no_config().run(&["create", "--config", "/no/such.toml"]).expect(2, &["/no/such.toml", "No such file"]);
}

#[test]
fn malformed_toml_is_told_by_file_line_and_column() {
    let place = Place::with("scope = \"batman\n[replica\ndatadir = \"/data\"\n");
    let answer = place.create(&[]);
    answer.expect(2, &["u.toml:1:", "u.toml:2:", "not TOML", "nothing was touched"]);
}

/// A configuration with five problems.
const WRONG: &str = "\
scope = \"batman\"
[replica]
datadri = \"/data\"
bin_dir = 15
methods = [\"acne\"]
[method.acme]
no_leader = \"false\"
grants = { network = [\"h:1\"] }
";

const PROBLEMS: [&str; 6] = [
    "u.toml:2:2: `replica.datadir` is missing",
    "u.toml:3:1: unknown key `replica.datadri`: did you mean `datadir`?",
    "u.toml:4:11: `replica.bin_dir` must be a quoted string, not a whole number",
    "u.toml:5:12: unknown method `acne`",
    "u.toml:7:13: `method.acme.no_leader` must be true or false without quotes",
    "u.toml:8:12: `method.acme.grants.network` cannot be enforced by this version",
];

#[test]
fn wrong_types_and_misspelt_keys_are_told_all_at_once() {
    for verb in ["create", "check"] {
        let answer = Place::with(WRONG).run(&[verb, "--config", "u.toml"]);
        answer.expect(2, &PROBLEMS);
        answer.expect(2, &["did you mean `acme`?", "the configuration has 6 problems; nothing was touched"]);
        assert_eq!(answer.err().lines().count(), PROBLEMS.len() + 1);
    }
}

#[test]
fn the_report_tells_of_a_configuration_that_is_wrong() {
    let place = Place::with(WRONG);
    place.create(&["--report", "report.json"]).expect(2, &[]);
    let report = place.report();
    assert_eq!((&report["result"], &report["exit_code"]), (&"usage".into(), &2.into()));
    assert_eq!(report["problems"].as_array().unwrap().len(), PROBLEMS.len());
    assert_eq!((&report["problems"][0]["line"], &report["problems"][0]["column"]), (&2.into(), &2.into()));
}

#[test]
fn a_json_log_stays_json_when_the_configuration_is_wrong() {
    let answer = Place::with(WRONG).create(&["--log-format", "json"]);
    assert_eq!(answer.code(), 2);
    let lines: Vec<serde_json::Value> =
        answer.err().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), PROBLEMS.len() + 1);
    assert_eq!((&lines[0]["event"], &lines[0]["line"]), (&"problem".into(), &2.into()));
}

#[test]
fn a_file_name_cannot_send_escape_sequences_to_the_terminal() {
    let answer = Place::with("\"\\u001b[2J\" = 1").create(&[]);
    assert_eq!(answer.code(), 2);
    assert!(!answer.err().contains('\u{1b}'), "{:?}", answer.err());
}

/// A configuration that has nothing wrong and a source that is nowhere.
fn whole(place: &Path) -> String {
    format!(
        "scope = \"batman\"\n[replica]\ndatadir = \"{0}/data\"\nbin_dir = \"{0}/bin\"\nstate_dir = \"{0}/state\"\n",
        place.display()
    )
}

#[test]
fn an_unknown_option_needs_the_method_that_it_is_for() {
    let place = no_config();
    std::fs::write(place.path("u.toml"), whole(place.0.path())).unwrap();
    place.create(&["--stanza=main"]).expect(2, &["--stanza: is no flag of this program", "--method NAME"]);
    place.create(&["--stanza=main", "--method", "basebakup"]).expect(2, &["did you mean `basebackup`?"]);
    place.create(&["--from-leader"]).expect(2, &["--from-leader", "source"]);
    place.create(&["--datadir=data"]).expect(2, &["--datadir: must be an absolute path"]);
    place.create(&["--connstring=nonsense"]).expect(2, &["--connstring: is no connection string"]);
    place.create(&["--connstring=service=main"]).expect(2, &["--connstring: cannot be used", "`service`"]);
    let misspelt = ["check", "--config", "u.toml", "--connstring=host=h target_session_attrs=primay"];
    place.run(&misspelt).expect(2, &["--connstring: cannot be used", "did you mean `primary`?"]);
    place.create(&["--connstring=host=h\u{200b}"]).expect(2, &["--connstring: has a value of `host`"]);
    let missing = "--connstring=host=h sslmode=verify-full sslrootcert=/nowhere/ca.pem";
    place.create(&[missing]).expect(2, &["`sslrootcert`", "/nowhere/ca.pem"]);
}

#[test]
fn nothing_is_made_before_the_configuration_is_accepted_whole() {
    let place = runnable();
    let config = std::fs::read_to_string(place.path("u.toml")).unwrap();
    let source = "[source]\nconninfo = \"host=127.0.0.1 port=1 user=x\"\n";
    let standby = "configure_standby = true\nstandby_passfile = \"/no/such/pgpass\"\n[method.acme]";
    for (text, says) in [
        (format!("{}{source}", config.replace("[method.acme]", standby)), "standby_passfile"),
        (format!("{config}{source}passfile = \"/no/such/pgpass\"\n"), "source.passfile"),
        (format!("{config}{source}password = {{ file = \"/no/such/password\" }}\n"), "cannot use the secret"),
    ] {
        std::fs::write(place.path("u.toml"), text).unwrap();
        for verb in ["check", "create"] {
            place.run(&[verb, "--config", "u.toml"]).expect(2, &[says]);
            assert!(!place.path("state").exists() && !place.path("data").exists(), "{verb} {says}");
        }
    }
}

#[test]
fn inspect_says_what_is_wrong_with_a_file_that_is_no_component() {
    let place = no_config();
    std::fs::write(place.path("x.wasm"), "not wasm").unwrap();
    place.run(&["inspect", "x.wasm"]).expect(1, &["x.wasm"]);
    place.run(&["inspect", "missing.wasm"]).expect(1, &["missing.wasm"]);
    place
        .run(&["inspect", "acme"])
        .expect(2, &["there is no acme.wasm in /usr/local/lib/understudy/plugins"]);
}

/// A directory in which the user of the run may write, with a configuration whose only method has no plugin.
fn runnable() -> Place {
    let place = no_config();
    let mut config = whole(place.0.path());
    config.push_str("methods = [\"acme\"]\n");
    if is_root() {
        config.push_str(&format!("user = \"{USER}\"\n"));
        let user = nix::unistd::User::from_name(USER).unwrap().unwrap();
        std::os::unix::fs::chown(place.0.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
    config.push_str("[method.acme]\nplugin = \"/no/such/acme.wasm\"\nno_leader = true\n");
    std::fs::write(place.path("u.toml"), config).unwrap();
    place
}

#[test]
fn a_plugin_that_is_missing_ends_its_attempt_and_not_the_program() {
    let place = runnable();
    let answer = place.create(&["--report", "report.json"]);
    answer
        .expect(1, &["no replica was created", "acme: rejected", "/no/such/acme.wasm", "data is as it was"]);
    let report = place.report();
    assert_eq!((&report["result"], &report["exit_code"]), (&"failed".into(), &1.into()));
    assert_eq!(report["attempts"][0]["outcome"], "rejected");
    assert_eq!(report["attempts"][0]["touched"], false);
    let left = std::fs::read_dir(place.path("state")).unwrap();
    let runs = left.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("run-"));
    assert_eq!(runs.count(), 0, "the run's own directory goes with it");
}

#[test]
fn check_answers_for_people_and_for_programs() {
    let place = runnable();
    place.run(&["check", "--config", "u.toml"]).expect(1, &["acme  rejected", "no method would create"]);
    let answer = place.run(&["check", "--config", "u.toml", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&answer.out()).unwrap();
    assert_eq!((&json["exit_code"], &json["would_use"]), (&1.into(), &serde_json::Value::Null));
    assert_eq!(json["methods"][0]["ended"]["outcome"], "rejected");
    assert!(!place.path("data").exists(), "check makes nothing");
}

#[test]
fn a_json_log_is_one_object_a_line_to_the_end_of_the_run() {
    let answer = runnable().create(&["--log-format", "json", "--log-level", "debug"]);
    assert_eq!(answer.code(), 1);
    let lines: Vec<serde_json::Value> =
        answer.err().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    for event in ["state", "attempt-started", "step", "attempt-ended", "run-ended"] {
        assert!(events.contains(&event), "{event} in {events:?}");
    }
}

#[test]
fn patronis_command_line_is_taken_as_it_comes() {
    let place = runnable();
    let datadir = format!("--datadir={}", place.path("elsewhere").display());
    let answer = place.create(&[
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
    answer.expect(1, &["acme: rejected"]);
    let report = place.report();
    assert_eq!(report["scope"], "robin");
    assert!(report["datadir"].as_str().unwrap().ends_with("/elsewhere"));
}

#[test]
fn rule_30_root_becomes_the_configured_user_before_anything_is_made() {
    if !is_root() {
        return;
    }
    use std::os::unix::fs::MetadataExt;
    let place = runnable();
    place.create(&["--report", "report.json"]).expect(1, &["acme: rejected"]);
    let user = nix::unistd::User::from_name(USER).unwrap().unwrap();
    for made in ["report.json", "state"] {
        let metadata = std::fs::metadata(place.path(made)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (user.uid.as_raw(), user.gid.as_raw()), "{made}");
        assert_eq!(metadata.mode() & 0o077, 0, "{made}");
    }
    let text = std::fs::read_to_string(place.path("u.toml")).unwrap();
    for (name, says) in [("root", "is root itself"), ("no-such-user", "`user` below [replica] names no user")]
    {
        std::fs::write(place.path("u.toml"), text.replace(USER, name)).unwrap();
        place.create(&[]).expect(2, &[says, "nothing was touched"]);
    }
}

#[test]
fn further_options_reach_the_method_that_is_named() {
    let place = runnable();
    place.create(&["--stanza=main", "--method=acme"]).expect(1, &["acme: rejected"]);
    place.create(&["--stanza=main", "--method=acne"]).expect(2, &["did you mean `acme`?"]);
}

#[test]
fn a_configuration_that_others_may_change_is_refused_with_what_to_do() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    for verb in ["create", "check"] {
        let place = runnable();
        let run = || place.run(&[verb, "--config", "u.toml"]);
        for wrong in [0o664, 0o646, 0o666] {
            mode(&place.path("u.toml"), wrong);
            run().expect(2, &["u.toml may be written by others", "chmod go-w", "nothing was touched"]);
        }
        mode(&place.path("u.toml"), 0o644);
        mode(place.0.path(), 0o777);
        run().expect(2, &["u.toml may be replaced by others", "chmod go-w"]);
        mode(place.0.path(), 0o755);
        run().expect(1, &["acme"]);
    }
}

#[test]
fn a_password_that_others_may_read_is_told_and_not_shown() {
    use std::os::unix::fs::PermissionsExt;
    let place = runnable();
    let text = std::fs::read_to_string(place.path("u.toml")).unwrap();
    let conninfo = "host=127.0.0.1 port=1 user=r password=swordfish";
    std::fs::write(place.path("u.toml"), format!("{text}[source]\nconninfo = \"{conninfo}\"\n")).unwrap();
    let told = |mode| {
        std::fs::set_permissions(place.path("u.toml"), std::fs::Permissions::from_mode(mode)).unwrap();
        let answer = place.create(&[]);
        assert!(!answer.err().contains("swordfish"), "{}", answer.err());
        answer.err().contains("others may read it (mode 0644): `chmod 0600` it")
    };
    assert!(told(0o644));
    assert!(!told(0o600));
}

#[test]
fn a_passfile_that_libpq_would_pass_over_is_named_with_its_setting() {
    use std::os::unix::fs::PermissionsExt;
    let place = runnable();
    let text = std::fs::read_to_string(place.path("u.toml")).unwrap();
    let passfile = place.path("pgpass");
    let source = format!("[source]\nconninfo = \"host=h user=r\"\npassfile = \"{}\"\n", passfile.display());
    std::fs::write(place.path("u.toml"), format!("{text}{source}")).unwrap();
    for verb in ["create", "check"] {
        let run = || place.run(&[verb, "--config", "u.toml"]);
        run().expect(2, &["`source.passfile` names a file", "it does not exist", "nothing was touched"]);
        std::fs::write(&passfile, "*:*:*:*:x\n").unwrap();
        std::fs::set_permissions(&passfile, std::fs::Permissions::from_mode(0o644)).unwrap();
        run().expect(2, &["`source.passfile`", "mode 0644", "chmod 0600"]);
        std::fs::remove_file(&passfile).unwrap();
    }
    let standby =
        format!("configure_standby = true\nstandby_passfile = \"{}\"\n[method.acme]", passfile.display());
    let text = text.replace("[method.acme]", &standby);
    std::fs::write(place.path("u.toml"), format!("{text}[source]\nconninfo = \"host=h user=r\"\n")).unwrap();
    place.create(&[]).expect(2, &["`replica.standby_passfile` names", "it does not exist"]);
}

#[test]
fn what_happened_is_told_once() {
    let answer = runnable().create(&[]);
    let told = answer.err();
    assert_eq!(told.matches("/no/such/acme.wasm").count(), 1, "{told}");
    assert!(told.lines().last().unwrap().ends_with("data is as it was"), "{told}");
    // A log that does not tell of attempts leaves it to the summary.
    let quiet = runnable().create(&["--log-level", "error"]).err();
    assert_eq!(quiet.matches("/no/such/acme.wasm").count(), 1, "{quiet}");
}

#[test]
fn the_report_says_where_it_comes_from() {
    let place = runnable();
    place.create(&["--report", "report.json"]).expect(1, &[]);
    let report = place.report();
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["configuration"], place.path("u.toml").to_str().unwrap());
    assert_eq!(report["host"]["architecture"], std::env::consts::ARCH);
    assert!(report["server_version"].is_null());
}
