use super::*;

const SIZE: usize = 8192;

pub(crate) const CHECKS: PageChecks =
    PageChecks { page_size: SIZE as u32, segment_pages: 131_072, start: Lsn(0x100), stop: Lsn(0x200) };

/// Makes a page as PostgreSQL writes it, filled with `byte`. `number` is its number in the relation.
pub(crate) fn written(number: u32, lsn: u32, byte: u8) -> Vec<u8> {
    let mut page = vec![byte; SIZE];
    page[..16].fill(0);
    page[4..8].copy_from_slice(&lsn.to_ne_bytes());
    page[14..16].copy_from_slice(&8000_u16.to_ne_bytes());
    let checksum = page::checksum(&page, number);
    page[8..10].copy_from_slice(&checksum.to_ne_bytes());
    page
}

/// Makes a page whose checksum is wrong.
pub(crate) fn damaged(number: u32, lsn: u32, byte: u8) -> Vec<u8> {
    let mut page = written(number, lsn, byte);
    page[5000] ^= 1;
    page
}

/// Checks a file whose bytes arrive `at_once` at once.
fn check(path: &str, bytes: &[u8], at_once: usize) -> Result<(), String> {
    let mut checker = PageChecker::of(CHECKS, path).unwrap();
    for (number, piece) in bytes.chunks(at_once).enumerate() {
        checker.update((number * at_once) as u64, piece);
    }
    checker.finish().map_err(|error| {
        assert_eq!(error.kind, Kind::Corrupt);
        error.message
    })
}

#[test]
fn damaged_pages_are_found_and_counted_however_their_bytes_arrive() {
    let whole = [written(0, 1, 1), vec![0; SIZE], written(2, 1, 2)].concat();
    let broken = [written(0, 1, 1), vec![0; SIZE], damaged(2, 1, 2), damaged(3, 1, 3)].concat();
    for at_once in [1, 100, 512, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE, 1 << 20] {
        check("base/5/1259", &whole, at_once).unwrap();
        let why = check("base/5/1259", &broken, at_once).unwrap_err();
        assert!(why.starts_with("its block 2 has the page checksum "), "{at_once}: {why}");
        assert!(why.ends_with("; 2 of its pages are damaged"), "{at_once}: {why}");
    }
}

#[test]
fn a_page_in_a_later_segment_is_numbered_in_its_relation() {
    check("base/5/1259.2", &written(2 * 131_072, 1, 1), SIZE).unwrap();
    let why = check("base/5/1259.2", &written(0, 1, 1), SIZE).unwrap_err();
    assert!(why.starts_with("its block 0 "), "{why}");
}

#[test]
fn only_a_page_that_changed_during_the_backup_may_be_torn() {
    for (lsn, passes) in [(0xff, false), (0x100, true), (0x180, true), (0x200, true), (0x201, false)] {
        assert_eq!(check("base/5/1259", &damaged(0, lsn, 1), SIZE).is_ok(), passes, "{lsn:x}");
        check("base/5/1259", &written(0, lsn, 1), SIZE).unwrap();
    }
}

#[test]
fn a_page_that_looks_new_must_be_empty() {
    let mut page = vec![0; SIZE];
    page[SIZE - 1] = 1;
    let why = check("base/5/1259", &page, SIZE).unwrap_err();
    assert!(why.contains("its block 0 has the header of a new page"), "{why}");
}

#[test]
fn only_pages_that_arrive_as_a_whole_are_checked() {
    let page = damaged(1, 1, 1);
    // The end of a page, its beginning, and both in the wrong order.
    for pieces in [&[(SIZE + 1, 1..SIZE)][..], &[(SIZE, 0..SIZE - 1)], &[(SIZE + 9, 9..SIZE), (SIZE, 0..9)]] {
        let mut checker = PageChecker::of(CHECKS, "base/5/1259").unwrap();
        for (at, range) in pieces {
            checker.update(*at as u64, &page[range.clone()]);
        }
        checker.finish().unwrap();
    }
    let mut checker = PageChecker::of(CHECKS, "base/5/1259").unwrap();
    checker.update(SIZE as u64 - 7, &[&[9; 7], &page[..]].concat());
    assert!(checker.finish().unwrap_err().message.starts_with("its block 1 "));
}

#[test]
fn sizes_that_no_server_has_are_refused() {
    CHECKS.check().unwrap();
    for wrong in [
        PageChecks { page_size: 0, ..CHECKS },
        PageChecks { page_size: 8191, ..CHECKS },
        PageChecks { page_size: 65_536, ..CHECKS },
        PageChecks { segment_pages: 0, ..CHECKS },
        PageChecks { stop: Lsn(0xff), ..CHECKS },
    ] {
        assert_eq!(wrong.check().unwrap_err().kind, Kind::Invalid, "{wrong:?}");
    }
}
