//! Archives as PostgreSQL writes them, made in memory: what tests hold a reader against, here and in the crates that read
//! archives.

use super::header::{BLOCK, Block, checksum};

/// The header of the member `name` of at most 100 bytes, of this type and with contents of `size` bytes.
///
/// # Panics
/// Where the name is longer.
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

/// The header with the checksum that fits it.
pub fn summed(mut block: Block) -> Block {
    let sum = checksum(&block);
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A file: its header, its contents and the zeros behind them.
pub fn file(name: &str, contents: &[u8]) -> Vec<u8> {
    let mut bytes = header(name, b'0', contents.len() as u64).to_vec();
    bytes.extend_from_slice(contents);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// A directory, which is a header alone.
pub fn directory(name: &str) -> Vec<u8> {
    header(name, b'5', 0).to_vec()
}

/// The members and the two blocks of zeros that close an archive.
pub fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = members.concat();
    bytes.resize(bytes.len() + 2 * BLOCK, 0);
    bytes
}
