//! Where a new project takes the crate `understudy-sdk` from.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The name of the crate.
const CRATE: &str = "understudy-sdk";

/// Where the crate is in a checkout of this project.
const IN_CHECKOUT: &str = "plugins/sdk";

/// Where a new project takes the crate `understudy-sdk` from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sdk {
    /// From the registry, in the version of this program.
    Released,
    /// From this directory, an absolute path.
    Directory(PathBuf),
    /// From the Git repository at this URL.
    Git(String),
}

impl Sdk {
    /// Returns what a person means by `place`: a URL, or a directory that holds the crate or a checkout of this project.
    ///
    /// # Errors
    /// Fails if the directory does not hold the crate.
    pub(super) fn at(place: &str) -> Result<Self> {
        if place.contains("://") {
            return Ok(Self::Git(place.to_owned()));
        }
        let directory = fs::canonicalize(place).with_context(|| format!("--sdk: cannot find {place}"))?;
        let found =
            [directory.join(IN_CHECKOUT), directory].into_iter().find(|directory| holds_crate(directory));
        let Some(directory) = found else {
            bail!(
                "--sdk: {place} is neither the crate {CRATE} nor a checkout of Understudy, which has it in {IN_CHECKOUT}"
            );
        };
        if directory.to_str().is_none() {
            bail!("--sdk: {} is not UTF-8, and Cargo.toml can name no such path", directory.display());
        }
        Ok(Self::Directory(directory))
    }

    /// Returns the line of Cargo.toml that makes a project depend on the crate.
    pub(super) fn dependency(&self) -> String {
        // Quotes and escapes the text as TOML does.
        let quoted = |text: &str| toml::Value::from(text).to_string();
        match self {
            Self::Released => format!("{CRATE} = {}", quoted(env!("CARGO_PKG_VERSION"))),
            Self::Directory(path) => format!("{CRATE} = {{ path = {} }}", quoted(&path.to_string_lossy())),
            Self::Git(url) => format!("{CRATE} = {{ git = {} }}", quoted(url)),
        }
    }
}

/// Returns whether `directory` has the manifest of the crate.
fn holds_crate(directory: &Path) -> bool {
    let Ok(manifest) = fs::read_to_string(directory.join("Cargo.toml")) else { return false };
    let Ok(manifest) = manifest.parse::<toml::Table>() else { return false };
    manifest
        .get("package")
        .and_then(|package| package.get("name"))
        .is_some_and(|name| name.as_str() == Some(CRATE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crate_is_found_in_its_folder_and_in_a_checkout() {
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        let crate_folder = checkout.join(IN_CHECKOUT);
        for place in [&checkout, &crate_folder] {
            let sdk = Sdk::at(place.to_str().unwrap()).unwrap();
            assert_eq!(sdk, Sdk::Directory(crate_folder.clone()));
        }
        let other = Sdk::at(env!("CARGO_MANIFEST_DIR")).unwrap_err().to_string();
        assert!(other.contains("neither the crate understudy-sdk nor a checkout"), "{other}");
        assert!(Sdk::at("/no/such").unwrap_err().to_string().contains("cannot find /no/such"));
    }

    #[test]
    fn the_dependency_is_a_line_of_toml() {
        for (sdk, line) in [
            (Sdk::Released, concat!("understudy-sdk = \"", env!("CARGO_PKG_VERSION"), "\"")),
            (
                Sdk::at("https://example.org/u.git").unwrap(),
                "understudy-sdk = { git = \"https://example.org/u.git\" }",
            ),
            (Sdk::Directory("/a \\b".into()), "understudy-sdk = { path = '/a \\b' }"),
        ] {
            assert_eq!(sdk.dependency(), line);
            line.parse::<toml::Table>().unwrap();
        }
    }

    #[test]
    fn the_released_crate_has_the_version_of_this_program() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins/Cargo.toml");
        let manifest: toml::Table = fs::read_to_string(manifest).unwrap().parse().unwrap();
        let version = manifest["workspace"]["package"]["version"].as_str();
        assert_eq!(version, Some(env!("CARGO_PKG_VERSION")));
    }
}
