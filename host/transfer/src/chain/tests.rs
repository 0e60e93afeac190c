use super::increment::{Content, HeaderReader, file_of};
use super::*;

const PAGE: PageSize = PageSize(8192);

fn chain(memory: &Budget) -> Chain {
    Chain::within(memory, IncrementFormat::Postgresql, 8192).unwrap()
}

/// Makes the header of an increment as PostgreSQL writes it.
fn postgresql(end: u32, pages: &[u32]) -> Vec<u8> {
    let mut bytes = 0xd3ae_1f0d_u32.to_le_bytes().to_vec();
    for number in [pages.len() as u32, end].iter().chain(pages) {
        bytes.extend(number.to_le_bytes());
    }
    if !pages.is_empty() {
        bytes.resize(bytes.len().next_multiple_of(8192), 0);
    }
    bytes
}

/// Makes the header of an increment as WAL-G writes it.
fn wal_g(size: u64, pages: &[u32]) -> Vec<u8> {
    let mut bytes = b"wi1\x55".to_vec();
    bytes.extend(size.to_le_bytes());
    bytes.extend((pages.len() as u32).to_le_bytes());
    pages.iter().for_each(|page| bytes.extend(page.to_le_bytes()));
    bytes
}

/// Reads a header that arrives in pieces of `at_once` bytes. `pages` is how many pages follow.
fn read(
    format: IncrementFormat,
    bytes: &[u8],
    pages: u64,
    at_once: usize,
) -> Result<(u32, u32, Vec<u32>), Error> {
    let size = bytes.len() as u64 + pages * 8192;
    let mut reader = HeaderReader::new(format, PAGE, size, &Budget::unlimited());
    let followed = [bytes, &[1; 100]].concat();
    let mut at = 0;
    for piece in followed.chunks(at_once) {
        let (taken, header) = reader.take(piece)?;
        at += taken;
        if let Some(header) = header {
            assert_eq!(at, bytes.len(), "only the header is taken");
            return Ok((header.count, header.end, header.pages));
        }
    }
    panic!("the header has no end");
}

#[test]
fn headers_are_read_however_their_bytes_arrive() {
    for at_once in [1, 5, 12, 4096, 1 << 20] {
        let read = |format, bytes: &[u8], pages| read(format, bytes, pages, at_once).unwrap();
        let format = IncrementFormat::Postgresql;
        assert_eq!(read(format, &postgresql(9, &[0, 3]), 2), (9, 9, vec![0, 3]));
        assert_eq!(read(format, &postgresql(0, &[]), 0), (0, 0, vec![]));
        assert_eq!(read(format, &postgresql(7, &[]), 0), (7, 7, vec![]));
        // A length beyond the segment means the whole segment.
        assert_eq!(read(format, &postgresql(196_608, &[]), 0), (131_072, 131_072, vec![]));
        assert_eq!(read(format, &postgresql(9, &[131_071]), 1), (131_072, 9, vec![131_071]));
        // A page beyond the truncation block length makes the file longer.
        assert_eq!(read(format, &postgresql(2, &[1, 9]), 2), (10, 2, vec![1, 9]));
        let many: Vec<u32> = (0..3000).map(|number| 2 * number).collect();
        assert_eq!(read(format, &postgresql(6000, &many), 3000), (6000, 6000, many));
        let format = IncrementFormat::WalG;
        assert_eq!(read(format, &wal_g(5 * 8192, &[1, 4]), 2), (5, 5, vec![1, 4]));
        assert_eq!(read(format, &wal_g(0, &[]), 0), (0, 0, vec![]));
    }
}

#[test]
fn a_header_that_lies_is_corrupt() {
    let (postgres, wal) = (IncrementFormat::Postgresql, IncrementFormat::WalG);
    let changed = |at: usize, by: u8| {
        let mut bytes = postgresql(9, &[0, 3]);
        bytes[at] ^= by;
        bytes
    };
    for (format, bytes, pages, why) in [
        (postgres, changed(0, 1), 2, "does not begin"),
        (postgres, changed(4, 1), 2, "increment of 3 pages"),
        (postgres, postgresql(9, &[0, 3]), 1, "increment of 2 pages"),
        (postgres, postgresql(9, &[3, 3]), 2, "do not ascend"),
        (postgres, postgresql(9, &[3, 0]), 2, "do not ascend"),
        (postgres, postgresql(9, &[u32::MAX]), 1, "too high"),
        (postgres, postgresql(9, &[131_072]), 1, "a segment has 131072"),
        (wal, wal_g(131_073 * 8192, &[]), 0, "a segment has 131072"),
        (postgres, changed(8191, 1), 2, "other bytes than zeros"),
        (wal, postgresql(9, &[]), 0, "does not begin"),
        (wal, wal_g(8191, &[]), 0, "not a whole number of pages"),
        (wal, wal_g(u64::MAX - 8191, &[]), 0, "not a whole number of pages"),
        (wal, wal_g(2 * 8192, &[1, 0]), 2, "do not ascend"),
    ] {
        let bytes = if bytes.len() < 16 { [&bytes[..], &[0; 4]].concat() } else { bytes };
        let error = read(format, &bytes, pages, 4096).unwrap_err();
        assert!(error.kind == Kind::Corrupt && error.message.contains(why), "{why}: {error:?}");
    }
}

#[test]
fn the_page_numbers_of_a_header_are_charged_before_they_are_kept() {
    let count = 1_000_000_u32;
    let length = (12 + 4 * u64::from(count)).next_multiple_of(8192);
    let memory = Budget::memory(1 << 20);
    let size = length + u64::from(count) * 8192;
    let mut reader = HeaderReader::new(IncrementFormat::Postgresql, PAGE, size, &memory);
    let mut bytes = 0xd3ae_1f0d_u32.to_le_bytes().to_vec();
    bytes.extend(count.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    assert_eq!(reader.take(&bytes).unwrap_err().kind, Kind::Limit);
}

#[test]
fn names_tell_which_file_a_member_belongs_to() {
    let (postgres, wal) = (IncrementFormat::Postgresql, IncrementFormat::WalG);
    let (whole, increment, unknown) = (Content::Whole, Content::Increment, Content::Unknown);
    for (format, name, file, content) in [
        (postgres, "base/5/INCREMENTAL.1259", "base/5/1259", increment),
        (postgres, "base/5/INCREMENTAL.1259.1", "base/5/1259.1", increment),
        (postgres, "pg_tblspc/16384/PG_17_1/5/INCREMENTAL.7_vm", "pg_tblspc/16384/PG_17_1/5/7_vm", increment),
        (postgres, "global/INCREMENTAL.1262", "global/1262", increment),
        (postgres, "base/5/1259", "base/5/1259", whole),
        (postgres, "base/5/INCREMENTAL.", "base/5/INCREMENTAL.", whole),
        (postgres, "pg_xact/INCREMENTAL.0000", "pg_xact/INCREMENTAL.0000", whole),
        (postgres, "INCREMENTAL.x", "INCREMENTAL.x", whole),
        (postgres, "base2/INCREMENTAL.x", "base2/INCREMENTAL.x", whole),
        (wal, "base/5/1259", "base/5/1259", unknown),
        (wal, "base/5/1259.12", "base/5/1259.12", unknown),
        (wal, "base/5/1259_vm", "base/5/1259_vm", whole),
        (wal, "pg_commit_ts/0000", "pg_commit_ts/0000", unknown),
        (wal, "base/5/INCREMENTAL.1259", "base/5/INCREMENTAL.1259", whole),
        // WAL-G stored increments of these before December 2024.
        (wal, "pg_xact/0000", "pg_xact/0000", unknown),
        (wal, "base/5/.1", "base/5/.1", whole),
    ] {
        assert_eq!(file_of(format, name), (file.to_owned(), content), "{name}");
    }
}

#[test]
fn a_file_is_needed_until_it_is_complete() {
    let chain = chain(&Budget::unlimited());
    chain.want(vec!["base/5/2".to_owned(), "./base//5/2".to_owned()]).unwrap();
    assert_eq!(chain.missing(10), ["base/5/2"]);
    assert!(matches!(chain.begin("base/5/1", 0), Ok(Needed::Whole)));
    let mut pages = chain.pages(3);
    pages.make_map().unwrap();
    pages.mark(1);
    chain.put_back("base/5/1", pages, 0).unwrap();
    assert_eq!(chain.missing(10), ["base/5/1", "base/5/2"]);
    assert_eq!(chain.missing(1), ["base/5/1"]);
    assert_eq!(chain.begin("base/5/1", 0).unwrap_err().kind, Kind::Corrupt);
    assert!(matches!(chain.begin("base/5/3", 1), Ok(Needed::Nothing)));
    let Ok(Needed::Pages(pages)) = chain.begin("base/5/1", 1) else { panic!("pages are needed") };
    assert_eq!(
        (0..6).map(|number| pages.lacks(number)).collect::<Vec<_>>(),
        [true, false, true, false, false, false]
    );
    assert_eq!(chain.begin("base/5/1", 1).unwrap_err().kind, Kind::Invalid);
    chain.fail("base/5/1");
    assert!(chain.begin("base/5/1", 1).unwrap_err().message.contains("failed before"));
    assert_eq!(chain.missing(1), ["base/5/1"]);
    // Another member of the same backup that ends well does not make up for the failure.
    chain.put_back("base/5/1", chain.pages(3), 1).unwrap();
    assert!(chain.begin("base/5/1", 1).unwrap_err().message.contains("failed before"));
    chain.complete("base/5/1");
    chain.complete("base/5/2");
    assert!(chain.missing(10) == ["base/5/1"] && !chain.needs("base/5/2"));
}

#[test]
fn a_chain_goes_on_to_an_older_backup_only_when_the_newer_one_has_ended_and_is_sound() {
    let chain = Arc::new(chain(&Budget::unlimited()));
    let of_newest = ChainUse::of(&chain);
    let again = of_newest.clone();
    assert!(of_newest.is_newest());
    drop(of_newest);
    assert_eq!(chain.begin_older().unwrap_err().kind, Kind::Invalid);
    drop(again);
    chain.put_back("base/5/1", chain.pages(3), 0).unwrap();
    chain.want(vec!["base/5/2".to_owned()]).unwrap();
    chain.begin_older().unwrap();
    assert!(!ChainUse::of(&chain).is_newest());
    // The first older backup has nothing of `base/5/1`, so pg_combinebackup would not find it either.
    let error = chain.begin_older().unwrap_err();
    assert!(error.kind == Kind::Corrupt && error.message.contains("base/5/1"), "{error:?}");
    chain.put_back("base/5/1", chain.pages(3), 1).unwrap();
    chain.begin_older().unwrap();
}

#[test]
fn what_a_chain_keeps_is_charged() {
    let memory = Budget::memory(64 << 10);
    let full = chain(&memory);
    let error = (0..100_000).find_map(|number| full.want(vec![format!("base/5/{number}")]).err());
    assert_eq!(error.unwrap().kind, Kind::Limit);
    drop(full);
    assert_eq!(memory.held(), 0);
    // A file of 32 GiB has four million pages, whose map has 512 KiB. Without a page it has no map.
    let mut pages = chain(&memory).pages(1 << 22);
    assert!(pages.lacks(0) && pages.lacks((1 << 22) - 1) && !pages.lacks(1 << 22));
    assert_eq!(pages.make_map().unwrap_err().kind, Kind::Limit);
}

#[test]
fn a_size_that_pages_cannot_have_is_invalid() {
    for size in [0, 512, 8191, 65536] {
        let made = Chain::within(&Budget::unlimited(), IncrementFormat::WalG, size);
        assert_eq!(made.err().map(|error| error.kind), Some(Kind::Invalid), "{size}");
    }
    let outside = chain(&Budget::unlimited()).want(vec!["../x".to_owned()]);
    assert_eq!(outside.unwrap_err().kind, Kind::Invalid);
}
