//! Development tasks of the project: `cargo xtask set-up|plugins|demo|test|docs|unused|dist|bench|fuzz`.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the output is for the person who runs the task")]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod bench;
mod demo;
mod dist;
mod docs;
mod fuzz;
mod guests;
mod plugins;
mod setup;
mod test;
mod tools;
mod unused;
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
        /// Run all test cases instead of the fast selection
        #[arg(long)]
        full: bool,
    },
    /// Check and build the manual into target/book
    Docs {
        /// Fail if a generated part of the manual is not up to date, instead of writing it
        #[arg(long)]
        check: bool,
    },
    /// Look for dependencies that no crate uses
    Unused,
    /// Build a release in target/dist, as an archive and as a Debian package
    Dist {
        /// Install the package in a fresh Debian below target/, as root, and create a replica there
        #[arg(long = "try")]
        try_it: bool,
    },
    /// Measure the creation of a replica in comparison with the usual tools, for BENCHMARKS.md
    Bench {
        /// What to measure; everything by default
        #[arg(value_enum)]
        what: Vec<bench::What>,
        /// Run one round with little data, and only print the results
        #[arg(long)]
        quick: bool,
        /// Number of rounds [default: 5]
        #[arg(long, value_name = "N")]
        rounds: Option<u32>,
        /// Use only targets on this medium, where both media would be measured
        #[arg(long, value_enum)]
        target: Option<bench::TargetMedium>,
        /// Measure this program and the existing components instead of building them
        #[arg(long, value_name = "FILE")]
        program: Option<std::path::PathBuf>,
    },
    /// Run the fuzz targets of host/fuzz
    Fuzz {
        /// How many seconds to run each target
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().task {
        Task::SetUp => setup::machine(),
        Task::Plugins => {
            plugins::build()?;
            guests::build()
        }
        Task::Demo => {
            setup::machine()?;
            plugins::build()?;
            demo::run()
        }
        Task::Test { full } => {
            setup::machine()?;
            plugins::build()?;
            guests::build()?;
            test::run(full)
        }
        Task::Docs { check } => {
            setup::machine()?;
            docs::run(check)
        }
        Task::Unused => unused::run(),
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

/// Prints the current step.
fn say(what: &str) {
    println!("\x1b[1m==>\x1b[0m {what}");
}
