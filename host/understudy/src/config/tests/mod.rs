use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use ::replica::{Bytes, TablespaceKey};
use pgp::composed::{ArmorOptions, EncryptionCaps, KeyType, SecretKeyParamsBuilder, SubkeyParamsBuilder};
use sandbox::OptionValue;

use super::*;
use crate::plugin_path;

const FILE: &str = "/etc/understudy.toml";

mod flags_and_rules;
mod grants;
mod problems;
mod sample;
mod secrets;

/// The smallest complete configuration.
const WHOLE: &str = r#"
scope = "batman"
[replica]
datadir = "/data"
bin_dir = "/usr/lib/postgresql/15/bin"
"#;

/// Makes a secret key of OpenPGP with this pass phrase, and returns it in ASCII armour.
fn openpgp_key(pass_phrase: &str) -> String {
    let subkey = SubkeyParamsBuilder::default()
        .key_type(KeyType::X25519)
        .can_encrypt(EncryptionCaps::All)
        .passphrase(Some(pass_phrase.to_owned()))
        .build()
        .unwrap();
    let parameters = SecretKeyParamsBuilder::default()
        .key_type(KeyType::Ed25519)
        .can_certify(true)
        .primary_user_id("test".to_owned())
        .passphrase(Some(pass_phrase.to_owned()))
        .subkey(subkey)
        .build()
        .unwrap();
    let key = parameters.generate(rand::thread_rng()).unwrap();
    key.to_armored_string(ArmorOptions::default()).unwrap()
}

fn nothing(_: &str) -> Option<OsString> {
    None
}

fn parse_with(
    text: &str,
    overrides: &Overrides,
    environment: Environment<'_>,
) -> Result<Config, Vec<String>> {
    let problems = |problems: Vec<Problem>| problems.iter().map(Problem::to_string).collect();
    Config::parse(Path::new(FILE), text, overrides, environment).map_err(problems)
}

fn parse(text: &str) -> Result<Config, Vec<String>> {
    parse_with(text, &Overrides::default(), &nothing)
}

/// Appends these lines to [`WHOLE`] and returns the only problem, without the file's name.
fn problem(lines: &str) -> String {
    let problems = parse(&format!("{WHOLE}{lines}")).map(|_| ()).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems[0].strip_prefix(&format!("{FILE}:")).unwrap().to_owned()
}

#[test]
fn a_whole_configuration_is_read() {
    let config = parse(
        r#"
scope = "batman"

[replica]
datadir = "/data"
bin_dir = "/pg/bin"
methods = ["acme", "basebackup"]
user = "postgres"
state_dir = "/var/lib/understudy"
wal_dir = "/wal"
tablespaces = { "/old/fast" = "/new/fast", 16385 = "/new/oid", slow = "/new/slow" }
trigger_file = "promote.me"
config_file = "/etc/pg/postgresql.conf"
snapshot = true
config = "refuse-commands"
timeout = "12h"
plugin_path = ["/plugins"]
require_landlock = 3

[method.acme]
plugin = "acme.wasm"
keep_data = true
no_master = true
no_params = true
timeout = "1h30m"
cpu = "20min"
[method.acme.options]
stanza = "main"
jobs = 4
ratio = 0.5
delta = true
paths = ["a", "b"]
[method.acme.grants]
memory = "64MiB"
host_memory = "512MiB"
read = ["/mnt/backups"]
disk = { bytes = "3TiB", files = 5_000_000, keep_free = "20GiB" }
open_files = 500
log = { bytes = "64KiB" }

[method.basebackup]
tries = 3
pause = "0s"
timeout = "2h"
[method.basebackup.options]
max-rate = "100M"
verbose = true
compress = 0
label = ""
no-slot = false
"#,
    )
    .unwrap();
    assert_eq!(config.scope, "batman");
    assert_eq!(config.methods, ["acme", "basebackup"]);
    assert_eq!(config.directories.wal.as_deref(), Some(Path::new("/wal")));
    let map: Vec<_> = config.directories.tablespaces.entries().collect();
    assert_eq!(
        map,
        [
            (&TablespaceKey::Location("/old/fast".into()), Path::new("/new/fast")),
            (&TablespaceKey::Oid(16385), Path::new("/new/oid")),
            (&TablespaceKey::Name("slow".into()), Path::new("/new/slow")),
        ]
    );
    assert_eq!(config.config_file.unwrap().0, Path::new("/etc/pg/postgresql.conf"));
    assert!(config.snapshot && config.refuse_commands && config.source.is_none());
    assert_eq!(config.timeout, Some(Duration::from_secs(12 * 3600)));
    assert_eq!(config.require_landlock, Some(3));
    let acme = &config.components["acme"];
    assert_eq!(acme.plugin, Some(Plugin::File("/etc/acme.wasm".into())), "next to the configuration file");
    assert!(acme.keep_data && acme.no_leader && acme.no_params);
    assert_eq!(acme.timeout, Some(Duration::from_secs(5400)));
    assert_eq!(acme.cpu(), Some(Duration::from_secs(20 * 60)));
    assert_eq!(acme.grants.open.open_files, 500);
    assert_eq!(acme.grants.open.log, sandbox::LogBudget { bytes: Bytes(64 << 10), lines: 10_000 });
    let option =
        |name: &str| acme.options.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    assert_eq!(option("stanza"), Some(OptionValue::Text("main".into())));
    assert_eq!(option("jobs"), Some(OptionValue::Integer(4)));
    assert_eq!(option("ratio"), Some(OptionValue::Number(0.5)));
    assert_eq!(option("delta"), Some(OptionValue::Flag(true)));
    assert_eq!(option("paths"), Some(OptionValue::Texts(vec!["a".into(), "b".into()])));
    assert_eq!(acme.grants.open.memory, Bytes(64 << 20));
    assert_eq!(acme.grants.open.host_memory, Bytes(512 << 20));
    assert_eq!(acme.grants.open.read, [Path::new("/mnt/backups")]);
    let disk = acme.grants.open.disk.unwrap();
    assert_eq!(
        (disk.bytes, disk.files, disk.keep_free),
        (Some(Bytes(3 << 40)), Some(5_000_000), Some(Bytes(20 << 30)))
    );
    assert_eq!((config.basebackup.tries, config.basebackup.pause), (Some(3), Some(Duration::ZERO)));
}

#[test]
fn processor_time_is_limited_unless_cpu_is_0() {
    let cpu = |line: &str| {
        let config = parse(&format!("{WHOLE}[method.acme]\n{line}\n")).unwrap();
        config.components["acme"].cpu()
    };
    assert_eq!(cpu(""), Some(Duration::from_secs(4 * 3600)));
    assert_eq!(cpu("cpu = \"0s\""), None);
    assert_eq!(cpu("cpu = \"90s\""), Some(Duration::from_secs(90)));
}

#[test]
fn a_plan_and_a_stall_have_time_limits_unless_they_are_0() {
    let limits = |lines: &str| {
        let config = parse(&format!("{WHOLE}[method.acme]\n{lines}\n")).unwrap();
        (config.components["acme"].plan_timeout(), config.components["acme"].stall_timeout())
    };
    let minutes = |count: u64| Some(Duration::from_secs(60 * count));
    let store =
        |retry_for: &str| format!("grants.stores.repo = {{ url = \"s3://b\", retry_for = \"{retry_for}\" }}");
    assert_eq!(limits(""), (minutes(10), minutes(15)));
    assert_eq!(limits("plan_timeout = \"0s\"\nstall_timeout = \"0s\""), (None, None));
    assert_eq!(limits("plan_timeout = \"1m\"\nstall_timeout = \"2m\""), (minutes(1), minutes(2)));
    // A stall is noticed only after the longest retries have ended with the store's own error.
    assert_eq!(limits(&store("8m")), (minutes(10), minutes(15)));
    assert_eq!(limits(&store("30m")), (minutes(10), minutes(35)));
    assert_eq!(limits(&format!("stall_timeout = \"2m\"\n{}", store("30m"))), (minutes(10), minutes(2)));
}

#[test]
fn a_plugin_is_a_path_or_a_name_that_is_looked_up() {
    let plugin = |text: &str| {
        let config = parse(&format!("{WHOLE}\n[method.restore]\nplugin = \"{text}\"\n")).unwrap();
        config.components["restore"].clone()
    };
    for (text, file) in [
        ("/opt/x.wasm", "/opt/x.wasm"),
        ("./x", "/etc/./x"),
        ("x.wasm", "/etc/x.wasm"),
        ("sub/command", "/etc/sub/command"),
    ] {
        let section = plugin(text);
        let Some(Plugin::File(found)) = &section.plugin else { panic!("{text}: {:?}", section.plugin) };
        assert_eq!(found, Path::new(file));
        assert_eq!(section.looked_up("restore"), None, "{text}");
    }
    let section = plugin("command");
    assert_eq!(section.plugin, Some(Plugin::Name("command".to_owned())));
    assert_eq!(section.looked_up("restore"), Some("command"));
    assert_eq!(ComponentSection::default().looked_up("restore"), Some("restore"));
}

#[test]
fn missing_settings_have_patronis_defaults() {
    let config = parse(WHOLE).unwrap();
    assert_eq!(config.methods, ["basebackup"]);
    assert_eq!((config.basebackup.tries, config.basebackup.pause), (None, None));
    assert_eq!(config.timeout, None);
    assert!(!config.snapshot && !config.refuse_commands && config.standby.is_none());
    assert_eq!(config.plugin_path, plugin_path::DEFAULT.map(PathBuf::from));
}
