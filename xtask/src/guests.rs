//! Builds the components of the tests that are written in Python and JavaScript, `tests/guests/caller-python` and
//! `tests/guests/caller-javascript`, with the usual tools of these languages, which come from PyPI and npm's registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use tests::node::packages;
use tests::program::project;
use tests::python::{Base, environment};
use tests::server::run;

use crate::plugins::{components, put};
use crate::wasm_toolchain::TARGET;
use crate::{say, setup};

/// The names of the components, and of their folders in `tests/guests`.
pub(crate) const NAMES: [&str; 2] = [PYTHON, JAVASCRIPT];
const PYTHON: &str = "caller-python";
const JAVASCRIPT: &str = "caller-javascript";

/// Builds each component that is missing or was built from other sources. The first build takes two minutes, most of which is spent
/// installing 500 MB of tools.
///
/// # Errors
/// Fails if a registry cannot be reached, or a component does not build.
pub(crate) fn build() -> Result<()> {
    let contract = [project().join("wit/method.wit"), project().join("wit/deps/io.wit")];
    build_one(PYTHON, &["caller.py", "world.wit", "requirements.txt"], &contract, python)?;
    build_one(JAVASCRIPT, &["caller.js", "package.json"], &contract, javascript)
}

/// Calls `build` with the folder of the sources and the file to write, unless the component was built from the same texts.
fn build_one(
    name: &str,
    sources: &[&str],
    contract: &[PathBuf],
    build: impl FnOnce(&Path, &Path) -> Result<()>,
) -> Result<()> {
    let folder = project().join("tests/guests").join(name);
    let mut texts = String::new();
    for source in sources.iter().map(|source| folder.join(source)).chain(contract.iter().cloned()) {
        texts += &fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
    }
    let component = components().join(format!("{name}.wasm"));
    let built_from = work(name).join("built-from");
    if component.exists() && fs::read_to_string(&built_from).is_ok_and(|built_from| built_from == texts) {
        return Ok(());
    }
    say(&format!("building {name}"));
    fs::create_dir_all(work(name))?;
    fs::create_dir_all(components())?;
    let made = work(name).join("made.wasm");
    build(&folder, &made)?;
    put(&made, &component)?;
    Ok(fs::write(built_from, texts)?)
}

/// Returns the folder for the intermediate files of a component.
fn work(name: &str) -> PathBuf {
    project().join("plugins/target/guests").join(name)
}

fn python(folder: &Path, made: &Path) -> Result<()> {
    let tools = environment("guests/python", Base::Debian, &folder.join("requirements.txt"))?;
    let wit = work(PYTHON).join("wit");
    if wit.exists() {
        fs::remove_dir_all(&wit)?;
    }
    let contract = wit.join("deps/method");
    fs::create_dir_all(&contract)?;
    fs::copy(folder.join("world.wit"), wit.join("world.wit"))?;
    fs::copy(project().join("wit/method.wit"), contract.join("method.wit"))?;
    for package in fs::read_dir(wasi()?)? {
        let package = package?;
        fs::copy(package.path(), wit.join("deps").join(package.file_name()))?;
    }
    // The tool writes compiled modules next to the sources, so it gets a copy of the sources.
    let app = work(PYTHON).join("app");
    fs::create_dir_all(&app)?;
    fs::copy(folder.join("caller.py"), app.join("caller.py"))?;
    let mut componentize = Command::new(tools.join("bin/componentize-py"));
    componentize.arg("--wit-path").arg(&wit).args([
        "--world",
        "caller",
        "componentize",
        "caller",
        "--output",
    ]);
    componentize.arg(made).arg("--python-path").arg(app);
    // The packages of this environment are a part of the component if it imports them.
    componentize.env("VIRTUAL_ENV", &tools).env_remove("PYTHONPATH");
    run(&mut componentize).map(drop)
}

fn javascript(folder: &Path, made: &Path) -> Result<()> {
    setup::npm()?;
    let tools = packages("guests/javascript", &folder.join("package.json"))?;
    let mut componentize = Command::new(tools.join("node_modules/.bin/componentize-js"));
    componentize.arg("--wit").arg(project().join("wit")).args(["--world-name", "plugin", "--out"]).arg(made);
    run(componentize.arg("caller.js").current_dir(folder)).map(drop)
}

/// Returns the folder with WASI's packages in WIT, which the crate `wasip2` contains.
fn wasi() -> Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", TARGET]);
    cargo.arg("--manifest-path").arg(project().join("plugins/Cargo.toml"));
    let output = run(&mut cargo)?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let wasip2 = packages.iter().find(|package| package["name"] == "wasip2");
    let manifest = wasip2.and_then(|package| package["manifest_path"].as_str());
    Ok(Path::new(manifest.context("the plugins do not depend on the crate wasip2")?)
        .with_file_name("wit/deps"))
}
