//! Finds a toolchain that compiles for `wasm32-wasip2`: rustup's toolchain with that target, or Debian's packages. `cargo xtask plugins`
//! uses this module. The program's build script (`host/understudy/build.rs`) includes this file by its path, so the module depends
//! only on the standard library, and its errors are strings.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The target for which components are built.
pub(crate) const TARGET: &str = "wasm32-wasip2";

/// The environment variable that selects a toolchain, `rustup` or `debian`, even if the other is available too.
const CHOICE: &str = "UNDERSTUDY_WASM_TOOLCHAIN";

/// Debian's packages: a Rust compiler, the source code of Rust's standard library, and a linker and a libc for WebAssembly.
pub(crate) const DEBIAN_PACKAGES: [&str; 5] =
    ["rustc-web", "cargo-web", "rust-web-src", "lld-22", "wasi-libc"];

/// The linker that makes a component. rustup's toolchains contain this linker, Debian's does not.
const COMPONENT_LINKER: &str = "wasm-component-ld";
const COMPONENT_LINKER_VERSION: &str = "0.5.31";

/// A toolchain that compiles for WebAssembly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The active rustup toolchain, with the target installed.
    Rustup,
    /// Debian's rustc-web. It builds the standard library from rust-web-src once per target directory.
    Debian,
}

impl Toolchain {
    /// Returns the toolchain that [`CHOICE`] selects; `None` if the variable is not set.
    pub(crate) fn chosen() -> Result<Option<Self>, String> {
        match std::env::var(CHOICE).ok().as_deref() {
            None => Ok(None),
            Some("rustup") => Ok(Some(Self::Rustup)),
            Some("debian") => Ok(Some(Self::Debian)),
            Some(other) => Err(format!("{CHOICE} is `{other}`: write rustup or debian, or leave it out")),
        }
    }

    /// Returns the command `cargo build` that builds components from one of the project's manifests with the release profile.
    ///
    /// # Arguments
    /// `root` is the project's folder, `tools` is the folder in which [`install_component_linker`] installed the linker, and `target` is
    /// the target directory. Each toolchain has its own folder in `target`, so switching between toolchains does not rebuild everything.
    pub(crate) fn build(
        self,
        root: &Path,
        tools: &Path,
        manifest: &Path,
        target: &Path,
    ) -> Result<Command, String> {
        let mut flags: Vec<OsString> = vec![remapped(root, "understudy")];
        flags.extend(cargo_home().map(|home| remapped(&home, "cargo")));
        let mut build = match self {
            Self::Rustup => {
                let mut build = cargo("rustup");
                build.args(["run", &active_toolchain()?, "cargo"]);
                build
            }
            Self::Debian => {
                let mut build = cargo("/usr/bin/cargo");
                build.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                build.env("PATH", path_with(&tools.join("bin")));
                flags.extend(
                    [
                        "-L",
                        "native=/usr/lib/wasm32-wasi",
                        "-C",
                        "link-arg=--wasm-ld-path=/usr/bin/wasm-ld-22",
                    ]
                    .map(OsString::from),
                );
                build
            }
        };
        build.env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\u{1f}")));
        build.env("CARGO_TARGET_DIR", target.join(self.target_directory()));
        build.args(["build", "--release", "--quiet", "--locked", "--target", TARGET]);
        if self == Self::Debian {
            build.arg("-Zbuild-std=std,panic_abort");
        }
        build.arg("--manifest-path").arg(manifest);
        Ok(build)
    }

    /// Returns the name of the folder in the target directory in which this toolchain builds.
    pub(crate) fn target_directory(self) -> &'static str {
        match self {
            Self::Rustup => "guest-rustup",
            Self::Debian => "guest-debian",
        }
    }
}

/// Returns the rustc option that replaces the path of a folder on this machine with `name` in built files.
pub(crate) fn remapped(folder: &Path, name: &str) -> OsString {
    let mut option = OsString::from("--remap-path-prefix=");
    option.push(folder);
    option.push(format!("={name}"));
    option
}

/// Returns the folder in which cargo stores the source code of dependencies.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home).filter(|home| home.is_absolute())
}

/// Returns a cargo command without the environment variables from an enclosing cargo or the user's host settings that would change a
/// component.
pub(crate) fn cargo(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_a_surrounding_build) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Returns whether cargo sets this variable for a build script, or whether the variable configures builds for the host. Returns false for
/// variables that configure where cargo finds crates and how many processes may run at once.
fn is_of_a_surrounding_build(name: &str) -> bool {
    const KEPT: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_MAKEFLAGS",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "CARGO_UNSTABLE_",
    ];
    const SET: [&str; 14] = [
        "CARGO",
        "DEBUG",
        "HOST",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC",
        "RUSTC_BOOTSTRAP",
        "RUSTC_LINKER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "TARGET",
    ];
    SET.contains(&name)
        || name.starts_with("DEP_")
        || (name.starts_with("CARGO_") && !KEPT.iter().any(|kept| name.starts_with(kept)))
}

/// Returns whether the active rustup toolchain has the target.
pub(crate) fn rustup_has_target() -> bool {
    let listing = cargo("rustup").args(["target", "list", "--installed"]).stderr(Stdio::null()).output();
    listing.is_ok_and(|listing| String::from_utf8_lossy(&listing.stdout).lines().any(|line| line == TARGET))
}

fn active_toolchain() -> Result<String, String> {
    let shown = cargo("rustup").args(["show", "active-toolchain"]).output();
    let shown = shown.map_err(|error| format!("rustup does not run: {error}"))?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let name = shown.split_whitespace().next().map(str::to_owned);
    name.ok_or_else(|| "rustup has no active toolchain here".to_owned())
}

/// Returns which of these Debian packages are not installed.
pub(crate) fn missing_packages(packages: &[&'static str]) -> Result<Vec<&'static str>, String> {
    let query = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Status} ${Package}\n"])
        .args(packages)
        .output()
        .map_err(|error| format!("dpkg-query does not run: {error}"))?;
    let listing = String::from_utf8_lossy(&query.stdout).into_owned();
    let installed = |package: &str| listing.lines().any(|line| line == format!("installed {package}"));
    Ok(packages.iter().copied().filter(|package| !installed(package)).collect())
}

/// Returns the path at which [`install_component_linker`] installs the linker.
pub(crate) fn component_linker(tools: &Path) -> PathBuf {
    tools.join("bin").join(COMPONENT_LINKER)
}

/// Installs the linker that Debian's toolchain lacks from crates.io, unless the linker is installed already.
pub(crate) fn install_component_linker(tools: &Path) -> Result<(), String> {
    if component_linker(tools).exists() {
        return Ok(());
    }
    eprintln!(
        "installing {COMPONENT_LINKER} {COMPONENT_LINKER_VERSION} from crates.io into {}",
        tools.display()
    );
    let mut install = cargo("/usr/bin/cargo");
    install.env("RUSTC", "/usr/bin/rustc").args(["install", COMPONENT_LINKER, "--locked", "--quiet"]);
    install.args(["--version", COMPONENT_LINKER_VERSION, "--root"]).arg(tools);
    install.env("CARGO_TARGET_DIR", tools.join("build"));
    // cargo interprets the standard output of a build script, so the installation must not write there.
    let status = install.stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{COMPONENT_LINKER} cannot be installed: {status}")),
        Err(error) => Err(format!("/usr/bin/cargo does not run: {error}")),
    }
}

fn path_with(first: &Path) -> OsString {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(first.to_owned()).chain(std::env::split_paths(&rest));
    // PATH cannot contain a folder with a colon in its name. In that case PATH stays unchanged, and the linker is not found.
    std::env::join_paths(folders).unwrap_or(rest)
}
