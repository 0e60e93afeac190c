//! `cargo xtask dist`: builds a release of the program in `target/dist`, as an archive and as a Debian package. Builds of the same
//! commit are identical on machines with the same tools: they contain no time, path, name or file order from the machine.

mod deb;
mod program;
mod tree;
mod try_out;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use tests::program::project;

use crate::{plugins, say};
use program::Program;
use tree::Tree;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The methods that are shipped with the program.
const METHODS: [&str; 6] = ["barman", "command", "mirror", "pgbackrest", "tarball", "walg"];

/// Builds the archive and the package. With `try_it`, installs the package in a fresh Debian and creates a replica there.
pub(crate) fn run(try_it: bool) -> Result<()> {
    ensure!(
        cfg!(all(target_arch = "x86_64", target_os = "linux")),
        "`cargo xtask dist` supports only Linux on x86_64"
    );
    plugins::build()?;
    let folder = folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let epoch = epoch()?;
    let program = Program::build()?;
    let archive = archive(&program, epoch)?;
    let package = deb::package(&program, epoch)?;
    for file in [&program.path, &archive, &package] {
        let size = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
        say(&format!("{}, {:.1} MiB", file.display(), size as f64 / f64::from(1 << 20)));
    }
    if try_it { try_out::package(&package) } else { Ok(()) }
}

/// Returns the folder in which the release is built.
fn folder() -> PathBuf {
    project().join("target/dist")
}

/// Returns the modification time for every file, in seconds since 1970: `SOURCE_DATE_EPOCH`, or the time of the last commit.
fn epoch() -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            let last = Command::new("git")
                .args(["log", "-1", "--format=%ct"])
                .current_dir(project())
                .output()
                .context("git does not run, and SOURCE_DATE_EPOCH is not set")?;
            ensure!(last.status.success(), "the project has no commit: set SOURCE_DATE_EPOCH");
            String::from_utf8_lossy(&last.stdout).into_owned()
        }
    };
    text.trim().parse().with_context(|| format!("`{}` is not a number of seconds since 1970", text.trim()))
}

/// Writes the files that a release installs into `tree`, whose root is a prefix such as `/usr` or `/usr/local`. `zsh` is the path of
/// the zsh completion script.
fn fill(tree: &Tree, program: &Program, zsh: &str) -> Result<()> {
    let read = |path: &str| fs::read(project().join(path)).with_context(|| format!("cannot read {path}"));
    tree.program("bin/understudy", &program.path)?;
    for method in METHODS {
        let name = format!("{method}.wasm");
        let component = plugins::components().join(&name);
        let bytes = fs::read(&component).with_context(|| format!("cannot read {}", component.display()))?;
        tree.file(&format!("lib/understudy/plugins/{name}"), &bytes)?;
    }
    tree.file_zipped("share/man/man1/understudy.1.gz", &program.prints(&["man"])?)?;
    for verb in ["create", "check", "inspect", "patroni", "report", "completions"] {
        let page = program.prints(&["man", verb])?;
        tree.file_zipped(&format!("share/man/man1/understudy-{verb}.1.gz"), &page)?;
    }
    for (shell, place) in [
        ("bash", "share/bash-completion/completions/understudy"),
        ("zsh", zsh),
        ("fish", "share/fish/vendor_completions.d/understudy.fish"),
    ] {
        tree.file(place, &program.prints(&["completions", shell])?)?;
    }
    tree.file("share/doc/understudy/README.md", &read("README.md")?)?;
    tree.file("share/doc/understudy/LICENSE", &read("LICENSE")?)?;
    tree.file_zipped("share/doc/understudy/changelog.gz", &read("CHANGELOG.md")?)?;
    tree.file("share/doc/understudy/examples/understudy.toml", &read("examples/understudy.toml")?)
}

/// Builds the archive, which can be unpacked in `/usr/local` or in any other directory, and returns its path.
fn archive(program: &Program, epoch: u64) -> Result<PathBuf> {
    let name = format!("understudy-{VERSION}-x86_64-linux");
    let tree = Tree::new(&folder().join("tree").join(&name))?;
    // zsh looks for completion scripts in this folder below /usr/local.
    fill(&tree, program, "share/zsh/site-functions/_understudy")?;
    tree.stamp(epoch)?;
    let file = folder().join(format!("{name}.tar.gz"));
    command("tar")
        .args(["--create", "--sort=name", "--format=gnu", "--owner=0", "--group=0", "--numeric-owner"])
        .arg(format!("--mtime=@{epoch}"))
        .args(["--use-compress-program=gzip -9n", "--file"])
        .arg(&file)
        .arg("--directory")
        .arg(folder().join("tree"))
        .arg(&name)
        .run()?;
    Ok(file)
}

/// A command that must succeed.
struct Tool(Command);

fn command(name: &str) -> Tool {
    Tool(Command::new(name))
}

impl Tool {
    fn args<A: AsRef<std::ffi::OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.0.args(arguments);
        self
    }

    fn arg(self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.args([argument])
    }

    fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    fn run(mut self) -> Result<()> {
        let name = self.0.get_program().to_string_lossy().into_owned();
        let status = self.0.status().with_context(|| format!("{name} does not run"))?;
        if !status.success() {
            bail!("{name} failed: {status}");
        }
        Ok(())
    }

    fn output(mut self) -> Result<String> {
        let name = self.0.get_program().to_string_lossy().into_owned();
        let output = self.0.output().with_context(|| format!("{name} does not run"))?;
        if !output.status.success() {
            bail!("{name} failed: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Removes a folder from an earlier run.
fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
