//! Makes sure that the server goes on following its primary. Overrides in `postgresql.auto.conf` what a configuration file outside the data
//! directory, which no other check judges, sets about the end of recovery. Also sets the slot that `pg_basebackup` used.

use super::super::guc::{self, Class, Setting};
use super::super::problem::{Problem, shown};
use super::super::recovery;
use super::ask::Server;
use super::{CHECK, ConfigurationFile, Verdicts};

const SLOT: &str = "primary_slot_name";
const DELAY: &str = "recovery_min_apply_delay";
const ACTION: &str = "recovery_target_action";

/// Returns the value with which a setting does not end a standby's recovery; `None` for a setting that cannot end it.
fn harmless(setting: Setting) -> Option<&'static str> {
    match setting.class {
        Class::EndsRecovery(harmless) => Some(harmless),
        // This setting has no effect without a recovery target, but the file may set a target later.
        _ if setting.name == ACTION => Some("pause"),
        _ => None,
    }
}

/// Overrides the settings that could end recovery, reports a delay of recovery, and sets the slot. Without `configure_standby`, only
/// reports.
///
/// # Errors
/// Fails if the server still reads another value of a setting after it was overridden.
pub(super) fn check(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    let mut overrides: Vec<(&str, &str)> = Vec::new();
    // Every setting in a file of the data directory was judged before, and every dangerous setting that an included file outside may have
    // was overridden.
    if matches!(server.file, ConfigurationFile::At(_)) {
        ends_of_recovery(server, &mut overrides, verdicts)?;
        delay(server, verdicts)?;
    }
    if verdicts.completes_directory {
        slot(server, &mut overrides, verdicts)?;
    }
    if overrides.is_empty() {
        return Ok(());
    }
    recovery::add(&server.replica.places.top, &overrides)?;
    for (name, value) in overrides {
        let read = server.setting(name)?;
        if read != value {
            let message = format!(
                "the server reads `{}` for `{name}`, although postgresql.auto.conf sets it to `{value}`: it would not go on following; \
                 correct `{name}` {}",
                shown(read.as_bytes()),
                server.remedy(name)
            );
            return Err(Problem::new(CHECK, message));
        }
    }
    Ok(())
}

fn ends_of_recovery(
    server: &Server<'_>,
    overrides: &mut Vec<(&str, &str)>,
    verdicts: &mut Verdicts<'_>,
) -> Result<(), Problem> {
    for setting in guc::of_version(server.replica.major) {
        let (name, Some(harmless)) = (setting.name, harmless(setting)) else { continue };
        let value = server.setting(name)?;
        if value == harmless {
            continue;
        }
        let what = format!("`{name}` is `{}` ({})", shown(value.as_bytes()), server.place(name));
        if verdicts.completes_directory {
            overrides.push((name, harmless));
            verdicts.report(format!(
                "{what}, which postgresql.auto.conf now overrides with `{harmless}`: it can end a standby's recovery"
            ));
        } else {
            verdicts.report(format!("{what}: it can end a standby's recovery"));
        }
    }
    Ok(())
}

fn delay(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    let milliseconds = server.number(DELAY)?;
    // A delay that postgresql.auto.conf sets was reported before, as a restored line or as a request of the method.
    if milliseconds != 0 && server.entry(DELAY).is_none() {
        verdicts.report(format!(
            "`{DELAY}` is {milliseconds} ms ({}): the standby applies WAL only with this delay",
            server.place(DELAY)
        ));
    }
    Ok(())
}

/// Makes the standby follow through the slot that `pg_basebackup` used, because an unused slot keeps WAL on the source without limit. Does
/// not replace a slot that a file outside the data directory names, because that is the operator's own choice.
fn slot<'a>(
    server: &Server<'a>,
    overrides: &mut Vec<(&'a str, &'a str)>,
    verdicts: &mut Verdicts<'_>,
) -> Result<(), Problem> {
    let Some(used) = server.replica.slot else { return Ok(()) };
    let named = server.setting(SLOT)?;
    if named == used {
        return Ok(());
    }
    if !named.is_empty() && server.entry(SLOT).is_none() {
        verdicts.report(format!(
            "`{SLOT}` is `{}` ({}), and pg_basebackup used the slot `{used}`: the standby does not use that slot, which keeps WAL at the \
             source until it is dropped",
            shown(named.as_bytes()),
            server.place(SLOT)
        ));
        return Ok(());
    }
    overrides.push((SLOT, used));
    verdicts
        .findings
        .add_info(CHECK, format!("`{SLOT}` was set to `{used}`, the slot that pg_basebackup used"));
    Ok(())
}
