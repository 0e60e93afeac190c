//! Builds components outside this project, as the author of a method does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Error, Result, ensure};

use crate::program::project;
use crate::server::run;
use wasm_toolchain::{TARGET, Toolchain, cargo, rustup_has_target};

#[path = "../../xtask/src/wasm_toolchain.rs"]
#[expect(dead_code, reason = "xtask, which owns this file, also installs toolchains")]
mod wasm_toolchain;

/// Returns the folder of cargo's native builds of methods. `cargo xtask test` builds the methods' own tests there, so dependencies that are
/// the same need not be compiled again.
fn target() -> PathBuf {
    project().join("plugins/target")
}

/// A package of a method that is not in this project.
#[derive(Clone, Debug)]
pub struct Package {
    folder: PathBuf,
    toolchain: Toolchain,
}

impl Package {
    /// Takes the package in `folder`. It gets the versions of its dependencies from `lock`, a Cargo.lock of this project, so that building it
    /// downloads nothing.
    ///
    /// # Errors
    /// Fails if `lock` cannot be copied, or lacks a dependency of the package that was not downloaded either.
    pub fn new(folder: &Path, lock: &Path) -> Result<Self> {
        let toolchain = match Toolchain::chosen().map_err(Error::msg)? {
            Some(chosen) => chosen,
            None if rustup_has_target() => Toolchain::Rustup,
            None => Toolchain::Debian,
        };
        let package = Self { folder: folder.to_owned(), toolchain };
        let copy = package.folder.join("Cargo.lock");
        fs::copy(lock, &copy)
            .with_context(|| format!("cannot copy {} to {}", lock.display(), copy.display()))?;
        // Replaces what is not a dependency of this package.
        run(package.cargo("metadata").args(["--format-version", "1"]))?;
        Ok(package)
    }

    /// Returns the native command `cargo VERB` for the package.
    pub fn cargo(&self, verb: &str) -> Command {
        let mut command = cargo(env!("CARGO"));
        command.arg(verb).current_dir(&self.folder).env("CARGO_TARGET_DIR", target());
        command
    }

    /// Builds the component `name`, with the toolchain with which `cargo xtask plugins` builds, and returns its path.
    ///
    /// # Errors
    /// Fails if the package does not build.
    pub fn component(&self, name: &str) -> Result<PathBuf> {
        let tools = project().join("target/tools");
        let build = self.toolchain.build(project(), &tools, &self.folder.join("Cargo.toml"), &target());
        run(build.map_err(Error::msg)?.current_dir(&self.folder))?;
        let folder = target().join(self.toolchain.target_directory()).join(TARGET).join("release");
        let component = folder.join(format!("{name}.wasm"));
        ensure!(component.is_file(), "cargo built no {}", component.display());
        Ok(component)
    }
}
