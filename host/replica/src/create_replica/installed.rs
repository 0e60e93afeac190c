//! The PostgreSQL in `bin_dir`, which will run the replica.

use std::path::{Path, PathBuf};

use tokio::sync::OnceCell;

use super::attempt_error::blocking;
use crate::Refusal;
use crate::Rule;
use crate::program_version::{TIMEOUT, major_version};

/// The major version in `bin_dir`, determined once in a run.
#[derive(Debug)]
pub(super) struct Installed {
    bin_dir: PathBuf,
    major: OnceCell<Result<u32, Refusal>>,
}

impl Installed {
    pub(super) fn in_directory(bin_dir: PathBuf) -> Self {
        Self { bin_dir, major: OnceCell::new() }
    }

    /// Returns the major version of `<bin_dir>/postgres`, such as 15.
    pub(super) async fn major(&self) -> Result<u32, Refusal> {
        self.major.get_or_init(|| ask(&self.bin_dir)).await.clone()
    }
}

async fn ask(bin_dir: &Path) -> Result<u32, Refusal> {
    let program = bin_dir.join("postgres");
    let path = program.clone();
    let why = match blocking(move || major_version(&path, TIMEOUT)).await {
        Ok(Ok(major)) => return Ok(major),
        Ok(Err(error)) => error.to_string(),
        Err(panicked) => panicked.message,
    };
    let message = format!("cannot determine the version of {}: {why}", program.display());
    Err(Refusal::new(Rule::BinDir, message)
        .remedy("[replica] bin_dir = \"<the directory of PostgreSQL's programs>\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program_version::tests::programs;

    #[tokio::test]
    async fn the_version_is_asked_once_a_run() {
        let bin_dir = programs("echo 'postgres (PostgreSQL) 15.18'\nrm \"$0\"");
        let installed = Installed::in_directory(bin_dir.path().to_owned());
        assert_eq!(installed.major().await, Ok(15));
        assert_eq!(installed.major().await, Ok(15));
    }

    #[tokio::test]
    async fn a_bin_dir_without_postgres_names_the_setting() {
        let empty = tempfile::tempdir().unwrap();
        let refusal = Installed::in_directory(empty.path().to_owned()).major().await.unwrap_err();
        assert!(refusal.remedy.unwrap().starts_with("[replica] bin_dir"));
    }
}
