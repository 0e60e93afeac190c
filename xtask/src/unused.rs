//! Finds unused dependencies.

use std::process::Command;

use anyhow::{Context, Result, bail};
use tests::program::project;

use crate::{say, tools};

/// Fails if a `Cargo.toml` in the project names a crate that the sources beside it do not use.
pub(crate) fn run() -> Result<()> {
    let machete = tools::machete()?;
    say("looking for dependencies that are not used");
    let status = Command::new(machete)
        .args(["host", "plugins", "tests", "xtask", "examples"])
        .current_dir(project())
        .status()
        .context("cargo-machete does not run")?;
    if !status.success() {
        bail!(
            "some dependencies are not used: take them out, or name them below [package.metadata.cargo-machete] with the reason"
        );
    }
    Ok(())
}
