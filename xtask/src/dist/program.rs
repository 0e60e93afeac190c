//! Builds the program for a release, in a separate target directory and without paths from this machine.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use ::tests::program::project;
use anyhow::{Context, Result, bail, ensure};

use super::{command, folder};
use crate::wasm_toolchain::{cargo, cargo_home, remapped};
use crate::{plugins, say};

/// The built program.
pub(super) struct Program {
    pub(super) path: PathBuf,
}

impl Program {
    /// Builds the program with the components that were built before.
    pub(super) fn build() -> Result<Self> {
        say("building the program in release");
        let home = cargo_home();
        let mut flags: Vec<OsString> = vec![remapped(project(), "understudy")];
        flags.extend(home.as_deref().map(|home| remapped(home, "cargo")));
        // These flags come from .cargo/config.toml, which sets them for `cargo xtask`.
        let mut c_flags = std::env::var_os("CFLAGS").unwrap_or_default();
        if let Some(home) = &home {
            c_flags.push(" -ffile-prefix-map=");
            c_flags.push(home);
            c_flags.push("=cargo");
        }
        let target = folder().join("build");
        let mut build = cargo(env!("CARGO"));
        build
            .args(["build", "--quiet", "--release", "--locked", "--package", "understudy"])
            .current_dir(project())
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join(OsStr::new("\u{1f}")))
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
            .env("CFLAGS", c_flags)
            .env("UNDERSTUDY_METHODS", plugins::components());
        let status = build.status().context("cargo does not run")?;
        ensure!(status.success(), "the program does not build: {status}");
        let program = Self { path: target.join("release/understudy") };
        program.refuse_paths(home)?;
        Ok(program)
    }

    /// Runs the program with these arguments, and returns its standard output.
    pub(super) fn prints(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let path = self.path.to_str().context("the project's path is not UTF-8")?;
        Ok(command(path).args(arguments).output()?.into_bytes())
    }

    /// Fails if the program contains a path from this machine.
    fn refuse_paths(&self, home: Option<PathBuf>) -> Result<()> {
        let bytes = std::fs::read(&self.path)?;
        for place in std::iter::once(project().to_owned()).chain(home) {
            let place = place.as_os_str().as_encoded_bytes();
            if let Some(at) = bytes.windows(place.len()).position(|part| part == place) {
                let end = bytes.len().min(at + 200);
                let shown = String::from_utf8_lossy(&bytes[at..end]).into_owned();
                let shown = shown.split(|letter: char| letter.is_control()).next().unwrap_or_default();
                bail!("the program contains a path from this machine: {shown}");
            }
        }
        Ok(())
    }

    /// Returns the value of the package's field `Depends`: the Debian packages that contain the program's shared libraries, each with the
    /// newest version whose symbols the program uses.
    pub(super) fn depends(&self) -> Result<String> {
        depends(&command("readelf").args(["--dynamic", "--version-info", "--wide"]).arg(&self.path).output()?)
    }
}

/// Returns the packages for a program, from the output of `readelf --dynamic --version-info --wide`.
fn depends(listing: &str) -> Result<String> {
    let needed = listing.lines().filter(|line| line.contains("(NEEDED)"));
    let libraries: BTreeSet<_> =
        needed.filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0)).collect();
    ensure!(!libraries.is_empty(), "readelf names no shared library of the program");
    let mut packages: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for library in libraries {
        packages.entry(package_of(library)?).or_default();
    }
    for name in listing.lines().filter_map(|line| line.split_once("Name: ")?.1.split_whitespace().next()) {
        let (package, version) = match name.split_once('_') {
            Some(("GLIBC", version)) => ("libc6", version),
            Some(("GCC", version)) => ("libgcc-s1", version),
            _ => {
                bail!("the program uses the version `{name}` of a library, of which no package is known here")
            }
        };
        let version: Result<Vec<u32>, _> = version.split('.').map(str::parse).collect();
        let version = version.with_context(|| format!("`{name}` has no version of numbers"))?;
        let least = packages.entry(package).or_default();
        *least = version.max(std::mem::take(least));
    }
    let packages = packages.iter().map(|(package, version)| {
        let version: Vec<_> = version.iter().map(u32::to_string).collect();
        if version.is_empty() {
            (*package).to_owned()
        } else {
            format!("{package} (>= {})", version.join("."))
        }
    });
    Ok(packages.collect::<Vec<_>>().join(", "))
}

fn package_of(library: &str) -> Result<&'static str> {
    match library {
        "libc.so.6"
        | "libm.so.6"
        | "libdl.so.2"
        | "libpthread.so.0"
        | "librt.so.1"
        | "libresolv.so.2"
        | "ld-linux-x86-64.so.2" => Ok("libc6"),
        "libgcc_s.so.1" => Ok("libgcc-s1"),
        other => {
            bail!("the program needs {other}, of which no package is known here: add it to `package_of`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
 0x0000000000000001 (NEEDED)             Shared library: [libgcc_s.so.1]
 0x0000000000000001 (NEEDED)             Shared library: [libm.so.6]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
  000000: Version: 1  File: libc.so.6  Cnt: 3
  0x0010:   Name: GLIBC_2.9  Flags: none  Version: 10
  0x0020:   Name: GLIBC_2.34  Flags: none  Version: 5
  0x0030:   Name: GLIBC_2.3.4  Flags: none  Version: 5
  0x0040: Version: 1  File: libgcc_s.so.1  Cnt: 1
  0x0050:   Name: GCC_4.2.0  Flags: none  Version: 4
";

    #[test]
    fn a_package_dependency_has_the_newest_version_whose_symbol_is_used() {
        assert_eq!(depends(LISTING).unwrap(), "libc6 (>= 2.34), libgcc-s1 (>= 4.2.0)");
    }

    #[test]
    fn a_library_that_is_not_known_is_an_error() {
        let error = depends(&LISTING.replace("libm.so.6", "libssl.so.3")).unwrap_err();
        assert!(error.to_string().contains("libssl.so.3"), "{error}");
        let error = depends(&LISTING.replace("GCC_4.2.0", "OPENSSL_3.0.0")).unwrap_err();
        assert!(error.to_string().contains("OPENSSL_3.0.0"), "{error}");
        depends("").unwrap_err();
    }
}
