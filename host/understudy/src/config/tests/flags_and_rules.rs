//! The rules of the loop that the configuration implements, and the flags that override the file.

use super::*;

fn given(name: &str, value: &str) -> GivenOption {
    GivenOption { name: name.to_owned(), value: value.to_owned(), flag: format!("--{name}") }
}

#[test]
fn rule_01_patronis_names_of_the_list_are_read_as_a_list_or_as_one_name() {
    for list in [
        "methods = [\"acme\", \"basebackup\"]",
        "create_replica_methods = [\"acme\", \"basebackup\"]",
        "create_replica_method = [\"acme\", \"basebackup\"]",
    ] {
        let config = parse(&format!("{WHOLE}{list}\n[method.acme]")).unwrap();
        assert_eq!(config.methods, ["acme", "basebackup"], "{list}");
    }
    assert_eq!(parse(&format!("{WHOLE}methods = \"acme\"\n[method.acme]")).unwrap().methods, ["acme"]);
    assert_eq!(parse(&format!("{WHOLE}methods = []")).unwrap().methods, ["basebackup"]);
}

#[test]
fn rule_01_the_sources_list_replaces_the_local_one_and_sections_stay_local() {
    let text = format!(
        "{WHOLE}methods = [\"a\"]\n[source]\nconninfo = \"host=h\"\nmethods = [\"b\"]\n[method.a]\n[method.b]\nkeep_data = true"
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.methods, ["b"]);
    assert!(config.components["b"].keep_data);
    let without_source = Overrides { connstring: Some(String::new()), ..Overrides::default() };
    assert_eq!(parse_with(&text, &without_source, &nothing).unwrap().methods, ["a"]);
}

#[test]
fn rule_02_with_from_leader_only_basebackup_is_tried_and_needs_a_source() {
    let overrides = Overrides { from_leader: true, ..Overrides::default() };
    let with_source = format!("{WHOLE}methods = [\"a\"]\n[source]\nconninfo = \"host=h\"\n[method.a]");
    assert_eq!(parse_with(&with_source, &overrides, &nothing).unwrap().methods, ["basebackup"]);
    let problems = parse_with(WHOLE, &overrides, &nothing).map(|_| ()).unwrap_err();
    assert!(problems[0].starts_with("--from-leader: "), "{problems:?}");
    let wrong_source = format!("{WHOLE}[source]\nconninfo = \"nonsense\"");
    let problems = parse_with(&wrong_source, &overrides, &nothing).map(|_| ()).unwrap_err();
    assert!(problems.len() == 1 && problems[0].contains("source.conninfo"), "{problems:?}");
}

#[test]
fn rule_04_an_empty_connstring_means_no_source() {
    let text = format!("{WHOLE}[source]\nconninfo = \"host=h\"");
    assert!(parse(&text).unwrap().source.is_some());
    let overrides = Overrides { connstring: Some(String::new()), ..Overrides::default() };
    assert!(parse_with(&text, &overrides, &nothing).unwrap().source.is_none());
}

#[test]
fn rule_03_patronis_passfile_is_used_if_patroni_passes_the_connstring() {
    let patroni = |name: &str| (name == "PGPASSFILE").then(|| OsString::from("/tmp/pgpass0"));
    let text = format!("{WHOLE}[source]\nconninfo = \"host=h\"\npassfile = \"/etc/pgpass\"");
    let given = Overrides { connstring: Some("host=leader".to_owned()), ..Overrides::default() };
    let passfile = |config: Config| config.source.unwrap().passfile.unwrap();
    assert_eq!(passfile(parse_with(&text, &given, &patroni).unwrap()), Path::new("/tmp/pgpass0"));
    assert_eq!(passfile(parse_with(&text, &given, &nothing).unwrap()), Path::new("/etc/pgpass"));
    assert_eq!(
        passfile(parse_with(&text, &Overrides::default(), &patroni).unwrap()),
        Path::new("/etc/pgpass")
    );
    let without = format!("{WHOLE}[source]\nconninfo = \"host=h\"");
    assert_eq!(
        passfile(parse_with(&without, &Overrides::default(), &patroni).unwrap()),
        Path::new("/tmp/pgpass0")
    );
    let source = parse_with(&text, &given, &nothing).unwrap().source.unwrap();
    assert_eq!(source.conninfo.get("host"), Some("leader"));
}

#[test]
fn a_password_is_read_from_the_variable_that_the_file_names() {
    let environment = |name: &str| (name == "SECRET").then(|| OsString::from("hush"));
    let text = format!("{WHOLE}[source]\nconninfo = \"host=h\"\npassword = {{ env = \"SECRET\" }}");
    let config = parse_with(&text, &Overrides::default(), &environment).unwrap();
    let settings = config.source.unwrap().resolve().unwrap();
    assert_eq!(settings.password.unwrap().expose(), b"hush");
    let both = format!("{text}\npassfile = \"/p\"");
    let problems = parse_with(&both, &Overrides::default(), &environment).map(|_| ()).unwrap_err();
    assert!(problems[0].contains("are both given"), "{problems:?}");
}

#[test]
fn flags_override_settings_of_the_file_and_replace_missing_ones() {
    let overrides = Overrides {
        scope: Some("robin".to_owned()),
        datadir: Some("/flag".into()),
        bin_dir: Some("/flag/bin".into()),
        timeout: Some(Duration::from_secs(1)),
        force: true,
        ..Overrides::default()
    };
    for text in ["", &format!("{WHOLE}timeout = \"1h\"")] {
        let config = parse_with(text, &overrides, &nothing).unwrap();
        assert_eq!((config.scope.as_str(), config.force), ("robin", true));
        assert_eq!(config.directories.datadir, Path::new("/flag"));
        assert_eq!(config.bin_dir, Path::new("/flag/bin"));
        assert_eq!(config.timeout, Some(Duration::from_secs(1)));
    }
    let relative = Overrides { datadir: Some("data".into()), ..Overrides::default() };
    let problems = parse_with(WHOLE, &relative, &nothing).map(|_| ()).unwrap_err();
    assert_eq!(problems, ["--datadir: must be an absolute path, which begins with `/`"]);
    let invisible = Overrides {
        scope: Some("bat\u{a0}man".to_owned()),
        datadir: Some("/data\n".into()),
        bin_dir: Some("/bin ".into()),
        ..Overrides::default()
    };
    let problems = parse_with(WHOLE, &invisible, &nothing).map(|_| ()).unwrap_err();
    assert_eq!(
        problems,
        [
            "--bin-dir: ends with an invisible character, U+0020 (space): remove it",
            "--datadir: has an invisible character, U+000A (line feed), at position 6: remove it",
            "--scope: has an invisible character, U+00A0 (no-break space), at position 4: remove it",
        ]
    );
}

#[test]
fn additional_options_go_only_to_the_method_that_is_named() {
    let text = format!("{WHOLE}methods = [\"acme\"]\n[method.acme.options]\nstanza = \"main\"\njobs = 4");
    let overrides = |method: Option<&str>| Overrides {
        method: method.map(str::to_owned),
        options: vec![given("stanza", "flag")],
        ..Overrides::default()
    };
    let config = parse_with(&text, &overrides(Some("acme")), &nothing).unwrap();
    assert_eq!(
        config.components["acme"].options,
        [
            ("jobs".to_owned(), OptionValue::Integer(4)),
            ("stanza".to_owned(), OptionValue::Untyped("flag".to_owned())),
        ]
    );
    let problems = parse_with(&text, &overrides(None), &nothing).map(|_| ()).unwrap_err();
    assert_eq!(
        problems,
        ["--stanza: is not a flag of this program; to set an option of a method, also pass --method NAME"]
    );
    let problems = parse_with(&text, &overrides(Some("acne")), &nothing).map(|_| ()).unwrap_err();
    assert_eq!(problems, ["--method: `acne` is not listed and has no section; did you mean `acme`?"]);
}

#[test]
fn rule_06_a_method_without_a_section_is_the_plugin_of_that_name() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("acme.wasm"), "").unwrap();
    let path = directory.path().display();
    let text = format!("{WHOLE}methods = [\"acme\"]\nplugin_path = [\"{path}\"]");
    assert_eq!(parse(&text).unwrap().methods, ["acme"]);
    let from_environment = |name: &str| (name == plugin_path::VARIABLE).then(|| directory.path().into());
    let text = format!("{WHOLE}methods = [\"acme\"]");
    assert_eq!(parse_with(&text, &Overrides::default(), &from_environment).unwrap().methods, ["acme"]);
    let misspelt = format!("{WHOLE}methods = [\"acne\"]");
    let problems = parse_with(&misspelt, &Overrides::default(), &from_environment).map(|_| ()).unwrap_err();
    assert!(problems[0].ends_with("did you mean `acme`?"), "{problems:?}");
    let unknown = parse(&text).map(|_| ()).unwrap_err();
    assert!(
        unknown[0].contains("unknown method `acme`: there is no section [method.acme] and no acme.wasm in"),
        "{unknown:?}"
    );
}

#[test]
fn a_missing_plugin_is_not_a_problem_of_the_configuration_if_the_method_has_a_section() {
    let text =
        format!("{WHOLE}methods = [\"acme\", \"basebackup\"]\n[method.acme]\nplugin = \"/no/such.wasm\"");
    assert_eq!(parse(&text).unwrap().methods, ["acme", "basebackup"]);
}

#[test]
fn rule_29_the_standby_follows_the_operators_conninfo_and_uses_standby_passfile() {
    let text = format!(
        "{WHOLE}configure_standby = true\nstandby_passfile = \"/etc/pgpass\"\nrestore_command = \"cp /archive/%f %p\"\n[source]\nconninfo = \"host=h\"\npassfile = \"/run/p\""
    );
    let config = parse(&text).unwrap();
    assert_eq!(config.restore_command.as_deref(), Some("cp /archive/%f %p"));
    let (conninfo, passfile) = config.standby.unwrap();
    assert_eq!(conninfo.get("host"), Some("h"));
    assert_eq!(passfile.as_deref(), Some(Path::new("/etc/pgpass")));
}

#[test]
fn rule_19_basebackups_options_are_a_table_or_a_list_and_flags_override_them() {
    let table =
        "[method.basebackup.options]\nmax-rate = \"100M\"\nverbose = true\nno-slot = false\nlabel = \"\"";
    let list = "[method.basebackup]\noptions = [\"verbose\", { max-rate = \"100M\" }, \"checkpoint=fast\"]";
    let arguments = |lines: &str, options: &[(&str, &str)]| {
        let options = options.iter().map(|(name, value)| given(name, value)).collect();
        let overrides = Overrides { method: Some("basebackup".to_owned()), options, ..Overrides::default() };
        let config = parse_with(&format!("{WHOLE}{lines}"), &overrides, &nothing).unwrap();
        let arguments = config.basebackup.options().check(15, &config.directories).unwrap();
        let mut arguments: Vec<_> =
            arguments.into_iter().map(|argument| argument.into_string().unwrap()).collect();
        arguments.sort();
        arguments
    };
    assert_eq!(arguments(table, &[]), ["--max-rate=100M", "--verbose"]);
    assert_eq!(arguments(list, &[]), ["--checkpoint=fast", "--max-rate=100M", "--verbose"]);
    let flags = [("max-rate", "1M"), ("verbose", "False"), ("no-slot", "True")];
    assert_eq!(arguments(table, &flags), ["--max-rate=1M", "--no-slot"]);
    assert_eq!(arguments(list, &flags), ["--checkpoint=fast", "--max-rate=1M", "--no-slot"]);
}

#[test]
fn each_option_is_read_with_its_place_in_the_file() {
    let text = format!(
        "{WHOLE}[method.acme]\n[method.acme.options]\nstanza = \"main\"\n[method.basebackup.options]\nformat = \"t\"\nwaldirr = \"/w\"\n"
    );
    let overrides = |method: &str, option: &str| Overrides {
        method: Some(method.to_owned()),
        options: vec![given(option, "x")],
        ..Overrides::default()
    };
    let config = parse_with(&text, &overrides("acme", "jobs"), &nothing).unwrap();
    let written = &config.components["acme"].written;
    assert_eq!(written.section.as_deref(), Some("/etc/understudy.toml:6:9"));
    let places = [("jobs", "--jobs"), ("stanza", "/etc/understudy.toml:8:1")];
    assert_eq!(written.options, places.map(|(name, place)| (name.to_owned(), place.to_owned())).into());
    let config = parse_with(&text, &overrides("basebackup", "no-sync"), &nothing).unwrap();
    let refusal = config.basebackup.options().check(15, &config.directories).unwrap_err();
    let parts: Vec<_> =
        refusal.message.split("; ").filter(|part| part.contains("option of pg_basebackup")).collect();
    for (part, place) in
        parts.iter().zip(["/etc/understudy.toml:10:1: ", "/etc/understudy.toml:11:1: ", "--no-sync: "])
    {
        assert!(part.starts_with(&format!("{place}option of pg_basebackup: ")), "{part}");
    }
    assert_eq!(parts.len(), 3, "{}", refusal.message);
}
