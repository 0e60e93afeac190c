//! `cargo xtask fuzz`: runs the fuzz targets in `host/fuzz`.
//!
//! libFuzzer needs coverage of branches. The stable compiler records it with `-Cpasses=sancov-module`. The address sanitizer is not used:
//! it needs a nightly compiler, and Understudy's crates under test forbid unsafe code.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{say, setup};

/// The flags that make rustc record branches and comparisons for libFuzzer. cargo-fuzz uses the same flags (see "SanitizerCoverage" in
/// Clang's manual).
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
];

/// The memory limit for a target in MiB. xz alone may use 80 MiB.
const MEMORY: u32 = 512;

/// The longest input in bytes, which has room for several tar members.
const LONGEST_INPUT: u32 = 16 << 10;

/// The timeout for one input in seconds.
const LONGEST_TRY: u32 = 10;

/// The seed for the target `manifest`: one byte that the target itself uses, then the beginning of a PostgreSQL 15 manifest.
const MANIFEST: &str = r#"0{ "PostgreSQL-Backup-Manifest-Version": 1,
"Files": [
{ "Path": "backup_label", "Size": 225, "Last-Modified": "2026-11-23 01:00:00 GMT", "Checksum-Algorithm": "CRC32C", "Checksum": "8a744722" },
{ "Encoded-Path": "6261736580", "Size": 0, "Last-Modified": "2026-11-23 01:00:00 GMT" }
],
"WAL-Ranges": [
{ "Timeline": 1, "Start-LSN": "0/2000028", "End-LSN": "0/2000100" }
],
"#;

/// The seeds for the targets that read a text, by the name of the target.
const TEXTS: [(&str, &str); 7] = [
    (
        "backup_label",
        "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n\
         BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-23 08:00:00 UTC\nLABEL: base\nSTART TIMELINE: 1\n\
         INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n",
    ),
    ("tablespace_map", "16384 /srv/a b\n16385 /with\\\\a line\\\nfeed\r\n"),
    (
        "history",
        "1\t0/5000028\tno recovery target specified\n\n# a comment\n2\t1/60000A0\tbefore 2026-11-26\n",
    ),
    ("segment", "000000010000000000000002.00000028.backup"),
    (
        "configuration",
        "max_connections = 100 # few\nA = 'it''s \\101'\ninclude_dir 'conf.d'\npg_stat.x = on\n",
    ),
    (
        "patroni",
        "scope: &s b\nbootstrap: {dcs: {standby_cluster: {host: h, create_replica_methods: [m]}}}\npostgresql:\n  data_dir: /d\n  \
         bin_dir: /b\n  authentication: {replication: {username: r, password: hunter2hunter2}}\n  create_replica_methods:\n    - m\n    - \
         basebackup\n  m: {command: /x 'a b', no_leader: yes, mode: 0700, t: 1:30, s: *s}\n  basebackup:\n    - verbose\n    - waldir: /w\n",
    ),
    ("conninfo", "postgresql://user:p%40ss@a:1,[::1]:2/db?sslmode=require&application_name=x"),
];

/// Runs every target for this number of seconds, as many at once as there are processors. If an input makes a target fail, saves it in
/// `host/fuzz/artifacts/TARGET`. Writes libFuzzer's output to `host/fuzz/artifacts/TARGET.log`.
pub(crate) fn run(seconds: u32) -> Result<()> {
    setup::fuzzing()?;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fuzz = here.parent().unwrap_or(here).join("host/fuzz");
    say("building the fuzz targets");
    let targets = build(&fuzz)?;
    for target in targets.keys() {
        seed(&fuzz, target)?;
    }
    let names: Vec<_> = targets.keys().map(String::as_str).collect();
    say(&format!("running {} for {seconds} s each", names.join(", ")));
    let waiting = Mutex::new(targets.iter().collect::<VecDeque<_>>());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let failed = std::thread::scope(|scope| {
        let at_once = std::thread::available_parallelism().map_or(1, usize::from);
        let work = || {
            let mut failed = Vec::new();
            while let Some((target, program)) = next() {
                match run_one(&fuzz, target, program, seconds) {
                    Ok(closing) => println!("    {target}: {closing}"),
                    Err(error) => failed.push(format!("{target}: {error:#}")),
                }
            }
            failed
        };
        let workers: Vec<_> = (0..at_once).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().expect("a worker does not panic"))
            .collect::<Vec<_>>()
    });
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// Builds every target, and returns the paths of the built programs by target name.
fn build(fuzz: &Path) -> Result<BTreeMap<String, PathBuf>> {
    // With `--target`, the flags do not apply to build scripts and procedural macros.
    let output = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--bins", "--message-format=json-render-diagnostics"])
        .args(["--target", &native_target()?, "--target-dir"])
        .arg(fuzz.join("target"))
        .current_dir(fuzz)
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"))
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cargo does not run")?;
    ensure!(output.status.success(), "{} does not build", fuzz.display());
    let mut programs = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Value = serde_json::from_str(line).context("cargo printed a line that is not JSON")?;
        if let (Some(name), Some(program)) =
            (message["target"]["name"].as_str(), message["executable"].as_str())
        {
            programs.insert(name.to_owned(), program.into());
        }
    }
    ensure!(!programs.is_empty(), "{} has no target", fuzz.display());
    Ok(programs)
}

/// Returns the target triple of this machine.
fn native_target() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("rustc does not run")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let target = text.lines().find_map(|line| line.strip_prefix("host: "));
    target.map(str::to_owned).context("`rustc -vV` does not name this machine's target")
}

/// Runs one target, and returns libFuzzer's closing line.
fn run_one(fuzz: &Path, target: &str, program: &Path, seconds: u32) -> Result<String> {
    let artifacts = fuzz.join("artifacts").join(target);
    fs::create_dir_all(&artifacts).with_context(|| format!("cannot create {}", artifacts.display()))?;
    let log = artifacts.with_extension("log");
    let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let status = Command::new(program)
        .arg(fuzz.join("corpus").join(target))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .arg(format!("-max_len={LONGEST_INPUT}"))
        .arg(format!("-timeout={LONGEST_TRY}"))
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()
        .with_context(|| format!("{} does not run", program.display()))?;
    let output = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    let output = String::from_utf8_lossy(&output);
    let closing = output.lines().rfind(|line| line.starts_with("Done "));
    match closing {
        Some(closing) if status.success() => Ok(closing.to_owned()),
        _ => bail!("failed, {status}: see {} and {}", log.display(), artifacts.display()),
    }
}

/// Writes valid inputs into a target's corpus, if it has seeds: random bytes almost never form a valid input.
fn seed(fuzz: &Path, target: &str) -> Result<()> {
    let corpus = fuzz.join("corpus").join(target);
    fs::create_dir_all(&corpus).with_context(|| format!("cannot create {}", corpus.display()))?;
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
                write(&seed, &[&[choice][..], &stream].concat())?;
            }
            Ok(())
        }
        // The first byte says that the target encrypts what follows: a packet with plain bytes, alone and within one that is not compressed.
        "openpgp" => {
            let literal = b"\xCB\x0Bb\0\0\0\0\0plain";
            write(&corpus.join("literal"), &[b"\x02", &literal[..]].concat())?;
            write(&corpus.join("compressed"), &[b"\x02\xC8\x0E\0", &literal[..]].concat())
        }
        "manifest" => write(&corpus.join("version-1"), MANIFEST.as_bytes()),
        "control_file" => {
            let control_file = tests::cluster::minimal_cluster(7_000_000_000_000_000_001).control_file();
            write(&corpus.join("postgresql-15"), &control_file)
        }
        _ => match TEXTS.iter().find(|(of, _)| *of == target) {
            Some((_, text)) => write(&corpus.join("text"), text.as_bytes()),
            None => Ok(()),
        },
    }
}

fn write(path: &Path, contents: &[u8]) -> Result<()> {
    fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))
}

/// Runs a program, and writes its standard output to a file.
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
