//! Tests the grant of a program, its patterns, and the remedies of denials.

use std::fs;

use crate::stage::{Stage, output};

/// Returns the remedy of the only denial.
fn remedy(stage: &Stage) -> String {
    let ended = stage.create();
    let attempt = ended.attempt("hostile");
    assert_eq!(attempt["outcome"], "denied", "{}", ended.output);
    let denials = attempt["denials"].as_array().unwrap();
    assert_eq!((denials.len(), denials[0]["capability"].as_str()), (1, Some("program")), "{attempt}");
    let line = denials[0]["remedy"].as_str().unwrap();
    line.strip_prefix("[method.hostile.grants] ").unwrap().to_owned()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_call_without_a_grant_is_denied_and_each_printed_line_makes_it_work() {
    let stage = Stage::new("programs-denied");
    let asks = |arguments: &str| format!("program = \"echo\"\narguments = {arguments}\n");
    stage.configure("", &asks(r#"["a {b}", "--set=1"]"#), "");
    let line = remedy(&stage);
    assert!(line.contains(r#"bin/echo", args = ["a {{b}}", "--set=1"] }"#), "{line}");
    stage.configure("", &asks(r#"["a {b}", "--set=1"]"#), &line);
    assert!(stage.works().contains("program echo: a {b} --set=1"));
    // Other arguments are denied. The remedy has the patterns that match, and the new argument as a literal.
    stage.configure("", &asks(r#"["a {b}", "--set=2"]"#), &line);
    let line = remedy(&stage);
    assert!(line.contains(r#"args = ["a {{b}}", "--set=2"] }"#), "{line}");
    stage.configure("", &asks(r#"["a {b}", "--set=2"]"#), &line);
    assert!(stage.works().contains("program echo: a {b} --set=2"));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_pattern_matches_only_arguments_that_fit_its_hole() {
    let stage = Stage::new("programs-patterns");
    let datadir = stage.replica.datadir().display().to_string();
    let grant = r#"programs.tool = { path = "/bin/echo", args = ["--set={label}", "-j{number}", "{path under datadir}"] }"#;
    let run = |arguments: &[&str]| {
        stage.configure("", &format!("arguments = {arguments:?}\n"), grant);
        stage.attempt()
    };
    let deep = format!("{datadir}/base");
    assert_eq!(run(&["--set=20261127F", "-j4", &deep]).0, "check-failed");
    for arguments in [
        &["--set=-x", "-j4", &deep][..],
        &["--set=a b", "-j4", &deep],
        &["--set=a", "-jx", &deep],
        &["--set=a", "-j4", "/etc"],
        &["--set=a", "-j4", &format!("{datadir}/../x")],
        &["--set=a", "-j4"],
        &["--set=a", "-j4", &deep, "--more"],
        &["--set=a -j4", &deep],
    ] {
        let (outcome, message) = run(arguments);
        assert_eq!(outcome, "denied", "{arguments:?}: {message}");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn no_shell_interprets_the_arguments_of_a_program() {
    let stage = Stage::new("programs-literal");
    let place = stage.replica.directory("place").unwrap();
    let touch = format!("a;touch {}/x", place.display());
    let arguments = ["$(id)", "`id`", &touch, "*", "~", "> x", "| cat"];
    let grant =
        format!("programs.tool = {{ path = \"/bin/echo\", args = {arguments:?}, write = [{place:?}] }}");
    stage.configure("", &format!("arguments = {arguments:?}\n"), &grant);
    let output = stage.works();
    assert!(output.contains(&format!("program tool: {}\n", arguments.join(" "))), "{output}");
    assert_eq!(fs::read_dir(&place).unwrap().count(), 0);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_pattern_patroni_matches_only_the_values_of_the_run() {
    let stage = Stage::new("programs-patroni");
    let datadir = stage.replica.datadir().display().to_string();
    let arguments = |scope: &str| {
        [
            format!("--scope={scope}"),
            "--role=replica".to_owned(),
            format!("--datadir={datadir}"),
            "--connstring=".to_owned(),
        ]
    };
    let grant = r#"programs.tool = { path = "/bin/echo", args = ["{patroni}"] }"#;
    stage.configure("", &format!("arguments = {:?}\n", arguments("demo")), grant);
    assert!(
        stage.works().contains(&format!(
            "program tool: --scope=demo --role=replica --datadir={datadir} --connstring=\n"
        ))
    );
    stage.configure("", &format!("arguments = {:?}\n", arguments("other")), grant);
    assert_eq!(stage.attempt().0, "denied");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_that_is_refused_or_cannot_run_is_rejected_before_anything_is_touched() {
    let stage = Stage::new("programs-rejected");
    let script = stage.script("tool", "echo ran");
    let plain = stage.replica.path("plain");
    fs::write(&plain, "echo ran\n").unwrap();
    stage.own(&plain, 0o700);
    let reject = |path: &std::path::Path, says: &str| {
        stage.tool("", path, "");
        let ended = stage.create();
        let attempt = ended.attempt("hostile");
        assert_eq!(
            (attempt["outcome"].as_str(), attempt["rule"].as_str()),
            (Some("rejected"), Some("grant")),
            "{}",
            ended.output
        );
        assert_eq!((ended.code(), attempt["touched"].as_bool()), (Some(3), Some(false)), "{attempt}");
        let message = attempt["message"].as_str().unwrap();
        assert!(message.contains(says) && message.contains("programs.tool"), "{message}");
        assert!(!ended.output.contains("program tool"), "{}", ended.output);
    };
    reject(&stage.replica.path("absent"), "No such file");
    reject(&plain, "write that line");
    reject(&stage.replica.datadir().parent().unwrap().join("wal"), "is not a file");
    for (mode, says) in [
        (0o600, "chmod +x"),
        (0o4700, "is setuid"),
        (0o2700, "setgid"),
        (0o720, "chmod go-w"),
        (0o702, "chmod go-w"),
    ] {
        stage.own(&script, mode);
        reject(&script, says);
    }
    stage.own(&script, 0o700);
    stage.tool("", &script, "");
    assert!(stage.works().contains("program tool: ran"));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_secret_reaches_the_program_but_no_log_or_report() {
    let stage = Stage::new("programs-secret");
    let key = stage.replica.path("key");
    fs::write(&key, "swordfish-of-the-operator\n").unwrap();
    stage.own(&key, 0o600);
    let script = stage.script("tool", "echo \"it is $TOKEN\"; echo \"and $TOKEN again\" >&2; test ${#TOKEN} = 25; echo same=$? plain=$PLAIN");
    let grant = format!(
        "keys.repo = {{ file = {key:?} }}\n\
         programs.tool = {{ path = {script:?}, env = {{ TOKEN = {{ key = \"repo\" }}, PLAIN = \"a b\" }} }}"
    );
    stage.configure("", "", &grant);
    let ended = stage.create();
    assert_eq!(ended.attempts(), [("hostile", "check-failed")], "{}", ended.output);
    let output = output(ended.attempt("hostile"));
    assert!(output.contains("it is <secret>") && output.contains("and <secret> again"), "{output}");
    assert!(output.contains("same=0 plain=a b"), "{output}");
    // The component logs the end of the output that it got.
    assert!(output.contains("the program ended well: "), "{output}");
    for text in [ended.output.clone(), ended.report.to_string(), output] {
        assert!(!text.contains("swordfish"), "{text}");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_can_read_and_write_the_granted_directories_and_only_read_them_in_plan() {
    let stage = Stage::new("programs-places");
    let (read, write) =
        (stage.replica.directory("granted").unwrap(), stage.replica.directory("scratch").unwrap());
    fs::write(read.join("file"), "content").unwrap();
    stage.own(&read.join("file"), 0o600);
    let (datadir, wal) = (stage.replica.datadir(), stage.replica.wal());
    let script = stage.script(
        "tool",
        &format!(
            "cat {read}/file; echo\nfor place in {write} {datadir} {wal} {read}; do\n\
             if (echo x > $place/made) 2> /dev/null; then echo wrote $place; else echo not $place; fi; done",
            read = read.display(),
            write = write.display(),
            datadir = datadir.display(),
            wal = wal.display()
        ),
    );
    // `cat` is another program, which the script may start only if `execute` lists it.
    let keys = |execute: &str| format!(", read = [{read:?}], write = [{write:?}]{execute}");
    let configure = |when: &str, execute: &str| {
        let section = format!(
            "[method.hostile]\nno_leader = true\n[method.hostile.options]\nbehave = \"run-program\"\nwhen = \"{when}\"\n\
             [method.hostile.grants]\nprograms.tool = {{ path = {script:?}{} }}\n",
            keys(execute)
        );
        let wal_line = format!("wal_dir = {wal:?}\n");
        stage.replica.configure(&format!("methods = [\"hostile\"]\n{wal_line}"), &section).unwrap();
    };
    configure("create", ", execute = [\"/bin/cat\"]");
    let output = stage.works();
    assert!(output.contains("program tool: content"), "{output}");
    for place in [&write, &datadir, &wal] {
        assert!(output.contains(&format!("program tool: wrote {}", place.display())), "{output}");
    }
    assert!(output.contains(&format!("program tool: not {}", read.display())), "{output}");
    configure("create", "");
    assert!(stage.works().contains("cat: Permission denied"));
    configure("plan", ", execute = [\"/bin/cat\"]");
    let output = stage.works();
    assert!(output.contains("program tool: content") && !output.contains("wrote"), "{output}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_cannot_be_granted_a_directory_with_a_secret_or_the_data_directory() {
    let stage = Stage::new("programs-overlap");
    let script = stage.script("tool", "echo ran");
    let key = stage.replica.directory("keys").unwrap().join("key");
    fs::write(&key, "swordfish-of-the-operator\n").unwrap();
    stage.own(&key, 0o600);
    let keys = format!(
        "keys.repo = {{ file = {key:?}, stores = [\"b\"] }}\nstores.b = {{ url = \"file:///srv\" }}\n"
    );
    for (what, says) in [
        (format!("read = [{:?}]", key.parent().unwrap()), "holds a secret"),
        (format!("write = [{:?}]", key.parent().unwrap()), "holds a secret"),
        (format!("read = [{:?}]", stage.replica.datadir()), "apart from it"),
        ("read = [\"/proc/self\"]".to_owned(), "holds a secret"),
    ] {
        let grant = format!("{keys}programs.tool = {{ path = {script:?}, {what} }}");
        stage.configure("", "", &grant);
        let (outcome, message) = stage.attempt();
        assert_eq!(outcome, "rejected", "{what}: {message}");
        assert!(message.contains(says) && message.contains("programs.tool."), "{what}: {message}");
    }
}
