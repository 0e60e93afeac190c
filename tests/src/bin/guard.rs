//! An executable that acts as the guard of a native program, and as a host that tests can kill.
//!
//! `guard DATADIR STATE_DIR PROGRAM ARGUMENTS...` locks the data directory and runs the program, which may write only to that
//! directory. At the program's first line of output it prints `started` and the guard's process number. At the end it prints how the
//! program ended.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "its output is what a test waits for")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use replica::datadir::DataDirectory;
use replica::event::Level;
use replica::process::{GuardExecutable, LineUse, NativeProgram, guard_main};
use replica::{Directories, Event, Run, TablespaceMap};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    if let Some(code) = guard_main(std::env::args_os()) {
        return code;
    }
    match host() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn host() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let datadir = PathBuf::from(arguments.next().context("no data directory")?);
    let state_dir = PathBuf::from(arguments.next().context("no state directory")?);
    let program = PathBuf::from(arguments.next().context("no program")?);
    let directories =
        Directories { datadir: datadir.clone(), wal: None, tablespaces: TablespaceMap::default() };
    let directory = Arc::new(DataDirectory::acquire(&directories, &state_dir, false)?);
    let native = NativeProgram {
        name: "program".to_owned(),
        program,
        arguments: arguments.collect(),
        environment: Vec::new(),
        writable: vec![datadir],
        require_landlock: None,
        directory: Some(directory.clone()),
        guard: GuardExecutable::this(),
        grace: Duration::from_secs(1),
        confinement: None,
    };
    let run = Run::new("test", CancellationToken::new(), Arc::new(|_: Event| {}));
    let mut started = false;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build()?;
    let ending = runtime.block_on(native.run(&run, |_| {
        if !started {
            started = true;
            let guards: Vec<_> = directory.state().record().processes.iter().map(|guard| guard.pid).collect();
            println!("started {guards:?}");
        }
        LineUse::Log(Level::Info)
    }))?;
    println!("{}", ending.status);
    Ok(())
}
