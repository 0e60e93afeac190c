//! postgresql.conf and pg_hba.conf, by the word of the server's own programs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tests::primary::Primary;
use tests::releases::playground;

use crate::{fails, refuses_to_start, without_configure_standby};

/// The files of the primary that a test changes while the server, which read them, runs on.
pub(crate) struct Files {
    main: PathBuf,
    hba: PathBuf,
    whole: [String; 2],
}

impl Files {
    pub(crate) fn of(primary: &Primary) -> Self {
        let datadir = primary.server.datadir();
        let (main, hba) = (datadir.join("postgresql.conf"), datadir.join("pg_hba.conf"));
        let whole = [fs::read_to_string(&main).unwrap(), fs::read_to_string(&hba).unwrap()];
        Self { main, hba, whole }
    }

    pub(crate) fn put(&self, main: &str, hba: &str) {
        fs::write(&self.main, format!("{}{main}", self.whole[0])).unwrap();
        fs::write(&self.hba, format!("{}{hba}", self.whole[1])).unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_backup_that_postgresql_would_not_start_from_is_no_replica() {
    let primary = Primary::start("starts", 100).unwrap();
    let files = Files::of(&primary);
    let lines = files.whole[0].lines().count();
    let hba_lines = files.whole[1].lines().count();
    for (number, (main, hba, told)) in [
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
        files.put(main, hba);
        let backup = primary.tar_backup(&format!("bad-{number}"), &[]).unwrap();
        let replica =
            primary.replica(&format!("bad-{number}"), &["tarball"], "", &primary.tarball(&backup)).unwrap();
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        fails(&replica, "tarball", &told);
        // What is there and wrong is wrong under Patroni too; a library Patroni's own settings may leave out.
        if !main.contains("preload") {
            let patronis = primary
                .replica(&format!("patronis-{number}"), &["tarball"], "", &primary.tarball(&backup))
                .unwrap();
            without_configure_standby(&patronis);
            fails(&patronis, "tarball", &told);
        }
    }
    files.put("", "");
    let backup = primary.tar_backup("good", &[]).unwrap();
    let replica = primary.replica("good", &["tarball"], "", &primary.tarball(&backup)).unwrap();
    replica.created_by("tarball").unwrap();
    primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_file_that_the_backup_lacks_fails_unless_somebody_else_brings_it() {
    let primary = Primary::start("starts-missing", 100).unwrap();
    let files = Files::of(&primary);
    let elsewhere = primary.playground.directory("elsewhere").unwrap();
    for (number, path) in [&files.hba, &files.main].into_iter().enumerate() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let moved = elsewhere.join(name);
        // pg_basebackup skips links.
        fs::rename(path, &moved).unwrap();
        symlink(&moved, path).unwrap();
        let backup = primary.tar_backup(&format!("linked-{number}"), &[]).unwrap();
        for method in ["tarball", "basebackup"] {
            let folder = format!("{method}-{number}");
            let replica = primary.replica(&folder, &[method], "", &primary.tarball(&backup)).unwrap();
            fails(&replica, method, &[name]);
            let patronis = primary
                .replica(&format!("patronis-{folder}"), &[method], "", &primary.tarball(&backup))
                .unwrap();
            without_configure_standby(&patronis);
            let ended = patronis.created_by(method).unwrap();
            assert!(
                ended.output.contains(&format!("no `{name}`")) || ended.output.contains(&format!("{name}`")),
                "{}",
                ended.output
            );
            refuses_to_start(&primary, &patronis.datadir());
        }
        if name == "postgresql.conf" {
            // The operator knows where it is.
            let lines = format!("config_file = \"{}\"\n", moved.display());
            let replica = primary.replica("told", &["tarball"], &lines, &primary.tarball(&backup)).unwrap();
            replica.created_by("tarball").unwrap();
            let text = fs::read_to_string(&moved).unwrap();
            fs::write(&moved, format!("{text}\nport = many\n")).unwrap();
            let replica =
                primary.replica("told-bad", &["tarball"], &lines, &primary.tarball(&backup)).unwrap();
            fails(&replica, "tarball", &["port"]);
        }
        fs::remove_file(path).unwrap();
        fs::rename(&moved, path).unwrap();
    }
}

/// Rules that this version takes, and each that it does not.
fn rules_of_access(primary: &Primary, good: &[&str], bad: &[&str]) {
    let files = Files::of(primary);
    fs::write(primary.server.datadir().join("names"), "one, two\n\"three\"\n").unwrap();
    fs::write(primary.server.datadir().join("more.conf"), "local all all trust\n").unwrap();
    files.put("", &good.join("\n"));
    let replica = primary.replica("rules", &["basebackup"], "", "").unwrap();
    let ended = replica.created_by("basebackup").unwrap();
    assert!(!ended.output.contains("pg_hba.conf"), "{}", ended.output);
    primary.streams_to(&replica).unwrap();
    let lines = files.whole[1].lines().count();
    for (number, rule) in bad.iter().enumerate() {
        files.put("", &format!("{rule}\n"));
        let replica = primary.replica(&format!("rule-{number}"), &["basebackup"], "", "").unwrap();
        // Of a file that is not there it tells the file and not the line, before 16.
        let place =
            if rule.contains("nowhere") { "nowhere".to_owned() } else { format!("line {}", lines + 1) };
        fails(&replica, "basebackup", &["pg_hba.conf", &place]);
    }
    files.put("", "");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_rules_of_access_are_those_of_postgresql_15() {
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
    rules_of_access(&primary, &good, &bad);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_rules_of_access_are_those_of_postgresql_18() {
    let primary = Primary::start_in(playground("rules-18", 18).unwrap(), 100).unwrap();
    let good = [
        "include more.conf",
        "include_if_exists nowhere.conf",
        "local /^db[0-9]$ /^u trust",
        "host all all all md5",
    ];
    let bad =
        ["include nowhere.conf", "local /^db( all trust", "host all all 10.0.0.1/32 oauth issuer=x scope=y"];
    rules_of_access(&primary, &good, &bad);
    // Which validators there are is a setting.
    let files = Files::of(&primary);
    files.put(
        "oauth_validator_libraries = 'mine'\n",
        "host all all 10.0.0.1/32 oauth issuer=\"https://x\" scope=\"y\"\n",
    );
    let replica = primary.replica("oauth", &["basebackup"], "", "").unwrap();
    replica.created_by("basebackup").unwrap();
}
