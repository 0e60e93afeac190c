//! The replication slot of the options `slot` and `create-slot`. `pg_basebackup --create-slot` fails if the slot exists, for example if an
//! earlier try has created it. So an existing slot is used without that option.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::options::refuse;
use crate::event::Level;
use crate::process::NativeProgram;
use crate::source::{Slot, is_slot_name};
use crate::{Failure, Outcome, Refusal, Run, Source};

/// The option that creates the slot.
const CREATE: &str = "--create-slot";

/// The slot through which pg_basebackup receives WAL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UsedSlot {
    pub(super) name: String,
    /// Whether pg_basebackup creates it.
    pub(super) creates: bool,
}

/// Returns the slot that these options name; `None` if pg_basebackup makes a temporary slot or uses no slot.
///
/// # Errors
/// Refuses options with which pg_basebackup would fail after the data directory is emptied.
pub(super) fn used(options: &[OsString]) -> Result<Option<UsedSlot>, Refusal> {
    let creates = options.iter().any(|option| option == CREATE);
    // If the options have several names, the last one counts.
    let name = options.iter().rev().find_map(|option| option.as_bytes().strip_prefix(b"--slot="));
    if (creates || name.is_some()) && options.iter().any(|option| option == "--no-slot") {
        let option = if creates { "create-slot" } else { "slot" };
        return Err(refuse(format!("`{option}` and `no-slot` contradict each other")));
    }
    let Some(name) = name else {
        if creates {
            return Err(refuse("`create-slot` needs the name of the slot").remedy("slot = \"replica_1\""));
        }
        return Ok(None);
    };
    match String::from_utf8(name.to_vec()) {
        Ok(name) if is_slot_name(name.as_bytes()) => Ok(Some(UsedSlot { name, creates })),
        _ => Err(refuse(format!(
            "`slot` of {} is not a name of a replication slot: a name has 1 to 63 lower-case letters, digits and underscores",
            name.escape_ascii()
        ))),
    }
}

impl UsedSlot {
    /// Checks by the answer of the source that pg_basebackup can use the slot. Call this before the data directory is emptied: in the
    /// preflight, and in the plan if the source did not answer before.
    ///
    /// # Errors
    /// Refuses a slot that exists and cannot be used, and a slot that does not exist and is not created.
    pub(super) async fn check(
        &self,
        source: &Source,
        bin_dir: &Path,
        cancel: &CancellationToken,
    ) -> Result<(), Refusal> {
        match exists(&self.name, source, bin_dir, cancel).await? {
            Some(false) if !self.creates => {
                let message = format!("the source has no replication slot `{}`", self.name);
                Err(refuse(message).remedy("create-slot = true"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A slot that pg_basebackup is to create.
pub(super) struct SlotToCreate<'a> {
    pub(super) name: &'a str,
    pub(super) source: &'a Source,
    pub(super) bin_dir: &'a Path,
}

impl SlotToCreate<'_> {
    /// If the slot exists, makes the program use it instead of creating it, and logs that. Call this before every try, because the previous
    /// try may have created the slot.
    ///
    /// # Errors
    /// Fails if the slot exists and cannot be used.
    pub(super) async fn use_if_it_exists(
        &self,
        program: &mut NativeProgram,
        run: &Run,
    ) -> Result<(), Failure> {
        let name = self.name;
        match exists(name, self.source, self.bin_dir, run.cancellation()).await {
            Ok(Some(false)) => {}
            Ok(Some(true)) => {
                program.arguments.retain(|argument| argument != CREATE);
                let message = format!(
                    "the replication slot `{name}` exists at the source already: pg_basebackup uses it and does not create it"
                );
                run.log(Level::Warn, "host", message);
            }
            Ok(None) => {
                let message = format!(
                    "the source does not report whether the replication slot `{name}` exists; if it does, pg_basebackup fails"
                );
                run.log(Level::Warn, "host", message);
            }
            Err(refusal) => return Err(Failure::new(Outcome::Failed, refusal.message)),
        }
        Ok(())
    }
}

/// Returns whether the slot exists; `None` if the source does not report it.
///
/// # Errors
/// Refuses a slot that exists and that pg_basebackup cannot use.
async fn exists(
    name: &str,
    source: &Source,
    bin_dir: &Path,
    cancel: &CancellationToken,
) -> Result<Option<bool>, Refusal> {
    match source.slot(bin_dir, name, cancel).await {
        // If the source cannot be asked, the plan fails with the reason.
        Err(_) => Ok(None),
        Ok(Slot::Missing) => Ok(Some(false)),
        Ok(Slot::Logical) => Err(unusable(name, "it is a logical slot")),
        Ok(Slot::Active) => {
            Err(unusable(name, "it is in use: a standby or another pg_basebackup receives WAL through it"))
        }
        Ok(Slot::Lost) => {
            Err(unusable(name, "the source has removed WAL that it should have kept; drop the slot"))
        }
        Ok(Slot::Physical) => Ok(Some(true)),
    }
}

fn unusable(name: &str, why: &str) -> Refusal {
    refuse(format!("the replication slot `{name}` exists at the source and cannot be used: {why}"))
        .remedy("slot = \"<another name>\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_needs_a_valid_name() {
        let slot = |options: &[&str]| {
            let options: Vec<_> = options.iter().map(OsString::from).collect();
            used(&options).map_err(|refusal| refusal.message)
        };
        let named = |name: &str, creates| Ok(Some(UsedSlot { name: name.to_owned(), creates }));
        assert_eq!(slot(&["--verbose"]), Ok(None));
        assert_eq!(slot(&["--no-slot"]), Ok(None));
        assert_eq!(slot(&["--slot=a", "--verbose"]), named("a", false));
        assert_eq!(slot(&["--slot=a", "--create-slot", "--slot=b_1"]), named("b_1", true));
        for (options, says) in [
            (
                &[
                    "--create-slot",
                    "--slot=a1234567890123456789012345678901234567890123456789012345678901234",
                ][..],
                "1 to 63",
            ),
            (&["--create-slot"][..], "needs the name"),
            (&["--create-slot", "--slot=a", "--no-slot"], "contradict"),
            (&["--slot=a", "--no-slot"], "contradict"),
            (&["--create-slot", "--slot=A-1"], "not a name"),
            (&["--slot=A-1"], "not a name"),
            (&["--create-slot", "--slot=x'; DROP"], "not a name"),
            (&["--create-slot", "--slot="], "not a name"),
        ] {
            assert!(slot(options).unwrap_err().contains(says), "{options:?}");
        }
    }
}
