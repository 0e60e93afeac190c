//! Whatever a backup has as its control file: what the host takes, a method reads in the same way, and a checkpoint that is put
//! into it changes nothing else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postgres_formats::control_file::{
    Beginning, ControlFile, NEEDED, NO_CHECKPOINT, SIZE, wal_segment_size, with_checkpoint, with_crc,
};

fn look(bytes: &[u8]) {
    let beginning = Beginning::parse(bytes);
    if let Some(needed) = bytes.get(..NEEDED) {
        assert_eq!(Beginning::parse(needed), beginning, "what follows the beginning does not count");
    }
    let Ok(control) = ControlFile::parse(bytes) else { return };
    let beginning = beginning.expect("the beginning of a control file that was taken is taken");
    assert_eq!(beginning.system_identifier, control.system_identifier);
    assert_eq!((beginning.redo, beginning.timeline), (control.checkpoint_redo, control.checkpoint_timeline));
    assert_eq!(beginning.state, control.state);
    assert_eq!(wal_segment_size(bytes), Ok(control.wal_segment_size));
    let changed = with_checkpoint(bytes, NO_CHECKPOINT).expect("its checksum fits");
    assert_eq!(ControlFile::parse(&changed), Ok(ControlFile { checkpoint: NO_CHECKPOINT, ..control }));
    assert!(bytes.iter().zip(&changed).filter(|(before, after)| before != after).count() <= 12);
}

fuzz_target!(|bytes: &[u8]| {
    look(bytes);
    // With the length and the checksum that are needed to be looked at at all.
    let mut whole = bytes.to_vec();
    whole.resize(usize::try_from(SIZE).expect("it is small"), 0);
    if let Ok(whole) = with_crc(whole) {
        look(&whole);
    }
});
