//! The arguments of the program, in Patroni's order.

use std::collections::BTreeSet;

use understudy::{Context, Failure, Request};

/// Returns the arguments of the program: the words of the option `arguments`, then `--key=value` for each item of `parameters`, then
/// Patroni's four parameters unless the operator set `no_params`. An item of `parameters` with the name of one of Patroni's four
/// parameters is left out, because Patroni's value replaces it (rules 9 and 10).
///
/// # Errors
/// Fails if an item of `parameters` is not `key=value`, or if two items have the same key, which is impossible in Patroni's configuration.
pub(crate) fn of(request: &Request) -> Result<Vec<String>, Failure> {
    let mut arguments = request.get::<Vec<String>>("arguments")?.unwrap_or_default();
    let patronis = request.context.as_ref().map(parameters_of_patroni).unwrap_or_default();
    let mut keys = BTreeSet::new();
    for parameter in request.get::<Vec<String>>("parameters")?.unwrap_or_default() {
        let key = key_of(&parameter)?;
        if !keys.insert(key.to_owned()) {
            return Err(Failure::failed(format!("option `parameters` has `{}` twice", key.escape_debug())));
        }
        if !patronis.iter().any(|(name, _)| *name == key) {
            arguments.push(format!("--{parameter}"));
        }
    }
    arguments.extend(patronis.into_iter().map(|(name, value)| format!("--{name}={value}")));
    Ok(arguments)
}

/// Returns Patroni's four parameters, in Patroni's order.
fn parameters_of_patroni(context: &Context) -> Vec<(&'static str, &str)> {
    let Context { scope, role, datadir, connstring } = context;
    vec![("scope", scope), ("role", role), ("datadir", datadir), ("connstring", connstring)]
}

/// Returns the key of an item of `parameters`. An error does not quote the item, because its value may be a secret.
fn key_of(parameter: &str) -> Result<&str, Failure> {
    let wrong = |what: &str| {
        Err(Failure::failed(format!(
            "option `parameters` has an item that {what}: write Patroni's `key: value` as `key=value`, without dashes"
        )))
    };
    match parameter.split_once('=') {
        None => wrong("has no `=`"),
        Some(("", _)) => wrong("has no key before its `=`"),
        Some((key, _)) if key.starts_with('-') => wrong("begins with `-`"),
        Some((key, _)) => Ok(key),
    }
}
