//! Whole texts as a person reads them, so that a change of words is seen in review. `INSTA_UPDATE=always cargo test` writes them
//! anew.

use super::*;

/// What differs from machine to machine or from run to run, by a name instead.
fn steady(text: &str, place: &Place) -> String {
    let mut text = text.replace(place.0.path().to_str().unwrap(), "<directory>");
    text = text.replace(env!("CARGO_PKG_VERSION"), "<version>");
    if let Some((before, rest)) = text.split_once("created after ")
        && let Some((_, after)) = rest.split_once(" s:")
    {
        text = format!("{before}created after <seconds> s:{after}");
    }
    let mut steady = String::new();
    for line in text.lines() {
        let number = |key: &str| line.trim_start().starts_with(&format!("\"{key}\": "));
        let line = match ["seconds", "started", "ended", "kernel", "landlock", "architecture", "hostname"]
            .iter()
            .find(|key| number(key))
        {
            Some(key) => {
                let indent = &line[..line.len() - line.trim_start().len()];
                let comma = if line.ends_with(',') { "," } else { "" };
                format!("{indent}\"{key}\": <{key}>{comma}")
            }
            None => line.to_owned(),
        };
        steady.push_str(&line);
        steady.push('\n');
    }
    steady
}

#[test]
fn help() {
    let place = no_config();
    for verb in ["", "create", "check", "inspect", "completions"] {
        let arguments: Vec<&str> = [verb, "--help"].into_iter().filter(|word| !word.is_empty()).collect();
        let name = if verb.is_empty() { "help" } else { &format!("help-{verb}") };
        insta::assert_snapshot!(name, steady(&place.run(&arguments).out(), &place));
    }
}

#[test]
fn a_mistyped_configuration() {
    let place = Place::with(WRONG);
    insta::assert_snapshot!("mistyped-configuration", steady(&place.create(&[]).err(), &place));
    place.create(&["--report", "report.json"]);
    let report = std::fs::read_to_string(place.path("report.json")).unwrap();
    insta::assert_snapshot!("mistyped-configuration-report", steady(&report, &place));
}

#[test]
fn a_run_that_created_nothing() {
    let place = runnable();
    let answer = place.create(&["--report", "report.json", "--log-level", "error"]);
    insta::assert_snapshot!("nothing-created", steady(&answer.err(), &place));
    let report = std::fs::read_to_string(place.path("report.json")).unwrap();
    insta::assert_snapshot!("nothing-created-report", steady(&report, &place));
    insta::assert_snapshot!("check", steady(&place.run(&["check", "--config", "u.toml"]).out(), &place));
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn what_inspect_says_of_the_methods() {
    let place = no_config();
    let components = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/target/components");
    for method in ["tarball", "mirror", "pgbackrest"] {
        let component = components.join(format!("{method}.wasm"));
        std::fs::copy(component, place.path(&format!("{method}.wasm"))).unwrap();
        let said = place.run(&["inspect", &format!("{method}.wasm")]);
        assert_eq!(said.code(), 0, "{}", said.err());
        insta::assert_snapshot!(format!("inspect-{method}"), without_digest(&steady(&said.out(), &place)));
    }
}

/// Without the digest of a component and its size, which change with the compiler.
fn without_digest(text: &str) -> String {
    let hexadecimal = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let word = |word: &str| {
        let bare = word.trim_start_matches("sha256:");
        if hexadecimal(bare) { word.replace(bare, "<digest>") } else { word.to_owned() }
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
