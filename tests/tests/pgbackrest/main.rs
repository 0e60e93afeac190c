//! The method `pgbackrest` through the whole program: repositories as pgBackRest writes them and as nobody wants them, held
//! against what `pgbackrest restore` makes of the same backup.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "how much ran, and what each refusal said, is for whoever looks")]

mod bad_input;
mod choice;
mod delta;
mod example;
mod harness;
mod hostile;
mod layout;
mod matrix;
mod scene;
mod secrets;
mod stores;
mod wal;
