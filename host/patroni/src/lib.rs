//! Converts Patroni's configuration to one for Understudy.
//!
//! [`convert`] reads Patroni's file in the same way as Patroni: scalars have PyYAML's types ([`yaml`]), flags are true if Python treats
//! them as true, and local settings override the dynamic configuration ([`settings`]). The function only converts texts: it opens no file
//! and does not depend on the machine.
//!
//! The rules come from Patroni 4.1 (`patroni/config.py`, `patroni/postgresql/bootstrap.py`, `docs/replica_bootstrap.rst`).

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod basebackup;
mod command;
mod interpreter;
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

pub use basebackup::NOT_ALLOWED;
pub use remarks::Remark;
pub use yaml::FILE_LIMIT;

/// The content of a file, and its name for messages.
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
    /// The line, counted from 1; `None` if the message is about the whole file.
    pub line: Option<usize>,
    /// What is wrong and what to do. The message quotes keys, never values.
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

/// The result of [`convert`].
#[derive(Clone, Debug, Serialize)]
pub struct Conversion {
    /// Understudy's configuration, with comments.
    pub toml: String,
    /// What to change in Patroni's configuration, as YAML with comments.
    pub patroni: String,
    /// Settings for the creation of replicas that `toml` does not have, or has with another meaning. Sorted by file and line.
    pub not_carried: Vec<Remark>,
    /// Remarks about settings that `toml` has or that stay with Patroni. Sorted by file and line.
    pub notes: Vec<Remark>,
}

/// Converts Patroni's `local` configuration. `dynamic` is the output of `patronictl show-config`; without it, the section `bootstrap.dcs`
/// is used instead. `config` is the absolute path at which Patroni will find Understudy's configuration.
///
/// Passwords of Patroni's own settings are not in the result, nor are arguments and variables that look like secrets
/// ([`foundation::lookalike`]). The result does contain a secret that neither its name nor its form reveals, such as the value of a short
/// option.
///
/// # Errors
/// Fails if a text cannot be read, is a template, or is not a configuration of Patroni.
pub fn convert(local: Input<'_>, dynamic: Option<Input<'_>>, config: &str) -> Result<Conversion, Unreadable> {
    let local = yaml::Document::read(local.name, local.bytes)?;
    template::refuse_placeholders(local.root())?;
    let dynamic = dynamic.map(|dynamic| yaml::Document::read(dynamic.name, dynamic.bytes)).transpose()?;
    if let Some(dynamic) = &dynamic {
        template::refuse_placeholders(dynamic.root())?;
    }
    let settings = settings::Settings::new(local.root(), dynamic.as_ref().map(yaml::Document::root))?;
    let mut remarks = remarks::Remarks::default();
    let plan = section::Plan::of(&settings, &mut remarks)?;
    let (toml, patroni) = (render::toml(&plan), render::patroni(&plan, config));
    let (not_carried, notes) = remarks.finish();
    Ok(Conversion { toml, patroni, not_carried, notes })
}

/// Returns the text that `str(yaml.safe_load(text))` returns in Python, for tests against PyYAML.
///
/// # Errors
/// Fails if the text cannot be read, or if Python's Unicode tables would be needed to print the value.
pub fn python_text(input: Input<'_>) -> Result<String, Unreadable> {
    let document = yaml::Document::read(input.name, input.bytes)?;
    let unprintable = || Unreadable::whole(input.name, "the value cannot be converted to an argument");
    python::str(document.root()).ok_or_else(unprintable)
}

#[cfg(test)]
mod tests;
