//! Snapshots of whole texts for people, so that a review sees every change in wording. `INSTA_UPDATE=always cargo test` updates them.

use super::*;

/// Replaces what differs between machines and between runs with a name.
fn without_variable_parts(text: &str, directory: &ConfigDirectory) -> String {
    let mut text = text.replace(directory.0.path().to_str().unwrap(), "<directory>");
    text = text.replace(env!("CARGO_PKG_VERSION"), "<version>");
    if let Some((before, rest)) = text.split_once("created after ")
        && let Some((_, after)) = rest.split_once(" s:")
    {
        text = format!("{before}created after <seconds> s:{after}");
    }
    let mut fixed = String::new();
    let mut before = "";
    for line in text.lines() {
        let is_host_name =
            before.trim_start() == "\"host\": {" && line.trim_start().starts_with("\"name\": ");
        before = line;
        let has_key = |key: &str| line.trim_start().starts_with(&format!("\"{key}\": "));
        let keys = ["seconds", "used", "started", "ended", "kernel", "landlock", "architecture"];
        let line = match keys.into_iter().find(|key| has_key(key)).or(is_host_name.then_some("name")) {
            Some(key) => {
                let indent = &line[..line.len() - line.trim_start().len()];
                let comma = if line.ends_with(',') { "," } else { "" };
                format!("{indent}\"{key}\": <{key}>{comma}")
            }
            None => line.to_owned(),
        };
        fixed.push_str(&line);
        fixed.push('\n');
    }
    fixed
}

#[test]
fn help_of_every_verb() {
    let directory = empty_config();
    for verb in [""].into_iter().chain(VERBS.map(|(verb, _)| verb)) {
        let arguments: Vec<&str> = [verb, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        let name = if verb.is_empty() { "help" } else { &format!("help-{verb}") };
        insta::assert_snapshot!(name, without_variable_parts(&directory.run(&arguments).out(), &directory));
    }
}

#[test]
fn output_and_report_for_a_mistyped_configuration() {
    let directory = ConfigDirectory::with(WRONG);
    insta::assert_snapshot!(
        "mistyped-configuration",
        without_variable_parts(&directory.create(&[]).err(), &directory)
    );
    directory.create(&["--report", "report.json"]);
    let report = std::fs::read_to_string(directory.path("report.json")).unwrap();
    insta::assert_snapshot!("mistyped-configuration-report", without_variable_parts(&report, &directory));
}

#[test]
fn output_and_report_of_a_run_that_created_nothing() {
    let directory = with_missing_plugin();
    let output = directory.create(&["--report", "report.json", "--log-level", "error"]);
    insta::assert_snapshot!("nothing-created", without_variable_parts(&output.err(), &directory));
    let report = std::fs::read_to_string(directory.path("report.json")).unwrap();
    insta::assert_snapshot!("nothing-created-report", without_variable_parts(&report, &directory));
    insta::assert_snapshot!(
        "check",
        without_variable_parts(&directory.run(&["check", "--config", "u.toml"]).out(), &directory)
    );
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn output_of_inspect_for_the_methods() {
    let directory = empty_config();
    let components = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/target/components");
    for method in ["tarball", "mirror", "pgbackrest", "command"] {
        let component = components.join(format!("{method}.wasm"));
        std::fs::copy(component, directory.path(&format!("{method}.wasm"))).unwrap();
        let output = directory.run(&["inspect", &format!("{method}.wasm")]);
        assert_eq!(output.code(), 0, "{}", output.err());
        insta::assert_snapshot!(
            format!("inspect-{method}"),
            without_digest(&without_variable_parts(&output.out(), &directory))
        );
    }
}

/// Replaces the digest and the size of a component, which change with the compiler.
fn without_digest(text: &str) -> String {
    let hexadecimal = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let word = |word: &str| {
        let bare = word.trim_start_matches("sha256:");
        if hexadecimal(bare) { word.replace(bare, "<digest>") } else { word.to_owned() }
    };
    let line = |line: &str| match line.starts_with("  size ") {
        true => "  size      <size>".to_owned(),
        false => line.split(' ').map(word).collect::<Vec<_>>().join(" "),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
