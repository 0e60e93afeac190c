//! Everything that is done to the project from outside: `cargo xtask set-up|plugins|demo|test|docs|dist|bench|fuzz`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a person watches")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod bench;
mod demo;
mod dist;
mod docs;
mod fuzz;
mod plugins;
mod setup;
mod test;
mod tools;
mod wasm_toolchain;

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
    /// Check and build the manual into target/book
    Docs {
        /// Fail if a generated part of it is not what the code says, rather than writing it
        #[arg(long)]
        check: bool,
    },
    /// Make the archive and Debian's package of a release, in target/dist
    Dist {
        /// Install the package in a fresh Debian below target/, as root, and create a replica there
        #[arg(long = "try")]
        try_it: bool,
    },
    /// Measure what creating a replica costs beside the usual tools, for BENCHMARKS.md
    Bench {
        /// What to measure; nothing named means everything
        #[arg(value_enum)]
        what: Vec<bench::What>,
        /// One round on little data, shown and not written
        #[arg(long)]
        quick: bool,
        /// Measure so often rather than five times
        #[arg(long, value_name = "N")]
        rounds: Option<u32>,
        /// Only with the target there, where both are measured
        #[arg(long, value_enum)]
        target: Option<bench::Place>,
        /// Measure this program, built before, and the components that are there
        #[arg(long, value_name = "FILE")]
        program: Option<std::path::PathBuf>,
    },
    /// Try the readers of the data plane with random input
    Fuzz {
        /// For how many seconds each
        #[arg(long, default_value_t = 60)]
        seconds: u32,
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
        Task::Docs { check } => {
            setup::machine()?;
            docs::run(check)
        }
        Task::Dist { try_it } => dist::run(try_it),
        Task::Bench { what, quick, rounds, target, program } => {
            setup::machine()?;
            if program.is_none() {
                plugins::build()?;
            }
            bench::run(&what, quick, rounds, target, program.as_deref())
        }
        Task::Fuzz { seconds } => {
            setup::machine()?;
            fuzz::run(seconds)
        }
    }
}

/// Tells what is being done.
fn say(what: &str) {
    println!("\x1b[1m==>\x1b[0m {what}");
}
