//! Fuzzes the reader of tar archives: every member's name leads downwards, the contents have the size in the header, the reader refuses a
//! truncated archive, and reading in windows finds the same members.

#![no_main]

use std::io::Read;

use foundation::rooted::RelativePath;
use libfuzzer_sys::fuzz_target;
use ustar::{Archive, BLOCK, Kind, Source, Stream, Windows, last_member};

/// Sets the correct checksum (ustar: bytes 148 to 155) in every block that looks like a header, because the reader refuses a wrong one at
/// once.
fn with_checksums(mut archive: Vec<u8>) -> Vec<u8> {
    for block in archive.chunks_exact_mut(BLOCK).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive
}

/// Counts the members of an archive whose names may begin with `/`, as WAL-G writes them.
fn members_of_wal_g(archive: &[u8]) -> Option<usize> {
    count(Archive::new(Stream(archive)).of_wal_g())
}

/// Returns the number of members; `None` if the reader refuses the archive.
fn members(archive: &[u8]) -> Option<usize> {
    count(Archive::new(Stream(archive)))
}

/// Does the same with a reader that requests small pieces of the archive by their offset.
fn members_in_windows(archive: &[u8]) -> Option<usize> {
    let read_at = |offset: u64, length: u64| {
        let (from, length) = (usize::try_from(offset), usize::try_from(length));
        let (from, length) =
            (from.expect("the archive is in memory"), length.expect("the archive is in memory"));
        Ok(archive[from..from + length].to_vec())
    };
    count(Archive::new(Windows::new(archive.len() as u64, BLOCK as u64, read_at)))
}

fn count<S: Source>(mut archive: Archive<S>) -> Option<usize> {
    let mut count = 0;
    while let Some(member) = archive.next().ok()? {
        count += 1;
        let path = RelativePath::new(&member.name).expect("a member's name leads downwards");
        assert_eq!(path.as_os_str().to_str(), Some(&*member.name), "a member's name is in its shortest form");
        assert!(member.kind != Kind::Directory || member.size == 0);
        // The contents of the other members are left unread, so that the reader must skip them.
        if member.name.len() % 2 == 0 {
            let read = std::io::copy(&mut archive.contents().take(u64::MAX), &mut std::io::sink()).ok()?;
            assert_eq!(read, member.size);
        }
    }
    Some(count)
}

fuzz_target!(|bytes: &[u8]| {
    let archive = with_checksums(bytes.to_vec());
    assert_eq!(members(&archive), members_in_windows(&archive));
    if let Some(count) = members(&archive) {
        assert_eq!(members_of_wal_g(&archive), Some(count), "what PostgreSQL writes, WAL-G may write");
    }
    // The test is that this ends without a panic.
    let _ = last_member(&archive, "global/pg_control");
    if members(&archive).is_some_and(|count| count > 0) {
        // Cuts off the end blocks: the archive then ends after the last block that is not empty.
        let end = archive.iter().rposition(|byte| *byte != 0).map_or(0, |last| last / BLOCK * BLOCK + BLOCK);
        assert_eq!(members(&archive[..end]), None, "an archive without its end blocks is refused");
    }
});
