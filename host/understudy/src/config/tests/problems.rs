//! Each problem is reported with its place and what to write instead.

use super::*;

#[test]
fn all_problems_are_reported_together_each_with_its_place() {
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
network = ["x"]
"#,
    )
    .map(|_| ())
    .unwrap_err();
    let expected = [
        ":1:1: unknown key `scop`: did you mean `scope`?",
        ":1:1: `scope` is missing: write scope = \"NAME\" at the top, or give --scope",
        ":3:11: `replica.datadir` must be an absolute path, which begins with `/`",
        ":4:11: `replica.bin_dir` must be a quoted string, not a whole number",
        ":5:1: unknown key `replica.metods`: did you mean `methods`?",
        ":6:11: `replica.timeout` cannot be read: `soon` is not a length of time: write whole numbers and units",
        ":8:13: `method.acme.keep_data` must be true or false without quotes",
        ":10:10: `method.acme.grants.memory` cannot be read: `lots` is not a size",
        ":11:12: `method.acme.grants.network[0]` names no port",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for expected in expected {
        let expected = format!("{FILE}{expected}");
        assert!(problems.iter().any(|problem| problem.starts_with(&expected)), "{expected} in {problems:#?}");
    }
}

#[test]
fn malformed_toml_is_reported_with_its_place_and_nothing_is_guessed() {
    let problems =
        parse("scope = \"batman\n[replica]\ndatadir = \nbin_dir = \"/pg\"\n").map(|_| ()).unwrap_err();
    assert!(problems.len() >= 2, "{problems:#?}");
    assert!(problems.iter().all(|problem| problem.contains(": not TOML: ")), "{problems:#?}");
    assert!(problems.iter().any(|problem| problem.starts_with("/etc/understudy.toml:1:")), "{problems:#?}");
    assert!(problems.iter().any(|problem| problem.starts_with("/etc/understudy.toml:3:")), "{problems:#?}");
}

#[test]
fn a_key_that_is_given_twice_is_reported() {
    let problems = parse(&format!("{WHOLE}datadir = \"/other\"\n")).map(|_| ()).unwrap_err();
    let twice =
        "/etc/understudy.toml:6:1: the key `datadir` appears twice, first in line 4: remove one of them";
    assert_eq!(problems, [twice]);
}

#[test]
fn the_message_about_a_key_from_patroni_or_a_miswritten_section_says_what_to_write() {
    for (text, says) in [
        ("[methods.tarball]\nplugin = \"/x.wasm\"\n", "the section of a method is `[method.tarball]`"),
        ("[tarball]\nplugin = \"/x.wasm\"\n", "the section of a method is `[method.tarball]`"),
        ("[\"method.tarball\"]\nplugin = \"/x.wasm\"\n", "the section of a method is `[method.tarball]`"),
        (
            "[[method.tarball]]\nplugin = \"/x.wasm\"\n",
            "is written with two pairs of brackets: write [method.tarball]",
        ),
    ] {
        let problems = parse(&format!("{WHOLE}{text}")).map(|_| ()).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(says)), "{text}: {problems:#?}");
    }
    for (line, says) in [
        ("pgpass = \"/x\"", "is `standby_passfile` below `[replica]`"),
        ("use_pg_rewind = true", "this setting belongs in Patroni's file"),
        ("config_dir = \"/x\"", "`config_file` below `[replica]` takes the path of postgresql.conf"),
        ("methods = \"tarball, basebackup\"", "write methods = [\"tarball\", \"basebackup\"]"),
    ] {
        let problems = parse(&format!("{WHOLE}{line}\n")).map(|_| ()).unwrap_err();
        assert!(problems.iter().any(|problem| problem.contains(says)), "{line}: {problems:#?}");
    }
    let problems =
        parse("scope = \"batman\"\n[REPLICA]\ndatadir = \"/d\"\nbin_dir = \"/b\"\n").map(|_| ()).unwrap_err();
    assert_eq!(problems.len(), 1, "the keys of a misspelt section are not missing: {problems:#?}");
}

#[test]
fn each_wrong_line_has_its_own_message() {
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
        ("timeout = \"0s\"", "6:11: `replica.timeout` must not be 0"),
        (
            "require_landlock = 0",
            "6:20: `replica.require_landlock` must be a whole number of at least 1, not 0",
        ),
        ("require_landlock = 99", "6:20: `replica.require_landlock` must be one of Landlock's ABIs, 1 to 7"),
        ("snapshot = 1", "6:12: `replica.snapshot` must be true or false, not a whole number"),
        (
            "plugin_path = [\"x\"]",
            "6:16: `replica.plugin_path[0]` must be an absolute path, which begins with `/`",
        ),
        (
            "plugin_path = \"/x\"",
            "6:15: `replica.plugin_path` must be a list, not a string: write plugin_path = [\"/x\"]",
        ),
        (
            "timeout = \"1 day\"\nuser = \"post\\u200bgres\"",
            "7:8: `replica.user` has an invisible character, U+200B",
        ),
        (
            "wal_dir = \"/wal\\u00a0\"",
            "6:11: `replica.wal_dir` has an invisible character, U+00A0 (no-break space), at position 5: remove it",
        ),
        (
            "state_dir = \"/state \"",
            "6:13: `replica.state_dir` ends with an invisible character, U+0020 (space): remove it",
        ),
        (
            "plugin_path = [\"/x\\n\"]",
            "6:16: `replica.plugin_path[0]` has an invisible character, U+000A (line feed), at position 3: remove it",
        ),
        (
            "methods = [\"base\\u00adbackup\"]",
            "6:12: `replica.methods[0]` has an invisible character, U+00AD (soft hyphen), at position 5: remove it",
        ),
        (
            "restore_command = \"cp\\u00a0/a/%f %p\"",
            "6:19: `replica.restore_command` has an invisible character, U+00A0 (no-break space), at position 3",
        ),
        (
            "tablespaces = { \"/old\\u00a0\" = \"/new\" }",
            "6:17: the key of `replica.tablespaces.\"/old\\u{a0}\"` has an invisible character, U+00A0",
        ),
        (
            "[source]\nconninfo = \"host=h\\u200b\"",
            "7:12: `source.conninfo` has a value of `host` that has an invisible character, U+200B",
        ),
        (
            "[source]\nconninfo = \"host=h\"\nuser = \"replicator\"",
            "8:1: unknown key `source.user`: `user` belongs in the value of `conninfo`, as in conninfo = \"user=...\"",
        ),
        (
            "[method.acme]\nstanza = \"main\"",
            "7:1: unknown key `method.acme.stanza`: no method has it; an option of the plugin belongs to `[method.acme.options]`",
        ),
        (
            "[method.acme]\nplugin = \"http://me:swordfish@h/x:1\"",
            "7:10: `method.acme.plugin` names an address or a registry's reference",
        ),
        (
            "wal_dir = \"http://me:swordfish@h/\"",
            "6:11: `replica.wal_dir` must be an absolute path, which begins with `/`",
        ),
        ("wal_dir = \"./wal\"", "6:11: `replica.wal_dir` must be an absolute path, not `./wal`"),
        ("wal_dir = \"$HOME/wal\"", "6:11: `replica.wal_dir` must be an absolute path, not `$HOME/wal`"),
        ("wal_dir = \"~/wal\"", "6:11: `replica.wal_dir` must be an absolute path, not `~/wal`"),
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
        (
            "tablespaces = { a = \"t\" }",
            "6:21: `replica.tablespaces.a` must be an absolute path, which begins with `/`",
        ),
        ("tablespaces = [\"/t\"]", "6:15: `replica.tablespaces` must be a table, not a list"),
        ("restore_command = \" \"", "6:19: `replica.restore_command` must be a command in one line"),
        ("restore_command = \"a\\nb\"", "6:19: `replica.restore_command` must be a command in one line"),
        ("configure_standby = true", "6:21: `replica.configure_standby` needs `[source] conninfo`"),
        ("[method]\nacme = 1", "7:8: `method.acme` must be a table, not a whole number"),
        ("[method.\"../acme\"]", "6:9: `../acme` cannot be the name of a method"),
        ("[method.acme]\nplugn = \"x\"", "7:1: unknown key `method.acme.plugn`: did you mean `plugin`?"),
        (
            "[method.acme]\nplugin = \"r.example/a/b:1.4\"",
            "7:10: `method.acme.plugin` names an address or a registry's reference",
        ),
        ("[method.acme]\nplugin = false", "7:10: `method.acme.plugin` must be a quoted string, not a flag"),
        ("[method.acme]\nplugin = \"two words\"", "7:10: `method.acme.plugin` is neither a path"),
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
            "7:10: `method.acme.grants.memory` must be a quoted size with its unit, such as \"256MiB\"",
        ),
        (
            "[method.acme.grants]\nmemory = 128",
            "7:10: `method.acme.grants.memory` must be a quoted size with its unit, such as \"128MiB\"",
        ),
        (
            "[method.acme.grants]\nmemory = 3000001",
            "7:10: `method.acme.grants.memory` must be a quoted size with its unit, such as \"3000001B\"",
        ),
        (
            "[method.acme.grants]\nhost_memory = \"8MiB\"",
            "7:15: `method.acme.grants.host_memory` must be at least 16.0 MiB",
        ),
        ("[method.acme.grants]\nmemory = \"0MiB\"", "7:10: `method.acme.grants.memory` must not be 0"),
        (
            "[method.acme.grants]\nread = \"/mnt\"",
            "7:8: `method.acme.grants.read` must be a list, not a string: write read = [\"/mnt\"]",
        ),
        (
            "[method.acme.grants]\nread = [\"mnt\"]",
            "7:9: `method.acme.grants.read[0]` must be an absolute path",
        ),
        (
            "[method.acme.grants]\ndisk = \"5GB\"",
            "7:8: `method.acme.grants.disk` must be a table, not a string: write disk = { bytes = \"5GB\" }, with a whole number \
             and one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB",
        ),
        (
            "[method.acme.grants.disk]\nbites = \"1\"",
            "7:1: unknown key `method.acme.grants.disk.bites`: did you mean `bytes`?",
        ),
        (
            "[method.acme.grants.disk]\nfiles = -1",
            "7:9: `method.acme.grants.disk.files` must be a whole number of at least 1, not -1",
        ),
        (
            "[method.acme.grants]\nopen_files = 31",
            "7:14: `method.acme.grants.open_files` must be a whole number of at least 32, not 31",
        ),
        (
            "[method.acme.grants]\nopen_files = 1048577",
            "7:14: `method.acme.grants.open_files` must be at most 1048576, not 1048577",
        ),
        (
            "[method.acme.grants.log]\nline = 5",
            "7:1: unknown key `method.acme.grants.log.line`: did you mean `lines`?",
        ),
        (
            "[method.acme.grants.log]\nlines = 0",
            "7:9: `method.acme.grants.log.lines` must be a whole number of at least 1, not 0",
        ),
        ("[method.acme.grants.log]\nbytes = \"0B\"", "7:9: `method.acme.grants.log.bytes` must not be 0"),
        (
            "[method.basebackup]\ntries = 0",
            "7:9: `method.basebackup.tries` must be a whole number of at least 1",
        ),
        ("[method.basebackup]\ntries = 101", "7:9: `method.basebackup.tries` must be at most 100"),
        (
            "[method.basebackup]\nplugin = \"/x.wasm\"",
            "7:1: `method.basebackup.plugin` does not apply to basebackup",
        ),
        ("[method.basebackup]\ngrants = {}", "7:1: `method.basebackup.grants` does not apply to basebackup"),
        (
            "[method.basebackup]\nkeep_data = true",
            "7:1: `method.basebackup.keep_data` does not apply to basebackup",
        ),
        (
            "[method.basebackup]\nno_leader = true",
            "7:1: `method.basebackup.no_leader` does not apply to basebackup",
        ),
        (
            "[method.basebackup]\nno_params = true",
            "7:1: `method.basebackup.no_params` does not apply to basebackup",
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
            "7:12: `source.conninfo` is not a connection string that libpq accepts",
        ),
        (
            "[source]\nconninfo = \"service=main user=replicator\"",
            "7:12: `source.conninfo` cannot be used: `service` is not supported",
        ),
        (
            "[source]\nconninfo = \"host=h sslmode=verify_full\"",
            "7:12: `source.conninfo` cannot be used: `sslmode` has a value that libpq does not take: did you mean `verify-full`?",
        ),
        (
            "[source]\nconninfo = \"host=h port=99999\"",
            "7:12: `source.conninfo` cannot be used: `port` must be a whole number from 1 to 65535",
        ),
        (
            "[source]\nconninfo = \"host=h sslrootcert=ca.pem\"",
            "7:12: `source.conninfo` cannot be used: `sslrootcert` is a relative path: write it as an absolute one",
        ),
        (
            "[source]\nconninfo = \"host=h\"\npassword = \"x\"",
            "8:12: `source.password` must not be written in this file",
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
fn the_message_about_a_key_in_the_wrong_section_names_the_right_one() {
    let top = "the top of the file, above the first section";
    for (lines, says) in [
        ("scope = \"x\"", format!("6:1: unknown key `replica.scope`: `scope` belongs to {top}")),
        ("conninfo = \"host=h\"", "6:1: unknown key `replica.conninfo`: `conninfo` belongs to `[source]`".to_owned()),
        (
            "[method.acme]\npassword = 1",
            "7:1: unknown key `method.acme.password`: `password` belongs to `[source]`".to_owned(),
        ),
        (
            "[method.acme]\nBin-Dir = 1",
            "7:1: unknown key `method.acme.Bin-Dir`: `bin_dir` belongs to `[replica]`".to_owned(),
        ),
        (
            "[method.acme]\nread = []",
            "7:1: unknown key `method.acme.read`: `read` belongs to `[method.acme.grants]`".to_owned(),
        ),
        (
            "[method.acme.grants]\ntimeout = \"1h\"",
            "7:1: unknown key `method.acme.grants.timeout`: `timeout` belongs to `[replica]`, `[method.acme]` or \
             `[method.basebackup]`"
                .to_owned(),
        ),
        (
            "[method.acme.grants]\nurl = \"s3://b\"",
            "7:1: unknown key `method.acme.grants.url`: `url` belongs to `[method.acme.grants.stores.NAME]`".to_owned(),
        ),
        (
            "[method.acme.grants.disk]\nrate = \"1MB/s\"",
            "7:1: unknown key `method.acme.grants.disk.rate`: `rate` belongs to `[method.acme.grants]`".to_owned(),
        ),
        (
            "[method.basebackup]\nretry_for = \"1h\"",
            "7:1: unknown key `method.basebackup.retry_for`: `retry_for` belongs to `[method.NAME.grants.stores.NAME]`"
                .to_owned(),
        ),
        (
            "[method.acme]\nnetwork = []",
            "7:1: unknown key `method.acme.network`: `network` belongs to `[method.acme.grants]`".to_owned(),
        ),
        (
            "[method.acme]\nenvironment = {}",
            "7:1: unknown key `method.acme.environment`: `environment` belongs to `[method.acme.grants]`".to_owned(),
        ),
        (
            "network_bytes = \"1MB\"",
            "6:1: unknown key `replica.network_bytes`: `network_bytes` belongs to `[method.NAME.grants]`".to_owned(),
        ),
        (
            "connection_bytes = \"1MB\"",
            "6:1: unknown key `replica.connection_bytes`: `connection_bytes` belongs to `[method.NAME.grants]`".to_owned(),
        ),
        (
            "[method.acme]\nopen_files = 100",
            "7:1: unknown key `method.acme.open_files`: `open_files` belongs to `[method.acme.grants]`".to_owned(),
        ),
        (
            "[method.acme.grants]\ncpu = \"1h\"",
            "7:1: unknown key `method.acme.grants.cpu`: `cpu` belongs to `[method.acme]`".to_owned(),
        ),
        (
            "[method.acme.grants]\nlines = 5",
            "7:1: unknown key `method.acme.grants.lines`: `lines` belongs to `[method.acme.grants.log]`".to_owned(),
        ),
        (
            "[method.acme.grants.log]\nkeep_free = \"1GB\"",
            "7:1: unknown key `method.acme.grants.log.keep_free`: `keep_free` belongs to `[method.acme.grants.disk]`"
                .to_owned(),
        ),
        (
            "[method.acme.grants]\nprivate = true",
            "7:1: unknown key `method.acme.grants.private`: `private` belongs to `[method.acme.grants.network.NAME]`"
                .to_owned(),
        ),
        (
            "[method.acme.grants]\nargs = []",
            "7:1: unknown key `method.acme.grants.args`: `args` belongs to `[method.acme.grants.programs.NAME]`".to_owned(),
        ),
        (
            "[method.acme.grants]\nprocesses = 5",
            "7:1: unknown key `method.acme.grants.processes`: `processes` belongs to \
             `[method.acme.grants.programs.NAME]`"
                .to_owned(),
        ),
        (
            "[method.acme.grants.network.\"a.example:443\"]\nworkers = 5",
            "7:1: unknown key `method.acme.grants.network.\"a.example:443\".workers`: `workers` belongs to \
             `[method.acme.grants]`"
                .to_owned(),
        ),
        (
            "[method.acme.grants.programs.tool]\npath = \"/bin/true\"\nenvironment = {}",
            "8:1: unknown key `method.acme.grants.programs.tool.environment`: `environment` belongs to \
             `[method.acme.grants]`"
                .to_owned(),
        ),
        ("[grants]\nread = []", "6:2: unknown key `grants`: `grants` belongs to `[method.NAME]`".to_owned()),
        (
            "[basebackup]\ntries = 1",
            "6:2: unknown key `basebackup`: `basebackup` is a method, whose section is `[method.basebackup]`".to_owned(),
        ),
    ] {
        assert_eq!(problem(lines), says, "{lines}");
    }
    let at_the_top = format!("datadir = \"/d\"\n{WHOLE}");
    let problems = parse(&at_the_top).map(|_| ()).unwrap_err();
    assert_eq!(
        problems,
        ["/etc/understudy.toml:1:1: unknown key `datadir`: `datadir` belongs to `[replica]`"]
    );
}

/// The message about an unknown key lists the keys of the section. The list must be the same as in [`SECTIONS`].
#[test]
fn the_table_of_a_section_has_exactly_the_keys_that_the_section_accepts() {
    use crate::config::keys::{SECTIONS, SectionKeys, names};
    let stores = ["s3://b", "gs://b", "az://b", "https://h", "file:///b"];
    for SectionKeys { head: section, keys } in SECTIONS {
        let keys = names(&keys());
        let head = section.replace("NAME", "acme");
        // This section does not list its keys: the message about an unknown key names `options` instead.
        if section == "method.NAME" {
            for key in keys {
                let problems = parse(&format!("[{head}]\n{key} = 1\n")).map(|_| ()).unwrap_err();
                let unknown = problems.iter().find(|problem| problem.contains("unknown key"));
                assert_eq!(unknown, None, "[{section}] {key}");
            }
            continue;
        }
        let mut known: Vec<String> = Vec::new();
        for url in stores {
            let text = match section {
                "" => "qqqqqqqqqqqq = 1".to_owned(),
                "method.NAME.grants.stores.NAME" => format!("[{head}]\nurl = \"{url}\"\nqqqqqqqqqqqq = 1"),
                "method.NAME.grants.stores.NAME.credentials" => {
                    let store = head.trim_end_matches(".credentials");
                    format!("[{store}]\nurl = \"{url}\"\n[{head}]\nqqqqqqqqqqqq = 1")
                }
                _ => format!("[{head}]\nqqqqqqqqqqqq = 1"),
            };
            let problems = parse(&text).map(|_| ()).unwrap_err();
            let listed = problems.iter().find_map(|problem| problem.split_once("known here: "));
            known.extend(listed.iter().flat_map(|(_, keys)| keys.split(", ")).map(str::to_owned));
        }
        // The message about a misplaced `password` names `[source]` and not the credentials of a web server.
        known.retain(|key| !(section.ends_with(".credentials") && key == "password"));
        let mut keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        for list in [&mut known, &mut keys] {
            list.sort();
            list.dedup();
        }
        assert_eq!(known, keys, "[{section}]");
    }
}

#[test]
fn a_password_file_that_cannot_be_read_is_reported_at_its_line() {
    let text = format!("{WHOLE}[source]\nconninfo = \"host=h\"\npassword = {{ file = \"/no/such/file\" }}");
    let problem = parse(&text).unwrap().source.unwrap().resolve().unwrap_err();
    assert!(
        problem
            .to_string()
            .starts_with("/etc/understudy.toml:8:21: cannot use the secret in a file that does not exist"),
        "{problem}"
    );
}

#[test]
fn a_plugin_path_that_is_not_absolute_is_refused() {
    let environment = |name: &str| (name == plugin_path::VARIABLE).then(|| OsString::from("/a:b"));
    let problems = parse_with(WHOLE, &Overrides::default(), &environment).map(|_| ()).unwrap_err();
    assert!(problems[0].starts_with("UNDERSTUDY_PLUGIN_PATH: "), "{problems:?}");
    let environment = |name: &str| (name == plugin_path::VARIABLE).then(|| OsString::from("/a:/b\n"));
    let problems = parse_with(WHOLE, &Overrides::default(), &environment).map(|_| ()).unwrap_err();
    assert_eq!(
        problems,
        [
            "UNDERSTUDY_PLUGIN_PATH: names a directory that has an invisible character, U+000A (line feed), at position 3: \
             remove it"
        ]
    );
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
