//! Errors in postgresql.conf and pg_hba.conf that the server's own programs find.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tests::primary::Primary;
use tests::releases::playground;

use crate::{assert_fails, assert_refuses_to_start, configure_as_under_patroni};

/// Configuration files of the primary, which a test changes while the server runs.
pub(crate) struct ServerFiles {
    main: PathBuf,
    hba: PathBuf,
    original: [String; 2],
}

impl ServerFiles {
    pub(crate) fn of(primary: &Primary) -> Self {
        let datadir = primary.server.datadir();
        let (main, hba) = (datadir.join("postgresql.conf"), datadir.join("pg_hba.conf"));
        let original = [fs::read_to_string(&main).unwrap(), fs::read_to_string(&hba).unwrap()];
        Self { main, hba, original }
    }

    pub(crate) fn append(&self, main: &str, hba: &str) {
        fs::write(&self.main, format!("{}{main}", self.original[0])).unwrap();
        fs::write(&self.hba, format!("{}{hba}", self.original[1])).unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_backup_with_a_configuration_that_does_not_start_is_not_a_replica() {
    let primary = Primary::start("starts", 100).unwrap();
    let files = ServerFiles::of(&primary);
    let lines = files.original[0].lines().count();
    let hba_lines = files.original[1].lines().count();
    for (number, (main, hba, messages)) in [
        ("nonsense_setting = 1\n", "", vec!["nonsense_setting".to_owned(), format!("line {}", lines + 1)]),
        ("port = 99999999\n", "", vec!["99999999".to_owned(), format!("postgresql.conf line {}", lines + 1)]),
        (
            "\nlisten_addresses = 10.0.0.1\n",
            "",
            vec!["syntax error".to_owned(), format!("line {}", lines + 2)],
        ),
        ("include 'elsewhere/x.conf'\n", "", vec!["elsewhere/x.conf".to_owned()]),
        ("shared_preload_libraries = 'no_such'\n", "", vec!["`no_such`, which is not installed".to_owned()]),
        (
            "",
            "local all all nonsense\n",
            vec!["pg_hba.conf".to_owned(), "\"nonsense\"".to_owned(), format!("line {}", hba_lines + 1)],
        ),
        ("", "garbage\n", vec!["invalid connection type".to_owned(), format!("line {}", hba_lines + 1)]),
    ]
    .into_iter()
    .enumerate()
    {
        files.append(main, hba);
        let backup = primary.tar_backup(&format!("bad-{number}"), &[]).unwrap();
        let replica =
            primary.replica(&format!("bad-{number}"), &["tarball"], "", &primary.tarball(&backup)).unwrap();
        let messages: Vec<&str> = messages.iter().map(String::as_str).collect();
        assert_fails(&replica, "tarball", &messages);
        // Invalid lines fail under Patroni too. Patroni's own settings may replace the list of libraries.
        if !main.contains("preload") {
            let under_patroni = primary
                .replica(&format!("under_patroni-{number}"), &["tarball"], "", &primary.tarball(&backup))
                .unwrap();
            configure_as_under_patroni(&under_patroni);
            assert_fails(&under_patroni, "tarball", &messages);
        }
    }
    files.append("", "");
    let backup = primary.tar_backup("good", &[]).unwrap();
    let replica = primary.replica("good", &["tarball"], "", &primary.tarball(&backup)).unwrap();
    replica.created_by("tarball").unwrap();
    primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_missing_configuration_file_fails_unless_patroni_or_the_operator_provides_it() {
    let primary = Primary::start("starts-missing", 100).unwrap();
    let files = ServerFiles::of(&primary);
    let elsewhere = primary.playground.directory("elsewhere").unwrap();
    for (number, path) in [&files.hba, &files.main].into_iter().enumerate() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let moved = elsewhere.join(name);
        // pg_basebackup does not copy links to files.
        fs::rename(path, &moved).unwrap();
        symlink(&moved, path).unwrap();
        let backup = primary.tar_backup(&format!("linked-{number}"), &[]).unwrap();
        for method in ["tarball", "basebackup"] {
            let folder = format!("{method}-{number}");
            let replica = primary.replica(&folder, &[method], "", &primary.tarball(&backup)).unwrap();
            assert_fails(&replica, method, &[name]);
            let under_patroni = primary
                .replica(&format!("under_patroni-{folder}"), &[method], "", &primary.tarball(&backup))
                .unwrap();
            configure_as_under_patroni(&under_patroni);
            let ended = under_patroni.created_by(method).unwrap();
            assert!(
                ended.output.contains(&format!("no `{name}`")) || ended.output.contains(&format!("{name}`")),
                "{}",
                ended.output
            );
            assert_refuses_to_start(&primary, &under_patroni.datadir());
        }
        if name == "postgresql.conf" {
            // The operator names the file with `config_file`.
            let lines = format!("config_file = \"{}\"\n", moved.display());
            let replica = primary.replica("named", &["tarball"], &lines, &primary.tarball(&backup)).unwrap();
            replica.created_by("tarball").unwrap();
            let text = fs::read_to_string(&moved).unwrap();
            fs::write(&moved, format!("{text}\nport = many\n")).unwrap();
            let replica =
                primary.replica("named-bad", &["tarball"], &lines, &primary.tarball(&backup)).unwrap();
            let ended = replica.create(&[]).unwrap();
            assert_eq!(ended.attempts(), [("tarball", "rejected")], "{}", ended.output);
            assert!(ended.output.contains("\"port\""), "{}", ended.output);
        }
        fs::remove_file(path).unwrap();
        fs::rename(&moved, path).unwrap();
    }
}

/// Checks that the seal accepts the `good` pg_hba.conf rules and fails with each of the `bad` rules.
fn check_hba_rules(primary: &Primary, good: &[&str], bad: &[&str]) {
    let files = ServerFiles::of(primary);
    fs::write(primary.server.datadir().join("names"), "one, two\n\"three\"\n").unwrap();
    fs::write(primary.server.datadir().join("more.conf"), "local all all trust\n").unwrap();
    files.append("", &good.join("\n"));
    let replica = primary.replica("rules", &["basebackup"], "", "").unwrap();
    let ended = replica.created_by("basebackup").unwrap();
    assert!(!ended.output.contains("pg_hba.conf"), "{}", ended.output);
    primary.streams_to(&replica).unwrap();
    let lines = files.original[1].lines().count();
    for (number, rule) in bad.iter().enumerate() {
        files.append("", &format!("{rule}\n"));
        let replica = primary.replica(&format!("rule-{number}"), &["basebackup"], "", "").unwrap();
        // PostgreSQL before version 16 reports a missing file without the line.
        let place =
            if rule.contains("nowhere") { "nowhere".to_owned() } else { format!("line {}", lines + 1) };
        assert_fails(&replica, "basebackup", &["pg_hba.conf", &place]);
    }
    files.append("", "");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn pg_hba_rules_are_checked_as_postgresql_15_does() {
    let primary = Primary::start("rules-15", 100).unwrap();
    let good = [
        "host all,sameuser +admins,\"all\" samenet md5",
        "local @names \"a b\" peer map=x",
        "hostnossl all all 10.0.0.0 255.0.0.0 scram-sha-256 # a comment",
        "host all all .example.com reject",
        "host all all \\",
        "  ::1/128 trust",
    ];
    let bad = [
        "host all all 10.0.0.0/33 trust",
        "include 'more.conf'",
        "local all @nowhere trust",
        "host all all 10.0.0.1/32 trust map=x",
        "local all all scram-sha-256 nonsense=1",
        "host all all 10.0.0.1/32",
    ];
    check_hba_rules(&primary, &good, &bad);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn pg_hba_rules_are_checked_as_postgresql_18_does() {
    let primary = Primary::start_in(playground("rules-18", 18).unwrap(), 100).unwrap();
    let good = [
        "include more.conf",
        "include_if_exists nowhere.conf",
        "local /^db[0-9]$ /^u trust",
        "host all all all md5",
    ];
    let bad =
        ["include nowhere.conf", "local /^db( all trust", "host all all 10.0.0.1/32 oauth issuer=x scope=y"];
    check_hba_rules(&primary, &good, &bad);
    // The OAuth validators must be named by a setting.
    let files = ServerFiles::of(&primary);
    files.append(
        "oauth_validator_libraries = 'mine'\n",
        "host all all 10.0.0.1/32 oauth issuer=\"https://x\" scope=\"y\"\n",
    );
    let replica = primary.replica("oauth", &["basebackup"], "", "").unwrap();
    replica.created_by("basebackup").unwrap();
}
