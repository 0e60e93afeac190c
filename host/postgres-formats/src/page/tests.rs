use super::*;

/// Two pages that PostgreSQL 15 wrote with `data_checksums`, by their bytes that are not zero: block 0 of a visibility map, and block 1 of
/// an index.
const VISIBILITY_MAP: &[(usize, &[u8])] = &[
    (5, &[0xcd, 0x4a, 0x01, 0x61, 0xea]),
    (12, &[0x18]),
    (15, &[0x20]),
    (17, &[0x20, 0x04, 0x20]),
    (24, &[0x3f]),
];
const INDEX: &[(usize, &[u8])] = &[
    (4, &[0x60, 0xed, 0x45, 0x01, 0x32, 0x2c]),
    (12, &[0x1c]),
    (14, &[0xe0, 0x1f, 0xf0, 0x1f, 0x04, 0x20]),
    (24, &[0xe0, 0x9f, 0x20]),
    (8164, &[0x01]),
    (8166, &[0x10]),
    (8168, &[0xf7, 0x34]),
    (8188, &[0x03]),
];

fn page(bytes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut page = vec![0; 8192];
    for (at, bytes) in bytes {
        page[*at..*at + bytes.len()].copy_from_slice(bytes);
    }
    page
}

#[test]
fn pages_that_postgresql_wrote_are_intact() {
    assert_eq!(verify(&page(VISIBILITY_MAP), 0), Verdict::Intact);
    assert_eq!(verify(&page(INDEX), 1), Verdict::Intact);
    assert_eq!(lsn(&page(VISIBILITY_MAP)), Lsn(0x014a_cd00));
    assert_eq!(lsn(&page(INDEX)), Lsn(0x0145_ed60));
}

#[test]
fn a_changed_byte_is_noticed_as_often_as_sixteen_bits_allow() {
    let whole = page(INDEX);
    let missed = (0..whole.len()).filter(|at| {
        let mut changed = whole.clone();
        changed[*at] ^= 0x10;
        verify(&changed, 1) == Verdict::Intact
    });
    // Of 65,535 changes, about one has the same checksum.
    assert!(missed.count() <= 1);
}

#[test]
fn a_page_at_the_place_of_another_is_noticed() {
    let expected = Verdict::Mismatch { stored: 0x2c32, computed: checksum(&page(INDEX), 0) };
    assert_eq!(verify(&page(INDEX), 0), expected);
    assert_ne!(verify(&page(INDEX), 131_073), Verdict::Intact);
}

#[test]
fn a_new_page_has_only_zeros() {
    let mut new = vec![0; 8192];
    assert_eq!(verify(&new, 7), Verdict::Empty);
    new[8191] = 1;
    assert_eq!(verify(&new, 7), Verdict::NotEmpty);
}

#[test]
fn a_page_of_every_size_has_a_checksum() {
    for size in [1024, 2048, 4096, 8192, 16_384, 32_768] {
        let mut page = vec![7; size];
        let sum = checksum(&page, 3);
        page[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_ne_bytes());
        assert_eq!(verify(&page, 3), Verdict::Intact, "{size}");
        page[size - 1] = 8;
        assert_ne!(verify(&page, 3), Verdict::Intact, "{size}");
    }
}

#[test]
fn files_of_relations_are_distinguished_from_others() {
    for (path, segment) in [
        ("global/1262", 0),
        ("global/1262_fsm", 0),
        ("base/5/1259", 0),
        ("base/5/1259.1", 1),
        ("base/5/1259_vm.12", 12),
        ("base/5/16384_init", 0),
        ("pg_tblspc/16385/PG_17_202406281/5/16386.3", 3),
    ] {
        assert_eq!(segment_of_relation(path), Some(segment), "{path}");
    }
    for path in [
        "1259",
        "base/1259",
        "base/5/PG_VERSION",
        "base/5/pg_filenode.map",
        "base/5/pg_internal.init",
        "base/5/pg_internal.init.123",
        "base/5/t3_16384",
        "base/5/1259_old",
        "base/5/1259_",
        "base/5/_fsm",
        "base/5/1259.0",
        "base/5/1259.01",
        "base/5/1259.",
        "base/5/1259.1.2",
        "base/5/01259",
        "base/5/0",
        "base/5/1259.1_fsm",
        "base/pgsql_tmp/5",
        "base/5/x/1259",
        "global/pg_control",
        "global/pg_filenode.map",
        "global/5/1259",
        "pg_xact/0000",
        "pg_wal/1259",
        "pg_multixact/offsets/1",
        "pg_tblspc/16385/1259",
        "pg_tblspc/16385/PG_17_202406281/1259",
        "pg_tblspc/16385/other/5/1259",
        "pg_tblspc/16385/PG_17_202406281/pgsql_tmp/1259",
        "pg_tblspc/16385/PG_17_202406281/5/6/1259",
        "./base/5/1259",
        "/base/5/1259",
        "",
    ] {
        assert_eq!(segment_of_relation(path), None, "{path}");
    }
}
