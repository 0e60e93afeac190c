//! `completions`: a shell's completion script.

use clap::CommandFactory;
use clap_complete::Shell;

use super::print;
use crate::cli::Cli;

/// Prints the script and returns 0 as the exit code.
pub fn run(shell: Shell) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "understudy", &mut script);
    print(&String::from_utf8_lossy(&script));
    0
}
