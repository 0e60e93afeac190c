//! Fuzzes the decoders of every codec: decoding ends, in bounded memory, and the size of the reads makes no difference.

#![no_main]

use std::io::Cursor;

use fuzz::check_reads;
use libfuzzer_sys::fuzz_target;
use transfer::codec::Codec;
use transfer::error::Kind;

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

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, stored)) = bytes.split_first() else { return };
    let codec = CODECS[usize::from(*choice) % CODECS.len()];
    check_reads(|| codec.decode(Box::new(Cursor::new(stored.to_vec()))), &[Kind::Corrupt, Kind::Limit]);
});
