//! Files and directories that the configuration names must not be in a directory that a run empties.

use super::*;

#[test]
fn a_file_in_a_directory_that_a_run_empties_is_refused() {
    let place = with_missing_plugin();
    let config = std::fs::read_to_string(place.path("u.toml")).unwrap();
    for directory in ["data", "wal", "fast", "data/plugins"] {
        std::fs::create_dir(place.path(directory)).unwrap();
    }
    for file in ["data/secret", "data/u.toml", "outside", "data/x.wasm"] {
        std::fs::write(place.path(file), "swordfish").unwrap();
    }
    for (link, to) in [("link", "data/secret"), ("data/way-out", "../outside"), ("through", "data/way-out")] {
        std::os::unix::fs::symlink(to, place.path(link)).unwrap();
    }
    let at = |name: &str| place.path(name).display().to_string();
    let before = std::fs::read_dir(place.path("data")).unwrap().count();
    let own = "[method.acme]\nplugin = \"/no/such/acme.wasm\"";
    assert!(config.contains(own));
    let mapped = format!("wal_dir = \"{}\"\ntablespaces = {{ 5 = \"{}\" }}\n", at("wal"), at("fast"));
    let with = |before: &str, after: &str| {
        format!("{}{after}\n", config.replace(own, &format!("{mapped}{before}\n{own}")))
    };
    let source = |rest: &str| with("", &format!("[source]\n{rest}"));
    let store = |rest: &str| {
        let store =
            "[method.acme.grants.stores.repo]\nurl = \"s3://b\"\nendpoint = \"https://h\"\nregion = \"r\"";
        with("", &format!("{store}\n{rest}"))
    };
    let refused = |text: &str, arguments: &[&str], says: &[&str]| {
        std::fs::write(place.path("u.toml"), text).unwrap();
        for verb in ["check", "create"] {
            let answer = place.run(&[&[verb, "--config", "u.toml"], arguments].concat());
            answer.expect(2, says);
            answer.expect(2, &["which a run empties: keep it elsewhere", "nothing was touched"]);
            assert_eq!(std::fs::read_dir(place.path("data")).unwrap().count(), before, "{says:?}");
            assert!(!place.path("state").exists());
        }
    };
    let line = |text: &str, part: &str| 1 + text[..text.find(part).unwrap()].matches('\n').count();
    for file in ["data/secret", "link", "data/way-out", "through", "wal/secret", "fast/secret"].map(at) {
        for (key, text) in [
            ("source.passfile", source(&format!("conninfo = \"host=h\"\npassfile = \"{file}\""))),
            (
                "source.password.file",
                source(&format!("conninfo = \"host=h\"\npassword = {{ file = \"{file}\" }}")),
            ),
            ("replica.standby_passfile", with(&format!("standby_passfile = \"{file}\""), "")),
            ("method.acme.grants.stores.repo.ca_file", store(&format!("ca_file = \"{file}\""))),
            (
                "method.acme.grants.stores.repo.credentials.secret_access_key.file",
                store(&format!(
                    "credentials = {{ access_key_id = {{ file = \"{file}\" }}, secret_access_key = {{ file = \"{file}\" }} }}"
                )),
            ),
            (
                "method.acme.grants.keys.k.file",
                store(&format!("[method.acme.grants.keys.k]\nfile = \"{file}\"\nstores = [\"repo\"]")),
            ),
            ("method.acme.plugin", with("", "").replace("/no/such/acme.wasm", &file)),
        ] {
            let place = line(&text, &file);
            refused(&text, &[], &[&format!("u.toml:{place}:"), &format!("what `{key}` names lies in ")]);
        }
        for keyword in
            ["passfile", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir", "sslkeylogfile"]
        {
            let conninfo = format!("host=h {keyword}={file}");
            let says = format!("what `{keyword}` of `source.conninfo` names lies in ");
            refused(&source(&format!("conninfo = \"{conninfo}\"")), &[], &[&says]);
            let says = format!("--connstring: what `{keyword}` names lies in ");
            refused(&with("", ""), &["--connstring", &conninfo], &[&says]);
        }
    }
    for (key, line) in [
        ("replica.plugin_path[0]", format!("plugin_path = [\"{}\"]", at("data/plugins"))),
        ("replica.plugin_path[1]", format!("plugin_path = [\"/x\", \"{}\"]", at("data"))),
    ] {
        refused(&with(&line, ""), &[], &[&format!("what `{key}` names lies in the data directory")]);
    }
    let inner = with("", "").replace(&format!("{}/bin", place.0.path().display()), &at("data/bin"));
    refused(&inner, &[], &["what `replica.bin_dir` names lies in the data directory"]);
    refused(
        &with("", ""),
        &["--bin-dir", &at("data/bin")],
        &["--bin-dir: the path lies in the data directory"],
    );
    // The configuration file itself.
    std::fs::write(place.path("data/u.toml"), with("", "")).unwrap();
    std::os::unix::fs::symlink("data/u.toml", place.path("config")).unwrap();
    for name in ["data/u.toml", "config"] {
        for verb in ["check", "create"] {
            let says = format!("{name}:1:1: the configuration file lies in the data directory");
            place.run(&[verb, "--config", name]).expect(2, &[&says, "nothing was touched"]);
        }
    }
    for (variable, value) in
        [("PGPASSFILE", at("data/secret")), ("UNDERSTUDY_PLUGIN_PATH", format!("/x:{}", at("data/plugins")))]
    {
        std::fs::write(place.path("u.toml"), source("conninfo = \"host=h\"")).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_understudy"))
            .args(["create", "--config", "u.toml"])
            .env_clear()
            .env(variable, value)
            .current_dir(place.0.path())
            .output()
            .unwrap();
        ProgramOutput(output).expect(2, &[&format!("{variable}: "), "lies in the data directory"]);
    }
    // A file outside of these directories is accepted.
    std::fs::write(place.path("u.toml"), with("", "").replace("/no/such/acme.wasm", &at("outside"))).unwrap();
    place.run(&["check", "--config", "u.toml"]).expect(3, &["the data directory"]);
}

#[test]
fn a_directory_with_a_secret_of_the_source_cannot_be_granted_even_if_a_flag_overrides_the_source() {
    let directory = with_missing_plugin();
    let config = std::fs::read_to_string(directory.path("u.toml")).unwrap();
    let secrets = directory.path("secrets");
    std::fs::create_dir(&secrets).unwrap();
    let keep = |name: &str, text: &str| {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        std::fs::write(secrets.join(name), text).unwrap();
        std::fs::set_permissions(secrets.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
        // The program runs as the directory's owner.
        let owner = std::fs::metadata(directory.0.path()).unwrap();
        std::os::unix::fs::chown(secrets.join(name), Some(owner.uid()), Some(owner.gid())).unwrap();
        secrets.join(name)
    };
    let (passfile, password) = (keep("pgpass", "*:*:*:*:x\n"), keep("password", "swordfish\n"));
    for source in [
        format!("conninfo = \"host=127.0.0.1 port=1 user=x\"\npassfile = \"{}\"", passfile.display()),
        format!(
            "conninfo = \"host=127.0.0.1 port=1 user=x\"\npassword = {{ file = \"{}\" }}",
            password.display()
        ),
    ] {
        let grants = format!("{config}grants.read = [\"{}\"]\n[source]\n{source}\n", secrets.display());
        std::fs::write(directory.path("u.toml"), grants).unwrap();
        for flags in [&[][..], &["--connstring="], &["--connstring=host=127.0.0.1 port=1 user=y"]] {
            let arguments = [&["check", "--config", "u.toml"], flags].concat();
            directory.run(&arguments).expect(3, &["holds a secret of this run"]);
        }
    }
}
