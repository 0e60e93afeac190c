//! Components that are refused before anything is touched.

use replica::Rule;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sandbox::{Compiler, ComponentSource, OptionValue, Sandbox, SandboxSettings};
use tempfile::TempDir;

use crate::stage::{Stage, component, sandbox, text};

/// Makes a file with these bytes.
fn file(bytes: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("method.wasm");
    fs::write(&path, bytes).unwrap();
    (directory, path)
}

fn refused(path: &Path, rule: &str, says: &str) {
    let refusal = sandbox().inspect(path).unwrap_err();
    assert_eq!(refusal.rule.word(), rule, "{refusal}");
    assert!(refusal.message.contains(says), "{refusal}");
    assert!(refusal.message.contains(path.to_str().unwrap()), "{refusal}");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_missing_or_unreadable_file_and_a_directory_are_refused() {
    let (directory, _) = file("");
    refused(&directory.path().join("absent.wasm"), "component", "No such file");
    refused(directory.path(), "component", "is not a file");
    let fifo = directory.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
    refused(&fifo, "component", "is not a file");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_file_that_is_not_a_component_is_refused_with_what_it_is() {
    let core = wat::parse_str("(module)").unwrap();
    for (bytes, says) in [
        (Vec::new(), "is empty"),
        (b"\0as".to_vec(), "first eight bytes"),
        (b"\0asm\x01".to_vec(), "first eight bytes"),
        (b"#!/bin/sh\n".to_vec(), "is not WebAssembly"),
        (b"(component)".to_vec(), "WebAssembly text"),
        (core, "is a core module"),
    ] {
        let (_directory, path) = file(bytes);
        refused(&path, "component", says);
    }
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn what_is_included_in_the_program_is_judged_as_a_file_is_and_named() {
    let included = ComponentSource::Included { name: "acme", bytes: b"#!/bin/sh\n" };
    let refusal = sandbox().inspect(included).unwrap_err();
    assert_eq!(refusal.message, "acme (included in the program): is not WebAssembly");
    assert_eq!(refusal.rule.word(), "component");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_file_larger_than_any_component_is_refused_without_being_compiled() {
    let (_directory, path) = file(b"\0asm\x0d\0\x01\0");
    fs::File::options().write(true).open(&path).unwrap().set_len((128 << 20) + 1).unwrap();
    refused(&path, "component", "larger than 128 MiB");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_truncated_component_is_refused_wherever_it_is_cut() {
    let whole = fs::read(component("no-exports")).unwrap();
    for length in [8, 9, 100, whole.len() / 2, whole.len() - 1] {
        let (_directory, path) = file(&whole[..length]);
        let refusal = sandbox().inspect(&path).unwrap_err();
        assert!([Rule::Component, Rule::InterfaceVersion].contains(&refusal.rule), "{length}: {refusal}");
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_component_that_others_may_change_is_not_run() {
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let (directory, path) = file(fs::read(component("hostile")).unwrap());
    let stage = Stage::of(path.clone()).option("behave", text("nothing"));
    stage.preflight().await.unwrap();
    mode(&path, 0o666);
    let refusal = stage.preflight().await.unwrap_err();
    assert_eq!((refusal.rule, refusal.policy), (Rule::Component, true), "{refusal}");
    assert!(refusal.message.contains("may be changed by others"), "{refusal}");
    mode(&path, 0o644);
    mode(directory.path(), 0o777);
    stage.preflight().await.unwrap_err();
    // As in /tmp: with the sticky bit, other users cannot replace the file.
    mode(directory.path(), 0o1777);
    stage.preflight().await.unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(directory.path(), Some(65_534), None).unwrap();
        let refusal = stage.preflight().await.unwrap_err();
        assert!(refusal.message.contains("may be changed by user 65534"), "{refusal}");
    }
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_component_without_the_exports_of_the_contract_is_refused() {
    refused(
        &component("no-exports"),
        "interface version",
        "does not export understudy:method/replica-method@0.1",
    );
    let (_directory, path) = file(wat::parse_str("(component)").unwrap());
    refused(&path, "interface version", "it exports nothing");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_component_for_another_version_of_the_contract_is_refused_with_that_version() {
    let text = r#"(component (instance $i) (export "understudy:method/replica-method@0.2.0" (instance $i)))"#;
    let (_directory, path) = file(wat::parse_str(text).unwrap());
    refused(&path, "interface version", "it exports version 0.2.0");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_component_whose_exports_are_of_other_types_is_refused() {
    let text = r#"(component (instance $i) (export "understudy:method/replica-method@0.1.0" (instance $i)))"#;
    let (_directory, path) = file(wat::parse_str(text).unwrap());
    refused(&path, "interface version", "describe");
}

/// Returns a component in which every interface of the contract has another patch version of the same length.
fn with_patch(patch: u8) -> Vec<u8> {
    let mut bytes = fs::read(component("hostile")).unwrap();
    let (begin, end) = (b"understudy:method/", b"@0.1.0");
    let mut changed = 0;
    for at in 0..bytes.len() {
        if !bytes[at..].starts_with(begin) {
            continue;
        }
        let name =
            bytes[at + begin.len()..].iter().take_while(|b| b.is_ascii_lowercase() || **b == b'-').count();
        let version = at + begin.len() + name;
        if bytes[version..].starts_with(end) {
            bytes[version + end.len() - 1] = b'0' + patch;
            changed += 1;
        }
    }
    assert!(changed > 5, "{changed}");
    bytes
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_later_patch_of_the_same_version_is_the_same_contract() {
    let (_directory, path) = file(with_patch(9));
    let inspection = sandbox().inspect(&path).unwrap();
    assert_eq!(inspection.contract, "0.1.9");
    assert_eq!(inspection.name, "hostile");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn an_unknown_import_is_refused_by_name() {
    let refusal = sandbox().inspect(component("foreign-import")).unwrap_err();
    assert_eq!(refusal.rule, Rule::Import, "{refusal}");
    let text = r#"(component
        (import "acme:secret/door@1.0.0" (instance))
        (import "wasi:http/types@0.2.0" (instance (export "f" (func))))
        (instance $i)
        (export "understudy:method/replica-method@0.1.0" (instance $i)))"#;
    let (_directory, path) = file(wat::parse_str(text).unwrap());
    refused(&path, "import", "wasi:http/types@0.2.0");
}

#[test]
fn an_unknown_import_of_the_contract_is_distinguished_from_a_foreign_one() {
    let text = r#"(component
        (import "understudy:method/keys@0.1.0" (instance))
        (import "understudy:method/teleport@0.1.0" (instance (export "f" (func))))
        (instance $i)
        (export "understudy:method/replica-method@0.1.0" (instance $i)))"#;
    let (_directory, path) = file(wat::parse_str(text).unwrap());
    let unknown =
        "not known: understudy:method/teleport@0.1.0 (this program speaks version 0.1 of the contract)";
    refused(&path, "import", unknown);
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_component_that_traps_loops_or_lies_in_describe_is_refused() {
    refused(&component("describe-traps"), "describe", "describe failed");
    let started = std::time::Instant::now();
    refused(&component("describe-loops"), "describe", "longer than 1 s");
    assert!(started.elapsed() < std::time::Duration::from_secs(10));
    refused(&component("describe-floods"), "describe", "");
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_component_is_inspected_without_grants() {
    let inspection = sandbox().inspect(component("hostile")).unwrap();
    assert_eq!(inspection.contract, "0.1.0");
    assert_eq!(inspection.digest.len(), "sha256:".len() + 64);
    assert_eq!(inspection.size, fs::metadata(component("hostile")).unwrap().len());
    assert!(inspection.imports.iter().any(|name| name.starts_with("wasi:filesystem/types@")));
    assert!(inspection.description.options.iter().any(|option| option.name == "behave" && option.required));
    let json = serde_json::to_value(&inspection).unwrap();
    assert_eq!(json["description"]["name"], "hostile");
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn options_are_checked_before_anything_runs() {
    let refusal = Stage::of(component("hostile")).preflight().await.unwrap_err();
    assert_eq!(refusal.rule, Rule::Option);
    assert!(refusal.message.contains("`behave` is missing"), "{refusal}");
    assert!(refusal.remedy.unwrap().starts_with("[method.hostile.options] behave = "));

    let stage =
        Stage::hostile("nothing").option("behaves", OptionValue::Flag(true)).option("count", text("many"));
    let refusal = stage.preflight().await.unwrap_err();
    assert!(refusal.message.contains("did you mean `behave`?"), "{refusal}");
    assert!(refusal.message.contains("write a whole number"), "{refusal}");

    let stage = Stage::hostile("nothing").option("count", OptionValue::Untyped("7".to_owned()));
    stage.preflight().await.unwrap();
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_granted_path_that_is_no_directory_is_refused() {
    let (_directory, path) = file("");
    let refusal =
        Stage::hostile("nothing").grant(|grants| grants.read.push(path)).preflight().await.unwrap_err();
    assert_eq!(refusal.rule, Rule::Grant);
    assert_eq!(refusal.remedy.as_deref(), Some("[method.hostile.grants] read = []"));
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn the_component_that_was_checked_runs_even_if_its_file_changes() {
    let (_directory, path) = file(fs::read(component("hostile")).unwrap());
    let stage = Stage::of(path.clone()).option("behave", text("nothing"));
    let (method, request, run) = (stage.method(), stage.request(), stage.run());
    replica::Method::preflight(&method, &request).await.unwrap();
    fs::write(&path, "something else").unwrap();
    replica::Method::plan(&method, &request, &run).await.unwrap();
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn a_kernel_without_the_required_landlock_is_refused_with_the_setting() {
    let error = Sandbox::new(SandboxSettings {
        require_landlock: Some(9999),
        ..SandboxSettings::new(Compiler::Here)
    })
    .err()
    .unwrap()
    .to_string();
    assert!(error.starts_with("require_landlock = 9999"), "{error}");
}
