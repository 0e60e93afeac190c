//! Finds unused dependencies.

use std::process::Command;

use anyhow::{Context, Result, bail};
use tests::program::project;

use crate::{say, tools};

/// The directories whose crates are examined. The plugins and examples name the SDK's library by another name than its package, and the
/// guests of the tests belong to the plugins' workspace, so cargo-machete cannot judge these.
const CRATES: [&str; 2] = ["host", "xtask"];

/// Fails if a `Cargo.toml` of the host or of `xtask` names a crate that its sources do not use.
pub(crate) fn run() -> Result<()> {
    let machete = tools::machete()?;
    say("looking for dependencies that are not used");
    let status = Command::new(machete)
        .args(CRATES)
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
