//! Remedies: the lines of configuration that the program prints for denials.

use anyhow::{Context, Result};

/// Adds a printed line to `grants`, the lines of `[method.METHOD.grants]`. Replaces a line with the same key, because the printed line repeats
/// the existing grants.
///
/// # Errors
/// Fails if the line does not set a grant of this method.
pub fn apply(method: &str, grants: &str, line: &str) -> Result<String> {
    let foreign = || format!("`{line}` is no line of the grants of {method}");
    let setting = line.strip_prefix(&format!("[method.{method}.grants] ")).with_context(foreign)?;
    let (key, _) = setting.split_once(" = ").with_context(foreign)?;
    let others = grants.lines().filter(|line| !line.starts_with(&format!("{key} =")));
    Ok(others.chain([setting]).map(|line| format!("{line}\n")).collect())
}
