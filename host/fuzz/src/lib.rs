//! What several fuzz targets need.

use std::io::Read;

use transfer::error::{Error, Kind};

/// The most plain bytes that are read, because the input may be a decompression bomb.
const MOST: u64 = 1 << 20;

/// Checks that the reader that `open` returns ends with the same bytes, or fails with one of these kinds of errors, whatever the size of the
/// reads.
///
/// # Panics
/// Panics if that is not so.
pub fn check_reads(open: impl Fn() -> Result<Box<dyn Read + Send>, Error>, kinds: &[Kind]) {
    let [whole, pieces] = [64 << 10, 1000].map(|size| read(open(), size));
    match (&whole, &pieces) {
        (Ok(whole), Ok(pieces)) => assert!(whole == pieces),
        (Err(error), Err(_)) => assert!(kinds.contains(&error.kind), "{error}"),
        // One reader stopped at `MOST` bytes before it noticed the damage that the other one noticed.
        (Ok(plain), Err(_)) | (Err(_), Ok(plain)) if plain.len() as u64 == MOST => {}
        _ => panic!("the result depends on the size of the reads: {:?} {:?}", whole.err(), pieces.err()),
    }
}

/// Reads at most [`MOST`] bytes, with reads of at most `size` bytes.
fn read(reader: Result<Box<dyn Read + Send>, Error>, size: usize) -> Result<Vec<u8>, Error> {
    let mut reader = reader?.take(MOST);
    let (mut plain, mut buffer) = (Vec::new(), vec![0; size]);
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(plain),
            length => plain.extend_from_slice(&buffer[..length]),
        }
    }
}
