//! A password that is written in the wrong place of the configuration is never shown.

use super::*;

/// Texts that may be written by mistake where a path or a name belongs.
const MISTAKES: [&str; 6] = [
    "S3cretRepPw99",
    "127.0.0.1:25500:*:rep:S3cretRepPw99",
    "host=h password=S3cretRepPw99",
    "postgresql://rep:S3cretRepPw99@h/",
    "postgresql://rep:S3cretRepPw99 and' more`@h/",
    "/S3cretRepPw99",
];

/// Checks that neither the log, in either format, nor the report shows the secret, and that both name its place in the file.
#[track_caller]
fn is_untold(place: &ConfigDirectory, text: &str, line: &str) {
    std::fs::write(place.path("u.toml"), text).unwrap();
    for arguments in [
        &["create", "--config", "u.toml", "--report", "report.json"][..],
        &["create", "--config", "u.toml", "--log-format", "json"],
        &["check", "--config", "u.toml"],
        &["check", "--config", "u.toml", "--json"],
    ] {
        let answer = place.run(arguments);
        let told = format!("{}{}", answer.out(), answer.err());
        assert_ne!(answer.code(), 0, "{line}: {told}");
        assert!(!told.contains("S3cret"), "{line}: {told}");
        if arguments.contains(&"--report") {
            let report = std::fs::read_to_string(place.path("report.json")).unwrap();
            assert!(!report.contains("S3cret"), "{line}: {report}");
        }
    }
}

#[test]
fn a_password_in_the_place_of_a_path_is_not_told() {
    let place = with_missing_plugin();
    let config = std::fs::read_to_string(place.path("u.toml")).unwrap();
    let own = "[method.acme]\nplugin = \"/no/such/acme.wasm\"";
    let replica: String =
        config.lines().filter(|line| !line.starts_with("user = ")).map(|line| format!("{line}\n")).collect();
    for mistake in MISTAKES {
        let is_path = mistake.starts_with('/');
        let secret_files = [
            config
                .replace(own, &format!("standby_passfile = \"{mistake}\"\nconfigure_standby = true\n{own}"))
                + "[source]\nconninfo = \"host=127.0.0.1 port=1\"\n",
            format!("{config}[source]\nconninfo = \"host=127.0.0.1 port=1\"\npassfile = \"{mistake}\"\n"),
            format!(
                "{config}[source]\nconninfo = \"host=127.0.0.1 port=1\"\npassword = {{ file = \"{mistake}\" }}\n"
            ),
            format!("{config}grants.stores.repo = {{ url = \"https://h/\", ca_file = \"{mistake}\" }}\n"),
            format!(
                "{config}grants.stores.repo = {{ url = \"s3://b\", region = \"r\" }}\ngrants.keys.repo.file = \"{mistake}\"\n"
            ),
            replica.replace(own, &format!("user = \"{mistake}\"\n{own}")),
        ];
        for text in &secret_files {
            is_untold(&place, text, text.lines().find(|line| line.contains("S3cret")).unwrap());
        }
        if is_path {
            continue;
        }
        for key in ["datadir", "bin_dir", "state_dir"] {
            let lines = config.lines().map(|line| match line.starts_with(&format!("{key} = ")) {
                true => format!("{key} = \"{mistake}\"\n"),
                false => format!("{line}\n"),
            });
            is_untold(&place, &lines.collect::<String>(), key);
        }
        for key in ["wal_dir", "config_file"] {
            is_untold(&place, &config.replace(own, &format!("{key} = \"{mistake}\"\n{own}")), key);
        }
        is_untold(
            &place,
            &config.replace(own, &format!("plugin_path = [\"{mistake}\"]\n{own}")),
            "plugin_path",
        );
        is_untold(
            &place,
            &config.replace(own, &format!("tablespaces = {{ 5 = \"{mistake}\" }}\n{own}")),
            "tablespaces",
        );
        if mistake.contains("://") {
            is_untold(&place, &config.replace("/no/such/acme.wasm", mistake), "plugin");
            is_untold(&place, &config.replace("/no/such/acme.wasm", &format!("{mistake}t.wasm")), "plugin");
            is_untold(&place, &format!("{config}grants.stores.repo.url = \"{mistake}\"\n"), "url");
        }
        is_untold(&place, &format!("{config}grants.read = [\"{mistake}\"]\n"), "grants.read");
        for flag in ["--datadir", "--bin-dir"] {
            std::fs::write(place.path("u.toml"), &config).unwrap();
            let answer = place.create(&[flag, mistake]);
            assert!(answer.code() == 2 && !answer.err().contains("S3cret"), "{}", answer.err());
        }
        for keyword in ["passfile", "sslkey", "sslcert", "sslrootcert"] {
            let conninfo = format!("host=h {keyword}='{}'", mistake.replace('\'', "\\\\'"));
            is_untold(&place, &format!("{config}[source]\nconninfo = \"{conninfo}\"\n"), keyword);
        }
    }
}
