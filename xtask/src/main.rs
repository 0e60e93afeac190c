//! Everything that is done to the project from outside: `cargo xtask set-up|plugins|demo|test`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a person watches")]

mod demo;
mod plugins;
mod setup;
mod test;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Sets up this machine, builds, shows and tests the project.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing: PostgreSQL 15, a Rust target for WebAssembly
    SetUp,
    /// Build the components in plugins/, tests/guests and examples/
    Plugins,
    /// Show a replica being created from a real backup of a real primary
    Demo,
    /// Run every test, against real servers
    Test {
        /// Run the whole of the matrices, not the fast cut
        #[arg(long)]
        full: bool,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::SetUp => setup::machine(),
        Task::Plugins => plugins::build(),
        Task::Demo => {
            setup::machine()?;
            plugins::build()?;
            demo::run()
        }
        Task::Test { full } => {
            setup::machine()?;
            plugins::build()?;
            test::run(full)
        }
    }
}

/// Tells what is being done.
fn say(what: &str) {
    println!("\x1b[1m==>\x1b[0m {what}");
}
