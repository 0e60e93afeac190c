//! Makes archives as PostgreSQL writes them, for the tests of this crate and of the crates that read archives.

use super::header::{BLOCK, Block, checksum};

/// Makes the header of a member with this name of at most 100 bytes, type flag and size.
///
/// # Panics
/// Panics if the name is longer.
pub fn header(name: &str, kind: u8, size: u64) -> Block {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(b"0000600 ");
    block[108..116].copy_from_slice(b"0000145 ");
    block[116..124].copy_from_slice(b"0000150 ");
    if size < 1 << 33 {
        block[124..136].copy_from_slice(format!("{size:011o} ").as_bytes());
    } else {
        block[124] = 0x80;
        block[128..136].copy_from_slice(&size.to_be_bytes());
    }
    block[136..148].copy_from_slice(b"15300775211 ");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    summed(block)
}

/// Sets the checksum of a header.
pub fn summed(mut block: Block) -> Block {
    let sum = checksum(&block);
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Makes a file: its header, its contents and the padding.
pub fn file(name: &str, contents: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, b'0', contents.len() as u64).to_vec();
    bytes.extend_from_slice(contents);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// Makes a directory, which is only a header.
pub fn directory(name: &str) -> Vec<u8> {
    header(name, b'5', 0).to_vec()
}

/// Makes an archive of these members and the two zero blocks at its end.
pub fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = members.concat();
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}
