//! `understudy new`: which projects it refuses to write, and that a refusal leaves nothing.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// Returns the names in the directory, apart from the configuration.
fn names(directory: &ConfigDirectory) -> Vec<String> {
    let entries = std::fs::read_dir(directory.0.path()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "u.toml");
    names.sort();
    names
}

#[test]
fn a_project_is_written_once_and_says_what_to_do_next() {
    let directory = empty_config();
    let output = directory.run(&["new", "acme", "--licence", "mit"]);
    output.expect(
        0,
        &[
            "cargo test",
            "--target wasm32-wasip2",
            "./sandbox-test.sh target/wasm32-wasip2/release/acme.wasm",
            "`--sdk` takes it from a checkout",
        ],
    );
    assert_eq!(names(&directory), ["acme"]);
    let mode = |file: &str| std::fs::metadata(directory.path(file)).unwrap().permissions().mode() & 0o700;
    assert_eq!((mode("acme"), mode("acme/sandbox-test.sh"), mode("acme/Cargo.toml")), (0o700, 0o700, 0o600));
    std::fs::write(directory.path("acme/README.md"), "mine").unwrap();
    directory.run(&["new", "acme"]).expect(2, &["acme exists already"]);
    assert_eq!(std::fs::read_to_string(directory.path("acme/README.md")).unwrap(), "mine");
}

#[test]
fn wrong_arguments_are_refused_with_the_nearest_word_and_leave_nothing() {
    let directory = empty_config();
    for (arguments, says) in [
        (&["new", "My Method"][..], "did you mean `my-method`?"),
        (&["new", "../acme"], "did you mean `acme`?"),
        (&["new", "\u{1b}[2J"], "`\\u{1b}[2J` cannot be the name"),
        (&["new", "basebackup"], "another meaning"),
        (&["new", ""], "a value is required"),
        (&["new", "acme", "--language", "ruts"], "'rust'"),
        (&["new", "acme", "--licence", "apache"], "'apache-2.0'"),
        (&["new", "acme", "--sdk", "/no/such"], "cannot find /no/such"),
        (&["new", "acme", "--sdk", "."], "neither the crate understudy-sdk nor a checkout"),
    ] {
        directory.run(arguments).expect(2, &[says]);
    }
    assert_eq!(names(&directory), [""; 0]);
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    if is_root() {
        return;
    }
    let directory = empty_config();
    std::fs::set_permissions(directory.0.path(), std::fs::Permissions::from_mode(0o500)).unwrap();
    directory.run(&["new", "acme"]).expect(1, &["cannot make a directory in .", "Permission denied"]);
}
