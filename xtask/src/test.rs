//! Runs every test and counts them.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use tests::program::{FULL, project};

use crate::say;

/// Every workspace: what it is, its manifest, where it is built.
const WORKSPACES: [(&str, &str, &str); 3] = [
    ("the host", "Cargo.toml", "target"),
    ("the plugins", "plugins/Cargo.toml", "plugins/target"),
    ("the example of a method", "examples/hello-method/Cargo.toml", "plugins/target"),
];

/// What a run of `cargo test` counted.
#[derive(Clone, Copy, Default)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

/// Runs the tests of every workspace.
pub(crate) fn run(full: bool) -> Result<()> {
    say("building the program and its tests");
    let built = Command::new(env!("CARGO"))
        .args(["test", "--workspace", "--no-run", "--quiet"])
        .current_dir(project())
        .status()?;
    if !built.success() {
        bail!("the program or its tests do not build");
    }
    let mut counts = Counts::default();
    let mut passed = true;
    for (name, manifest, target) in WORKSPACES {
        say(&format!("testing {name}"));
        passed &= cargo_test(manifest, target, full, &mut counts)?;
    }
    println!("\n{} passed, {} failed, {} skipped", counts.passed, counts.failed, counts.ignored);
    if !passed || counts.failed > 0 {
        bail!("not every test passed");
    }
    if counts.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// Runs one workspace's tests to the end, whatever fails, and adds up what they say of themselves.
fn cargo_test(manifest: &str, target: &str, full: bool, counts: &mut Counts) -> Result<bool> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--workspace", "--no-fail-fast", "--manifest-path", manifest]);
    command.args(["--target-dir", target]).current_dir(project());
    if full {
        command.env(FULL, "1");
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("cargo does not run")?;
    let stdout = child.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        if line.starts_with("test result:") {
            counts.passed += count(&line, "passed");
            counts.failed += count(&line, "failed");
            counts.ignored += count(&line, "ignored");
        }
    }
    Ok(child.wait()?.success())
}

/// The number before a word of `test result: ok. 12 passed; 0 failed; ...`.
fn count(line: &str, word: &str) -> u64 {
    line.split([';', '.'])
        .filter_map(|part| part.trim().strip_suffix(word))
        .find_map(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod unit {
    use super::count;

    #[test]
    fn cargos_closing_line_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s";
        assert_eq!([count(line, "passed"), count(line, "failed"), count(line, "ignored")], [12, 3, 1]);
    }
}
