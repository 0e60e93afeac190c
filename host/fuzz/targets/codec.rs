//! Fuzzes the decoders of every codec: decoding ends, in bounded memory, and the size of the reads makes no difference.

#![no_main]

use std::io::{Cursor, Read};

use libfuzzer_sys::fuzz_target;
use transfer::codec::Codec;
use transfer::error::{Error, Kind};

const CODECS: [Codec; 9] = [
    Codec::Gzip,
    Codec::Zlib,
    Codec::Lz4,
    Codec::Zstd,
    Codec::Bzip2,
    Codec::Xz,
    Codec::Snappy,
    Codec::Brotli,
    Codec::Lzma,
];

/// The most decoded bytes that are read, because the input may be a decompression bomb.
const MOST: u64 = 1 << 20;

/// Decodes at most [`MOST`] bytes, with reads of at most `read_size` bytes.
fn decoded(codec: Codec, stored: &[u8], read_size: usize) -> Result<Vec<u8>, Error> {
    let mut reader = codec.decode(Box::new(Cursor::new(stored.to_vec())))?.take(MOST);
    let (mut plain, mut buffer) = (Vec::new(), vec![0; read_size]);
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(plain),
            length => plain.extend_from_slice(&buffer[..length]),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, stored)) = bytes.split_first() else { return };
    let codec = CODECS[usize::from(*choice) % CODECS.len()];
    let whole = decoded(codec, stored, 64 << 10);
    let pieces = decoded(codec, stored, 1000);
    match (&whole, &pieces) {
        (Ok(whole), Ok(pieces)) => assert!(whole == pieces),
        (Err(error), Err(_)) => assert!(matches!(error.kind, Kind::Corrupt | Kind::Limit), "{error}"),
        // One reader stopped at `MOST` bytes before it noticed the damage that the other one noticed.
        (Ok(plain), Err(_)) | (Err(_), Ok(plain)) if plain.len() as u64 == MOST => {}
        _ => panic!("the result depends on the size of the reads: {:?} {:?}", whole.err(), pieces.err()),
    }
});
