//! Runs `examples/pgbackrest`.

use std::path::Path;
use std::process::Command;

use tests::program::{project, understudy};
use tests::server::run;

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_example_runs_unchanged() {
    let mut example = Command::new(project().join("examples/pgbackrest/run.sh"));
    example.env("UNDERSTUDY", understudy().unwrap());
    let output = run(&mut example).unwrap();
    let output = String::from_utf8_lossy(&output.stdout);
    // The script fails if the replica does not stream, or lacks a row.
    assert!(output.contains("the replica streams and has the same rows"), "{output}");
    assert!(!output.contains("change-me"), "{output}");
    let folder = output.trim_end().rsplit(' ').next().unwrap();
    assert!(folder.starts_with("/tmp/pgbackrest-example-") && !Path::new(folder).exists(), "{output}");
}
