//! `understudy patroni`: its output and exit code, and that Understudy accepts the configurations that it prints.

use std::io::Write;
use std::process::Stdio;

use super::*;

/// A file with every kind of setting that the conversion knows.
const FILE: &str = "\
scope: batman
name: second
bootstrap:
  dcs:
    standby_cluster:
      host: 10.0.0.1
      port: 5433
      primary_slot_name: batman
      create_replica_methods: [basebackup]
postgresql:
  data_dir: /srv/data
  bin_dir: /srv/bin
  config_dir: /srv/conf
  pgpass: /srv/pgpass
  authentication:
    replication:
      username: replicator
      password: S3cretRepPw99
      sslmode: require
  recovery_conf:
    restore_command: cp /mnt/wal/%f %p
    promote_trigger_file: promote-now
  create_replica_methods:
    - pgbackrest
    - restore
    - basebackup
  pgbackrest:
    command: /usr/bin/pgbackrest --stanza=main --delta restore
    keep_data: 'false'
    no_params: true
  restore:
    command: restore.sh 'a b'
    no_leader: 1
    mode: 0700
    password: S3cretRepPw99
  basebackup:
    - verbose
    - max-rate: '100M'
    - waldir: /srv/wal
    - format: t
";

/// Lines below `postgresql` whose conversion passes `understudy check` without a problem in the configuration. `<directory>` is a
/// temporary directory.
const ACCEPTED: [&str; 7] = [
    "",
    "  authentication: {replication: {username: rep, password: S3cret}}\nbootstrap: {dcs: {standby_cluster: {host: 127.0.0.1, port: 1}}}\n",
    "  basebackup: {max-rate: '100M', checkpoint: fast, verbose: true, label: \"it's \\\"x\\\"\"}\n",
    "  basebackup: [verbose, max-rate: 1024, label=a, {tablespace-mapping: '/old=<directory>/new'}, waldir: <directory>/wal]\n",
    "  recovery_conf: {trigger_file: now}\n  config_dir: <directory>/conf\n",
    "  create_replica_methods: basebackup\n  basebackup: [{slot: s}, create-slot]\n",
    "  authentication: {replication: {username: \"it's a \\\\ user\", password: x, sslmode: prefer, gssencmode: disable}}\n",
];

/// Files with methods that run programs. One program is looked up in PATH, and one method cannot be run by Patroni.
const PROGRAMS: [&str; 7] = [
    "  create_replica_methods: [m, basebackup]\n  m: {command: \"/x 'a b' {c}\", no_leader: 1, envdir: /e, mode: 0700, empty: '', e: ~}\n",
    "  create_replica_methods: [p]\n  p: {command: /usr/bin/pgbackrest --stanza=main --delta restore, keep_data: true, no_params: true}\n",
    "  create_replica_methods: [/opt/a.b/restore.it, m]\n  m: {command: env A=b /bin/bash /opt/restore.sh x, '1': a, 1: b}\n",
    "  create_replica_methods: [restore]\n",
    // Anchors, a merge and a quoted boolean; the older name of no_leader; a section that is a list.
    "  create_replica_methods: &l [m, n]\n  m: &m {command: /x, no_leader: 'false'}\n  n: {<<: *m, a: &s b, c: *s}\n",
    "  create_replica_methods: [m]\n  m: {command: /x, no_master: 1, keep_data: 'no'}\n",
    "  create_replica_methods: [m, basebackup]\n  m: [a, b]\n",
];

fn in_file(text: &str) -> ConfigDirectory {
    let directory = empty_config();
    std::fs::write(directory.path("p.yml"), text).unwrap();
    directory
}

#[test]
fn the_output_is_toml_with_the_changes_and_remarks_as_comments() {
    let directory = in_file(FILE);
    let output = directory.run(&["patroni", "p.yml"]);
    output.expect(1, &["[replica]", "# postgresql:", "# Not carried over:", "# Worth knowing:"]);
    assert!(!output.out().contains("S3cret") && output.err().is_empty(), "{}", output.err());
    let _table: toml::Table = output.out().parse().unwrap();
    insta::assert_snapshot!("patroni", output.out());
}

#[test]
fn with_an_output_file_the_printed_changes_are_yaml() {
    let directory = in_file(FILE);
    let output = directory.run(&["patroni", "p.yml", "-o", "new.toml"]);
    assert_eq!(output.code(), 1);
    assert!(
        output.out().contains("\npostgresql:\n  create_replica_methods:\n    - understudy\n"),
        "{}",
        output.out()
    );
    let named = format!("--config {}", directory.path("new.toml").display());
    assert!(output.out().contains(&named), "{}", output.out());
    let written = std::fs::read_to_string(directory.path("new.toml")).unwrap();
    assert!(directory.run(&["patroni", "p.yml"]).out().starts_with(&written));
    directory
        .run(&["patroni", "p.yml", "-o", "new.toml"])
        .expect(2, &["cannot write new.toml", "is not replaced"]);
}

#[test]
fn a_conversion_as_json_has_its_four_fields() {
    let output = in_file(FILE).run(&["patroni", "p.yml", "--json"]);
    assert_eq!(output.code(), 1);
    assert!(!output.out().contains("S3cret"));
    let json: serde_json::Value = serde_json::from_str(&output.out()).unwrap();
    let mut fields: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["not_carried", "notes", "patroni", "toml"]);
    let first = &json["not_carried"][0];
    assert_eq!(
        (&first["file"], &first["line"], &first["key"]),
        (&"p.yml".into(), &32.into(), &"postgresql.restore.command".into())
    );
}

#[test]
fn standard_input_and_a_dynamic_configuration_are_read() {
    let directory = empty_config();
    let dynamic = "postgresql: {basebackup: {checkpoint: fast}}\n";
    std::fs::write(directory.path("d.yml"), dynamic).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(["patroni", "-", "--dynamic", "d.yml"])
        .env_clear()
        .current_dir(directory.0.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = "scope: a\npostgresql: {data_dir: /d, bin_dir: /b}\n";
    program.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = ProgramOutput(program.wait_with_output().unwrap());
    output.expect(
        0,
        &[
            "from standard input",
            "# standard input:1",
            "checkpoint = \"fast\"",
            "Everything about the creation of replicas",
        ],
    );
}

#[test]
fn a_file_that_cannot_be_converted_ends_with_2_and_nothing_on_standard_output() {
    let large = vec![b'#'; 16 << 20];
    for (bytes, says) in [
        (&b"scope: {{SCOPE}}\n"[..], "understudy: p.yml:1: the file is a template, because it has `{{` here"),
        (b"a: 1\nb: 2\na: 3\n", "p.yml:3: the key `a` is here and in line 1"),
        (b"a:\n\tb: c\n", "p.yml:2: there is a tab here"),
        (b"a: \xe9\n", "p.yml:1: the line is not UTF-8 (it may be Latin-1)"),
        (b"a: \"\x1b[2J\"\n", "p.yml:1: the line has the character U+001B"),
        (b"a: [b\n", "p.yml:"),
        (b"", "p.yml: the file is empty"),
        (&large, "p.yml: the file is larger than 1048576 bytes"),
    ] {
        let directory = empty_config();
        std::fs::write(directory.path("p.yml"), bytes).unwrap();
        let output = directory.run(&["patroni", "p.yml"]);
        output.expect(2, &[says]);
        assert_eq!(output.out(), "", "{says}");
    }
    let directory = empty_config();
    directory.run(&["patroni", "missing.yml"]).expect(2, &["cannot read missing.yml", "No such file"]);
    directory.run(&["patroni", "."]).expect(2, &[". is a directory: give one file"]);
    directory.run(&["patroni"]).expect(2, &["FILE"]);
}

/// Makes a passfile that the user of the run may read.
fn passfile(directory: &ConfigDirectory) -> PathBuf {
    use std::os::unix::fs::{PermissionsExt, chown};
    let file = directory.path("pgpass");
    std::fs::write(&file, "*:*:*:*:x\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    if is_root() {
        let user = nix::unistd::User::from_name(USER).unwrap().unwrap();
        chown(&file, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
    file
}

/// Returns the problems that a check finds in a configuration; `None` if the check accepts the configuration.
fn checked(directory: &ConfigDirectory, toml: &str) -> Option<String> {
    let own = format!("[replica]\nstate_dir = \"{}\"\n", directory.path("state").display());
    let user = if is_root() { format!("user = \"{USER}\"\n") } else { String::new() };
    let passfile = passfile(directory);
    let toml = toml
        .replace("[replica]\n", &format!("{own}{user}"))
        .replace("passfile = \"/etc/understudy/pgpass\"", &format!("passfile = \"{}\"", passfile.display()));
    std::fs::write(directory.path("u.toml"), toml).unwrap();
    let output = directory.run(&["check", "--config", "u.toml"]);
    (output.code() == 2).then(|| output.err())
}

#[test]
fn understudy_accepts_what_a_conversion_makes() {
    for lines in ACCEPTED.iter().chain(&PROGRAMS) {
        let directory = with_missing_plugin();
        let head = "scope: batman\npostgresql:\n  data_dir: <directory>/data\n  bin_dir: <directory>/bin\n";
        let place = directory.0.path().to_str().unwrap();
        std::fs::write(directory.path("p.yml"), format!("{head}{lines}").replace("<directory>", place))
            .unwrap();
        let output = directory.run(&["patroni", "p.yml"]);
        let has_remark = lines.contains("[restore]") || lines.contains("m: [a, b]");
        assert_eq!(output.code(), i32::from(has_remark), "{}", output.out());
        let problems = checked(&directory, &output.out());
        assert_eq!(problems, None, "{lines}\n{}", output.out());
    }
}
