//! The contract as a package of WIT that `wkg` can publish and fetch. A test packs it as `wkg wit build` does, with the same crates.

use std::path::{Path, PathBuf};

use tests::program::project;
use wit_component::DecodedWasm;
use wit_parser::{PackageId, Resolve};

fn read(folder: &Path) -> (Resolve, PackageId) {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(folder).unwrap();
    (resolve, package)
}

/// Returns the names of the packages, and of the functions of the package `of`, each with its documentation.
fn content(resolve: &Resolve, of: PackageId) -> (Vec<String>, Vec<(String, Option<String>)>) {
    let mut names: Vec<_> = resolve.packages.iter().map(|(_, package)| package.name.to_string()).collect();
    names.sort();
    let interfaces =
        resolve.packages[of].interfaces.values().map(|interface| &resolve.interfaces[*interface]);
    let functions = interfaces
        .flat_map(|interface| interface.functions.values())
        .map(|function| (function.name.clone(), function.docs.contents.clone()))
        .collect();
    (names, functions)
}

#[test]
fn the_contract_is_a_package_that_another_package_can_use() {
    let (contract, package) = read(&project().join("wit"));
    let bytes = wit_component::encode(&contract, package).unwrap();
    let DecodedWasm::WitPackage(decoded, decoded_package) = wit_component::decode(&bytes).unwrap() else {
        panic!("the package is a component");
    };
    assert_eq!(decoded.packages[decoded_package].name.to_string(), "understudy:method@0.1.0");
    let (names, functions) = content(&contract, package);
    assert_eq!(names, ["understudy:method@0.1.0", "wasi:io@0.2.12"]);
    assert_eq!(content(&decoded, decoded_package), (names, functions.clone()));
    assert!(functions.len() > 30 && functions.iter().all(|(_, docs)| docs.is_some()), "{functions:?}");

    // What an author's project has after the package was fetched.
    let author = tempfile::tempdir().unwrap();
    let dependencies: PathBuf = author.path().join("deps");
    std::fs::create_dir(&dependencies).unwrap();
    std::fs::write(dependencies.join("understudy-method.wasm"), bytes).unwrap();
    let world = "package acme:restore;\nworld restore { include understudy:method/plugin@0.1.0; }\n";
    std::fs::write(author.path().join("world.wit"), world).unwrap();
    let (fetched, own) = read(author.path());
    let world = &fetched.worlds[fetched.select_world(&[own], Some("restore")).unwrap()];
    let exports: Vec<_> = world.exports.keys().map(|key| fetched.name_world_key(key)).collect();
    assert_eq!(exports, ["understudy:method/replica-method@0.1.0"]);
}
