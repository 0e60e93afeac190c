//! Looks for what keeps a standby from following its primary although PostgreSQL starts: a missing password, or a slot that cannot be used.

use std::path::Path;

use postgres_formats::configuration::{Line, lines, parse_line};

use crate::outcome::Finding;
use crate::seal::EndState;
use crate::source::{
    Conninfo, Slot, SourceError, WithoutEntry, hosts_without_entry, shown_if_there, unusable_passfile,
};
use crate::{Level, Rule, Source, regular_file};

const CHECK: Rule = Rule::ConfigureStandby;

/// The most bytes of the operator's configuration file that are read.
const LONGEST: u64 = 1 << 20;

fn finding(message: String) -> Finding {
    Finding { check: CHECK, level: Level::Warn, message }
}

/// Returns a finding if the source asks for a password and the standby of `configure_standby` will not find one. Blocking.
pub(super) fn password(end: &EndState, source: Option<&Source>) -> Option<Finding> {
    let (standby, source) = (end.configure_standby.as_ref()?, source?);
    let conninfo = Conninfo::parse(&standby.conninfo).ok()?;
    let named = standby.passfile.as_deref().or_else(|| conninfo.get("passfile").map(Path::new));
    if !source.uses_password() {
        return None;
    }
    let Some(passfile) = named else {
        return without_passfile(end.default_passfile.as_deref(), &conninfo, source);
    };
    let whose = match standby.passfile {
        Some(_) => "`standby_passfile`",
        None => "`passfile` of the connection string",
    };
    if let Some(wrong) = wrong_password(source, passfile, &conninfo, whose) {
        return Some(wrong);
    }
    let why = match (unusable_passfile(passfile), hosts_without_entry(passfile, &conninfo)) {
        (Some(why), _) => format!("libpq does not read it: {why}"),
        (None, Err(error)) => format!("it cannot be read: {error}"),
        (None, Ok(WithoutEntry { lines, .. })) if lines.is_empty() => return None,
        (None, Ok(WithoutEntry { lines, .. })) => format!("it has no password for {}", lines.join(", ")),
    };
    let lines = "a line `host:port:replication:user:password` for each host";
    Some(finding(format!(
        "the standby will not find its password in {} ({whose}): {why}. It does not follow a primary that asks for a password; write \
         {lines}, with `*` for any value",
        shown_if_there(passfile)
    )))
}

/// Returns a finding if the password in a passfile differs from the password with which this run connects to the source. Shows neither
/// password.
fn wrong_password(source: &Source, passfile: &Path, conninfo: &Conninfo, whose: &str) -> Option<Finding> {
    let differing = source.hosts_with_another_password(passfile, conninfo).unwrap_or_default();
    (!differing.is_empty()).then(|| {
        finding(format!(
            "{} ({whose}) has another password for {} than the one with which this run reaches the source: the standby does not follow \
             if the password in this file is wrong; correct it there",
            passfile.display(),
            differing.join(", ")
        ))
    })
}

/// Returns a finding if a standby without a configured passfile will not find its password. libpq then reads `default`, the passfile in the
/// home directory of the server's user.
fn without_passfile(default: Option<&Path>, conninfo: &Conninfo, source: &Source) -> Option<Finding> {
    let is_enough = |passfile: &&Path| {
        unusable_passfile(passfile).is_none()
            && hosts_without_entry(passfile, conninfo).is_ok_and(|without| without.lines.is_empty())
    };
    if let Some(passfile) = default.filter(is_enough) {
        return wrong_password(source, passfile, conninfo, "which libpq reads by default");
    }
    let besides =
        default.map_or(String::new(), |path| format!(", and {} has no password for it", path.display()));
    Some(finding(format!(
        "this run reaches the source with a password, and the standby has none: `standby_passfile` is not set{besides}. The standby does \
         not follow a primary that asks for a password; write the password into a file with mode 0600, as \
         `host:port:replication:user:password`, and name the file with `[replica] standby_passfile = \"<path>\"`"
    )))
}

/// Returns the slot that the operator's configuration file names; `None` if it names none. Does not read included files.
pub(super) fn slot_in(file: &Path) -> Option<String> {
    let text = regular_file::beginning(file, LONGEST).ok()?;
    let named = lines(&text).filter_map(|(_, line)| match parse_line(line) {
        Line::Setting { name, value } if name == "primary_slot_name" => Some(value),
        _ => None,
    });
    named.last().filter(|name| !name.is_empty())
}

/// Returns a finding if the standby cannot follow through the slot `name`, according to the `answer` of the source.
pub(super) fn slot(name: &str, answer: Result<Slot, SourceError>) -> Option<Finding> {
    let setting = format!("`primary_slot_name` is `{}`", name.escape_debug());
    let makes = format!(
        "create it there with `SELECT pg_create_physical_replication_slot('{}')`",
        name.escape_debug()
    );
    let message = match answer {
        Ok(Slot::Physical) => return None,
        Ok(Slot::Missing) => format!(
            "{setting}, and the source has no such slot: the standby does not follow; {makes}, or take the setting out of the \
             configuration of the replica"
        ),
        Ok(Slot::Logical) => format!(
            "{setting}, which is a slot for logical replication on the source: the standby does not follow; name another, or take the \
             setting out of the configuration of the replica"
        ),
        Ok(Slot::Lost) => format!(
            "{setting}, and the source has removed WAL that the slot should have kept: the standby cannot follow through it; drop the slot \
             there and create it again, or take the setting out of the configuration of the replica"
        ),
        Ok(Slot::Active) => format!(
            "{setting}, and another standby uses that slot now: this standby cannot follow at the same time; name a slot of its own, or \
             take the setting out of the configuration of the replica"
        ),
        Err(error) => format!(
            "{setting}, and it is not known whether the source has that slot: {error}. If it has none, {makes}"
        ),
    };
    Some(finding(message))
}
