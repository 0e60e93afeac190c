//! Whatever an archive holds: every name that comes out of it leads downwards, contents have the size that was said, where
//! a piece is missing the reader says so, and whoever only looks at the headers sees the same members.

#![no_main]

use std::io::Read;

use foundation::rooted::RelativePath;
use libfuzzer_sys::fuzz_target;
use ustar::{Archive, BLOCK, Kind, Source, Stream, Windows, last_member};

/// Gives every block that looks like a header the checksum that it needs to be looked at at all (ustar: bytes 148 to 155).
fn with_checksums(mut archive: Vec<u8>) -> Vec<u8> {
    for block in archive.chunks_exact_mut(BLOCK).filter(|block| &block[257..262] == b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive
}

/// How many members there are; none where the reader refuses the archive.
fn members(archive: &[u8]) -> Option<usize> {
    count(Archive::new(Stream(archive)))
}

/// The same, of an archive of which little pieces are read from where they are wanted.
fn members_in_windows(archive: &[u8]) -> Option<usize> {
    let read_at = |offset: u64, length: u64| {
        let (from, length) = (usize::try_from(offset), usize::try_from(length));
        let (from, length) = (from.expect("it is in memory"), length.expect("it is in memory"));
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
        // Now and then the contents are left to be passed over.
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
    // That it ends without a panic is the point.
    let _ = last_member(&archive, "global/pg_control");
    if members(&archive).is_some_and(|count| count > 0) {
        // Without its first block it is another archive or none; without any of the end blocks it is none.
        let end = archive.iter().rposition(|byte| *byte != 0).map_or(0, |last| last / BLOCK * BLOCK + BLOCK);
        assert_eq!(members(&archive[..end]), None, "an archive without its end is refused");
    }
});
