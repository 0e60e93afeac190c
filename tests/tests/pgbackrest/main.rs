//! Tests of the method `pgbackrest` in the whole program: valid, damaged and malicious repositories, and comparisons with the result of
//! `pgbackrest restore` for the same backup.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the counts and messages are for the reader of the test's output")]

mod bad_input;
mod blocks;
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
