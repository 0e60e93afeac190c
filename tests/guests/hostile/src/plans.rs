//! A behaviour that returns the plan that the options describe.

use understudy::{Failure, Plan, Request, Tablespace};

/// Returns the plan that the options describe. Fields without an option are `None`.
pub(crate) fn claimed(request: &Request) -> Result<Plan, Failure> {
    let number = |name| request.get::<u64>(name);
    let small = |name| Ok::<_, Failure>(number(name)?.and_then(|number| u32::try_from(number).ok()));
    let mut tablespaces = Vec::new();
    for claim in request.get::<Vec<String>>("tablespaces")?.unwrap_or_default() {
        match claim.split_once('=').map(|(oid, location)| (oid.parse(), location.to_owned())) {
            Some((Ok(oid), location)) => tablespaces.push(Tablespace { oid, name: None, location }),
            _ => return Err(Failure::failed(format!("`{claim}` is not oid=location"))),
        }
    }
    let system_identifier = match request.get::<String>("system-identifier")? {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| Failure::failed(format!("`{text}` is not a number")))?),
    };
    Ok(Plan {
        backup: request.require("backup")?,
        postgresql_major: small("major")?,
        system_identifier,
        timeline: small("timeline")?,
        start_lsn: None,
        stop_lsn: None,
        bytes: number("bytes")?,
        files: number("files")?,
        tablespaces,
        builds_on_existing: request.flag("builds-on-existing")?,
    })
}
