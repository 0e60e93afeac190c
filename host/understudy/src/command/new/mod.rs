//! `new`: writes the project of a new method.

mod name;
mod sdk;
mod template;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{NotStarted, print};
use crate::cli::{Language, NewArgs};
use crate::render::Terminal;
use crate::render::text::printable;

use name::Name;
use sdk::Sdk;
use template::ProjectFile;

/// Writes the project into the current directory and returns the exit code.
pub fn run(args: &NewArgs) -> u8 {
    match create(args) {
        Ok(next) => {
            print(&next);
            0
        }
        Err(error) => {
            Terminal::stderr().line(&format!("understudy: {}", printable(&error.message)));
            error.exit_code
        }
    }
}

/// Writes the project, and returns what to do next.
fn create(args: &NewArgs) -> Result<String, NotStarted> {
    let name = Name::parse(&args.name).map_err(NotStarted::usage)?;
    let sdk = match &args.sdk {
        Some(place) => Sdk::at(place).map_err(NotStarted::usage)?,
        None => Sdk::Released,
    };
    let directory = Path::new(name.as_str());
    if directory.symlink_metadata().is_ok() {
        return Err(NotStarted::usage(exists(directory)));
    }
    let files = template::project(args.language, &name, args.licence, &sdk);
    write(directory, &files).map_err(|error| {
        match error.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::AlreadyExists) => NotStarted::usage(exists(directory)),
            _ => NotStarted::failed(error),
        }
    })?;
    Ok(next(args.language, &name, &sdk))
}

fn exists(directory: &Path) -> anyhow::Error {
    anyhow::anyhow!("{} exists already: choose another name, or remove it first", directory.display())
}

/// Writes `files` into the new directory `directory`. They are first written into a temporary directory beside it, so that no failure leaves
/// a part of a project.
fn write(directory: &Path, files: &[ProjectFile]) -> anyhow::Result<()> {
    let beside = match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let around = tempfile::Builder::new()
        .prefix(".understudy-new-")
        .tempdir_in(beside)
        .with_context(|| format!("cannot make a directory in {}", beside.display()))?;
    let project = around.path().join("project");
    for ProjectFile { path, text, is_script } in files {
        let path = project.join(path);
        let write = || {
            DirBuilder::new().recursive(true).mode(0o777).create(path.parent().unwrap_or(&project))?;
            // The umask restricts both modes, as for every program that writes source files.
            let mode = if *is_script { 0o777 } else { 0o666 };
            let mut file = File::options().write(true).create_new(true).mode(mode).open(&path)?;
            file.write_all(text.as_bytes())
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
    }
    // Fails if `directory` was created meanwhile; an ordinary rename would replace an empty directory.
    match renameat_with(CWD, &project, CWD, directory, RenameFlags::NOREPLACE) {
        // This file system has no such call.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::rename(&project, directory)?,
        renamed => renamed.map_err(io::Error::from)?,
    }
    Ok(())
}

/// Returns the text that says what to do next.
fn next(language: Language, name: &Name, sdk: &Sdk) -> String {
    let steps = match language {
        Language::Rust => {
            let component = format!("target/wasm32-wasip2/release/{}.wasm", name.in_rust());
            [
                ("test it natively", "cargo test".to_owned()),
                (
                    "build the component; once before: rustup target add wasm32-wasip2",
                    "cargo build --release --target wasm32-wasip2".to_owned(),
                ),
                ("show what it asks for", format!("understudy inspect {component}")),
                ("restore a sample with it in the sandbox", format!("./sandbox-test.sh {component}")),
            ]
        }
    };
    let steps: String = steps.map(|(what, command)| format!("\n  {command}\n      {what}")).concat();
    let from = match sdk {
        Sdk::Released => {
            "\nIt takes the crate understudy-sdk from crates.io; `--sdk` takes it from a checkout or a Git repository.\n"
        }
        Sdk::Directory(_) | Sdk::Git(_) => "",
    };
    let name = name.as_str();
    format!(
        "{name} is a method that restores directories of compressed files. In the directory {name}:\n{steps}\n{from}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_that_cannot_be_written_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        let files = [("src", "a file"), ("src/lib.rs", "cannot be below it")]
            .map(|(path, text)| ProjectFile { path: path.into(), text: text.to_owned(), is_script: false });
        let directory = place.path().join("acme");
        let error = write(&directory, &files).unwrap_err();
        assert!(format!("{error:#}").contains("src/lib.rs"), "{error:#}");
        assert!(!directory.exists());
        fs::create_dir(&directory).unwrap();
        let error = write(&directory, &files[..1]).unwrap_err();
        assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [directory]);
    }
}
