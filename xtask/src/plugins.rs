//! Builds the methods in `plugins/`, the test components in `tests/guests` and the methods in `examples/` for `wasm32-wasip2`, with
//! rustup's target or with Debian's packages, whichever is available. The module `guests` builds the test components in
//! other languages.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};

use crate::wasm_toolchain::{
    TARGET, Toolchain, cargo, component_linker, install_component_linker, rustup_has_target,
};
use crate::{guests, say, setup};

/// How long rustup may take to download the target (25 MB) before Debian's packages are tried.
const RUSTUP_PATIENCE: Duration = Duration::from_secs(180);

/// Builds every component that is written in Rust into [`components`]. If nothing has changed, this takes a second or two.
pub(crate) fn build() -> Result<()> {
    let root = root();
    let toolchain = pick(&tools(&root))?;
    let mut built = BTreeMap::new();
    let workspace = ["--workspace", "--lib", "--examples"];
    build_one(toolchain, &root, &root.join("plugins/Cargo.toml"), &workspace, &mut built)?;
    for example in examples(&root)? {
        build_one(toolchain, &root, &example, &[], &mut built)?;
    }
    let target = components();
    fs::create_dir_all(&target).with_context(|| format!("cannot make {}", target.display()))?;
    for (name, component) in &built {
        put(component, &target.join(format!("{name}.wasm")))?;
    }
    remove_others(&target, &built)?;
    say(&format!("{} components in {}", built.len(), target.display()));
    Ok(())
}

/// Returns the folder with the built components, each named NAME.wasm.
pub(crate) fn components() -> PathBuf {
    root().join("plugins/target/components")
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Returns the manifests of the examples that are methods in Rust.
fn examples(root: &Path) -> Result<Vec<PathBuf>> {
    let folder = root.join("examples");
    let mut manifests = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let manifest = entry?.path().join("Cargo.toml");
        if manifest.exists() {
            manifests.push(manifest);
        }
    }
    manifests.sort();
    Ok(manifests)
}

/// Returns the toolchain that the user chose. Without a choice, returns rustup's toolchain if it has the target, Debian's if it is
/// installed, or the first of the two that can be installed.
fn pick(tools: &Path) -> Result<Toolchain> {
    let toolchain = match Toolchain::chosen().map_err(Error::msg)? {
        Some(Toolchain::Rustup) if !rustup_has_target() && !rustup_adds_target() => {
            bail!("rustup is chosen, but it cannot add the target {TARGET}")
        }
        Some(chosen) => chosen,
        None if rustup_has_target() => Toolchain::Rustup,
        None if component_linker(tools).exists() && Path::new("/usr/bin/cargo").exists() => Toolchain::Debian,
        None if rustup_adds_target() => Toolchain::Rustup,
        None => Toolchain::Debian,
    };
    if toolchain == Toolchain::Debian {
        setup::wasm_from_debian()?;
        install_component_linker(tools).map_err(Error::msg)?;
    }
    say(match toolchain {
        Toolchain::Rustup => "building the methods with rustup's wasm32-wasip2 target",
        Toolchain::Debian => "building the methods with Debian's rustc-web and its library sources",
    });
    Ok(toolchain)
}

/// Builds `manifest`, and adds the built components to `built`, by name.
fn build_one(
    toolchain: Toolchain,
    root: &Path,
    manifest: &Path,
    what: &[&str],
    built: &mut BTreeMap<String, PathBuf>,
) -> Result<()> {
    let build = toolchain.build(root, &tools(root), manifest, &root.join("plugins/target"));
    let mut build = build.map_err(Error::msg)?;
    build.args(["--message-format", "json-render-diagnostics"]).args(what);
    // cargo prints warnings, errors and progress to standard error, which the user sees. It lists the built files on standard output.
    let output = build.stderr(Stdio::inherit()).output().context("cargo does not run")?;
    if !output.status.success() {
        bail!("{} does not build for {TARGET}: {}", manifest.display(), output.status);
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let (Some(name), Some(files)) = (message["target"]["name"].as_str(), message["filenames"].as_array())
        else {
            continue;
        };
        let component = files.iter().filter_map(|file| file.as_str()).find(|file| file.ends_with(".wasm"));
        if let Some(component) = component {
            built.insert(name.replace('_', "-"), component.into());
        }
    }
    Ok(())
}

fn rustup_adds_target() -> bool {
    let add =
        cargo("rustup").args(["target", "add", TARGET]).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut add) = add else { return false };
    say(&format!("asking rustup for the target {TARGET}, for {} seconds at most", RUSTUP_PATIENCE.as_secs()));
    let deadline = Instant::now() + RUSTUP_PATIENCE;
    loop {
        match add.try_wait() {
            Ok(Some(status)) => return status.success() && rustup_has_target(),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
            // rustup's server cannot be reached. Removes the remains of the attempt; the caller then tries Debian's packages.
            Ok(None) | Err(_) => {
                let _ = add.kill();
                let _ = add.wait();
                return false;
            }
        }
    }
}

fn tools(root: &Path) -> PathBuf {
    root.join("target/tools")
}

/// Copies `component` to `target`, unless `target` has the same content already. A concurrent reader never sees a partial file.
pub(crate) fn put(component: &Path, target: &Path) -> Result<()> {
    let new = fs::read(component).with_context(|| format!("cannot read {}", component.display()))?;
    if fs::read(target).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let unfinished = target.with_extension(format!("{}.unfinished", std::process::id()));
    fs::write(&unfinished, new)
        .and_then(|()| fs::rename(&unfinished, target))
        .with_context(|| format!("cannot write {}", target.display()))
}

/// Removes components that are no longer built, so that no test runs a component without source code.
fn remove_others(folder: &Path, built: &BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let has_source = built.contains_key(stem) || guests::NAMES.contains(&stem);
        if path.extension().is_some_and(|extension| extension == "wasm") && !has_source {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
