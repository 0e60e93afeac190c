//! Patroni's configuration, and the same settings for Understudy.
//!
//! [`convert`] reads Patroni's file as Patroni reads it: PyYAML's types ([`yaml`]), Python's truth, local settings before those of the
//! dynamic configuration ([`settings`]). It is a function of texts: it opens no file and asks nothing of the machine.
//!
//! The rules are those of Patroni 4.1 (`patroni/config.py`, `patroni/postgresql/bootstrap.py`, `docs/replica_bootstrap.rst`).

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod basebackup;
mod command;
mod known;
mod methods;
mod python;
mod remarks;
mod render;
mod section;
mod settings;
mod shlex;
mod source;
mod template;
mod toml;
mod yaml;

use serde::Serialize;
use thiserror::Error;

pub use remarks::Remark;
pub use yaml::FILE_LIMIT;

/// A file and its name for messages.
#[derive(Clone, Copy, Debug)]
pub struct Input<'i> {
    /// The name.
    pub name: &'i str,
    /// The content, at most [`FILE_LIMIT`] bytes.
    pub bytes: &'i [u8],
}

/// A configuration of Patroni that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}{}: {message}", .line.map(|line| format!(":{line}")).unwrap_or_default())]
pub struct Unreadable {
    /// The file's name.
    pub file: String,
    /// The line, the first of which is 1; `None` if the message is about the whole file.
    pub line: Option<usize>,
    /// What is wrong and what to do. It quotes keys, never values.
    pub message: String,
}

impl Unreadable {
    fn at(file: &str, line: usize, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: Some(line), message: message.into() }
    }

    fn whole(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line: None, message: message.into() }
    }
}

/// What [`convert`] made of a configuration of Patroni.
#[derive(Clone, Debug, Serialize)]
pub struct Conversion {
    /// Understudy's configuration, with comments.
    pub toml: String,
    /// What to change in Patroni's configuration, as YAML with comments.
    pub patroni: String,
    /// The settings on the creation of replicas that are not in `toml`, or not as Patroni has them, by file and line.
    pub not_carried: Vec<Remark>,
    /// What is worth knowing of settings that are in `toml` or that stay with Patroni, by file and line.
    pub notes: Vec<Remark>,
}

/// Converts Patroni's `local` configuration. Without `dynamic`, the output of `patronictl show-config`, the section `bootstrap.dcs` counts
/// in its place. `config` is the absolute path under which Patroni will find the configuration for Understudy.
///
/// No password is in the result.
///
/// # Errors
/// Fails if a text cannot be read, is a template, or is no configuration of Patroni.
pub fn convert(local: Input<'_>, dynamic: Option<Input<'_>>, config: &str) -> Result<Conversion, Unreadable> {
    let local = yaml::Document::read(local.name, local.bytes)?;
    template::refuse_holes(local.root())?;
    let dynamic = dynamic.map(|dynamic| yaml::Document::read(dynamic.name, dynamic.bytes)).transpose()?;
    if let Some(dynamic) = &dynamic {
        template::refuse_holes(dynamic.root())?;
    }
    let settings = settings::Settings::new(local.root(), dynamic.as_ref().map(yaml::Document::root))?;
    let mut remarks = remarks::Remarks::default();
    let plan = section::Plan::of(&settings, &mut remarks)?;
    let (toml, patroni) = (render::toml(&plan), render::patroni(&plan, config));
    let (not_carried, notes) = remarks.finish();
    Ok(Conversion { toml, patroni, not_carried, notes })
}

/// Returns the text that `str(yaml.safe_load(text))` gives in Python, for tests against PyYAML.
///
/// # Errors
/// Fails if the text cannot be read, and if only Python's own tables could print it.
pub fn python_text(input: Input<'_>) -> Result<String, Unreadable> {
    let document = yaml::Document::read(input.name, input.bytes)?;
    let unprintable = || Unreadable::whole(input.name, "the value has no text that can be an argument");
    python::str(document.root()).ok_or_else(unprintable)
}

#[cfg(test)]
mod tests;
