//! Runs and counts all tests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use quick_xml::Reader;
use quick_xml::events::Event;
use tests::program::{FULL, project};

use crate::{say, tools};

/// A Cargo workspace with tests.
struct Workspace {
    name: &'static str,
    manifest: &'static str,
    target: &'static str,
    /// Whether the documentation of its crates has examples, which cargo-nextest does not run.
    has_examples: bool,
}

const WORKSPACES: [Workspace; 5] = [
    Workspace { name: "the host", manifest: "Cargo.toml", target: "target", has_examples: false },
    Workspace {
        name: "the plugins",
        manifest: "plugins/Cargo.toml",
        target: "plugins/target",
        has_examples: true,
    },
    Workspace {
        name: "the example of a method",
        manifest: "examples/hello-method/Cargo.toml",
        target: "plugins/target",
        has_examples: false,
    },
    Workspace {
        name: "the example of a method that asks a service",
        manifest: "examples/catalogue/Cargo.toml",
        target: "plugins/target",
        has_examples: false,
    },
    Workspace {
        name: "the project that `understudy new` writes",
        manifest: "host/understudy/templates/rust/Cargo.toml",
        target: "plugins/target",
        has_examples: false,
    },
];

/// The profile in `.config/nextest.toml` that writes a report.
const PROFILE: &str = "ci";

/// The numbers of passed and failed tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
}

/// Runs the tests of every workspace, including the tests that plain `cargo test` skips because they need servers or components.
pub(crate) fn run(full: bool) -> Result<()> {
    let nextest = tools::nextest()?;
    say("building the program and its tests");
    build()?;
    let mut counts = Counts::default();
    let mut passed = true;
    for workspace in &WORKSPACES {
        say(&format!("testing {}", workspace.name));
        passed &= workspace.test(&nextest, full, &mut counts)?;
    }
    println!("\n{} passed, {} failed, 0 skipped", counts.passed, counts.failed);
    if !passed || counts.failed > 0 {
        bail!("not every test passed");
    }
    if counts.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// Builds the program, its tests and its examples. Cargo selects the features of dependencies for everything that one command builds, so a
/// command that builds less would compile many dependencies once more.
pub(crate) fn build() -> Result<()> {
    let built = tools::without_variables_of_xtask(env!("CARGO"))
        .args(["build", "--workspace", "--bins", "--tests", "--examples", "--quiet"])
        .current_dir(project())
        .status()
        .context("cargo does not run")?;
    if !built.success() {
        bail!("the program, its tests or its examples do not build");
    }
    Ok(())
}

impl Workspace {
    /// Runs all tests of this workspace, even after a failure. Adds their numbers to `counts`, and returns whether all tests passed.
    fn test(&self, nextest: &Path, full: bool, counts: &mut Counts) -> Result<bool> {
        let report = self.report();
        if report.exists() {
            fs::remove_file(&report).with_context(|| format!("cannot remove {}", report.display()))?;
        }
        let mut command = tools::without_variables_of_xtask(nextest);
        command.args(["nextest", "run", "--workspace", "--run-ignored", "all", "--profile", PROFILE]);
        command.args(["--manifest-path", self.manifest, "--target-dir", self.target]);
        command.args(["--config-file", ".config/nextest.toml"]).current_dir(project());
        if full {
            command.env(FULL, "1");
        }
        let status = command.status().context("cargo-nextest does not run")?;
        let documented = !self.has_examples || self.test_examples()?;
        let text = fs::read_to_string(&report)
            .with_context(|| format!("cargo-nextest wrote no {} ({status})", report.display()))?;
        let counted = Counts::read(&text).with_context(|| format!("{} has no counts", report.display()))?;
        counts.passed += counted.passed;
        counts.failed += counted.failed;
        Ok(status.success() && documented)
    }

    /// Runs the examples in the documentation, which are not counted, and returns whether all passed.
    fn test_examples(&self) -> Result<bool> {
        let status = tools::without_variables_of_xtask(env!("CARGO"))
            .args(["test", "--workspace", "--doc", "--quiet", "--manifest-path", self.manifest])
            .args(["--target-dir", self.target])
            .current_dir(project())
            .status()?;
        Ok(status.success())
    }

    /// Returns the path of cargo-nextest's report. The report is in the workspace's own folder (`store.dir`), even if `--target-dir` is
    /// set.
    fn report(&self) -> PathBuf {
        project().join(self.manifest).with_file_name("target/nextest").join(PROFILE).join("junit.xml")
    }
}

impl Counts {
    /// Reads the counts from the root element of a report in JUnit's format; `None` if the element has no counts.
    fn read(report: &str) -> Option<Self> {
        let mut reader = Reader::from_str(report);
        loop {
            match reader.read_event().ok()? {
                Event::Start(element) | Event::Empty(element) => {
                    let count = |name: &str| -> Option<u64> {
                        let attribute = element.try_get_attribute(name).ok()??;
                        std::str::from_utf8(&attribute.value).ok()?.parse().ok()
                    };
                    let failed = count("failures")? + count("errors")?;
                    return Some(Self { passed: count("tests")?.checked_sub(failed)?, failed });
                }
                Event::Eof => return None,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod unit {
    use super::Counts;

    #[test]
    fn the_counts_of_a_report_are_read() {
        let report = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="15" failures="2" errors="1" time="0.3">
    <testsuite name="tests" tests="4" disabled="0" errors="0" failures="0"></testsuite>
</testsuites>"#;
        assert_eq!(Counts::read(report), Some(Counts { passed: 12, failed: 3 }));
        assert_eq!(Counts::read("<testsuites name=\"nextest-run\"/>"), None);
        assert_eq!(Counts::read("no report"), None);
    }
}
