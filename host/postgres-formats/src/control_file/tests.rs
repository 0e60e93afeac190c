use super::*;
use crate::written::ControlFile as Written;

#[test]
fn every_field_is_read_as_it_was_written() {
    let written = Written::in_production(7).bytes;
    let control = ControlFile::parse(&written).unwrap();
    assert_eq!(control.system_identifier, 7);
    assert_eq!(control.state, ClusterState::InProduction);
    assert_eq!(control.required.max_locks_per_transaction, 64);
    assert_eq!(control.wal_segment_size.bytes(), 16 << 20);
    let beginning = Beginning {
        system_identifier: 7,
        state: ClusterState::InProduction,
        redo: Lsn(0x0200_0028),
        timeline: 1,
    };
    assert_eq!(Beginning::parse(&written), Ok(beginning));
    assert_eq!(Beginning::parse(&written[..NEEDED]), Ok(beginning));
}

#[test]
fn rule_30_a_changed_bit_anywhere_before_the_checksum_is_noticed() {
    let whole = Written::in_production(7).bytes;
    for at in (0..292).filter(|at| !(8..12).contains(at)) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        assert_eq!(ControlFile::parse(&changed), Err(ControlFileError::Crc), "byte {at}");
    }
}

#[test]
fn rule_30_a_control_file_that_is_cut_or_of_an_unknown_format_is_refused() {
    let whole = Written::in_production(7).bytes;
    assert_eq!(ControlFile::parse(&whole[..296]), Err(ControlFileError::Length(296)));
    assert_eq!(ControlFile::parse(&[]), Err(ControlFileError::Length(0)));
    for version in [1201, 1902] {
        let mut other = Written::in_production(7);
        other.put32(8, version);
        assert_eq!(ControlFile::parse(&other.bytes), Err(ControlFileError::Version(version)));
    }
    let mut swapped = whole;
    swapped[8..12].copy_from_slice(&1300_u32.swap_bytes().to_ne_bytes());
    assert_eq!(ControlFile::parse(&swapped), Err(ControlFileError::ByteOrder));
    assert_eq!(Beginning::parse(&swapped), Err(ControlFileError::ByteOrder));
    assert_eq!(wal_segment_size(&swapped), Err(ControlFileError::ByteOrder));
}

#[test]
fn values_that_postgresql_never_writes_are_refused() {
    for (at, value) in [(16, 7), (172, 3), (228, 0), (228, 3 << 20), (228, 512 << 10)] {
        let mut odd = Written::in_production(7);
        odd.put32(at, value);
        let refused = ControlFile::parse(&odd.bytes);
        assert!(matches!(refused, Err(ControlFileError::Value { .. })), "{value} at {at}");
    }
}

#[test]
fn each_format_has_its_checksum_where_its_version_puts_it() {
    for (version, at) in CRC_AT {
        let mut written = Written::in_production(7);
        written.put32(8, version);
        assert!(ControlFile::parse(&written.bytes).is_ok(), "{version}");
        written.bytes[at - 1] ^= 1;
        assert_eq!(ControlFile::parse(&written.bytes), Err(ControlFileError::Crc), "{version}");
    }
}

#[test]
fn every_release_has_a_layout() {
    for release in RELEASES {
        assert!(CRC_AT.iter().any(|(version, _)| *version == release.control), "{}", release.major);
        assert_eq!(Release::of_major(release.major), Some(release));
        assert_eq!(Release::of_catalog(release.catalog), Some(release));
    }
    assert_eq!((Release::of_major(12), Release::of_major(19)), (None, None));
}

#[test]
fn only_the_checkpoint_and_the_checksum_are_changed_in_every_format() {
    for (version, crc_at) in CRC_AT {
        let mut written = Written::in_production(7);
        written.put32(8, version);
        let changed = with_checkpoint(&written.bytes, NO_CHECKPOINT).unwrap();
        let differs: Vec<usize> =
            (0..changed.len()).filter(|at| changed[*at] != written.bytes[*at]).collect();
        let allowed = |at: &usize| (32..40).contains(at) || (crc_at..crc_at + 4).contains(at);
        assert!(!differs.is_empty() && differs.iter().all(allowed), "{version}: {differs:?}");
        let before = ControlFile::parse(&written.bytes).unwrap();
        let after = ControlFile::parse(&changed).unwrap();
        assert_eq!(after, ControlFile { checkpoint: NO_CHECKPOINT, ..before });
        assert_eq!(with_checkpoint(&changed, NO_CHECKPOINT).unwrap(), changed);
    }
    let mut damaged = Written::in_production(7).bytes;
    damaged[40] ^= 1;
    assert_eq!(with_checkpoint(&damaged, NO_CHECKPOINT), Err(ControlFileError::Crc));
    assert_eq!(with_checkpoint(&damaged[..100], NO_CHECKPOINT), Err(ControlFileError::Length(100)));
}

/// A method reads the beginning for its plan although the rest, which only the host checks, is wrong.
#[test]
fn the_beginning_is_read_without_the_rest() {
    let mut written = Written::in_production(7);
    written.put32(172, 3);
    for version in [1100, 1201, 1300, 1700, 1800, 1899] {
        written.put32(8, version);
        let mut bytes = written.bytes.clone();
        bytes[300] ^= 1;
        bytes[288] ^= 1;
        assert!(Beginning::parse(&bytes).is_ok(), "{version}");
        assert!(Beginning::parse(&bytes[..NEEDED]).is_ok(), "{version}");
        assert!(ControlFile::parse(&bytes).is_err(), "{version}");
    }
}

#[test]
fn bytes_that_are_not_the_beginning_of_a_control_file_are_refused() {
    let mut bytes = Written::in_production(7).bytes;
    assert_eq!(Beginning::parse(&bytes[..NEEDED - 1]), Err(ControlFileError::Short(NEEDED - 1)));
    assert_eq!(Beginning::parse(&[]), Err(ControlFileError::Short(0)));
    assert_eq!(Beginning::parse(&[0; 8192]), Err(ControlFileError::BeginningVersion(0)));
    bytes[16] = 9;
    assert_eq!(Beginning::parse(&bytes), Err(ControlFileError::Value { field: "state", value: 9 }));
}

#[test]
fn the_size_of_a_segment_is_read_where_its_place_is_known() {
    let whole = Written::in_production(7).bytes;
    let mut bytes = whole.clone();
    bytes[228..232].copy_from_slice(&(64u32 << 20).to_ne_bytes());
    assert_eq!(wal_segment_size(&bytes).map(SegmentSize::bytes), Ok(64 << 20));
    bytes[228..232].copy_from_slice(&5u32.to_ne_bytes());
    let error = ControlFileError::Value { field: "xlog_seg_size", value: 5 };
    assert_eq!(wal_segment_size(&bytes), Err(error));
    bytes[8..12].copy_from_slice(&1201u32.to_ne_bytes());
    assert_eq!(wal_segment_size(&bytes), Err(ControlFileError::Version(1201)));
    assert_eq!(wal_segment_size(&bytes[..200]), Err(ControlFileError::Version(1201)));
    assert_eq!(wal_segment_size(&whole[..230]), Err(ControlFileError::Short(230)));
    assert_eq!(wal_segment_size(&whole[..11]), Err(ControlFileError::Short(11)));
}

#[test]
fn the_size_of_pages_and_segments_is_read_where_its_place_is_known() {
    for (version, _) in CRC_AT {
        let mut written = Written::in_production(7);
        written.put32(8, version);
        assert_eq!(RelationFiles::parse(&written.bytes), Ok(RelationFiles::DEFAULT), "{version}");
        assert_eq!(RelationFiles::check_default(&written.bytes), Ok(()), "{version}");
        for (at, page_size, segment_pages) in [(216, 32_768, 131_072), (220, 8192, 32_768)] {
            let mut other = written.clone();
            other.put32(at, 32_768);
            assert_eq!(RelationFiles::parse(&other.bytes), Ok(RelationFiles { page_size, segment_pages }));
            let error = ControlFileError::RelationFiles { page_size, segment_pages };
            assert_eq!(RelationFiles::check_default(&other.bytes), Err(error), "{version}");
        }
    }
    let mut other = Written::in_production(7);
    assert_eq!(RelationFiles::parse(&other.bytes[..222]), Err(ControlFileError::Short(222)));
    other.put32(8, 1201);
    assert_eq!(RelationFiles::check_default(&other.bytes), Err(ControlFileError::Version(1201)));
}

#[test]
fn only_a_cluster_with_checksums_has_pages_to_check() {
    let mut written = Written::in_production(7);
    assert_eq!(RelationFiles::with_checksums(&written.bytes), Ok(None));
    written.put32(DATA_CHECKSUM_VERSION, 1);
    assert_eq!(RelationFiles::with_checksums(&written.bytes), Ok(Some(RelationFiles::DEFAULT)));
    written.put32(DATA_CHECKSUM_VERSION, 2);
    assert_eq!(
        RelationFiles::with_checksums(&written.bytes),
        Err(ControlFileError::Value { field: "data_checksum_version", value: 2 })
    );
}
