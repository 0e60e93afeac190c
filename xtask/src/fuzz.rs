//! Tries the readers of the data plane with random input: `host/transfer/fuzz`.
//!
//! The crate that is tried forbids unsafe code, so that the address sanitizer would find nothing there; without it the
//! stable toolchain is enough.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{say, setup};

/// What drives libFuzzer.
const DRIVER_VERSION: &str = "0.13.2";

/// How much memory a target may take, in MiB: xz alone may take 80.
const MEMORY: u32 = 512;

/// The longest input in bytes: some headers of tar and their contents.
const LONGEST_INPUT: u32 = 16 << 10;

/// How long one input may take, in seconds.
const LONGEST_TRY: u32 = 10;

/// What a manifest begins with; the target's own first byte, then PostgreSQL 15's words.
const MANIFEST: &str = r#"0{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{ "Path": "backup_label", "Size": 225, "Last-Modified": "2026-11-23 01:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "8a744722" },
{ "Encoded-Path": "6261736580", "Size": 0, "Last-Modified": "2026-11-23 01:00:00 GMT" }
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
],
"#;

/// Runs every target for so many seconds. What fails a target lies in `host/transfer/fuzz/artifacts/TARGET` afterwards.
pub(crate) fn run(seconds: u32) -> Result<()> {
    setup::fuzzing()?;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fuzz = here.parent().unwrap_or(here).join("host/transfer/fuzz");
    driver()?;
    let list = Command::new("cargo")
        .args(["fuzz", "list", "--fuzz-dir"])
        .arg(&fuzz)
        .output()
        .context("`cargo fuzz list` does not run")?;
    let targets = String::from_utf8_lossy(&list.stdout).into_owned();
    if targets.trim().is_empty() {
        bail!("`cargo fuzz list` names no target: {}", String::from_utf8_lossy(&list.stderr).trim());
    }
    for target in targets.split_whitespace() {
        say(&format!("trying {target} for {seconds} s"));
        seed(&fuzz, target)?;
        let status = Command::new("cargo")
            .args(["fuzz", "run", "--sanitizer", "none", "--fuzz-dir"])
            .arg(&fuzz)
            .arg(target)
            .arg("--")
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-rss_limit_mb={MEMORY}"))
            .arg(format!("-max_len={LONGEST_INPUT}"))
            .arg(format!("-timeout={LONGEST_TRY}"))
            .arg("-print_final_stats=1")
            // cargo-fuzz passes flags that stable compilers keep to themselves otherwise.
            .env("RUSTC_BOOTSTRAP", "1")
            .status()
            .context("`cargo fuzz run` does not run")?;
        if !status.success() {
            bail!("{target} failed: what failed it is in {}", fuzz.join("artifacts").join(target).display());
        }
    }
    Ok(())
}

/// Installs cargo-fuzz where it is missing.
fn driver() -> Result<()> {
    let there = Command::new("cargo")
        .args(["fuzz", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if there {
        return Ok(());
    }
    say(&format!("installing cargo-fuzz {DRIVER_VERSION}"));
    let status = Command::new("cargo")
        .args(["install", "--locked", "--quiet", "cargo-fuzz", "--version", DRIVER_VERSION])
        .status()
        .context("`cargo install` does not run")?;
    if !status.success() {
        bail!("cargo-fuzz {DRIVER_VERSION} cannot be installed");
    }
    Ok(())
}

/// Gives a target something real to begin with, which random bytes would hardly come upon.
fn seed(fuzz: &Path, target: &str) -> Result<()> {
    let corpus = fuzz.join("corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let sources = fuzz.join("targets");
    match target {
        "tar" => pack("tar", &["--format=ustar", "-c", "ini.rs", "path.rs"], &sources, corpus.join("ustar")),
        "codec" => {
            let programs = [("gzip", 0), ("lz4", 2), ("zstd", 3), ("bzip2", 4), ("xz", 5), ("brotli", 7)];
            for (program, choice) in programs {
                let seed = corpus.join(program);
                pack(program, &["-c", "path.rs"], &sources, seed.clone())?;
                // The first byte chooses the codec.
                let stream = fs::read(&seed).with_context(|| format!("cannot read {}", seed.display()))?;
                fs::write(&seed, [&[choice][..], &stream].concat())
                    .with_context(|| format!("cannot write {}", seed.display()))?;
            }
            Ok(())
        }
        "manifest" => {
            let seed = corpus.join("version-1");
            fs::write(&seed, MANIFEST).with_context(|| format!("cannot write {}", seed.display()))
        }
        _ => Ok(()),
    }
}

/// Writes what a program prints to a file.
fn pack(program: &str, arguments: &[&str], directory: &Path, to: PathBuf) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
        .with_context(|| format!("`{program}` does not run"))?;
    if !output.status.success() {
        bail!("`{program}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::write(&to, output.stdout).with_context(|| format!("cannot write {}", to.display()))
}
