use super::*;

const OF_PG_BASEBACKUP: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
    CHECKPOINT LOCATION: 0/2000060\n\
    BACKUP METHOD: streamed\n\
    BACKUP FROM: primary\n\
    START TIME: 2026-11-23 08:00:00 UTC\n\
    LABEL: nightly: the big one\n\
    START TIMELINE: 1\n";

fn strict(text: &str) -> Result<BackupLabel, BackupLabelError> {
    BackupLabel::parse(text.as_bytes())
}

fn lenient(text: &str) -> Result<Start, BackupLabelError> {
    Start::parse(text.as_bytes())
}

#[test]
fn the_label_of_pg_basebackup_is_read() {
    let label = strict(OF_PG_BASEBACKUP).unwrap();
    assert_eq!(label.start.start_lsn, Lsn(0x0200_0028));
    assert_eq!(label.checkpoint, Lsn(0x0200_0060));
    assert_eq!(label.start.segment.to_string(), "000000010000000000000002");
    assert_eq!((label.start.timeline, label.method, label.start.from_standby), (1, Method::Streamed, false));
    assert_eq!(label.start.incremental_from, None);
    assert_eq!(label.start.describe(), "nightly: the big one of 2026-11-23 08:00:00 UTC at 0/2000028");
}

#[test]
fn both_readings_of_a_label_that_postgresql_wrote_give_the_same() {
    let standby = OF_PG_BASEBACKUP.replace("FROM: primary", "FROM: standby");
    let of_13 = OF_PG_BASEBACKUP.replace("FROM: primary", "FROM: master");
    let incremental = format!("{OF_PG_BASEBACKUP}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n");
    for text in [OF_PG_BASEBACKUP, &standby, &of_13, &incremental] {
        assert_eq!(strict(text).unwrap().start, lenient(text).unwrap(), "{text}");
    }
    assert!(lenient(&standby).unwrap().from_standby && !lenient(&of_13).unwrap().from_standby);
}

#[test]
fn the_label_of_pg_rewind_is_read() {
    let text: String = OF_PG_BASEBACKUP
        .replace("streamed", "pg_rewind")
        .replace("primary", "standby")
        .lines()
        .take(5)
        .fold(String::new(), |text, line| text + line + "\n");
    let label = strict(&text).unwrap();
    assert_eq!((label.method, label.start.from_standby, label.start.timeline), (Method::Rewind, true, 1));
    assert_eq!(label.start.describe(), "backup of 2026-11-23 08:00:00 UTC at 0/2000028");
    assert_eq!(lenient(&text).unwrap(), label.start);
}

#[test]
fn rule_30_an_incremental_backup_says_so() {
    let text = format!("{OF_PG_BASEBACKUP}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n");
    assert_eq!(strict(&text).unwrap().start.incremental_from, Some(Lsn(0x0100_0028)));
    let without_timeline = format!("{OF_PG_BASEBACKUP}INCREMENTAL FROM LSN: 0/1000028\n");
    assert_eq!(strict(&without_timeline).unwrap().start.incremental_from, Some(Lsn(0x0100_0028)));
    // build_backup_content writes both lines or neither, and read_backup_label looks for the first.
    let without_lsn = format!("{OF_PG_BASEBACKUP}INCREMENTAL FROM TLI: 1\n");
    assert_eq!(strict(&without_lsn), Err(BackupLabelError::Further(8)));
    assert_eq!(lenient(&without_lsn).unwrap().incremental_from, None);
}

#[test]
fn a_label_in_another_encoding_is_accepted_by_both_parsers() {
    let mut bytes = OF_PG_BASEBACKUP.as_bytes().to_vec();
    let at = OF_PG_BASEBACKUP.find("big one").unwrap();
    bytes[at] = 0xE4;
    assert!(BackupLabel::parse(&bytes).is_ok());
    assert_eq!(Start::parse(&bytes).unwrap().label, "nightly: the \u{FFFD}ig one");
}

#[test]
fn rule_30_a_line_left_out_or_moved_is_not_forgiven() {
    let lines: Vec<&str> = OF_PG_BASEBACKUP.lines().collect();
    for left_out in 0..5 {
        let mut fewer = lines.clone();
        fewer.remove(left_out);
        assert!(strict(&(fewer.join("\n") + "\n")).is_err(), "without line {left_out}");
    }
    let mut moved = lines.clone();
    moved.swap(2, 3);
    assert!(strict(&(moved.join("\n") + "\n")).is_err());
    for end in 0..OF_PG_BASEBACKUP.len() {
        let cut = strict(&OF_PG_BASEBACKUP[..end]);
        let at_a_line_that_may_be_missing = cut.is_ok() && OF_PG_BASEBACKUP[..end].lines().count() >= 5;
        assert!(cut.is_err() || at_a_line_that_may_be_missing, "cut at {end}");
    }
}

/// A plan's lines are found among any other lines.
#[test]
fn the_lenient_parser_accepts_labels_that_the_strict_parser_refuses() {
    let read = lenient(OF_PG_BASEBACKUP).unwrap();
    let mut moved: Vec<&str> = OF_PG_BASEBACKUP.lines().collect();
    moved.reverse();
    for text in [
        moved.join("\n"),
        OF_PG_BASEBACKUP.trim_end().to_owned(),
        OF_PG_BASEBACKUP.replace('\n', "\r\n"),
        OF_PG_BASEBACKUP.replace("CHECKPOINT LOCATION: 0/2000060\n", ""),
        OF_PG_BASEBACKUP.replace("CHECKPOINT LOCATION: 0/2000060", "CHECKPOINT LOCATION: 0/1"),
        OF_PG_BASEBACKUP.replace("BACKUP METHOD: streamed", "BACKUP METHOD: copied"),
        OF_PG_BASEBACKUP.replace("BACKUP FROM: primary", "BACKUP FROM: elsewhere"),
        OF_PG_BASEBACKUP.replace("START TIMELINE: 1\n", ""),
        format!("{OF_PG_BASEBACKUP}A LATER LINE: x\n"),
    ] {
        assert_eq!(lenient(&text), Ok(read.clone()), "{text}");
    }
    for text in [moved.join("\n") + "\n", format!("{OF_PG_BASEBACKUP}A LATER LINE: x\n")] {
        assert!(strict(&text).is_err(), "{text}");
    }
}

#[test]
fn an_empty_or_invalid_label_is_refused_by_both_modes() {
    for (from, to) in [
        ("START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n", ""),
        ("0/2000028", "0/x"),
        ("(file 000000010000000000000002)", ""),
        ("(file 000000010000000000000002)", "(file 00000001\u{e9}000000000000002)"),
        // Names of segments have upper-case digits and a timeline from 1 on (xlog_internal.h, xlog.c).
        ("(file 000000010000000000000002)", "(file 00000001000000000000000a)"),
        ("(file 000000010000000000000002)", "(file 000000000000000000000002)"),
        ("START TIMELINE: 1", "START TIMELINE: one"),
        ("START TIMELINE: 1", "garbage"),
    ] {
        let text = OF_PG_BASEBACKUP.replace(from, to);
        assert!(lenient(&text).is_err() && strict(&text).is_err(), "{from} -> {to}");
    }
    assert!(lenient("").is_err() && strict("").is_err());
}

#[test]
fn rule_30_values_that_contradict_each_other_are_refused() {
    // The server does not start from such a label (read_backup_label). A plan uses the timeline of START TIMELINE.
    let timelines = OF_PG_BASEBACKUP.replace("START TIMELINE: 1", "START TIMELINE: 2");
    assert_eq!(
        strict(&timelines),
        Err(BackupLabelError::Timelines { start_timeline: 2, segment_timeline: 1 })
    );
    assert_eq!(lenient(&timelines).unwrap().timeline, 2);
    let order = OF_PG_BASEBACKUP.replace("CHECKPOINT LOCATION: 0/2000060", "CHECKPOINT LOCATION: 0/1000000");
    assert!(matches!(strict(&order), Err(BackupLabelError::Order { .. })));
    let unknown = OF_PG_BASEBACKUP.replace("streamed", "copied");
    assert!(matches!(strict(&unknown), Err(BackupLabelError::Line { line: 3, .. })));
}
