use std::cell::Cell;
use std::io;
use std::rc::Rc;

use super::written::{archive, directory, file, header, summed};
use super::*;

fn open(bytes: &[u8]) -> Archive<Stream<&[u8]>> {
    Archive::new(Stream(bytes))
}

type Members = Vec<(String, Kind, Vec<u8>)>;

fn list<S: Source>(mut archive: Archive<S>) -> Result<Members, TarError> {
    let mut members = Vec::new();
    while let Some(member) = archive.next()? {
        let mut contents = Vec::new();
        let read = archive.contents().read_to_end(&mut contents);
        read.map_err(|error| archive.error(error))?;
        members.push((member.name, member.kind, contents));
    }
    Ok(members)
}

fn refusal(bytes: &[u8]) -> String {
    list(open(bytes)).unwrap_err().to_string()
}

#[test]
fn members_come_with_their_names_and_contents() {
    let bytes = archive(&[
        file("backup_label", b"label"),
        directory("pg_wal/"),
        directory("./pg_wal/archive_status/"),
        file("base/5/1259", &[7; 8192]),
        file("empty", b""),
    ]);
    let expected = [
        ("backup_label", Kind::File, b"label".to_vec()),
        ("pg_wal", Kind::Directory, Vec::new()),
        ("pg_wal/archive_status", Kind::Directory, Vec::new()),
        ("base/5/1259", Kind::File, vec![7; 8192]),
        ("empty", Kind::File, Vec::new()),
    ]
    .map(|(name, kind, contents)| (name.to_owned(), kind, contents));
    assert_eq!(list(open(&bytes)).unwrap(), expected);
}

#[test]
fn unread_contents_are_skipped() {
    let bytes = archive(&[file("large", &[1; 1 << 20]), file("PG_VERSION", b"15\n")]);
    let mut archive = open(&bytes);
    assert_eq!(archive.next().unwrap().unwrap().size, 1 << 20);
    archive.contents().read_exact(&mut [0; 1000]).unwrap();
    assert_eq!(archive.next().unwrap().unwrap().name, "PG_VERSION");
    let mut text = String::new();
    archive.contents().read_to_string(&mut text).unwrap();
    assert_eq!(text, "15\n");
    assert_eq!(archive.next().unwrap(), None);

    let mut archive = open(&bytes[..1 << 19]);
    archive.next().unwrap();
    let error = archive.next().unwrap_err();
    assert_eq!(error.to_string(), "is truncated: it ends within the member `large`");
}

#[test]
fn skipped_contents_are_not_read_from_windows() {
    let bytes = archive(&[file("large", &[1; 1_000_001]), file("PG_VERSION", b"15\n")]);
    let read = Rc::new(Cell::new(0));
    let windows = |size: usize| {
        let (bytes, read) = (bytes.clone(), Rc::clone(&read));
        Archive::boxed(Windows::new(size as u64, 4096, move |at: u64, length: u64| {
            read.set(read.get() + length);
            Ok(bytes[at as usize..(at + length) as usize].to_vec())
        }))
    };
    let mut archive = windows(bytes.len());
    assert_eq!(archive.next().unwrap().unwrap().size, 1_000_001);
    assert_eq!(archive.next_header(), 512 + 1_000_448);
    assert_eq!(archive.next().unwrap().unwrap().name, "PG_VERSION");
    let mut text = String::new();
    archive.contents().read_to_string(&mut text).unwrap();
    assert_eq!(text, "15\n");
    assert_eq!(archive.next().unwrap(), None);
    assert!(read.get() <= 8192, "{}", read.get());

    let mut archive = windows(1 << 19);
    archive.next().unwrap();
    let error = archive.next().unwrap_err();
    assert_eq!(error.to_string(), "is truncated: it ends within the member `large`");
}

#[test]
fn the_last_member_is_found_from_the_end() {
    let control = vec![9; 8192];
    let bytes = archive(&[file("x", &[1; 100_000]), file("global/pg_control", &control)]);
    for padding in [0, 7168] {
        let padded = [bytes.clone(), vec![0; padding]].concat();
        let tail = &padded[padded.len() - (32 << 10)..];
        assert_eq!(last_member(tail, "global/pg_control"), Some(&control[..]));
        assert_eq!(last_member(tail, "x"), None, "it begins before the tail");
    }
    let mut behind = bytes.clone();
    behind.extend_from_slice(b"garbage");
    behind.resize(behind.len().next_multiple_of(BLOCK), 0);
    assert_eq!(last_member(&behind, "global/pg_control"), None);
    assert_eq!(last_member(&[], "x"), None);
}

#[test]
fn the_padding_of_a_member_must_be_zeros() {
    let bytes = archive(&[file("base/1", &[7; 700]), file("base/2", b"x")]);
    for at in 512 + 700..512 + 1024 {
        let mut bytes = bytes.clone();
        bytes[at] = 1;
        assert!(refusal(&bytes).contains("other than zero between the end of the member `base/1`"), "{at}");
    }
    let mut bytes = bytes;
    bytes[512 + 1024 + 512 + 511] = 1;
    assert!(refusal(&bytes).contains("the member `base/2`"));
}

#[test]
fn a_size_of_8_gib_and_more_is_read() {
    let block = header("base/5/1259", b'0', 9 << 30);
    let mut archive = open(&block);
    assert_eq!(archive.next().unwrap().unwrap().size, 9 << 30);
}

#[test]
fn a_prefix_is_part_of_the_name() {
    let mut block = header("1259", b'0', 0);
    block[345..351].copy_from_slice(b"base/5");
    assert_eq!(open(&summed(block)).next().unwrap().unwrap().name, "base/5/1259");
    let mut block = header("passwd", b'0', 0);
    block[345..352].copy_from_slice(b"a/../..");
    assert!(refusal(&summed(block)).contains("`a/../../passwd`"));
}

#[test]
fn a_name_that_would_leave_the_directory_is_refused() {
    for name in [
        "../x",
        "a/../x",
        "a/..",
        "..",
        "/etc/passwd",
        "//x",
        ".//x",
        "a//b",
        "a/./b",
        "././a",
        ".",
        "./",
        "/",
        "",
    ] {
        let refusal = refusal(&archive(&[file("before", b""), file(name, b"x")]));
        assert!(refusal.contains(&format!("member `{name}`")), "{name:?}: {refusal}");
    }
}

#[test]
fn links_devices_and_fifos_are_refused_by_name() {
    for (kind, what) in [
        (b'1', "hard link"),
        (b'2', "symbolic link"),
        (b'3', "device"),
        (b'4', "device"),
        (b'6', "FIFO"),
        (b'7', "type `7`"),
        (b'L', "type `L`"),
        (b'g', "type `g`"),
        (b'S', "type `S`"),
        (0xff, "type"),
    ] {
        let refusal = refusal(&archive(&[header("pg_tblspc/16384", kind, 0).to_vec()]));
        assert!(refusal.contains("member `pg_tblspc/16384`") && refusal.contains(what), "{refusal}");
    }
}

#[test]
fn a_name_without_utf_8_is_refused() {
    let mut block = header("good", b'0', 0);
    block[4] = 0xff;
    assert!(refusal(&summed(block)).contains("member `good\\xff` whose name is not UTF-8"));
}

#[test]
fn an_invalid_size_is_refused() {
    for size in [*b"not a number", *b"00000000008 ", [b' '; 12], [0; 12], [0xff; 12], *b"0000 0000000"] {
        let mut block = header("base/1", b'0', 0);
        block[124..136].copy_from_slice(&size);
        assert!(refusal(&summed(block)).contains("member `base/1` whose size"), "{size:?}");
    }
    let mut block = header("base/1", b'0', 0);
    block[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]);
    assert!(refusal(&summed(block)).contains("member `base/1` whose size"));
    assert!(refusal(&header("base/", b'5', 512)).contains("directory and has contents"));
    assert!(refusal(&header("base/", b'0', 0)).contains("named as a directory"));
}

#[test]
fn a_header_whose_checksum_is_wrong_is_refused_with_its_place() {
    let mut bytes = archive(&[file("base/1", b"x"), file("base/2", b"x")]);
    bytes[1024] = b'B';
    assert_eq!(
        refusal(&bytes),
        "has no valid tar header at byte 1024, after the member `base/1`: its checksum is wrong"
    );
    bytes[1024 + 148] = b'x';
    assert!(refusal(&bytes).contains("its checksum is not a number"));
}

#[test]
fn another_programs_tar_is_refused() {
    let mut block = header("base/1", b'0', 0);
    block[257..265].copy_from_slice(b"ustar  \0");
    assert!(refusal(&summed(block)).contains("not a ustar header"));
}

#[test]
fn a_wrong_size_is_noticed() {
    // The size is too small, so the next block is not a header.
    let mut bytes = file("base/1", &[7; 1024]);
    bytes[..BLOCK].copy_from_slice(&header("base/1", b'0', 512));
    assert!(refusal(&archive(&[bytes])).contains("after the member `base/1`"));
    // The size is larger than the archive.
    let mut bytes = file("base/1", &[7; 1024]);
    bytes[..BLOCK].copy_from_slice(&header("base/1", b'0', 1 << 40));
    assert_eq!(refusal(&archive(&[bytes])), "is truncated: it ends within the member `base/1`");
}

#[test]
fn a_truncated_archive_is_refused_wherever_it_ends() {
    let bytes = archive(&[file("base/1", &[7; 700]), directory("base/2/"), file("base/3", b"")]);
    for length in 0..bytes.len() {
        let refusal = refusal(&bytes[..length]);
        assert!(refusal.starts_with("is truncated"), "{length}: {refusal}");
    }
    assert!(list(open(&bytes)).is_ok());
    assert_eq!(refusal(&bytes[..bytes.len() - 1]), "is truncated: it ends after the member `base/3`");
    assert_eq!(refusal(b""), "is truncated: it ends before its first member");
}

#[test]
fn after_the_end_only_zeros_may_follow_and_not_for_ever() {
    let bytes = archive(&[file("base/1", b"x")]);
    let with = |more: &[u8]| [&bytes[..], more].concat();
    assert!(list(open(&with(&[0; 9216]))).is_ok());
    assert_eq!(refusal(&with(b"garbage")), "continues after the blocks that end it");
    assert_eq!(refusal(&with(&file("base/2", b"x"))), "continues after the blocks that end it");
    let endless = Stream(bytes.chain(io::repeat(0)));
    assert!(matches!(list(Archive::new(endless)), Err(TarError::TrailingData)));
    let mut alone = file("base/1", b"x");
    alone.resize(alone.len() + BLOCK, 0);
    alone.extend(file("base/2", b"x"));
    assert!(refusal(&alone).contains("a block of zeros stands alone"));
}

#[test]
fn what_wal_g_writes_is_accepted_only_if_it_is_asked_for() {
    let bytes = archive(&[
        directory("/"),
        directory("/base/"),
        file("/base/5/1259", b"x"),
        file("backup_label", b"y"),
    ]);
    assert!(refusal(&bytes).contains("member `/`"));
    let members = list(open(&bytes).of_wal_g()).unwrap();
    let names: Vec<_> = members.iter().map(|(name, _, _)| name.as_str()).collect();
    assert_eq!(names, ["base", "base/5/1259", "backup_label"]);
    for name in ["/../x", "//x", "/a/../x", "/a//b", "/./a", "/", "", "../x", "."] {
        let refusal = list(open(&archive(&[file(name, b"x")])).of_wal_g()).unwrap_err().to_string();
        assert!(refusal.contains(&format!("member `{name}`")), "{name:?}: {refusal}");
    }
}

#[test]
fn an_extended_header_gives_the_name_and_the_size_of_the_next_member() {
    let extended = |records: &[u8]| {
        let mut bytes = file("PaxHeaders.0/1259", records);
        let mut block: Block = bytes[..BLOCK].try_into().unwrap();
        block[156] = b'x';
        bytes[..BLOCK].copy_from_slice(&summed(block));
        bytes
    };
    let bytes = archive(&[extended(b"14 path=/b/12\n10 size=3\n"), file("12", b"abc"), file("13", b"d")]);
    let members = list(open(&bytes).of_wal_g()).unwrap();
    assert_eq!(members[0], ("b/12".to_owned(), Kind::File, b"abc".to_vec()));
    assert_eq!(members[1], ("13".to_owned(), Kind::File, b"d".to_vec()));
    // Only WAL-G writes names that begin with `/`.
    assert!(refusal(&bytes).contains("absolute"));
    for (bytes, what) in [
        (archive(&[extended(b"13 path=../x\n"), file("x", b"")]), "`../x`"),
        (archive(&[extended(b"x"), file("x", b"")]), "damaged"),
        (archive(&[extended(b""), file("x", b"")]), "empty"),
        (archive(&[extended(b"8 path=a\n")]), "damaged"),
        (archive(&[extended(b"9 path=a\n")]), "stands alone"),
        (archive(&[extended(b"9 path=a\n"), extended(b"9 path=a\n"), file("x", b"")]), "type `x`"),
        (archive(&[extended(&[b'x'; (64 << 10) + 1]), file("x", b"")]), "too large"),
    ] {
        let refusal = list(open(&bytes).of_wal_g()).unwrap_err().to_string();
        assert!(refusal.contains(what), "{what}: {refusal}");
    }
    // The padding and the end of an extended header are those of a member.
    let mut padded = archive(&[extended(b"9 path=a\n"), file("x", b"")]);
    padded[BLOCK + 9] = 1;
    assert!(refusal(&padded).contains("between the end of the member `PaxHeaders.0/1259`"));
    let cut = archive(&[extended(b"9 path=a\n"), file("x", b"")])[..BLOCK + 3].to_vec();
    assert_eq!(refusal(&cut), "is truncated: it ends within the member `PaxHeaders.0/1259`");
}
