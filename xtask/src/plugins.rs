//! Builds the methods of `plugins/`, the hostile components of the tests and the methods of `examples/` for
//! `wasm32-wasip2`, with rustup's target or with Debian's packages, whichever is there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::{say, setup};

const TARGET: &str = "wasm32-wasip2";

/// How long rustup may take to fetch the target, 25 MB, before Debian's packages are tried.
const RUSTUP_PATIENCE: Duration = Duration::from_secs(180);

/// The linker that makes a component; rustup's toolchains bring it along, Debian's does not.
const COMPONENT_LINKER: &str = "wasm-component-ld";
const COMPONENT_LINKER_VERSION: &str = "0.5.31";

/// Names the toolchain to use, `rustup` or `debian`, whatever else is there.
const CHOICE: &str = "UNDERSTUDY_WASM_TOOLCHAIN";

/// What compiles for WebAssembly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Toolchain {
    /// The toolchain that rustup runs here, with its `wasm32-wasip2` target.
    Rustup,
    /// Debian's rustc-web, which builds the standard library from rust-web-src each time a target directory is new.
    Debian,
}

/// Builds every component into [`components`]. When nothing changed it takes a second or two.
pub(crate) fn build() -> Result<()> {
    let root = root();
    let toolchain = Toolchain::pick(&root)?;
    let mut built = BTreeMap::new();
    toolchain.build(
        &root,
        &root.join("plugins/Cargo.toml"),
        &["--workspace", "--lib", "--examples"],
        &mut built,
    )?;
    for example in examples(&root)? {
        toolchain.build(&root, &example, &[], &mut built)?;
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

/// Where the built components are, each as NAME.wasm.
pub(crate) fn components() -> PathBuf {
    root().join("plugins/target/components")
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The manifests of the examples that are Rust methods.
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

impl Toolchain {
    /// Rustup's where it has the target; Debian's where it was set up before; else the first that can be had.
    fn pick(root: &Path) -> Result<Self> {
        let toolchain = match std::env::var(CHOICE).ok().as_deref() {
            Some("rustup") => {
                if !rustup_has_target() && !rustup_adds_target() {
                    bail!("{CHOICE} is rustup, but rustup cannot add the target {TARGET}");
                }
                Self::Rustup
            }
            Some("debian") => Self::set_up_debian(root)?,
            Some(other) => bail!("{CHOICE} is `{other}`: write rustup or debian, or leave it out"),
            None if rustup_has_target() => Self::Rustup,
            None if component_linker(root).exists() && Path::new("/usr/bin/cargo").exists() => {
                Self::set_up_debian(root)?
            }
            None if rustup_adds_target() => Self::Rustup,
            None => Self::set_up_debian(root)?,
        };
        say(match toolchain {
            Self::Rustup => "building the methods with rustup's wasm32-wasip2 target",
            Self::Debian => "building the methods with Debian's rustc-web and its library sources",
        });
        Ok(toolchain)
    }

    fn set_up_debian(root: &Path) -> Result<Self> {
        setup::wasm_from_debian()?;
        if !component_linker(root).exists() {
            say(&format!(
                "installing {COMPONENT_LINKER} {COMPONENT_LINKER_VERSION} from crates.io into target/tools"
            ));
            let mut install = cargo("/usr/bin/cargo");
            install.env("RUSTC", "/usr/bin/rustc").args(["install", COMPONENT_LINKER, "--locked", "--quiet"]);
            install.args(["--version", COMPONENT_LINKER_VERSION, "--root"]).arg(tools(root));
            install.env("CARGO_TARGET_DIR", tools(root).join("build"));
            let status = install.status().context("/usr/bin/cargo does not run")?;
            if !status.success() {
                bail!("{COMPONENT_LINKER} cannot be installed: {status}");
            }
        }
        Ok(Self::Debian)
    }

    /// Builds `manifest` in release and adds what became a component to `built`, by name.
    fn build(
        self,
        root: &Path,
        manifest: &Path,
        what: &[&str],
        built: &mut BTreeMap<String, PathBuf>,
    ) -> Result<()> {
        let mut build = match self {
            Self::Rustup => {
                let mut build = cargo("rustup");
                build.args(["run", &active_toolchain()?, "cargo"]);
                build
            }
            Self::Debian => {
                let mut build = cargo("/usr/bin/cargo");
                build.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                build.env(
                    "RUSTFLAGS",
                    "-L native=/usr/lib/wasm32-wasi -C link-arg=--wasm-ld-path=/usr/bin/wasm-ld-22",
                );
                build.env("PATH", path_with(&tools(root).join("bin")));
                build
            }
        };
        build.args(["build", "--release", "--quiet", "--locked", "--target", TARGET]);
        build
            .args(["--message-format", "json-render-diagnostics", "--manifest-path"])
            .arg(manifest)
            .args(what);
        if self == Self::Debian {
            build.arg("-Zbuild-std=std,panic_abort");
        }
        build.env("CARGO_TARGET_DIR", root.join("plugins/target").join(self.target_directory()));
        // Warnings, errors and what cargo waits for are the person's to see; what was built comes on stdout.
        let output = build.stderr(Stdio::inherit()).output().context("cargo does not run")?;
        if !output.status.success() {
            bail!("{} does not build for {TARGET}: {}", manifest.display(), output.status);
        }
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let message: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            let (Some(name), Some(files)) =
                (message["target"]["name"].as_str(), message["filenames"].as_array())
            else {
                continue;
            };
            let component =
                files.iter().filter_map(|file| file.as_str()).find(|file| file.ends_with(".wasm"));
            if let Some(component) = component {
                built.insert(name.replace('_', "-"), component.into());
            }
        }
        Ok(())
    }

    /// Each compiler keeps its own, so that switching does not rebuild everything.
    fn target_directory(self) -> &'static str {
        match self {
            Self::Rustup => "guest-rustup",
            Self::Debian => "guest-debian",
        }
    }
}

/// A command without what a surrounding cargo or a person's settings for the host would change about a guest.
fn cargo(program: &str) -> Command {
    let mut command = Command::new(program);
    for name in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_BUILD_RUSTFLAGS",
        "RUSTC",
        "CARGO",
    ] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

fn rustup_has_target() -> bool {
    let listing = cargo("rustup").args(["target", "list", "--installed"]).stderr(Stdio::null()).output();
    listing.is_ok_and(|listing| String::from_utf8_lossy(&listing.stdout).lines().any(|line| line == TARGET))
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
            // It is out of reach: what is left of the attempt goes, and Debian's packages are next.
            Ok(None) | Err(_) => {
                let _ = add.kill();
                let _ = add.wait();
                return false;
            }
        }
    }
}

fn active_toolchain() -> Result<String> {
    let shown = cargo("rustup").args(["show", "active-toolchain"]).output().context("rustup does not run")?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    shown.split_whitespace().next().map(str::to_owned).context("rustup has no active toolchain here")
}

fn tools(root: &Path) -> PathBuf {
    root.join("target/tools")
}

fn component_linker(root: &Path) -> PathBuf {
    tools(root).join("bin").join(COMPONENT_LINKER)
}

fn path_with(first: &Path) -> OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(first.to_owned()).chain(std::env::split_paths(&rest));
    // A folder whose name holds a colon cannot stand in PATH; then PATH stays as it is and the linker is not found.
    std::env::join_paths(folders).unwrap_or(rest)
}

/// Copies `component` to `target` unless it is there already, so that whoever reads it never sees half of it.
fn put(component: &Path, target: &Path) -> Result<()> {
    let new = fs::read(component).with_context(|| format!("cannot read {}", component.display()))?;
    if fs::read(target).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let unfinished = target.with_extension(format!("{}.unfinished", std::process::id()));
    fs::write(&unfinished, new)
        .and_then(|()| fs::rename(&unfinished, target))
        .with_context(|| format!("cannot write {}", target.display()))
}

/// Removes components that are no longer built, so that nothing runs what has no source.
fn remove_others(folder: &Path, built: &BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_some_and(|extension| extension == "wasm") && !built.contains_key(stem) {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
