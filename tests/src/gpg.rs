//! The program gpg, with keys of its own.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A directory of keys, and the agent that gpg starts for it. Both end with this.
#[derive(Debug)]
pub struct Gpg {
    home: tempfile::TempDir,
}

impl Gpg {
    /// Makes an empty directory of keys.
    ///
    /// # Errors
    /// Fails if it cannot be made.
    pub fn new() -> Result<Self> {
        // The agent's socket is below it, and the path of a socket has at most 107 bytes.
        let home = tempfile::Builder::new().prefix("gpg").tempdir_in("/tmp")?;
        std::fs::set_permissions(home.path(), Permissions::from_mode(0o700))?;
        Ok(Self { home })
    }

    /// Returns the directory, for `GNUPGHOME`.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Runs gpg with `input`, and returns its output.
    ///
    /// # Errors
    /// Fails if gpg does not run, or reports an error.
    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        let mut child = Command::new("gpg")
            .env("GNUPGHOME", self.home())
            .args([
                "--batch",
                "--quiet",
                "--pinentry-mode=loopback",
                "--trust-model=always",
                "--no-auto-key-locate",
            ])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("gpg does not run: `cargo xtask set-up` installs it")?;
        let mut stdin = child.stdin.take().context("no input")?;
        let input = input.to_vec();
        // gpg may end without having read its input.
        let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output()?;
        ensure!(writer.join().is_ok(), "the thread that writes to gpg panicked");
        ensure!(output.status.success(), "gpg {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output.stdout)
    }

    /// Makes a key with this name, and returns it as gpg exports it with the arguments `export`. `algorithm` is `future-default` for
    /// Curve25519, or the algorithm of a key that signs, such as `rsa2048`. An RSA key gets a subkey of the same algorithm that encrypts.
    ///
    /// # Errors
    /// The errors of [`Gpg::run`].
    pub fn key(&self, name: &str, algorithm: &str, pass_phrase: &str, export: &[&str]) -> Result<Vec<u8>> {
        let pass_phrase = format!("--passphrase={pass_phrase}");
        self.run(&[&pass_phrase, "--quick-generate-key", name, algorithm, "default", "never"], b"")?;
        let name = &*exactly(name);
        if algorithm.starts_with("rsa") {
            let listed = String::from_utf8(self.run(&["--with-colons", "--list-keys", name], b"")?)?;
            let fingerprint = listed.lines().find_map(|line| line.strip_prefix("fpr:"));
            let fingerprint = fingerprint.context("gpg lists no key")?.trim_matches(':');
            self.run(&[&pass_phrase, "--quick-add-key", fingerprint, algorithm, "encrypt", "never"], b"")?;
        }
        self.run(&[&[&*pass_phrase], export, &[name]].concat(), b"")
    }

    /// Encrypts `plain` for the key with the name `recipient`.
    ///
    /// # Errors
    /// The errors of [`Gpg::run`].
    pub fn encrypt(&self, recipient: &str, arguments: &[&str], plain: &[u8]) -> Result<Vec<u8>> {
        self.run(&[&["--recipient", &exactly(recipient)], arguments, &["--encrypt"]].concat(), plain)
    }
}

/// Returns how gpg is told this name alone, and no longer one that contains it.
fn exactly(name: &str) -> String {
    format!("={name}")
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").env("GNUPGHOME", self.home()).args(["--kill", "all"]).status();
    }
}
