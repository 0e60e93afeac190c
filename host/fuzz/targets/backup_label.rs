//! Fuzzes the parsers of `backup_label`: the parser of the methods accepts every file that the host's stricter parser accepts, with the
//! same result.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postgres_formats::backup_label::{BackupLabel, Start};

fuzz_target!(|bytes: &[u8]| {
    let start = Start::parse(bytes);
    if let Ok(start) = &start {
        assert!(start.segment.timeline() > 0 && start.describe().ends_with(&start.start_lsn.to_string()));
    }
    let Ok(label) = BackupLabel::parse(bytes) else { return };
    assert!(label.start.start_lsn <= label.checkpoint);
    assert_eq!(label.start.timeline, label.start.segment.timeline());
    let start = start.expect("the methods' parser accepts every label that the host's parser accepts");
    // A line may end with a carriage return, which the lenient parser removes.
    let text = |start: Start| Start {
        label: start.label.trim_end_matches('\r').to_owned(),
        start_time: start.start_time.trim_end_matches('\r').to_owned(),
        ..start
    };
    assert_eq!(text(start), text(label.start));
});
