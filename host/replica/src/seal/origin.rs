//! Checks that the backup comes from the source's cluster and lies in the source's history; otherwise the replica would never follow.

use foundation::rooted::{Directory, RelativePath};
use postgres_formats::backup_label::{BackupLabel, LIMIT, Method, Start};
use postgres_formats::control_file::{ClusterState, ControlFile};
use postgres_formats::names;

use super::problem::{During, Findings, Problem};
use crate::source::SourceFacts;
use crate::{Lsn, Plan, Request, Rule};

const BACKUP_LABEL: RelativePath = RelativePath::literal(names::BACKUP_LABEL);
const LABEL: Rule = Rule::BackupLabel;
const IDENTIFIER: Rule = Rule::SystemIdentifier;
const TIMELINE: Rule = Rule::Timeline;

/// The last major version with exclusive backups.
const LAST_WITH_EXCLUSIVE_BACKUPS: u32 = 14;

/// Returns the facts about the source. If the source could not be queried, adds a finding, and the checks that need the facts are skipped.
pub(super) fn source_facts<'a>(request: &'a Request, findings: &mut Findings) -> Option<&'a SourceFacts> {
    let source = request.source.as_ref()?;
    source
        .facts
        .as_ref()
        .map_err(|error| findings.add(Rule::Source, format!("not compared with the source: {error}")))
        .ok()
}

/// Checks that the backup comes from the cluster that the plan names and from the source's cluster.
pub(super) fn check_identifier(
    control: &ControlFile,
    plan: &Plan,
    facts: Option<&SourceFacts>,
) -> Result<(), Problem> {
    let identifier = control.system_identifier;
    let differs = |whose: &str, other: u64| {
        let message = format!(
            "the backup comes from another cluster: its system identifier is {identifier}, that of {whose} is {other}"
        );
        Err(Problem::new(IDENTIFIER, message))
    };
    match (plan.system_identifier, facts.map(|facts| facts.system_identifier)) {
        (_, Some(source)) if source != identifier => differs("the source", source),
        (Some(planned), _) if planned != identifier => differs("the plan", planned),
        _ => Ok(()),
    }
}

/// Reads backup_label. It may be missing only if the files are consistent without it: after a shutdown, or if the operator said that
/// the backup is a snapshot. Otherwise PostgreSQL would start without the label, from files that are not consistent, and report no error.
pub(super) fn read_label(
    top: &Directory,
    control: &ControlFile,
    major: u32,
    snapshot: bool,
    findings: &mut Findings,
) -> Result<Option<BackupLabel>, Problem> {
    if top.find(&BACKUP_LABEL).during(LABEL)?.is_none() {
        let state = control.state.describe();
        return if control.state.is_shut_down() {
            Ok(None)
        } else if snapshot {
            findings.add(
                LABEL,
                format!("there is no `backup_label`, which `snapshot = true` allows (state: {state})"),
            );
            Ok(None)
        } else {
            let message = format!(
                "`backup_label` is missing although the backup was taken of a running server (state: {state}): \
                 PostgreSQL would start from the files and be corrupt; for an atomic snapshot set `snapshot = true`"
            );
            Err(Problem::new(LABEL, message))
        };
    }
    let bytes = top.read(&BACKUP_LABEL, LIMIT).during(LABEL)?;
    let label = BackupLabel::parse(&bytes)
        .map_err(|error| Problem::new(LABEL, format!("`backup_label` cannot be used: it {error}")))?;
    check_label(&label, control, major, findings)?;
    Ok(Some(label))
}

fn check_label(
    label: &BackupLabel,
    control: &ControlFile,
    major: u32,
    findings: &mut Findings,
) -> Result<(), Problem> {
    if label.start.incremental_from.is_some() {
        let message = "`backup_label` belongs to an incremental backup (INCREMENTAL FROM LSN), which is not a data \
                       directory: use `tarball` or `barman`, which combine a chain, or run `pg_combinebackup` first";
        return Err(Problem::new(Rule::Incremental, message));
    }
    let Start { start_lsn, timeline, segment: named, .. } = &label.start;
    let segment = control.wal_segment_size.name(*timeline, *start_lsn);
    if named.to_string() != segment {
        let message = format!(
            "`backup_label` names the segment {named} for START WAL LOCATION {start_lsn}, which lies in {segment}"
        );
        return Err(Problem::new(LABEL, message));
    }
    match label.method {
        Method::Streamed => {}
        Method::Exclusive if major <= LAST_WITH_EXCLUSIVE_BACKUPS => {}
        Method::Exclusive => {
            let message = format!(
                "`backup_label` belongs to an exclusive backup, which PostgreSQL {major} does not support"
            );
            return Err(Problem::new(LABEL, message));
        }
        Method::Rewind => findings.add(LABEL, "`backup_label` was written by pg_rewind"),
    }
    // PostgreSQL does not start either: "backup_label contains data inconsistent with control file".
    let of_a_standby =
        matches!(control.state, ClusterState::InArchiveRecovery | ClusterState::ShutDownInRecovery);
    if label.start.from_standby && !of_a_standby {
        let message = format!(
            "`backup_label` says that a standby was backed up, but `global/pg_control` has the state `{}`",
            control.state.describe()
        );
        return Err(Problem::new(LABEL, message));
    }
    Ok(())
}

/// Returns where replay of the backup begins: at the position in backup_label, or else at the latest checkpoint.
pub(super) fn start_of_replay(label: Option<&BackupLabel>, control: &ControlFile) -> (u32, Lsn) {
    match label {
        Some(label) => (label.start.timeline, label.start.start_lsn),
        None => (control.checkpoint_timeline, control.checkpoint_redo),
    }
}

/// Checks that every position in the backup lies in the source's history.
pub(super) fn check_timeline(
    start: (u32, Lsn),
    control: &ControlFile,
    plan: &Plan,
    facts: Option<&SourceFacts>,
    findings: &mut Findings,
) -> Result<(), Problem> {
    let (timeline, lsn) = start;
    if let Some(planned) = plan.start_lsn
        && planned != lsn
    {
        findings.add(TIMELINE, format!("the plan said that replay starts at {planned}; it starts at {lsn}"));
    }
    let Some(facts) = facts else { return Ok(()) };
    let outside = |what: &str, timeline: u32, lsn: Option<Lsn>| {
        let at = lsn.map(|lsn| format!(" at {lsn}")).unwrap_or_default();
        let message = format!(
            "{what} on timeline {timeline}{at}, which is not in the history of the source, now on timeline {} at {}: \
             a replica of it would never follow",
            facts.timeline, facts.wal_position
        );
        Err(Problem::new(TIMELINE, message))
    };
    // A record that begins where the source left a timeline is no longer part of that timeline.
    if !facts.contains(timeline, Some(lsn.saturating_add(1))) {
        return outside("the backup starts", timeline, Some(lsn));
    }
    if let Some(planned) = plan.timeline
        && !facts.contains(planned, plan.stop_lsn)
    {
        return outside("by its plan the backup ends", planned, plan.stop_lsn);
    }
    let (minimum, minimum_timeline) = control.minimum_recovery;
    if minimum != Lsn(0) && !facts.contains(minimum_timeline, Some(minimum)) {
        return outside(
            "`global/pg_control` says that the files were written up to a point",
            minimum_timeline,
            Some(minimum),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use postgres_formats::written::ControlFile as Written;

    use super::*;
    use crate::source::Fork;

    const LABEL_TEXT: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-23 08:00:00 UTC\nLABEL: base\nSTART TIMELINE: 1\n";

    fn control(change: impl FnOnce(&mut Written)) -> ControlFile {
        let mut written = Written::in_production(7);
        change(&mut written);
        ControlFile::parse(&written.bytes).unwrap()
    }

    fn facts(timeline: u32, history: &[(u32, u64)]) -> SourceFacts {
        SourceFacts {
            server_version: 150_018,
            system_identifier: 7,
            timeline,
            wal_position: Lsn(0x0900_0000),
            history: history.iter().map(|&(timeline, at)| Fork { timeline, at: Lsn(at) }).collect(),
            tablespaces: None,
        }
    }

    fn label(
        text: Option<&str>,
        control: &ControlFile,
        snapshot: bool,
    ) -> Result<Option<BackupLabel>, Problem> {
        let place = tempfile::tempdir().unwrap();
        if let Some(text) = text {
            fs::write(place.path().join("backup_label"), text).unwrap();
        }
        let top = Directory::open(place.path()).unwrap();
        read_label(&top, control, 15, snapshot, &mut Findings::default())
    }

    #[test]
    fn rule_30_another_clusters_backup_is_refused() {
        let control = control(|_| {});
        let plan = |system_identifier| Plan { system_identifier, ..Plan::default() };
        assert!(check_identifier(&control, &plan(Some(7)), Some(&facts(1, &[]))).is_ok());
        assert!(check_identifier(&control, &plan(None), None).is_ok());
        assert!(check_identifier(&control, &plan(Some(8)), None).is_err());
        let other = SourceFacts { system_identifier: 8, ..facts(1, &[]) };
        assert!(
            check_identifier(&control, &plan(Some(7)), Some(&other))
                .unwrap_err()
                .message
                .contains("the source is 8")
        );
    }

    #[test]
    fn rule_30_a_missing_label_is_refused_unless_the_files_are_consistent_without_it() {
        for state in 0..=6 {
            let control = control(|written| {
                written.put32(16, state);
            });
            assert_eq!(label(None, &control, false).is_ok(), matches!(state, 1 | 2), "state {state}");
            assert_eq!(label(None, &control, true).unwrap(), None);
            assert!(label(Some(LABEL_TEXT), &control, false).unwrap().is_some());
        }
    }

    #[test]
    fn rule_30_an_impossible_label_is_refused() {
        let running = control(|_| {});
        let cases = [
            (LABEL_TEXT.replace("streamed", "pg_start_backup"), "exclusive"),
            (LABEL_TEXT.replace("primary", "standby"), "in production"),
            (LABEL_TEXT.replace("000000010000000000000002", "000000010000000000000003"), "lies in"),
            (format!("{LABEL_TEXT}INCREMENTAL FROM LSN: 0/1000028\n"), "pg_combinebackup"),
            (String::new(), "cannot be used"),
            ("x".repeat(100_000), "longer"),
        ];
        for (text, expected) in cases {
            let message = label(Some(&text), &running, true).unwrap_err().message;
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn rule_30_a_timeline_outside_the_history_of_the_source_is_refused() {
        let check = |start: (u32, u64), control: &ControlFile, plan: &Plan, facts: &SourceFacts| {
            check_timeline((start.0, Lsn(start.1)), control, plan, Some(facts), &mut Findings::default())
        };
        let (running, plan) = (control(|_| {}), Plan::default());
        let promoted = facts(3, &[(1, 0x0300_0000), (2, 0x0500_0000)]);
        for (timeline, lsn, fits) in [
            (1, 0x0200_0028, true),
            (1, 0x0300_0000, false),
            (2, 0x0300_0000, true),
            (2, 0x0600_0000, false),
            (3, 0x0500_0000, true),
            (3, 0xFF00_0000, true),
            (4, 0x0600_0000, false),
        ] {
            assert_eq!(
                check((timeline, lsn), &running, &plan, &promoted).is_ok(),
                fits,
                "{timeline} {lsn:X}"
            );
        }
        let ends = |timeline, stop: u64| Plan {
            timeline: Some(timeline),
            stop_lsn: Some(Lsn(stop)),
            ..Plan::default()
        };
        assert!(check((1, 0x0200_0028), &running, &ends(1, 0x0300_0000), &promoted).is_ok());
        assert!(check((1, 0x0200_0028), &running, &ends(1, 0x0300_0001), &promoted).is_err());
        assert!(check((1, 0x0200_0028), &running, &ends(9, 0x0300_0001), &promoted).is_err());
        let beyond = control(|written| {
            written.put64(136, 0x0400_0000).put32(144, 1);
        });
        assert!(check((1, 0x0200_0028), &beyond, &plan, &promoted).is_err());
    }
}
