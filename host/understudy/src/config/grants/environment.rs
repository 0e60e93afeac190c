//! `environment`: variables that the component sees.

use foundation::lookalike::{Names, is_secret};
use sandbox::{Grants, NotAVariable};
use toml::de::DeValue;

use crate::config::tree::{Section, Value};

/// Reads the variables into `open`.
pub(super) fn read(section: &Section<'_>, open: &mut Grants) {
    let table = section.get("environment").and_then(|value| value.table());
    for (name, value) in table.map(|section| section.entries()).unwrap_or_default() {
        let Some(text) = text(&value) else { continue };
        if is_secret(&name.text, text, Names::Certain) {
            value.problem(NotAVariable::Secret);
            continue;
        }
        if let Err(why) = open.environment.set(&name.text, text) {
            value.problem(why);
        }
    }
}

/// Returns the value of a variable, which may be empty. A secret of the configuration is a table (`{ file = "/path" }`).
fn text<'t>(value: &Value<'t>) -> Option<&'t str> {
    match value.raw() {
        DeValue::String(text) => Some(text.as_ref()),
        DeValue::Table(_) => {
            value.problem(
                "must be a quoted string. A secret is not allowed here, because the method could read it: use `credentials` of a store, \
                 a key (`keys.NAME`) or the `token` of a server (`network`)",
            );
            None
        }
        // For any other type, `text` reports the usual problem.
        _ => value.text(),
    }
}
