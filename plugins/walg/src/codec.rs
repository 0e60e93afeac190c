//! The compression of an object, by the ending of its name (`FileExtension` in WAL-G's internal/compression).

use understudy::store::Codec;

/// The endings, in the order in which WAL-G tries them for a segment (`Decompressors` in internal/compression). The last stands for an
/// object that is not compressed, whose name has no ending.
pub(crate) const ENDINGS: [(&str, Option<Codec>); 6] = [
    (".lz4", Some(Codec::Lz4)),
    (".lzma", Some(Codec::Lzma)),
    (".gz", Some(Codec::Gzip)),
    (".zst", Some(Codec::Zstd)),
    (".br", Some(Codec::Brotli)),
    ("", None),
];

/// The ending of an object in a compression that is not read.
pub(crate) const UNREAD: &str = ".lzo";

/// Returns the codec for the ending `ending`, with its dot; `None` if WAL-G has no such ending.
pub(crate) fn of_ending(ending: &str) -> Option<Option<Codec>> {
    ENDINGS.into_iter().find(|(known, _)| *known == ending).map(|(_, codec)| codec)
}

/// Returns the bytes with which every object in the format of `codec` begins; empty if there are none.
pub(crate) fn signature(codec: Option<Codec>) -> &'static [u8] {
    match codec {
        Some(Codec::Lz4) => &[0x04, 0x22, 0x4d, 0x18],
        Some(Codec::Gzip) => &[0x1f, 0x8b],
        Some(Codec::Zstd) => &[0x28, 0xb5, 0x2f, 0xfd],
        // The properties that WAL-G's encoder writes, lc=3 lp=0 pb=2, which are also those of every other program by default.
        Some(Codec::Lzma) => &[0x5d],
        _ => &[],
    }
}
