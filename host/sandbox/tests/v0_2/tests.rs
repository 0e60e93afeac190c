//! A component for 0.2 runs in the same host as components for 0.1, under the same rules.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use replica::{
    CapabilityKind, Context, Denial, Directories, Event, Failure, Method, Outcome, Plan, Request, Run,
    TablespaceMap,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use transfer::store::StoreConfig;

use crate::{Compiler, Grants, MethodSettings, OptionValue, Sandbox, SandboxSettings, Written};

/// The path of the component with this name, built by `cargo xtask plugins`.
fn component(name: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../plugins/target/components/{name}.wasm"));
    assert!(path.is_file(), "{} is missing: run `cargo xtask plugins` first", path.display());
    path
}

fn sandbox() -> Sandbox {
    Sandbox::new(SandboxSettings::new(Compiler::Here)).unwrap()
}

/// Returns the plan of a component, and its denials.
async fn planned(
    name: &str,
    options: &[(&str, &str)],
    grants: Grants,
) -> (Result<Plan, Failure>, Vec<Denial>) {
    let root = TempDir::new().unwrap();
    let option = |(name, value): &(&str, &str)| ((*name).to_owned(), OptionValue::Text((*value).to_owned()));
    let settings = MethodSettings {
        name: "acme".to_owned(),
        component: component(name).into(),
        options: options.iter().map(option).collect(),
        written: Written::default(),
        cpu: None,
        grants,
    };
    let directories =
        Directories { datadir: root.path().to_owned(), wal: None, tablespaces: TablespaceMap::default() };
    let request = Request {
        context: Some(Context {
            scope: "batman".to_owned(),
            role: "replica".to_owned(),
            datadir: root.path().to_str().unwrap().to_owned(),
            connstring: String::new(),
        }),
        keep_data: false,
        directories: Arc::new(directories),
        directory: None,
        bin_dir: PathBuf::new(),
        source: None,
    };
    let denials = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&denials);
    let sink = move |event| {
        if let Event::Denied { denial, .. } = event {
            reported.lock().unwrap().push(denial);
        }
    };
    let run = Run::new("acme", CancellationToken::new(), Arc::new(sink));
    let plan = sandbox().method(settings).unwrap().plan(&request, &run).await;
    let denials = denials.lock().unwrap().clone();
    (plan, denials)
}

#[test]
#[ignore = "needs components: cargo xtask test"]
fn inspect_shows_the_version_of_the_contract_of_each_component() {
    let inspection = sandbox().inspect(component("contract-0-2")).unwrap();
    assert_eq!((inspection.contract.as_str(), inspection.name.as_str()), ("0.2.0", "contract-0-2"));
    assert!(inspection.imports.iter().any(|import| import == "understudy:method/store@0.2.0"));
    assert_eq!(sandbox().inspect(component("hostile")).unwrap().contract, "0.1.0");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn a_store_that_was_not_granted_is_denied_in_both_versions_with_the_same_remedy() {
    let (plan, denials) = planned("contract-0-2", &[], Grants::default()).await;
    let failure = plan.unwrap_err();
    let line = r#"[method.acme.grants] stores.repo = { url = "..." }"#;
    assert_eq!(failure.outcome, Outcome::Denied);
    let said = format!("denied: no grant covers the store repo; to allow it: {line}");
    assert!(failure.message.starts_with(&said), "{}", failure.message);
    let denial = Denial {
        capability: CapabilityKind::Store,
        what: "the store repo".to_owned(),
        remedy: Some(line.to_owned()),
    };
    assert_eq!(denials, std::slice::from_ref(&denial));

    let ungranted = [("behave", "ungranted"), ("when", "plan")];
    let (plan, denials) = planned("hostile", &ungranted, Grants::default()).await;
    let failure = plan.unwrap_err();
    let said = "no grant covers the store repo; to allow it: [method.acme.grants] stores.repo";
    assert!(failure.message.contains(said), "{}", failure.message);
    assert!(denials.contains(&denial), "{denials:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn a_granted_store_is_read_by_the_new_function_and_the_changed_record() {
    let place = TempDir::new().unwrap();
    std::fs::write(place.path().join("there"), "x").unwrap();
    let store = StoreConfig::new(format!("file://{}", place.path().display()));
    let grants = Grants { stores: [("repo".to_owned(), store)].into(), ..Grants::default() };
    let (plan, denials) = planned("contract-0-2", &[], grants).await;
    let backup = plan.unwrap().backup;
    let modified = backup.strip_prefix("there: true, absent: false, modified: Some(").unwrap();
    let milliseconds: u64 = modified.strip_suffix(')').unwrap().parse().unwrap();
    assert!(milliseconds > 1_700_000_000_000 && milliseconds.is_multiple_of(1000), "{backup}");
    assert_eq!(denials, []);
}
