//! What the methods share that restore from the archive of a backup tool: the folder with the backups, which backup the options
//! choose, which write-ahead log comes with it, and its transfer. Each method implements [`wal::Archive`] for the layout of its tool.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod chain;
pub mod folder;
pub mod listing;
pub mod manifest;
pub mod missing;
pub mod pages;
pub mod target;
pub mod timelines;
pub mod transfer;
pub mod unpacked;
pub mod wal;

#[cfg(test)]
mod tests;
