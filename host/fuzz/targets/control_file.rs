//! Fuzzes the parsers of `pg_control`: the parser of its beginning accepts every file that the whole parser accepts, with the same result,
//! and replacing the checkpoint changes nothing else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postgres_formats::control_file::{
    Beginning, ControlFile, NEEDED, NO_CHECKPOINT, RelationFiles, SIZE, wal_segment_size, with_checkpoint,
    with_crc,
};

/// Compares the two parsers, and replaces the checkpoint.
fn check(bytes: &[u8]) {
    let beginning = Beginning::parse(bytes);
    if let Some(needed) = bytes.get(..NEEDED) {
        assert_eq!(
            Beginning::parse(needed),
            beginning,
            "the parser of the beginning reads only the beginning"
        );
    }
    let Ok(control) = ControlFile::parse(bytes) else { return };
    let beginning = beginning.expect("the beginning of an accepted control file is accepted");
    assert_eq!(beginning.system_identifier, control.system_identifier);
    assert_eq!((beginning.redo, beginning.timeline), (control.checkpoint_redo, control.checkpoint_timeline));
    assert_eq!(beginning.state, control.state);
    assert_eq!(wal_segment_size(bytes), Ok(control.wal_segment_size));
    assert!(RelationFiles::parse(bytes).is_ok(), "an accepted control file has all fields");
    let changed =
        with_checkpoint(bytes, NO_CHECKPOINT).expect("the checksum of an accepted control file is correct");
    assert_eq!(ControlFile::parse(&changed), Ok(ControlFile { checkpoint: NO_CHECKPOINT, ..control }));
    assert!(bytes.iter().zip(&changed).filter(|(before, after)| before != after).count() <= 12);
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    // Also checks the bytes with the required length and checksum, because the parser refuses a file without them at once.
    let mut whole = bytes.to_vec();
    whole.resize(usize::try_from(SIZE).expect("the size of a control file fits into a usize"), 0);
    if let Ok(whole) = with_crc(whole) {
        check(&whole);
    }
});
