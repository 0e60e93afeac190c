//! Builds the methods that come with the program as WebAssembly components, and includes them in the program: writes `included.rs`, a list
//! of names and bytes, which `src/included.rs` includes.
//!
//! A build without optimization includes no methods, so that it does not take longer. Its tests find components in
//! `plugins/target/components`.

// `cargo xtask plugins` builds components with the same file.
#[path = "../../xtask/src/wasm_toolchain.rs"]
mod wasm_toolchain;

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use wasm_toolchain::{
    DEBIAN_PACKAGES, TARGET, Toolchain, component_linker, install_component_linker, missing_packages,
    rustup_has_target,
};

/// The methods that come with the program.
const METHODS: [&str; 6] = ["barman", "command", "mirror", "pgbackrest", "tarball", "walg"];

/// The environment variable that names a directory with finished components, each as NAME.wasm. This script then builds none.
const READY: &str = "UNDERSTUDY_METHODS";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=../../xtask/src/wasm_toolchain.rs");
    println!("cargo::rerun-if-env-changed={READY}");
    let out = PathBuf::from(variable("OUT_DIR")?);
    let included = env::var_os("CARGO_FEATURE_METHODS").is_some() && variable("PROFILE")? == "release";
    let methods: &[&str] = if included { &METHODS } else { &[] };
    if included {
        let folder = match env::var_os(READY) {
            Some(folder) => ready(PathBuf::from(folder))?,
            None => built(&out)?,
        };
        for method in METHODS {
            let component = folder.join(format!("{method}.wasm"));
            fs::copy(&component, out.join(format!("{method}.wasm")))
                .map_err(|error| format!("cannot copy {}: {error}", component.display()))?;
        }
    }
    let mut list = String::from("&[\n");
    for method in methods {
        // The path is relative to the generated file, so that no path of this machine gets into the program.
        let _ = writeln!(list, "    (\"{method}\", include_bytes!(\"{method}.wasm\")),");
    }
    list.push_str("]\n");
    let file = out.join("included.rs");
    fs::write(&file, list).map_err(|error| format!("cannot write {}: {error}", file.display()))
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("cargo gives no usable {name}: {error}"))
}

/// Returns the directory that [`READY`] names.
fn ready(folder: PathBuf) -> Result<PathBuf, String> {
    if !folder.is_absolute() {
        return Err(format!("{READY} must be an absolute directory, not `{}`", folder.display()));
    }
    for method in METHODS {
        println!("cargo::rerun-if-changed={}", folder.join(format!("{method}.wasm")).display());
    }
    Ok(folder)
}

/// Builds the components, and returns the directory that holds them.
fn built(out: &Path) -> Result<PathBuf, String> {
    println!("cargo::rerun-if-env-changed=UNDERSTUDY_WASM_TOOLCHAIN");
    let own = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = own.ancestors().nth(2).ok_or("no project around host/understudy")?;
    let tools = [root.join("target/tools"), out.join("tools")]
        .into_iter()
        .find(|tools| component_linker(tools).exists())
        .unwrap_or_else(|| out.join("tools"));
    let toolchain = pick()?;
    if toolchain == Toolchain::Debian {
        install_component_linker(&tools)?;
    }
    let manifest = root.join("plugins/Cargo.toml");
    let target = out.join("methods");
    let mut build = toolchain.build(root, &tools, &manifest, &target)?;
    for method in METHODS {
        build.args(["--package", method]);
    }
    // The nested cargo must not write to standard output, because cargo interprets the standard output of a build script.
    let status = build.stdout(Stdio::null()).status();
    let status = status.map_err(|error| format!("cannot start cargo for the methods: {error}"))?;
    if !status.success() {
        return Err(format!(
            "the methods in {} do not build for {TARGET} ({status}); `--no-default-features` builds a program without methods",
            manifest.display()
        ));
    }
    let folder = target.join(toolchain.target_directory()).join(TARGET).join("release");
    rerun_if_sources_change(root, &folder)?;
    Ok(folder)
}

/// Returns an installed toolchain. A build installs nothing but the linker.
fn pick() -> Result<Toolchain, String> {
    let debian_is_there = || missing_packages(&DEBIAN_PACKAGES).is_ok_and(|missing| missing.is_empty());
    match Toolchain::chosen()? {
        Some(Toolchain::Rustup) if rustup_has_target() => Ok(Toolchain::Rustup),
        Some(Toolchain::Debian) if debian_is_there() => Ok(Toolchain::Debian),
        None if rustup_has_target() => Ok(Toolchain::Rustup),
        None if debian_is_there() => Ok(Toolchain::Debian),
        Some(_) | None => Err(format!(
            "the methods tarball, mirror, pgbackrest, barman, walg and command are included in a release build of understudy, and nothing \
             here builds them for {TARGET}. Do one of these:\n\
             \x20 rustup target add {TARGET}\n\
             \x20 apt-get install {} (Debian 12 has them in bookworm-security and bookworm-updates)\n\
             \x20 set {READY} to a directory that holds tarball.wasm, mirror.wasm, pgbackrest.wasm, barman.wasm, walg.wasm and \
             command.wasm\n\
             \x20 build with --no-default-features, for a program without methods, which finds them in its plugin path",
            DEBIAN_PACKAGES.join(" ")
        )),
    }
}

/// Tells cargo which files the components were made from: the files of this project that the nested cargo lists for each component,
/// and the manifests that belong to them.
fn rerun_if_sources_change(root: &Path, folder: &Path) -> Result<(), String> {
    let mut files = BTreeSet::from([root.join("plugins/Cargo.toml"), root.join("plugins/Cargo.lock")]);
    for method in METHODS {
        let list = folder.join(format!("{method}.d"));
        let text = fs::read_to_string(&list);
        let text = text.map_err(|error| format!("cannot read {}: {error}", list.display()))?;
        for source in sources(&text) {
            let manifests = source.ancestors().skip(1).map(|above| above.join("Cargo.toml"));
            files.extend(manifests.take_while(|file| file.starts_with(root)).find(|file| file.exists()));
            files.insert(source);
        }
    }
    for file in files {
        println!("cargo::rerun-if-changed={}", file.display());
    }
    Ok(())
}

/// Returns the files in a dependency list in make's format: all words after the first colon. In a word, a backslash precedes a space.
fn sources(list: &str) -> Vec<PathBuf> {
    let (_, files) = list.split_once(": ").unwrap_or_default();
    let joined = files.trim_end().replace("\\ ", "\0");
    joined.split_whitespace().map(|file| PathBuf::from(file.replace('\0', " "))).collect()
}
