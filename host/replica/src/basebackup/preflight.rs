//! Runs `pg_basebackup` to get its version and to check the options, before anything is touched.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Output, Stdio};

use tokio::process::Command;

use super::options::refuse;
use crate::Refusal;
use crate::Rule;
use crate::program_version::{self, TIMEOUT};

/// An argument that is not an option, which ends a trial of the options: pg_basebackup refuses it after it has parsed all options, and
/// before it does anything else.
const NO_OPTION: &str = "trial-of-the-options";

/// Returns the major version of the `pg_basebackup` at `program`.
pub(super) async fn major_version(program: &Path) -> Result<u32, Refusal> {
    let path = program.to_owned();
    let answer = tokio::task::spawn_blocking(move || program_version::major_version(&path, TIMEOUT)).await;
    match answer {
        Ok(Ok(major)) => Ok(major),
        Ok(Err(error)) => Err(cannot_run(program, &error.to_string())),
        Err(panicked) => Err(cannot_run(program, &panicked.to_string())),
    }
}

/// Makes `pg_basebackup` parse the options without doing anything, so that values that it refuses (`max-rate`, `checkpoint`, ...) are
/// refused before the data directory is emptied.
pub(super) async fn try_options(program: &Path, options: &[OsString]) -> Result<(), Refusal> {
    let arguments: Vec<_> = options.iter().cloned().chain([NO_OPTION.into()]).collect();
    let output = ask(program, &arguments).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("too many command-line arguments") {
        return Ok(());
    }
    let line = said.lines().next().unwrap_or_default().escape_debug().to_string().replace("\\\"", "\"");
    Err(refuse(line.trim_start_matches("pg_basebackup: error: ")))
}

async fn ask(program: &Path, arguments: &[OsString]) -> Result<Output, Refusal> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("LC_ALL", "C").current_dir("/");
    command.stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(TIMEOUT, command.output()).await {
        Ok(Ok(output)) => Ok(output),
        Ok(Err(error)) => Err(cannot_run(program, &error.to_string())),
        Err(_) => Err(cannot_run(program, &format!("it does not answer within {} s", TIMEOUT.as_secs()))),
    }
}

fn cannot_run(program: &Path, why: &str) -> Refusal {
    let message = format!("{} cannot be run: {why}", program.display());
    Refusal::new(Rule::Program, message).remedy("[replica] bin_dir = \"/usr/lib/postgresql/15/bin\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: &str = "/usr/lib/postgresql/15/bin/pg_basebackup";

    #[tokio::test]
    async fn the_version_is_that_of_the_program_itself() {
        assert_eq!(major_version(Path::new(PROGRAM)).await, Ok(15));
        let refusal = major_version(Path::new("/nowhere/pg_basebackup")).await.unwrap_err();
        assert!(refusal.message.contains("/nowhere/pg_basebackup cannot be run"), "{refusal}");
        assert!(major_version(Path::new("/bin/true")).await.unwrap_err().message.contains("--version"));
    }

    #[tokio::test]
    async fn rule_20_a_value_that_pg_basebackup_refuses_is_refused_before_anything_is_touched() {
        let tried = async |options: &[&str]| {
            let options: Vec<_> = options.iter().map(Into::into).collect();
            try_options(Path::new(PROGRAM), &options).await.map_err(|refusal| refusal.message)
        };
        assert_eq!(tried(&[]).await, Ok(()));
        assert_eq!(
            tried(&["--max-rate=100M", "--checkpoint=fast", "--tablespace-mapping=/a=/b"]).await,
            Ok(())
        );
        for options in [&["--max-rate=1"][..], &["--checkpoint=now"], &["--tablespace-mapping=a"]] {
            let said = tried(options).await.unwrap_err();
            assert!(said.starts_with("option of pg_basebackup: ") && said.len() > 30, "{said}");
        }
    }
}
