use super::*;

/// A `backup.info` as Barman 3.17 writes it for `backup_method = rsync`.
const INFO: &str = "backup_label='START WAL LOCATION: 0/4000028 (file 000000010000000000000004)\\nLABEL: Barman\\n'\n\
    begin_offset=40\nbegin_time=2026-11-26 04:34:06.123456+00:00\nbegin_wal=000000010000000000000004\nbegin_xlog=0/4000028\n\
    children_backup_ids=None\ncluster_size=31457280\ncompression=None\nconfig_file=/etc/postgresql/postgresql.conf\n\
    copy_stats={'copy_time': 1.5, 'analysis_time_per_item': {'pgdata': 0.1}, 'number_of_workers': 1}\ndata_checksums=on\n\
    deduplicated_size=1000\nencryption=None\nend_offset=312\nend_time=2026-11-26 04:34:09+00:00\n\
    end_wal=000000010000000000000004\nend_xlog=0/4000138\nerror=None\nhba_file=/srv/a=b/pg_hba.conf\nident_file=None\n\
    included_files=['/srv/conf.d/a.conf']\nmode=rsync-concurrent\nparent_backup_id=None\npgdata=/srv/data\nserver_name=main\n\
    size=31457280\nstatus=DONE\nsummarize_wal=None\nsystemid=7575000000000000001\n\
    tablespaces=[('fast', 16384, '/srv/fast disk')]\ntimeline=1\nversion=150018\nxlog_segment_size=16777216\n";

fn with(from: &str, to: &str) -> String {
    assert!(INFO.contains(from), "{from}");
    INFO.replace(from, to)
}

fn refusal(text: &str) -> String {
    match Record::parse(text.as_bytes()) {
        Err(error) => error,
        Ok(record) => record.backup("20261126T043406").unwrap_err(),
    }
}

#[test]
fn everything_that_a_restore_needs_is_read() {
    let record = Record::parse(INFO.as_bytes()).unwrap();
    assert_eq!(
        (record.status, record.name(), record.end_time()),
        (Status::Done, None, Some("2026-11-26 04:34:09+00:00"))
    );
    let backup = record.backup("20261126T043406").unwrap();
    assert_eq!((backup.major, backup.system_identifier), (15, Some(7_575_000_000_000_000_001)));
    assert_eq!((backup.timeline, backup.begin, backup.end), (1, Lsn(0x0400_0028), Lsn(0x0400_0138)));
    assert_eq!(backup.label.unwrap().lines().count(), 2);
    let (name, location) = (Some("fast".to_owned()), "/srv/fast disk".to_owned());
    assert_eq!(backup.tablespaces, [Tablespace { oid: 16384, name, location }]);
    assert_eq!((backup.compression, backup.encryption, backup.parent), (None, None, None));
    assert!(!backup.is_snapshot);
    assert_eq!(backup.least_bytes, Some(31_457_280 - INFO.len() as u64 - 1024));
    assert_eq!(backup.outside, ["/etc/postgresql/postgresql.conf", "/srv/a=b/pg_hba.conf"]);
}

#[test]
fn whether_pages_have_checksums_is_known_only_from_what_postgresql_answers() {
    for (line, has_checksums) in [
        ("data_checksums=on\n", Some(true)),
        ("data_checksums=off\n", Some(false)),
        ("data_checksums=None\n", None),
        ("data_checksums=inprogress-on\n", None),
        ("", None),
    ] {
        let text = with("data_checksums=on\n", line);
        let backup = Record::parse(text.as_bytes()).unwrap().backup("20261126T043406").unwrap();
        assert_eq!(backup.has_checksums, has_checksums, "{line}");
    }
}

#[test]
fn blank_lines_comments_and_missing_optional_keys_are_permitted() {
    let text = with("systemid=7575000000000000001\n", "\n# an old Barman\n");
    let text = text.replace("xlog_segment_size=16777216\n", "").replace("begin_offset=40\n", "");
    let backup = Record::parse(text.as_bytes()).unwrap().backup("20261126T043406").unwrap();
    assert_eq!((backup.system_identifier, backup.segment_size.bytes()), (None, 16 << 20));
}

#[test]
fn the_failed_backup_names_its_error() {
    let text =
        with("status=DONE", "status=FAILED").replace("error=None", "error=failure copying files (no space)");
    let record = Record::parse(text.as_bytes()).unwrap();
    assert_eq!(record.describe_status(), "FAILED (failure copying files (no space))");
}

#[test]
fn an_unfinished_backup_is_a_record_and_not_a_backup() {
    let record = Record::parse(b"status=EMPTY\nmode=postgres\nbegin_xlog=None\n").unwrap();
    assert_eq!(record.status, Status::Empty);
    assert_eq!(record.backup("20261126T043406").unwrap_err(), "has no `version`");
}

#[test]
fn what_barman_does_not_write_is_refused_and_named() {
    for (from, to, what) in [
        ("timeline=1", "timeline=1\ntimeline=1", "`timeline` twice"),
        ("timeline=1", "timeline", "line 31"),
        ("timeline=1", "timeline=one", "`timeline`"),
        ("timeline=1", "recovery=1", "no `timeline`"),
        ("timeline=1", "timeline=1\nnews=1\nnews=2", "`news` twice"),
        ("timeline=1", "timeline=1\nNews=1", "`News`"),
        ("timeline=1", "timeline=1\na b=1", "`a b`"),
        ("timeline=1", "timeline=1\n=1", "line 32"),
        ("timeline=1", "timeline=1\ncompression_kind=x", "`compression_kind`"),
        ("timeline=1", "timeline=1\nfile_encryption=x", "`file_encryption`"),
        ("timeline=1", "timeline=1\nsnapshot=x", "`snapshot`"),
        ("timeline=1", "timeline=2", "`begin_wal`"),
        ("status=DONE", "status=GOOD", "`GOOD`"),
        ("status=DONE\n", "", "no `status`"),
        ("version=150018", "version=90624", "too old"),
        ("version=150018", "version=None", "no `version`"),
        ("begin_xlog=0/4000028", "begin_xlog=0/5000028", "lies before"),
        ("begin_xlog=0/4000028", "begin_xlog=0/400002G", "`begin_xlog`"),
        ("begin_wal=000000010000000000000004", "begin_wal=000000010000000000000003", "`begin_wal`"),
        ("end_wal=000000010000000000000004", "end_wal=000000020000000000000004", "`end_wal`"),
        ("end_wal=000000010000000000000004", "end_wal=../../etc/passwd", "`end_wal`"),
        ("begin_offset=40", "begin_offset=41", "`begin_offset`"),
        ("end_offset=312", "end_offset=311", "`end_offset`"),
        ("xlog_segment_size=16777216", "xlog_segment_size=16777215", "`xlog_segment_size`"),
        ("parent_backup_id=None", "parent_backup_id=../x", "`parent_backup_id`"),
        ("systemid=7575000000000000001", "systemid=-1", "`systemid`"),
        ("[('fast', 16384, '/srv/fast disk')]", "[('fast', 16384)]", "`tablespaces`"),
        ("[('fast', 16384, '/srv/fast disk')]", "[['fast', 16384, '/srv/fast']]", "`tablespaces`"),
        ("[('fast', 16384, '/srv/fast disk')]", "('fast', 16384, '/srv/fast')", "`tablespaces`"),
        ("[('fast', 16384, '/srv/fast disk')]", "[('fast', 0, '/srv/fast')]", "`tablespaces`"),
        ("[('fast', 16384, '/srv/fast disk')]", "[('fast', 4294967296, '/srv/fast')]", "`tablespaces`"),
        ("[('fast', 16384, '/srv/fast disk')]", "[('fast', 16384, 'srv')]", "`tablespaces`"),
        ("[('fast', 16384, '/srv/fast disk')]", "[('a', 16384, '/a'), ('b', 16384, '/b')]", "16384 twice"),
        ("[('fast', 16384, '/srv/fast disk')]", "__import__('os').system('id')", "`tablespaces`"),
        ("'copy_time': 1.5", "'copy_time': open('/etc/passwd')", "`copy_stats`"),
        ("['/srv/conf.d/a.conf']", "[a for a in b]", "`included_files`"),
        ("backup_label='START", "backup_label=exec'START", "`backup_label`"),
    ] {
        let refused = refusal(&with(from, to));
        assert!(refused.contains(what), "{to}: {refused}");
    }
    assert_eq!(Record::parse(b"status=\xff").unwrap_err(), "is not UTF-8");
}

#[test]
fn the_end_on_the_boundary_of_a_segment_has_two_names() {
    for (name, offset) in [("000000010000000000000004", "16777216"), ("000000010000000000000005", "0")] {
        let text = with("end_xlog=0/4000138", "end_xlog=0/5000000")
            .replace("end_wal=000000010000000000000004", &format!("end_wal={name}"))
            .replace("end_offset=312", &format!("end_offset={offset}"));
        let backup = Record::parse(text.as_bytes()).unwrap().backup("20261126T043406").unwrap();
        assert_eq!(backup.end, Lsn(0x0500_0000), "{name}");
    }
}

#[test]
fn snapshots_are_recognized_by_the_key_and_by_the_mode() {
    for text in [
        with("mode=rsync-concurrent", "mode=snapshot-concurrent"),
        with(
            "mode=rsync-concurrent",
            "mode=concurrent\nsnapshots_info={'provider': 'gcp', 'snapshots': [{'a': 1}]}",
        ),
    ] {
        assert!(Record::parse(text.as_bytes()).unwrap().backup("20261126T043406").unwrap().is_snapshot);
    }
}

#[test]
fn the_number_of_tablespaces_is_bounded() {
    let list = |count: usize| {
        let items: Vec<_> = (1..=count).map(|oid| format!("('t{oid}', {oid}, '/t/{oid}')")).collect();
        with("[('fast', 16384, '/srv/fast disk')]", &format!("[{}]", items.join(", ")))
    };
    let record = Record::parse(list(MOST_TABLESPACES).as_bytes()).unwrap();
    assert_eq!(record.backup("20261126T043406").unwrap().tablespaces.len(), MOST_TABLESPACES);
    assert!(refusal(&list(MOST_TABLESPACES + 1)).contains("more than 1000 tablespaces"));
}

#[test]
fn keys_of_a_newer_barman_are_passed_over() {
    let known = Record::parse(INFO.as_bytes()).unwrap();
    assert!(known.unknown.is_empty());
    let newer = with("timeline=1", "timeline=1\nretention_note={'a': b}\nnew_compression=None\nworker2=7");
    let record = Record::parse(newer.as_bytes()).unwrap();
    assert_eq!(record.unknown, ["retention_note", "worker2"]);
    // The bytes that a moved `backup.info` had are subtracted.
    let backup = |record: &Record| Backup { least_bytes: None, ..record.backup("20261126T043406").unwrap() };
    assert_eq!(backup(&record), backup(&known));
}

#[test]
fn the_names_of_keys_are_bounded_and_few_are_remembered() {
    let key = |length: usize| with("timeline=1", &format!("timeline=1\n{}=1", "k".repeat(length)));
    assert!(Record::parse(key(LONGEST_KEY).as_bytes()).is_ok());
    assert!(refusal(&key(LONGEST_KEY + 1)).contains("line 32"));
    let many: String = (0..2 * MOST_REMEMBERED).map(|number| format!("\nkey{number}=1")).collect();
    let record = Record::parse(with("timeline=1", &format!("timeline=1{many}")).as_bytes()).unwrap();
    assert_eq!(record.unknown.len(), MOST_REMEMBERED);
}
