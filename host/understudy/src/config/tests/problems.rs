//! What is wrong is told with its place and what to write instead.

use super::*;

#[test]
fn every_problem_is_told_at_once_with_its_place() {
    let problems = parse(
        r#"scop = "batman"
[replica]
datadir = "data"
bin_dir = 5
metods = ["basebackup"]
timeout = "soon"
[method.acme]
keep_data = "false"
[method.acme.grants]
memory = "lots"
network = ["x:443"]
"#,
    )
    .map(|_| ())
    .unwrap_err();
    let expected = [
        ":1:1: unknown key `scop`: did you mean `scope`?",
        ":1:1: `scope` is missing: write scope = \"NAME\" at the top, or give --scope",
        ":3:11: `replica.datadir` must be an absolute path, not `data`",
        ":4:11: `replica.bin_dir` must be a quoted string, not a whole number",
        ":5:1: unknown key `replica.metods`: did you mean `methods`?",
        ":6:11: `replica.timeout` is no length of time: `soon`",
        ":8:13: `method.acme.keep_data` must be true or false without quotes",
        ":10:10: `method.acme.grants.memory` cannot be read: `lots` is not a size",
        ":11:1: `method.acme.grants.network` cannot be enforced by this version",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for expected in expected {
        let expected = format!("{FILE}{expected}");
        assert!(problems.iter().any(|problem| problem.starts_with(&expected)), "{expected} in {problems:#?}");
    }
}

#[test]
fn malformed_toml_is_told_with_its_place_and_nothing_is_guessed() {
    let problems =
        parse("scope = \"batman\n[replica]\ndatadir = \nbin_dir = \"/pg\"\n").map(|_| ()).unwrap_err();
    assert!(problems.len() >= 2, "{problems:#?}");
    assert!(problems.iter().all(|problem| problem.contains(": not TOML: ")), "{problems:#?}");
    assert!(problems.iter().any(|problem| problem.starts_with("/etc/understudy.toml:1:")), "{problems:#?}");
    assert!(problems.iter().any(|problem| problem.starts_with("/etc/understudy.toml:3:")), "{problems:#?}");
}

#[test]
fn a_key_that_is_given_twice_is_told() {
    let problems = parse(&format!("{WHOLE}datadir = \"/other\"\n")).map(|_| ()).unwrap_err();
    assert!(problems[0].starts_with("/etc/understudy.toml:6:1: not TOML: duplicate key"), "{problems:#?}");
}

#[test]
fn each_wrong_line_is_told_by_its_own_message() {
    let cases: &[(&str, &str)] = &[
        ("staged = true", "6:1: `replica.staged` is not supported by this version"),
        ("metods = []", "6:1: unknown key `replica.metods`: did you mean `methods`?"),
        ("wibble = 1", "6:1: unknown key `replica.wibble`: known here: "),
        ("user = \"\"", "6:8: `replica.user` is empty"),
        ("methods = [\"basebakup\"]", "6:12: unknown method `basebakup`"),
        ("methods = [\"a/b\"]", "6:12: `replica.methods[0]` names a method `a/b`"),
        ("methods = [3]", "6:12: `replica.methods[0]` must be a quoted string, not a whole number"),
        ("methods = {}", "6:11: `replica.methods` must be a list, not a table"),
        (
            "methods = []\ncreate_replica_methods = []",
            "7:26: `replica.create_replica_methods` and `replica.methods` are two",
        ),
        (
            "config = \"refuse-command\"",
            "6:10: `replica.config` must be \"report\" or \"refuse-commands\", not `refuse-command`; did",
        ),
        ("config_file = \"postgresql.conf\"", "6:15: `replica.config_file` must be an absolute path"),
        ("config_file = 1", "6:15: `replica.config_file` must be a quoted string"),
        ("trigger_file = \"/promote\"", "6:16: `replica.trigger_file` must be a path inside"),
        ("trigger_file = \"../promote\"", "6:16: `replica.trigger_file` must be a path inside"),
        (
            "timeout = 3600",
            "6:11: `replica.timeout` must be a quoted length of time with its unit, such as \"3600s\"",
        ),
        ("timeout = \"0s\"", "6:11: `replica.timeout` is no time at all"),
        (
            "require_landlock = 0",
            "6:20: `replica.require_landlock` must be a whole number of at least 1, not 0",
        ),
        ("require_landlock = 99", "6:20: `replica.require_landlock` must be one of Landlock's ABIs, 1 to 7"),
        ("snapshot = 1", "6:12: `replica.snapshot` must be true or false, not a whole number"),
        ("plugin_path = [\"x\"]", "6:16: `replica.plugin_path[0]` must be an absolute path, not `x`"),
        ("plugin_path = \"/x\"", "6:15: `replica.plugin_path` must be a list, not a string"),
        ("wal_dir = \"/data/wal\"", "6:11: `/data/wal` and the data directory, `/data`, must be apart"),
        ("wal_dir = \"/\"", "6:11: `/` and the data directory, `/data`, must be apart"),
        (
            "tablespaces = { a = \"/t\", b = \"/t/b\" }",
            "6:31: `/t/b` and another tablespace, `/t`, must be apart",
        ),
        ("tablespaces = { \"\" = \"/t\" }", "6:17: `replica.tablespaces.\"\"` must have as its key"),
        (
            "tablespaces = { 99999999999 = \"/t\" }",
            "6:17: `replica.tablespaces.99999999999` must have as its key",
        ),
        ("tablespaces = { a = \"t\" }", "6:21: `replica.tablespaces.a` must be an absolute path, not `t`"),
        ("tablespaces = [\"/t\"]", "6:15: `replica.tablespaces` must be a table, not a list"),
        ("restore_command = \" \"", "6:19: `replica.restore_command` must be a command in one line"),
        ("restore_command = \"a\\nb\"", "6:19: `replica.restore_command` must be a command in one line"),
        (
            "restore_command = \"AWS_SECRET=x wal-g wal-fetch\"",
            "6:19: `replica.restore_command` sets variables",
        ),
        ("restore_command = \"/usr/bin/env -i A=x wal-g\"", "6:19: `replica.restore_command` sets variables"),
        ("configure_standby = true", "6:21: `replica.configure_standby` needs `[source] conninfo`"),
        ("[method]\nacme = 1", "7:8: `method.acme` must be a table, not a whole number"),
        ("[method.\"../acme\"]", "6:9: `../acme` is no name that a method can have"),
        ("[method.acme]\nplugn = \"x\"", "7:1: unknown key `method.acme.plugn`: did you mean `plugin`?"),
        (
            "[method.acme]\nplugin = \"r.example/a/b:1.4\"",
            "7:10: `method.acme.plugin` names `r.example/a/b:1.4`, which is a registry's",
        ),
        ("[method.acme]\nplugin = false", "7:10: `method.acme.plugin` must be a quoted string, not a flag"),
        (
            "[method.acme]\nno_leader = \"no\"",
            "7:13: `method.acme.no_leader` must be true or false without quotes",
        ),
        ("[method.acme]\noptions = 1", "7:11: `method.acme.options` must be a table"),
        ("[method.acme.options]\nat = 1979-05-27", "7:6: `method.acme.options.at` must be quoted"),
        ("[method.acme.options]\na = { b = 1 }", "7:5: `method.acme.options.a` must not be a table"),
        ("[method.acme.options]\na = [\"x\", 1]", "7:11: `method.acme.options.a[1]` must be a quoted string"),
        (
            "[method.acme.options]\na = 9223372036854775808",
            "7:5: `method.acme.options.a` does not fit in 64 bits",
        ),
        ("[method.acme.options]\na = nan", "7:5: `method.acme.options.a` must be a finite number"),
        (
            "[method.acme.grants]\nmemory = 268435456",
            "7:10: `method.acme.grants.memory` must be a quoted size",
        ),
        (
            "[method.acme.grants]\nhost_memory = \"8MiB\"",
            "7:15: `method.acme.grants.host_memory` must be at least 16.0 MiB",
        ),
        ("[method.acme.grants]\nmemory = \"0MiB\"", "7:10: `method.acme.grants.memory` is nothing at all"),
        ("[method.acme.grants]\nread = \"/mnt\"", "7:8: `method.acme.grants.read` must be a list"),
        (
            "[method.acme.grants]\nread = [\"mnt\"]",
            "7:9: `method.acme.grants.read[0]` must be an absolute path",
        ),
        ("[method.acme.grants]\ndisk = \"3TiB\"", "7:8: `method.acme.grants.disk` must be a table"),
        (
            "[method.acme.grants.disk]\nbites = \"1\"",
            "7:1: unknown key `method.acme.grants.disk.bites`: did you mean `bytes`?",
        ),
        (
            "[method.acme.grants.disk]\nfiles = -1",
            "7:9: `method.acme.grants.disk.files` must be a whole number of at least 1, not -1",
        ),
        (
            "[method.basebackup]\ntries = 0",
            "7:9: `method.basebackup.tries` must be a whole number of at least 1",
        ),
        ("[method.basebackup]\ntries = 101", "7:9: `method.basebackup.tries` must be at most 100"),
        (
            "[method.basebackup]\nplugin = \"/x.wasm\"",
            "7:1: `method.basebackup.plugin` means nothing for basebackup",
        ),
        ("[method.basebackup]\ngrants = {}", "7:1: `method.basebackup.grants` means nothing for basebackup"),
        (
            "[method.basebackup]\nkeep_data = true",
            "7:1: `method.basebackup.keep_data` means nothing for basebackup",
        ),
        (
            "[method.basebackup]\nno_leader = true",
            "7:1: `method.basebackup.no_leader` means nothing for basebackup",
        ),
        (
            "[method.basebackup]\nno_params = true",
            "7:1: `method.basebackup.no_params` means nothing for basebackup",
        ),
        (
            "[method.basebackup]\noptions = true",
            "7:11: `method.basebackup.options` must be a table, or a list",
        ),
        (
            "[method.basebackup]\noptions = [3]",
            "7:12: `method.basebackup.options[0]` must be a flag in quotes",
        ),
        (
            "[method.basebackup]\noptions = [{ a = 1, b = 2 }]",
            "7:12: `method.basebackup.options[0]` must hold one pair",
        ),
        ("[source]", "6:2: `source.conninfo` is missing"),
        (
            "[source]\nconninfo = \"host=\"\npasword = 1",
            "8:1: unknown key `source.pasword`: did you mean `password`?",
        ),
        (
            "[source]\nconninfo = \"nonsense\"",
            "7:12: `source.conninfo` is no connection string that libpq reads",
        ),
        (
            "[source]\nconninfo = \"service=main user=replicator\"",
            "7:12: `source.conninfo` cannot be used: `service` is not followed",
        ),
        (
            "[source]\nconninfo = \"host=h sslrootcert=ca.pem\"",
            "7:12: `source.conninfo` cannot be used: `sslrootcert` is the relative path `ca.pem`",
        ),
        (
            "[source]\nconninfo = \"host=h\"\npassword = \"x\"",
            "8:12: `source.password` must not stand in this file",
        ),
        (
            "[source]\nconninfo = \"host=h\"\npassword = {}",
            "8:12: `source.password` needs one of `env` and `file`",
        ),
        (
            "[source]\nconninfo = \"host=h\"\npassword = { env = \"UNSET\" }",
            "8:20: `source.password.env` names an environment variable that is not set",
        ),
        (
            "[source]\nconninfo = \"host=h\"\npassfile = \"p\"",
            "8:12: `source.passfile` must be an absolute path",
        ),
    ];
    for (lines, expected) in cases {
        let problem = problem(lines);
        assert!(problem.starts_with(expected), "{lines}\n  gave {problem}\n  not  {expected}");
    }
}

#[test]
fn every_grant_without_a_wall_is_refused() {
    for grant in ["network", "programs", "environment"] {
        let problem = problem(&format!("[method.acme.grants]\n{grant} = {{}}"));
        assert_eq!(
            problem,
            format!(
                "7:1: `method.acme.grants.{grant}` cannot be enforced by this version, which therefore does not grant it: \
                 take the line out"
            )
        );
    }
}

#[test]
fn a_password_file_that_cannot_be_read_is_told_at_its_line() {
    let text = format!("{WHOLE}[source]\nconninfo = \"host=h\"\npassword = {{ file = \"/no/such/file\" }}");
    let problem = parse(&text).unwrap().source.unwrap().resolve().unwrap_err();
    assert!(
        problem.to_string().starts_with("/etc/understudy.toml:8:21: cannot use the secret in /no/such/file"),
        "{problem}"
    );
}

#[test]
fn a_plugin_path_that_is_not_absolute_is_refused() {
    let environment = |name: &str| (name == plugin_path::VARIABLE).then(|| OsString::from("/a:b"));
    let problems = parse_with(WHOLE, &Overrides::default(), &environment).map(|_| ()).unwrap_err();
    assert!(problems[0].starts_with("UNDERSTUDY_PLUGIN_PATH: "), "{problems:?}");
}

#[test]
fn a_file_that_is_too_large_or_missing_is_an_error_that_names_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![b'\n'; FILE_LIMIT as usize + 1]).unwrap();
    for path in [file.path(), Path::new("/no/such/file.toml")] {
        let error = Config::load(path, &Overrides::default(), &nothing).map(|_| ()).unwrap_err();
        assert!(matches!(&error, ConfigError::Unreadable { .. }));
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
    }
}
