//! `run`: flags in place of a configuration file. A missing plugin ends each run before anything is touched.

use super::*;

/// Flags of `run` with a plugin that is missing, and with directories below `directory`.
fn flags(directory: &ConfigDirectory) -> Vec<String> {
    let path = |name: &str| directory.path(name).display().to_string();
    let mut flags = vec!["run".to_owned(), path("acme.wasm")];
    for (flag, value) in [("--into", "data"), ("--bin-dir", "bin"), ("--state-dir", "state")] {
        flags.extend([flag.to_owned(), path(value)]);
    }
    if is_root() {
        flags.extend(["--user".to_owned(), USER.to_owned()]);
    }
    flags
}

/// Runs the program with [`flags`] and further ones.
fn run(directory: &ConfigDirectory, further: &[&str]) -> ProgramOutput {
    let flags = flags(directory);
    let flags: Vec<_> = flags.iter().map(String::as_str).chain(further.iter().copied()).collect();
    directory.run(&flags)
}

/// Returns a directory that the user of the run owns.
fn empty_directory() -> ConfigDirectory {
    let directory = with_missing_plugin();
    std::fs::remove_file(directory.path("u.toml")).unwrap();
    directory
}

#[test]
fn a_missing_plugin_fails_the_run_and_leaves_the_directory_as_it_was() {
    let directory = empty_directory();
    run(&directory, &[]).expect(1, &["acme: rejected", "acme.wasm", "data is as it was"]);
    assert!(!directory.path("data").exists());
    run(&directory, &["--plan-only"]).expect(1, &["acme  rejected", "no method would create"]);
    let json = |further: &[&str]| -> serde_json::Value {
        let output = run(&directory, further);
        assert_eq!(output.code(), 1, "{}", output.err());
        serde_json::from_str(&output.out()).unwrap()
    };
    let report = json(&["--json"]);
    assert_eq!((&report["result"], &report["scope"]), (&"failed".into(), &"try".into()));
    assert_eq!(report["configuration"], "command line");
    assert_eq!(json(&["--json", "--plan-only"])["would_use"], serde_json::Value::Null);
    run(&directory, &["--report", "report.json"]).expect(1, &[]);
    assert_eq!(directory.report()["attempts"][0]["method"], "acme");
}

#[test]
fn every_wrong_flag_is_named_with_the_words_of_the_configuration() {
    let directory = empty_directory();
    for (further, says) in [
        (
            &["--store", "re po=file:///x"][..],
            "--store re po: `method.acme.grants.stores.\"re po\"` must have a name",
        ),
        (&["--store", "repo=ftp://x"], "--store repo: `method.acme.grants.stores.repo.url`"),
        (&["--store", "repo=s3://u:S3cret@b"], "--store repo: "),
        (&["--store", "a=file:///x", "--store", "a=file:///y"], "--store a: is given twice"),
        (&["--key", "k=/key"], "--key k: `method.acme.grants.keys.k` decrypts nothing"),
        (&["--timeout", "4"], "--timeout: `replica.timeout` cannot be read"),
        (&["--source", "host=h password=S3cret"], "name that with --passfile"),
        (&["--source", "postgresql://u:S3cret@h/"], "name that with --passfile"),
        (
            &["--source", "hots=h"],
            "--source: `source.conninfo` is not a connection string that libpq accepts",
        ),
        (
            &["--source", "host=h", "--passfile", "missing"],
            "--passfile: `replica.standby_passfile` names a file",
        ),
        (&["--option", "password=S3cret"], "--option password: looks like a secret"),
        (&["--option", "url=https://u:S3cret@h/"], "--option url: looks like a secret"),
    ] {
        let output = run(&directory, further);
        output.expect(2, &[says, "nothing was touched"]);
        assert!(!format!("{}{}", output.out(), output.err()).contains("S3cret"), "{further:?}");
        assert!(!directory.path("state").exists() && !directory.path("data").exists(), "{further:?}");
    }
    let json = run(&directory, &["--json", "--store", "a=file:///x", "--store", "a=file:///y"]);
    assert_eq!(json.code(), 2);
    let report: serde_json::Value = serde_json::from_str(&json.out()).unwrap();
    assert_eq!((&report["result"], &report["problems"][0]["flag"]), (&"usage".into(), &"--store a".into()));
    let both = run(&directory, &["--timeout", "4", "--store", "repo=ftp://x"]);
    both.expect(2, &["--timeout: ", "--store repo: ", "2 problems"]);
    for further in [
        &["--option", "novalue"][..],
        &["--option", "=x"],
        &["--store", "repo"],
        &["--passfile", "/x"],
        &["--plan-only", "--print-config"],
        &["--print-config", "--json"],
        &["--plan-only", "--report", "r.json"],
    ] {
        run(&directory, further).expect(2, &["For more information, try '--help'"]);
    }
    directory.run(&["run", "tarball"]).expect(2, &["--into"]);
    directory
        .run(&["run", "acme", "--into", "data", "--bin-dir", "/bin"])
        .expect(2, &["PLUGIN: there is no acme.wasm in /usr/local/lib/understudy/plugins"]);
    directory
        .run(&["run", "oci://registry.example/acme:1", "--into", "data", "--bin-dir", "/bin"])
        .expect(2, &["PLUGIN: `method.plugin.plugin` names an address"]);
    directory
        .run(&["run", "basebackup", "--into", "data", "--bin-dir", "/bin", "--read", "/mnt"])
        .expect(2, &["--read: `method.basebackup.grants` does not apply to basebackup"]);
}

#[test]
fn the_printed_configuration_says_what_the_flags_say() {
    let directory = empty_directory();
    std::fs::write(directory.path("key"), "open sesame").unwrap();
    let output = run(
        &directory,
        &[
            "--read",
            "backups",
            "--read",
            "/mnt/it's \"here\"",
            "--store",
            "repo=s3://bucket",
            "--store",
            "b=file:///b",
            "--key",
            "b=key",
            "--key",
            "other=key",
            "--source",
            "host=10.0.0.1 user=replicator",
            "--passfile",
            "pgpass",
            "--keep-data",
            "--timeout",
            "4h",
            "--scope",
            "batman",
            "--force",
            "--print-config",
        ],
    );
    assert_eq!(output.code(), 0, "{}", output.err());
    let printed = output.out().replace(directory.0.path().to_str().unwrap(), "<directory>");
    let printed: String =
        printed.lines().filter(|line| !line.starts_with("user = ")).map(|line| format!("{line}\n")).collect();
    insta::assert_snapshot!("printed-configuration", printed);
    assert!(!directory.path("state").exists() && !directory.path("data").exists());

    // The file is accepted: the run gets as far as the plugin, which is missing.
    let output = run(&directory, &["--read", "/mnt/backups", "--print-config"]);
    std::fs::write(directory.path("u.toml"), output.out()).unwrap();
    directory.create(&[]).expect(1, &["acme: rejected", "acme.wasm"]);
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn printed_options_have_the_types_that_the_plugin_describes() {
    let components = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/target/components");
    let pgbackrest = components.join("pgbackrest.wasm").display().to_string();
    let directory = empty_config();
    let print = |options: &[&str]| {
        let mut arguments = vec!["run", &pgbackrest, "--into", "data", "--bin-dir", "/bin", "--print-config"];
        arguments.extend(options.iter().flat_map(|option| ["--option", option]));
        directory.run(&arguments)
    };
    let printed =
        print(&["stanza=main", "repositories=repo", "delta=on", "repositories=2nd", "target-timeline=3"]);
    assert_eq!(printed.code(), 0, "{}", printed.err());
    for line in [
        "options.stanza = \"main\"\n",
        "options.repositories = [\"repo\", \"2nd\"]\n",
        "options.delta = true\n",
        "options.target-timeline = 3\n",
    ] {
        assert!(printed.out().contains(line), "{line} in {}", printed.out());
    }
    print(&["stanzza=main", "delta=maybe"]).expect(
        2,
        &[
            "--option stanzza: there is no option `stanzza`: did you mean `stanza`?",
            "--option delta: option `delta`: write true or false, not \"maybe\"",
            "--option: option `stanza` is missing",
        ],
    );
}
