//! Secrets in the whole program: no log and no report contains a secret, even if a plugin logs it or a server returns it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tests::primary::Primary;

/// The value of a granted key.
const PASS: &str = "the-pass-phrase-of-the-repository";

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_secret_that_a_plugin_logs_is_redacted_in_log_and_report() {
    let primary = Primary::start("shouted-secret", 100).unwrap();
    let file = primary.playground.directory("secrets").unwrap().join("pass");
    fs::write(&file, format!("{PASS}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    primary.playground.user().own(&file).unwrap();
    let grants = format!(
        "grants.keys.pass = {{ file = \"{}\", stores = [\"repo\"] }}\ngrants.stores.repo = {{ url = \"https://127.0.0.1:1/\" }}",
        file.display()
    );
    for (name, text) in [("as-it-is", PASS.to_owned()), ("in-a-text", format!("it is >{PASS}<."))] {
        let section = format!("{}path = \"{text}\"\n", primary.hostile("shout", &grants));
        let replica = primary.replica(name, &["hostile"], "", &section).unwrap();
        let ended = replica.create(&[]).unwrap();
        assert_eq!(ended.attempts(), [("hostile", "denied")], "{}", ended.output);
        assert!(
            ended.output.contains("it is <secret>") || ended.output.contains("<secret>"),
            "{}",
            ended.output
        );
        let report = ended.report.to_string();
        assert!(report.contains("<secret>"), "{report}");
        assert!(!ended.output.contains(PASS) && !report.contains(PASS), "{} {report}", ended.output);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_password_in_an_address_that_is_an_option_reaches_no_log_and_no_report() {
    let primary = Primary::start("login-option", 100).unwrap();
    for (name, method, section) in [
        ("said", "hostile", format!("{}path = \"s3://AK:S3cret'x@b/p\"\n", primary.hostile("shout", ""))),
        ("sought", "tarball", "[method.tarball]\noptions.directory = \"s3://AK:S3cret'x@b/p\"\n".to_owned()),
        (
            "wrong",
            "tarball",
            "[method.tarball]\noptions.directory = \"/x\"\noptions.manifest = \"s3://AK:S3cret' x@b/p\"\n"
                .to_owned(),
        ),
    ] {
        let replica = primary.replica(name, &[method], "", &section).unwrap();
        for verb in ["check", "create"] {
            let output = replica.command(verb).args(["--log-level", "trace"]).output().unwrap();
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(said.contains(method) && !said.contains("S3cret"), "{name} {verb}: {said}");
        }
        let ended = replica.create(&[]).unwrap();
        let report = ended.report.to_string();
        assert!(report.contains(method), "{report}");
        assert!(!ended.output.contains("S3cret") && !report.contains("S3cret"), "{} {report}", ended.output);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_secret_cannot_be_granted_with_its_directory_in_a_variable_or_in_an_argument() {
    let primary = Primary::start("granted-secret", 100).unwrap();
    let folder = primary.playground.directory("secrets").unwrap();
    let file = folder.join("pass");
    fs::write(&file, PASS).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    primary.playground.user().own(&file).unwrap();
    let key = format!(
        "stores.far = {{ url = \"https://127.0.0.1:1/\" }}, keys.pass = {{ file = \"{}\", stores = [\"far\"] }}",
        file.display()
    );
    for (name, grant) in [
        ("read", format!("read = [\"{}\"]", folder.display())),
        ("store", format!("stores.repo = {{ url = \"file://{}\" }}", folder.display())),
        ("memory", "read = [\"/proc\"]".to_owned()),
        ("variable", format!("environment = {{ URL = \"https://host/{PASS}\" }}")),
        (
            "argument",
            format!("programs.tool = {{ path = \"/bin/echo\", args = [\"--from=https://host/{PASS}\"] }}"),
        ),
        (
            "variable-of-a-program",
            format!("programs.tool = {{ path = \"/bin/echo\", env = {{ URL = \"https://host/{PASS}\" }} }}"),
        ),
    ] {
        let section = primary.hostile("nothing", &format!("grants = {{ {key}, {grant} }}"));
        let replica = primary.replica(name, &["hostile"], "", &section).unwrap();
        let ended = replica.create(&[]).unwrap();
        assert_eq!(ended.code(), Some(3), "{name}: {}", ended.output);
        assert!(ended.output.contains("holds a secret"), "{name}: {}", ended.output);
        let report = ended.report.to_string();
        assert!(!ended.output.contains(PASS) && !report.contains(PASS), "{name}: {} {report}", ended.output);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_key_file_that_others_may_read_is_refused_with_a_remedy() {
    let primary = Primary::start("readable-secret", 100).unwrap();
    let file = primary.playground.directory("secrets").unwrap().join("pass");
    fs::write(&file, PASS).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    primary.playground.user().own(&file).unwrap();
    let section =
        primary.hostile("nothing", &format!("grants.keys.repo = {{ file = \"{}\" }}\ngrants.stores.repo = {{ url = \"https://127.0.0.1:1/\" }}", file.display()));
    let replica = primary.replica("replica", &["hostile", "basebackup"], "", &section).unwrap();
    let ended = replica.created_by("basebackup").unwrap();
    let attempt = ended.attempt("hostile").to_string();
    assert!(attempt.contains("rejected") && attempt.contains("chmod 0600"), "{attempt}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn granting_a_directory_that_overlaps_what_the_method_writes_is_refused() {
    let primary = Primary::start("granted-overlap", 100).unwrap();
    for (name, as_store, granted, written) in [
        ("at", false, "data", "data"),
        ("at-as-a-store", true, "data", "data"),
        ("below", false, "data/base", "data"),
        ("by-a-link", true, "link", "data"),
        ("mapped", false, "wal/archive_status", "wal"),
        ("mapped-as-a-store", true, "fast", "fast"),
    ] {
        let folder = primary.playground.path(name);
        let directory = folder.join(granted);
        let grant = match as_store {
            true => format!("grants.stores.repo = {{ url = \"file://{}\" }}", directory.display()),
            false => format!("grants.read = [\"{}\"]", directory.display()),
        };
        let replica = primary.replica(name, &["hostile"], "", &primary.hostile("nothing", &grant)).unwrap();
        if granted == "link" {
            std::os::unix::fs::symlink(replica.datadir(), &directory).unwrap();
        }
        let ended = replica.create(&[]).unwrap();
        assert_eq!(ended.code(), Some(3), "{name}: {}", ended.output);
        for says in
            ["lies apart", &directory.display().to_string(), &folder.join(written).display().to_string()]
        {
            assert!(ended.output.contains(says), "{name}: {says} in {}", ended.output);
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_key_without_a_store_is_an_error_of_the_configuration() {
    let primary = Primary::start("unbound-key", 100).unwrap();
    let grants = "grants.keys.pass = { file = \"/nonexistent\" }";
    let replica = primary.replica("replica", &["hostile"], "", &primary.hostile("nothing", grants)).unwrap();
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.code(), Some(2), "{}", ended.output);
    assert!(ended.output.contains("decrypts nothing: name the stores"), "{}", ended.output);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn invisible_characters_of_a_plugin_are_escaped_on_the_terminal_and_in_the_report() {
    let primary = Primary::start("invisible", 100).unwrap();
    let hidden = "back\u{115F}\u{2800}\u{FE0F}\u{E0100}\u{202E}ups";
    let section = format!("{}path = \"{hidden}\"\n", primary.hostile("shout", ""));
    for (name, flags) in [("text", &[][..]), ("json", &["--log-format=json"][..])] {
        let replica = primary.replica(name, &["hostile"], "", &section).unwrap();
        let ended = replica.create(flags).unwrap();
        let report = ended.report.to_string();
        assert!(ended.output.contains("115f") && report.contains("115f"), "{}", ended.output);
        let written = fs::read_to_string(replica.path("report.json")).unwrap();
        let denials = ended.denials("hostile");
        assert!(denials.iter().any(|(_, what, _)| what.contains("115f")), "{denials:?}");
        for character in hidden.chars().filter(|character| !character.is_ascii()) {
            assert!(!ended.output.contains(character), "{character:?} in {}", ended.output);
            // JSON could escape a character in the file, which would then be shown by whatever reads the report.
            assert!(!written.contains(character) && !report.contains(character), "{character:?} in {report}");
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_method_cannot_redact_words_of_the_log_by_deriving_them_as_keys() {
    const KEY: &str = "6+7UMQgZ1bHnAq4x2cV/9yTdkWmPzB3sLrJ0eXfGoCi8NhE5vKtDuFSwRjYlOaIp";
    let primary = Primary::start("derived-words", 100).unwrap();
    let texts = primary.playground.directory("texts").unwrap();
    let words =
        format!("[w]\nword=\"every method failed\"\npath=\"/var/lib/postgresql/15/main\"\nkey=\"{KEY}\"\n");
    primary.playground.user().write(&texts.join("words.ini"), &words).unwrap();
    let grants = format!("grants.stores.repo = {{ url = \"file://{}\" }}", texts.display());
    let section = format!("{}path = \"it is {KEY}.\"\n", primary.hostile("derive-words", &grants));
    let replica = primary.replica("replica", &["hostile"], "", &section).unwrap();
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.code(), Some(1), "{}", ended.output);
    for expected in ["every method failed", "derived 3 keys: 1 of them are long and random"] {
        assert!(ended.output.contains(expected), "{expected} in {}", ended.output);
    }
    // The component logs its text at the end, after all three keys were derived.
    let report = ended.report.to_string();
    assert!(ended.output.contains("it is <secret>") && report.contains("it is <secret>"), "{}", ended.output);
    assert!(!ended.output.contains(KEY) && !report.contains(KEY), "{}", ended.output);
}
