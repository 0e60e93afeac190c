//! Tests the other files that are installed with the program: manual pages and the sample configuration.

use std::io::Write;
use std::process::Stdio;

use super::*;

#[test]
#[ignore = "needs groff: cargo xtask test"]
fn every_manual_page_is_rendered_without_a_warning() {
    for verb in [None].into_iter().chain(VERBS.map(|(verb, _)| Some(verb))) {
        let page = empty_config().run(&["man"].into_iter().chain(verb).collect::<Vec<_>>());
        page.expect(0, &[".SH NAME", ".SH SYNOPSIS", ".SH \"EXIT STATUS\"", ".SH EXAMPLES"]);
        let mut groff = Command::new("groff")
            .args(["-man", "-Tutf8", "-ww", "-rLL=80n"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        groff.stdin.take().unwrap().write_all(page.out().as_bytes()).unwrap();
        let rendered = groff.wait_with_output().unwrap();
        assert!(rendered.status.success(), "{verb:?}");
        assert_eq!(String::from_utf8_lossy(&rendered.stderr), "", "{verb:?}");
        assert!(rendered.stdout.len() > 500, "{verb:?}");
    }
}

#[test]
fn a_manual_page_of_no_verb_is_usage() {
    empty_config()
        .run(&["man", "creat"])
        .expect(2, &["no manual page of `creat`", "create, check, run, inspect"]);
}

/// The configuration that the package installs among its examples.
const SAMPLE: &str = include_str!("../../../../examples/understudy.toml");

#[test]
fn check_accepts_the_sample_configuration_of_the_package_as_it_stands_and_with_all_of_it_switched_on() {
    let switched_on: String = SAMPLE
        .lines()
        .map(|line| {
            let setting = line.strip_prefix('#').filter(|rest| rest.starts_with(|first: char| first != ' '));
            format!("{}\n", setting.unwrap_or(line))
        })
        .collect();
    assert!(switched_on.contains("\ntablespaces = ") && switched_on.contains("\n[method.pgbackrest]"));
    for (text, methods) in [(SAMPLE, "\"tarball\", "), (&switched_on, "\"tarball\", \"pgbackrest\", ")] {
        let place = with_missing_plugin();
        let state = format!("[replica]\nstate_dir = \"{}\"", place.path("state").display());
        let mut text = text
            .replace("/var/lib/postgresql/15/main", place.path("data").to_str().unwrap())
            .replace("/usr/lib/postgresql/15/bin", place.path("bin").to_str().unwrap())
            .replace("/mnt/wal/15-main", place.path("wal").to_str().unwrap())
            .replace("/mnt/nvme/fast", place.path("fast").to_str().unwrap())
            .replace("[replica]", &state)
            .replace("\"tarball\", ", methods);
        // The user, and the files that must exist, depend on the machine.
        for setting in ["user = ", "standby_passfile = ", "passfile = ", "file = "] {
            let kept =
                |line: &&str| !line.starts_with(setting) && *line != "[method.pgbackrest.grants.keys.repo]";
            text = text.lines().filter(kept).map(|line| format!("{line}\n")).collect();
        }
        if is_root() {
            text = text.replace("[replica]", &format!("[replica]\nuser = \"{USER}\""));
        }
        std::fs::write(place.path("u.toml"), text).unwrap();
        let answer = place.run(&["check", "--config", "u.toml"]);
        answer.expect(1, &["tarball", "basebackup", "no method would create"]);
        assert!(!answer.err().contains("problem"), "{}", answer.err());
    }
}
