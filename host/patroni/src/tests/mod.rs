//! Converts whole files of Patroni.

mod basebackup;
mod commands;

use super::*;

/// The lines that every file has.
const HEAD: &str = "scope: batman\nname: second\n";
const POSTGRESQL: &str = "\
postgresql:
  data_dir: /data
  bin_dir: /bin15
  authentication:
    replication:
      username: replicator
      password: S3cretRepPw99
";

fn converted(text: &str) -> Conversion {
    let input = Input { name: "p.yml", bytes: text.as_bytes() };
    let conversion = convert(input, None, "/etc/understudy/understudy.toml")
        .unwrap_or_else(|error| panic!("{error}\n{text}"));
    let json = serde_json::to_string(&conversion).unwrap();
    assert!(!json.contains("S3cret"), "the output has a secret: {json}");
    let _table: ::toml::Table =
        conversion.toml.parse().unwrap_or_else(|error| panic!("{error}\n{}", conversion.toml));
    conversion
}

/// Converts a file that has these additional lines below `postgresql`.
fn with(lines: &str) -> Conversion {
    converted(&format!("{HEAD}{POSTGRESQL}{lines}"))
}

fn table(conversion: &Conversion) -> ::toml::Table {
    conversion.toml.parse().unwrap()
}

fn refused(text: &str) -> Unreadable {
    let input = Input { name: "p.yml", bytes: text.as_bytes() };
    convert(input, None, "/u.toml").expect_err(text)
}

fn told(remarks: &[Remark]) -> Vec<String> {
    remarks.iter().map(|remark| format!("{}: {}: {}", remark.line, remark.key, remark.reason)).collect()
}

#[track_caller]
fn tells(remarks: &[Remark], parts: &[&str]) {
    let told = told(remarks);
    for part in parts {
        assert!(told.iter().any(|told| told.contains(part)), "{part} in {told:#?}");
    }
}

#[track_caller]
fn all_carried(conversion: &Conversion) {
    assert_eq!(told(&conversion.not_carried), [""; 0]);
}

/// Returns the arguments that the grant for a method's program allows.
fn arguments(conversion: &Conversion, method: &str) -> Vec<String> {
    let grants = table(conversion)["method"][method]["grants"]["programs"].clone();
    let (_, grant) = grants.as_table().unwrap().iter().next().unwrap();
    grant["args"].as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

fn methods(conversion: &Conversion) -> Vec<String> {
    let list = table(conversion)["replica"]["methods"].clone();
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_file_without_a_list_of_methods_copies_from_the_leader() {
    let conversion = with("");
    all_carried(&conversion);
    let table = table(&conversion);
    assert_eq!(table["scope"].as_str(), Some("batman"));
    assert_eq!(table["replica"]["datadir"].as_str(), Some("/data"));
    assert_eq!(table["replica"]["bin_dir"].as_str(), Some("/bin15"));
    assert_eq!(methods(&conversion), ["basebackup"]);
    assert!(table.get("source").is_none(), "Patroni passes the source");
    assert!(conversion.toml.contains("#   LEADER:5432:*:replicator:PASSWORD"), "{}", conversion.toml);
    assert!(
        conversion.patroni.contains("command: understudy create --config /etc/understudy/understudy.toml")
    );
    assert!(!conversion.patroni.contains("no_leader"), "{}", conversion.patroni);
}

#[test]
fn a_program_gets_the_arguments_that_patroni_gives_it() {
    for (section, expected) in [
        // `--key=value` in the order of the file. Patroni's own keys are among them unless no_params is true.
        (
            "wal_e:\n    command: /x a 'b c'\n    no_leader: 1\n    envdir: /e\n    use_iam: yes\n    \
                 keep_data: True\n    n: ~\n    mode: 0700\n",
            &[
                "a",
                "b c",
                "--no_leader=1",
                "--envdir=/e",
                "--use_iam=True",
                "--keep_data=True",
                "--n=None",
                "--mode=448",
                "{patroni}",
            ][..],
        ),
        (
            "wal_e:\n    no_params: True\n    command: /x --stanza=main restore\n    keep_data: 1\n    \
                 no_leader: off\n    delta: x\n",
            &["--stanza=main", "restore", "--delta=x"],
        ),
        ("wal_e:\n    command: /x\n    scope: mine\n    a: b\n    datadir: y\n", &["--a=b", "{patroni}"]),
        ("wal_e:\n    command: /x\n    no_params: false\n", &["--no_params=False", "{patroni}"]),
        ("wal_e:\n    command: /x {a} -{}\n    b: '{c}'\n", &["{{a}}", "-{{}}", "--b={{c}}", "{patroni}"]),
        (
            "wal_e:\n    command: /x\n    '1': a\n    1: b\n    -c: d\n",
            &["--1=a", "--1=b", "---c=d", "{patroni}"],
        ),
        ("wal_e:\n    command: /x\n    list: [a, 1]\n", &["--list=['a', 1]", "{patroni}"]),
    ] {
        let conversion = with(&format!("  create_replica_methods: [wal_e]\n  {section}"));
        assert_eq!(arguments(&conversion, "wal_e"), expected, "{section}");
        all_carried(&conversion);
    }
}

#[test]
fn the_words_of_the_command_become_arguments_and_the_keys_of_the_section_parameters() {
    let conversion =
        with("  create_replica_methods: [m]\n  m:\n    command: /x a 'b c'\n    d: 1\n    keep_data: yes\n");
    let options = table(&conversion)["method"]["m"]["options"].clone();
    let texts = |name: &str| -> Vec<_> {
        options[name].as_array().unwrap().iter().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(texts("arguments"), ["a", "b c"]);
    assert_eq!(texts("parameters"), ["d=1", "keep_data=True"]);
    assert_eq!(
        (options["program"].as_str(), options["builds-on-existing"].as_bool()),
        (Some("m"), Some(true))
    );
    tells(&conversion.notes, &["carried over together with `builds-on-existing`"]);
    let twice = with("  create_replica_methods: [m]\n  m:\n    command: /x\n    '1': a\n    1: b\n");
    let options = table(&twice)["method"]["m"]["options"].clone();
    assert!(
        options.get("parameters").is_none() && options["arguments"].as_array().unwrap().len() == 2,
        "{options}"
    );
}

#[test]
fn an_argument_that_cannot_be_granted_is_left_out_with_a_remark() {
    for lines in [
        "command: /x\n    a: \"b\\nc\"\n",
        "command: /x\n    a: 'b '\n",
        "command: \"/x 'a\\tb'\"\n",
        "command: /x\n    a: \"\\u202e\"\n",
    ] {
        let conversion = with(&format!("  create_replica_methods: [m]\n  m:\n    {lines}"));
        assert_eq!(arguments(&conversion, "m"), ["{patroni}"], "{lines}");
        tells(&conversion.not_carried, &["cannot be granted"]);
    }
}

#[test]
fn flags_are_true_if_python_treats_their_value_as_true() {
    for (value, is_true) in [
        ("true", true),
        ("True", true),
        ("yes", true),
        ("1", true),
        ("'false'", true),
        ("\"0\"", true),
        ("off", false),
        ("0", false),
        ("0.0", false),
        ("''", false),
        ("~", false),
        ("", false),
        ("[]", false),
        ("{}", false),
        ("[0]", true),
        ("'no'", true),
    ] {
        let section = format!(
            "  create_replica_methods: [m]\n  m:\n    command: /x\n    keep_data: {value}\n    no_leader: {value}\n"
        );
        let conversion = with(&section);
        let method = table(&conversion)["method"]["m"].clone();
        for flag in ["keep_data", "no_leader"] {
            assert_eq!(
                method.get(flag).and_then(::toml::Value::as_bool).unwrap_or(false),
                is_true,
                "{value} of {flag}"
            );
        }
        assert_eq!(conversion.patroni.contains("no_leader: true"), is_true);
        let is_doubtful = value.trim_matches(['"', '\'']).len() < value.len() && is_true;
        let notes = told(&conversion.notes);
        assert_eq!(
            notes.iter().any(|note| note.contains("Patroni treats any string as true")),
            is_doubtful,
            "{value}: {notes:?}"
        );
    }
}

#[test]
fn no_master_is_carried_over_with_a_remark_that_patroni_4_ignores_it() {
    let conversion = with("  create_replica_methods: [m]\n  m:\n    command: /x\n    no_master: 1\n");
    assert_eq!(table(&conversion)["method"]["m"]["no_leader"].as_bool(), Some(true));
    tells(
        &conversion.notes,
        &["13: postgresql.m.no_master: carried over as no_leader; Patroni 4 does not read no_master"],
    );
    assert_eq!(arguments(&conversion, "m"), ["--no_master=1", "{patroni}"]);
}

#[test]
fn a_list_of_methods_is_read_as_patroni_reads_it() {
    for (lines, expected, part) in [
        ("create_replica_methods: [a, basebackup, a]\n", &["a", "basebackup", "a"][..], None),
        ("create_replica_method:\n    - a\n", &["a"], None),
        ("create_replica_methods: []\n  create_replica_method: [a]\n", &["a"], None),
        ("create_replica_methods: ''\n", &["basebackup"], None),
        (
            "create_replica_methods: [basebackup]\n  create_replica_method: [a]\n",
            &["basebackup"],
            Some("Patroni ignores this older name"),
        ),
        ("create_replica_methods: basebackup\n", &["basebackup"], Some("a list of its letters")),
        ("create_replica_methods: a, basebackup\n", &["a", "basebackup"], Some("a list of its letters")),
        ("create_replica_methods: {a: , basebackup: }\n", &["a", "basebackup"], Some("keys of a mapping")),
    ] {
        let conversion = with(&format!("  {lines}  a:\n    command: /x\n"));
        assert_eq!(methods(&conversion), expected, "{lines}");
        all_carried(&conversion);
        if let Some(part) = part {
            tells(&conversion.notes, &[part]);
        }
    }
    for (lines, part) in [
        ("create_replica_methods: [on, basebackup]\n", "without quotes, `no` and `on` are booleans"),
        ("create_replica_methods: [5, basebackup]\n", "must be a string"),
        ("create_replica_methods: 5\n", "is not a list of names"),
    ] {
        tells(&with(&format!("  {lines}")).not_carried, &[part]);
    }
}

#[test]
fn a_method_that_patroni_cannot_run_is_left_out_with_the_reason() {
    for (section, part) in [
        ("m: [a, b]\n", "13: postgresql.m: the section is a list, so Patroni fails on it"),
        ("m: text\n", "the section is not a mapping"),
        ("m:\n    command: [a]\n", "14: postgresql.m.command: the command is not a string"),
        ("m:\n    command: /x 'y\n", "Patroni cannot split the command into words: No closing quotation"),
        ("m:\n    command: ''\n", "names no program"),
        ("m:\n    command:\n", "is not a string"),
        ("m:\n    command: /usr/bin/understudy create --config /x\n", "the method already is Understudy"),
    ] {
        let conversion = with(&format!("  create_replica_methods:\n    - m\n    - basebackup\n  {section}"));
        assert_eq!(methods(&conversion), ["basebackup"], "{section}");
        tells(&conversion.not_carried, &[part]);
    }
}

#[test]
fn a_method_without_a_section_runs_the_program_with_its_name() {
    let conversion = with("  create_replica_methods: [/opt/restore it.sh, restore]\n");
    assert_eq!(methods(&conversion), ["restore_it.sh", "restore"]);
    let table = table(&conversion);
    let grant = &table["method"]["restore_it.sh"]["grants"]["programs"]["restore_it_sh"];
    assert_eq!((grant["path"].as_str(), grant["args"][0].as_str()), (Some("/opt/restore"), Some("it.sh")));
    tells(&conversion.notes, &["the method is renamed to `restore_it.sh`"]);
    tells(
        &conversion.not_carried,
        &["the program `restore` is found in Patroni's PATH", "guesses `/usr/local/bin/restore`"],
    );
}

/// Converts a file whose `bootstrap.dcs` makes it a standby cluster.
fn standby(lines: &str, postgresql: &str) -> Conversion {
    converted(&format!("{HEAD}bootstrap:\n  dcs:\n    standby_cluster:\n{lines}{POSTGRESQL}{postgresql}"))
}

#[test]
fn a_standby_cluster_has_its_own_list_and_its_server() {
    let conversion = standby(
        "      host: 1.2.3.4,5.6.7.8\n      port: 5433\n      primary_slot_name: s\n      restore_command: cp \
             /a/%f %p\n      create_replica_methods: [basebackup]\n",
        "  create_replica_methods: [m, basebackup]\n  m: {command: /x}\n",
    );
    all_carried(&conversion);
    let table = table(&conversion);
    assert_eq!(table["source"]["conninfo"].as_str(), Some("host=1.2.3.4,5.6.7.8 port=5433 user=replicator"));
    assert_eq!(table["source"]["methods"][0].as_str(), Some("basebackup"));
    assert_eq!(table["source"]["passfile"].as_str(), Some("/etc/understudy/pgpass"));
    assert_eq!(methods(&conversion), ["m", "basebackup"]);
    for line in ["#   1.2.3.4:5433:*:replicator:PASSWORD\n", "#   5.6.7.8:5433:*:replicator:PASSWORD\n"] {
        assert!(conversion.toml.contains(line), "{}", conversion.toml);
    }
    assert!(
        conversion.patroni.contains("standby_cluster:\n  create_replica_methods:\n    - understudy"),
        "{}",
        conversion.patroni
    );
    tells(
        &conversion.notes,
        &["two lists of methods", "restore_command: stays with Patroni", "patronictl show-config"],
    );
}

#[test]
fn the_settings_of_a_standby_cluster_that_patroni_uses_later_stay_with_patroni() {
    for (name, value) in [
        ("primary_slot_name", "slot_of_the_standby"),
        ("restore_command", "cp /a/%f %p"),
        ("archive_cleanup_command", "pg_archivecleanup /a %r"),
        ("recovery_min_apply_delay", "5min"),
    ] {
        let conversion = standby(&format!("      host: h\n      {name}: {value}\n"), "");
        all_carried(&conversion);
        tells(&conversion.notes, &[&format!("standby_cluster.{name}: stays with Patroni")]);
        assert!(!conversion.toml.contains(value), "{name}: {}", conversion.toml);
    }
}

#[test]
fn a_standby_cluster_without_a_list_uses_basebackup_and_not_the_local_list() {
    let conversion = standby("      host: h\n", "  create_replica_methods: [m]\n  m: {command: /x}\n");
    assert_eq!(table(&conversion)["source"]["methods"][0].as_str(), Some("basebackup"));
    let archive = standby(
        "      restore_command: cp /a/%f %p\n      create_replica_methods: [m]\n",
        "  m: {command: /x, no_leader: 1}\n",
    );
    assert_eq!(methods(&archive), ["m"]);
    assert!(table(&archive).get("source").is_none());
    let none = standby("      create_replica_methods: [m]\n", "  m: {command: /x}\n");
    assert_eq!(
        methods(&none),
        ["basebackup"],
        "without host, port and restore_command it is not a standby cluster"
    );
}

#[test]
fn local_settings_override_the_dynamic_configuration_which_replaces_bootstrap_dcs() {
    let local = format!(
        "{HEAD}bootstrap:\n  dcs:\n    postgresql:\n      create_replica_methods: [old]\n{POSTGRESQL}  m: \
             {{command: /x}}\n"
    );
    let dynamic = "postgresql:\n  create_replica_methods: [m, basebackup]\n  m: {command: /y}\n  data_dir: \
         /other\n  bin_dir: /other\n  basebackup: {max-rate: 1M}\n";
    let converted = |dynamic: Option<&'static str>| {
        let dynamic = dynamic.map(|text| Input { name: "d.yml", bytes: text.as_bytes() });
        convert(Input { name: "p.yml", bytes: local.as_bytes() }, dynamic, "/u.toml").unwrap()
    };
    let conversion = converted(Some(dynamic));
    assert_eq!(methods(&conversion), ["m", "basebackup"]);
    let table = table(&conversion);
    assert_eq!(table["method"]["m"]["grants"]["programs"]["m"]["path"].as_str(), Some("/x"));
    assert_eq!(table["method"]["basebackup"]["options"]["max-rate"].as_str(), Some("1M"));
    assert_eq!(
        (table["replica"]["datadir"].as_str(), table["replica"]["bin_dir"].as_str()),
        (Some("/data"), Some("/bin15"))
    );
    assert!(conversion.toml.contains("# d.yml:2"), "{}", conversion.toml);
    assert_eq!(methods(&converted(Some("{}"))), ["basebackup"]);
    assert_eq!(methods(&converted(None)), ["old"]);
}

#[test]
fn settings_behind_anchors_and_merges_are_found() {
    let conversion = converted(
        "x: &login {username: rep, password: S3cret}\ny: &m {command: /x, no_leader: 'false'}\nscope: &s \
             batman\nname: *s\npostgresql:\n  data_dir: /d\n  bin_dir: /b\n  authentication: {replication: {<<: \
             *login, sslmode: require}}\n  create_replica_methods: &l [m]\n  m: {<<: *m, a: *s}\n",
    );
    all_carried(&conversion);
    assert_eq!(arguments(&conversion, "m"), ["--no_leader=false", "--a=batman", "{patroni}"]);
    assert!(conversion.toml.contains("user=rep sslmode=require"), "{}", conversion.toml);
}

#[test]
fn paths_are_carried_over_if_understudy_accepts_them() {
    let conversion = with(
        "  config_dir: /etc/pg\n  pgpass: /var/pgpass\n  recovery_conf:\n    restore_command: cp %f %p\n    \
             promote_trigger_file: /data/now\n",
    );
    all_carried(&conversion);
    assert_eq!(table(&conversion)["replica"]["trigger_file"].as_str(), Some("now"));
    assert!(conversion.toml.contains("#config_file = \"/etc/pg/postgresql.conf\""), "{}", conversion.toml);
    tells(&conversion.notes, &["config_dir: Patroni writes", "pgpass: stays", "recovery_conf: stays"]);
    for (lines, part) in [
        ("pgpass: /data/pgpass\n", "the passfile is in the data directory"),
        ("recovery_conf: {trigger_file: /tmp/x}\n", "only a trigger file in the data directory"),
        ("bin_name: {postgres: pg15}\n", "by their standard names"),
        ("waldir: /wal\n", "Patroni does not know this key"),
        ("krbsrvname: x\n", "PGKRBSRVNAME"),
    ] {
        tells(&with(&format!("  {lines}")).not_carried, &[part]);
    }
    all_carried(&with("  config_dir: /data/\n  bin_name: {postgres: postgres}\n"));
}

#[test]
fn settings_that_understudy_needs_and_the_file_lacks_have_remarks() {
    let conversion = converted("name: x\npostgresql:\n  data_dir: data\n");
    tells(
        &conversion.not_carried,
        &["no `scope`", "the path is not absolute", "no absolute `data_dir`", "no `bin_dir`"],
    );
    assert!(conversion.toml.contains("#bin_dir = "), "{}", conversion.toml);
}

#[test]
fn a_file_that_is_not_a_configuration_of_patroni_is_refused() {
    for (text, part) in [
        ("", "empty"),
        ("- a\n", "p.yml:1: the configuration is not a mapping"),
        ("a: b\n", "there is no section `postgresql`"),
        ("postgresql: []\n", "p.yml:1: `postgresql` is not a mapping"),
        ("postgresql: {}\nbootstrap: {dcs: [x]}\n", "`bootstrap.dcs` is not a mapping"),
        ("postgresql: {data_dir: $PGDATA}\n", "envsubst"),
        ("scope: ${SCOPE}\npostgresql: {}\n", "envsubst"),
        ("postgresql: {create_replica_methods: [m], m: {command: x, envdir: '${E}'}}\n", "envsubst"),
        ("postgresql: {data_dir: '{{ S3cret }}'}\n", "template"),
        ("postgresql:\n  data_dir: {{S3cret}}\n", "p.yml:2: the file is a template"),
        ("postgresql: {data_dir: /a, data_dir: /b}\n", "the key `data_dir` is here and in line 1"),
    ] {
        let error = refused(text).to_string();
        assert!(error.contains(part), "{text}: {error}");
        assert!(!error.contains("S3cret"), "{error}");
    }
}
