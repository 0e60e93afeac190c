//! Whatever a stored object holds, in every codec: it ends, in bounded memory, and however it is read it says the same.

#![no_main]

use std::io::{Cursor, Read};

use libfuzzer_sys::fuzz_target;
use transfer::codec::Codec;
use transfer::error::{Error, Kind};

const CODECS: [Codec; 8] = [
    Codec::Gzip,
    Codec::Zlib,
    Codec::Lz4,
    Codec::Zstd,
    Codec::Bzip2,
    Codec::Xz,
    Codec::Snappy,
    Codec::Brotli,
];

/// How much is read of what may be a bomb.
const MOST: u64 = 1 << 20;

fn decoded(codec: Codec, stored: &[u8], sip: usize) -> Result<Vec<u8>, Error> {
    let mut reader = codec.decode(Box::new(Cursor::new(stored.to_vec())))?.take(MOST);
    let (mut plain, mut buffer) = (Vec::new(), vec![0; sip]);
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
    let sips = decoded(codec, stored, 1000);
    match (&whole, &sips) {
        (Ok(whole), Ok(sips)) => assert!(whole == sips),
        (Err(error), Err(_)) => assert!(matches!(error.kind, Kind::Corrupt | Kind::Limit), "{error}"),
        // One way came to what is read of a bomb before the other came to the damage behind it.
        (Ok(plain), Err(_)) | (Err(_), Ok(plain)) if plain.len() as u64 == MOST => {}
        _ => panic!("it depends on how it is read: {:?} {:?}", whole.err(), sips.err()),
    }
});
