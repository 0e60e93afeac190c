//! Removes files that must not survive a restore, and writes the signal files that tell PostgreSQL how to start.

use foundation::rooted::{Directory, Kind, RelativePath};
use postgres_formats::names;

use super::EndState;
use super::problem::{During, Findings, Problem};
use super::recovery::remove;
use crate::{Rule, SealRequests, Signal};

const LEFT_OVERS: Rule = Rule::LeftOvers;
const SIGNALS: Rule = Rule::Signals;

const STANDBY_SIGNAL: RelativePath = RelativePath::literal(names::STANDBY_SIGNAL);
const RECOVERY_SIGNAL: RelativePath = RelativePath::literal(names::RECOVERY_SIGNAL);

/// Files that belong to the copied server, and files that a server treats as a request, with the reason for removing them. `promote` is
/// removed even if the operator's trigger file has another name.
const OF_ANOTHER_SERVER: [(RelativePath, &str); 6] = [
    (RelativePath::literal(names::POSTMASTER_PID), "it belongs to the server that was copied"),
    (RelativePath::literal(names::POSTMASTER_OPTS), "it belongs to the server that was copied"),
    (RelativePath::literal("recovery.conf"), "since version 12 PostgreSQL does not start with it"),
    (RelativePath::literal("promote"), "it can promote a standby"),
    (RelativePath::literal("fallback_promote"), "it can promote a standby of version 13"),
    (RelativePath::literal("logrotate"), "it is a request to the server that was copied"),
];

/// The name of the trigger file if the operator sets none; the same as in Patroni.
const TRIGGER_FILE: &str = "promote";

/// Returns the path of the trigger file below the data directory.
pub(super) fn trigger_file(end: &EndState) -> Result<RelativePath, Problem> {
    RelativePath::new(end.trigger_file.as_deref().unwrap_or(TRIGGER_FILE)).map_err(|error| {
        let message =
            format!("the trigger file must lie in the data directory: {error}; correct `trigger_file`");
        Problem::new(LEFT_OVERS, message)
    })
}

/// Removes leftover files and the trigger file (rule 29), which would promote the standby.
pub(super) fn clear(
    top: &Directory,
    trigger_file: &RelativePath,
    findings: &mut Findings,
) -> Result<(), Problem> {
    if remove(top, trigger_file).during(LEFT_OVERS)? {
        findings.add(
            LEFT_OVERS,
            format!("the trigger file `{trigger_file}` was removed: it can promote a standby"),
        );
    }
    for (path, why) in &OF_ANOTHER_SERVER {
        if remove(top, path).during(LEFT_OVERS)? {
            findings.add(LEFT_OVERS, format!("`{path}` was removed: {why}"));
        }
    }
    Ok(())
}

/// Writes and removes the signal files.
pub(super) fn signal(
    top: &Directory,
    requests: &SealRequests,
    end: &EndState,
    findings: &mut Findings,
) -> Result<(), Problem> {
    let requested = |signal| requests.signals.contains(&signal);
    let wants_standby = end.configure_standby.is_some() || requested(Signal::Standby);
    if requested(Signal::Recovery) {
        write(top, &RECOVERY_SIGNAL)?;
        let then = if wants_standby {
            "`standby.signal` exists too and takes precedence"
        } else {
            "the server ends recovery by itself"
        };
        findings.add(SIGNALS, format!("`recovery.signal` was written, as the method requested: {then}"));
    } else if remove(top, &RECOVERY_SIGNAL).during(SIGNALS)? {
        findings.add(SIGNALS, "`recovery.signal` was removed: it can promote a standby");
    }
    if wants_standby {
        write(top, &STANDBY_SIGNAL)?;
    } else if top.find(&STANDBY_SIGNAL).during(SIGNALS)?.is_some() {
        findings.add(SIGNALS, "`standby.signal` came with the backup and was left");
    } else if !requested(Signal::Recovery) {
        findings.add_info(
            SIGNALS,
            "there is no `standby.signal`: if started now, the server becomes a separate primary; Patroni writes the file before it \
             starts the server; without Patroni, set `configure_standby = true`",
        );
    }
    Ok(())
}

fn write(top: &Directory, path: &RelativePath) -> Result<(), Problem> {
    match top.find(path).during(SIGNALS)?.map(|metadata| metadata.kind) {
        Some(Kind::File) => Ok(()),
        Some(_) => Err(Problem::new(SIGNALS, format!("`{path}` is not a file"))),
        None => top.create_file(path, 0o600).map(drop).during(SIGNALS),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Standby;
    use super::*;

    /// The beginning of the finding about a replica that would not start as a standby.
    const NO_STANDBY: &str = "there is no `standby.signal`";

    fn sealed(files: &[&str], signals: &[Signal], end: &EndState) -> (Vec<String>, usize) {
        let (left, findings) = sealed_with_findings(files, signals, end);
        let count = findings.iter().filter(|finding| !finding.message.contains(NO_STANDBY)).count();
        (left, count)
    }

    fn sealed_with_findings(
        files: &[&str],
        signals: &[Signal],
        end: &EndState,
    ) -> (Vec<String>, Vec<crate::outcome::Finding>) {
        let place = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(place.path().join(file), "").unwrap();
        }
        let top = Directory::open(place.path()).unwrap();
        let requests = SealRequests { signals: signals.to_vec(), ..SealRequests::default() };
        let mut findings = Findings::default();
        clear(&top, &trigger_file(end).unwrap(), &mut findings).unwrap();
        signal(&top, &requests, end, &mut findings).unwrap();
        let mut left: Vec<_> = fs::read_dir(place.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        (left, findings.into_list())
    }

    #[test]
    fn files_of_the_copied_server_are_removed_and_reported() {
        let files = ["postmaster.pid", "postmaster.opts", "recovery.conf", "PG_VERSION"];
        assert_eq!(sealed(&files, &[], &EndState::default()), (vec!["PG_VERSION".to_owned()], 3));
    }

    #[test]
    fn rule_29_the_trigger_file_is_removed() {
        assert_eq!(sealed(&["promote"], &[], &EndState::default()), (vec![], 1));
        let named = EndState { trigger_file: Some("go".to_owned()), ..EndState::default() };
        assert_eq!(
            sealed(&["promote", "go"], &[], &named),
            (vec![], 2),
            "the server itself looks for `promote` in any case"
        );
        assert_eq!(sealed(&["fallback_promote", "logrotate"], &[], &EndState::default()), (vec![], 2));
        for outside in ["/etc/passwd", "../x", ""] {
            let end = EndState { trigger_file: Some(outside.to_owned()), ..EndState::default() };
            assert!(trigger_file(&end).is_err(), "{outside}");
        }
    }

    #[test]
    fn rule_29_without_configure_standby_no_signal_is_written() {
        assert_eq!(sealed(&[], &[], &EndState::default()), (vec![], 0));
        let standby = Standby { conninfo: "host=a".to_owned(), passfile: None };
        let end = EndState { configure_standby: Some(standby), ..EndState::default() };
        assert_eq!(sealed(&[], &[], &end), (vec!["standby.signal".to_owned()], 0));
        assert_eq!(
            sealed(&[], &[Signal::Standby], &EndState::default()),
            (vec!["standby.signal".to_owned()], 0)
        );
        assert_eq!(
            sealed(&["standby.signal"], &[], &EndState::default()),
            (vec!["standby.signal".to_owned()], 1)
        );
    }

    #[test]
    fn rule_29_a_replica_that_would_start_as_a_primary_is_reported() {
        let reported = |files: &[&str], signals: &[Signal], end: &EndState| {
            let (_, findings) = sealed_with_findings(files, signals, end);
            findings.iter().any(|finding| finding.message.contains(NO_STANDBY))
        };
        assert!(reported(&[], &[], &EndState::default()));
        assert!(reported(&["recovery.signal"], &[], &EndState::default()));
        assert!(!reported(&["standby.signal"], &[], &EndState::default()));
        assert!(!reported(&[], &[Signal::Standby], &EndState::default()));
        assert!(!reported(&[], &[Signal::Recovery], &EndState::default()));
        let standby = Standby { conninfo: "host=a".to_owned(), passfile: None };
        assert!(!reported(&[], &[], &EndState { configure_standby: Some(standby), ..EndState::default() }));
    }

    #[test]
    fn rule_30_recovery_signal_is_removed_unless_the_method_requested_it() {
        assert_eq!(sealed(&["recovery.signal"], &[], &EndState::default()), (vec![], 1));
        assert_eq!(
            sealed(&[], &[Signal::Recovery], &EndState::default()),
            (vec!["recovery.signal".to_owned()], 1)
        );
    }
}
