//! What compiles for `wasm32-wasip2`: rustup's toolchain with that target, or Debian's packages. `cargo xtask plugins` uses
//! it, and so does the build script of the program (`host/understudy/build.rs`), which includes this file by its path. For
//! that reason it needs nothing but the standard library, and its errors are texts.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What components are built for.
pub(crate) const TARGET: &str = "wasm32-wasip2";

/// The variable that names the toolchain to use, `rustup` or `debian`, whatever else is there.
const CHOICE: &str = "UNDERSTUDY_WASM_TOOLCHAIN";

/// Debian's packages: a Rust with the sources of its library, a linker and a libc for WebAssembly.
pub(crate) const DEBIAN_PACKAGES: [&str; 5] =
    ["rustc-web", "cargo-web", "rust-web-src", "lld-22", "wasi-libc"];

/// The linker that makes a component; rustup's toolchains bring it along, Debian's does not.
const COMPONENT_LINKER: &str = "wasm-component-ld";
const COMPONENT_LINKER_VERSION: &str = "0.5.31";

/// What compiles for WebAssembly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// The toolchain that rustup runs here, with its target.
    Rustup,
    /// Debian's rustc-web, which builds the standard library from rust-web-src each time a target directory is new.
    Debian,
}

impl Toolchain {
    /// The one that [`CHOICE`] names; `None` if it names none.
    pub(crate) fn chosen() -> Result<Option<Self>, String> {
        match std::env::var(CHOICE).ok().as_deref() {
            None => Ok(None),
            Some("rustup") => Ok(Some(Self::Rustup)),
            Some("debian") => Ok(Some(Self::Debian)),
            Some(other) => Err(format!("{CHOICE} is `{other}`: write rustup or debian, or leave it out")),
        }
    }

    /// `cargo build` of components from a manifest of this project, in release.
    ///
    /// # Arguments
    /// `root` is the project's folder, `tools` the folder with what [`install_component_linker`] installed, and `target` the
    /// target directory, in which each toolchain has a folder of its own, so that switching does not rebuild everything.
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

    /// The folder of the target directory in which it builds.
    pub(crate) fn target_directory(self) -> &'static str {
        match self {
            Self::Rustup => "guest-rustup",
            Self::Debian => "guest-debian",
        }
    }
}

/// The option of rustc that writes `name` for a folder of this machine, wherever a path would get into what is built.
pub(crate) fn remapped(folder: &Path, name: &str) -> OsString {
    let mut option = OsString::from("--remap-path-prefix=");
    option.push(folder);
    option.push(format!("={name}"));
    option
}

/// Where cargo keeps the sources of other people's crates.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
    std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(home).filter(|home| home.is_absolute())
}

/// A command without what a surrounding cargo or a person's settings for the host would change about a component.
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

/// Whether a variable is one that cargo sets for a build script, or one that sets how a build for the host is done. Those that say
/// where cargo finds its crates, and how many processes may run at once, stay.
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

/// Whether the toolchain that rustup runs here has the target.
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

/// Which of these packages of Debian are not installed.
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

/// Where [`install_component_linker`] puts the linker.
pub(crate) fn component_linker(tools: &Path) -> PathBuf {
    tools.join("bin").join(COMPONENT_LINKER)
}

/// Installs the linker that Debian's toolchain lacks from crates.io, unless it is there.
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
    // A build script's output is cargo's to read.
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
    // A folder whose name holds a colon cannot stand in PATH; then PATH stays as it is and the linker is not found.
    std::env::join_paths(folders).unwrap_or(rest)
}
