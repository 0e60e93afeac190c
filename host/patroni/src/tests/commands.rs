//! Converts methods that run programs.

use super::*;

fn with_command(command: &str) -> Conversion {
    with(&format!("  create_replica_methods: [m]\n  m:\n    command: {command}\n"))
}

#[test]
fn a_program_that_starts_another_is_told_to_be_granted_what_it_starts() {
    for command in [
        "/usr/bin/env -i PATH=/bin /opt/restore",
        "env -u LANG /opt/restore",
        "doas /opt/restore",
        "/usr/bin/setpriv --no-new-privs /opt/restore",
        "stdbuf -oL /opt/restore",
        "systemd-run --pipe /opt/restore",
        "busybox sh /opt/restore",
        "chrt 1 /opt/restore",
        "xargs /opt/restore",
        "sh -c /opt/restore",
        "/bin/bash -lc /opt/restore",
        "bash -euo pipefail -c /opt/restore",
    ] {
        let conversion = with_command(command);
        tells(
            &conversion.not_carried,
            &["starts another program, but may start only programs that `execute`"],
        );
        assert!(!conversion.toml.contains("\nread = "), "{command}: {}", conversion.toml);
    }
    let conversion = with_command("/usr/bin/env LANG=C /opt/restore");
    all_carried(&conversion);
}

#[test]
fn a_list_of_which_no_method_is_carried_over_is_not_an_empty_list() {
    let command = "/usr/bin/understudy create --config /x";
    for no_leader in [true, false] {
        let conversion = with(&format!(
            "  create_replica_methods: [m]\n  m:\n    command: {command}\n    no_leader: {no_leader}\n"
        ));
        tells(&conversion.not_carried, &["already is Understudy", "no method of this list is carried over"]);
        // An empty list would mean `basebackup`.
        assert!(table(&conversion)["replica"].get("methods").is_none(), "{}", conversion.toml);
        assert!(conversion.toml.contains("#methods = "), "{}", conversion.toml);
        assert_eq!(conversion.patroni.contains("no_leader: true"), no_leader, "{}", conversion.patroni);
    }
}

#[test]
fn an_interpreter_may_read_its_script_and_the_text_of_a_program_is_no_file() {
    for command in ["/bin/bash -o pipefail /opt/restore", "/usr/bin/python3.11 -W ignore /opt/restore"] {
        let conversion = with_command(command);
        all_carried(&conversion);
        let grant = &table(&conversion)["method"]["m"]["grants"]["programs"]["m"];
        assert_eq!(grant["read"].as_array().unwrap()[0].as_str(), Some("/opt/restore"), "{command}");
    }
    let conversion = with_command("/usr/bin/python3 -c /opt/restore");
    all_carried(&conversion);
    assert!(!conversion.toml.contains("\nread = "), "{}", conversion.toml);
    let conversion = with_command("\"/bin/sh -ec 'echo ${X}'\"");
    // In a pattern, a doubled brace is a literal one.
    assert_eq!(arguments(&conversion, "m")[..2], ["-ec", "echo ${{X}}"]);
}

#[test]
fn secrets_are_left_out_and_never_in_the_output() {
    for lines in [
        "m:\n    command: /x --password=S3cret\n",
        "m:\n    command: /x --password S3cret\n",
        "m:\n    command: /x s3://key:S3cret@bucket/p\n",
        "m:\n    command: env AWS_SECRET_ACCESS_KEY=S3cret /x\n",
        "m:\n    command: /x -c \"export A=1; TOKEN=S3cret x\"\n",
        "m:\n    command: /x -c \"export 'A'=1; TOKEN=S3cret x\"\n",
        "m:\n    command: /usr/bin/env -u B TOKEN=S3cret /x\n",
        "m:\n    command: /x\n    run: export A=1; TOKEN=S3cret x\n",
        "m:\n    command: /x\n    aws_secret_access_key: S3cret\n",
        "m:\n    command: /x\n    db-pwd: S3cret\n",
        "m:\n    command: /x\n    apiToken: S3cret\n",
        "m:\n    command: /x\n    repo1-cipher-pass: S3cret\n",
        "m:\n    command: /x\n    url: https://u:S3cret@h/\n",
        "m:\n    command: /x\n    conn: host=h password=S3cret\n",
        "m:\n    command: /x \"host=h password = 'S3cret'\"\n",
        "m:\n    command: /x https://h/p?sig=S3cret\n",
        "m:\n    command: /x https://h/p?a=b&X-Amz-Signature=S3cret\n",
        "m:\n    command: /x --opt '{\"password\":\"S3cret\"}'\n",
        "m:\n    command: /x --cipher-key=S3cret\n",
        "m:\n    command: /x --auth S3cret\n",
        "m:\n    command: /x --key S3cret\n",
        "m:\n    command: /x --set token:S3cret\n",
        "m:\n    command: sh -c \"PGPASSWORD=S3cret /x\"\n",
        "m:\n    command: env -S \"TOKEN=S3cret /x\"\n",
        "m:\n    command: env AWS_SESSION=S3cret /x\n",
        "m:\n    command: env A=\"AccountName=x;AccountKey=S3cret\" /x\n",
        "m:\n    command: 'curl -H \"Authorization: Bearer S3cret\"'\n",
        "m:\n    command: /x\n    foo: bearer S3cret\n",
        "m:\n    command: /x https://u:S3cret@h/?x=y\n",
    ] {
        let conversion = with(&format!("  create_replica_methods: [m]\n  {lines}"));
        let has_secret = |remark: &&Remark| remark.reason.contains("secret");
        assert_eq!(conversion.not_carried.iter().filter(has_secret).count(), 1, "{lines}");
        tells(&conversion.not_carried, &["secret"]);
        assert_eq!(methods(&conversion), ["m"]);
    }
    let conversion = with("  create_replica_methods: [m]\n  m:\n    command: PGPASSWORD=S3cret LANG=C /x\n");
    tells(&conversion.not_carried, &["runs no shell", "the variable PGPASSWORD has a secret"]);
    assert!(
        conversion.toml.contains("LANG") && conversion.toml.contains("path = \"/x\""),
        "{}",
        conversion.toml
    );
    let conversion = with("  create_replica_methods: [m]\n  m:\n    command: https://u:S3cret@h/x\n");
    tells(&conversion.not_carried, &["in the place of the program has a secret"]);
    let conversion = with(
        "  create_replica_methods: [m]\n  m:\n    command: env A=b /x\n    password-file: /p\n    token: /t\n",
    );
    all_carried(&conversion);
    assert_eq!(arguments(&conversion, "m"), ["--password-file=/p", "--token=/t", "{patroni}"]);
    assert_eq!(table(&conversion)["method"]["m"]["grants"]["programs"]["m"]["env"]["A"].as_str(), Some("b"));
}

#[test]
fn the_configuration_has_advice_for_well_known_programs() {
    for (command, part) in [
        (
            "/usr/bin/pgbackrest --stanza=main --delta restore",
            "#keep_data = true\n#options = { stanza = \"main\", delta = true }",
        ),
        (
            "/usr/bin/pgbackrest --stanza main restore",
            "#[method.pgbackrest]\n#options = { stanza = \"main\" }",
        ),
        (
            "/usr/bin/barman-cloud-restore s3://b main latest",
            "#[method.barman]\n#options = { store = \"repo\", server",
        ),
        ("/usr/bin/barman-cloud-restore s3://b main latest", "examples/barman-cloud"),
        (
            "/usr/bin/wal-g backup-fetch /data LATEST",
            "#[method.walg]\n#options = { store = \"repo\" }\n#grants.stores.repo",
        ),
        ("/usr/bin/wal-g backup-fetch /data LATEST", "a connection to its store (`network`)"),
        ("/usr/bin/patroni_wale_restore", "examples/wal-e-script"),
        ("/usr/bin/pg_basebackup", "Understudy's method `basebackup`"),
        ("/bin/bash /opt/restore.sh", "read = [\"/opt/restore.sh\"]"),
    ] {
        let conversion = with(&format!("  create_replica_methods: [m]\n  m:\n    command: {command}\n"));
        all_carried(&conversion);
        assert!(conversion.toml.contains(part), "{part} in {}", conversion.toml);
    }
    for command in [
        "/usr/bin/envdir /etc/wal-e wal-e backup-fetch",
        "/usr/bin/sudo /x",
        "/bin/sh -c 'exec /x \"$@\"'",
        "/usr/bin/patroni_barman recover",
    ] {
        let conversion = with(&format!("  create_replica_methods: [m]\n  m:\n    command: {command}\n"));
        assert_eq!(conversion.not_carried.len(), 1, "{command}: {:?}", told(&conversion.not_carried));
        if command.ends_with("recover") {
            tells(&conversion.not_carried, &["the method `barman`"]);
        }
    }
}
