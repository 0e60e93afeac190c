use std::io::{Cursor, ErrorKind, Write};

use super::*;

const CODECS: [Codec; 4] = [Codec::Plain, Codec::Gzip, Codec::Lz4, Codec::Zstd];

/// Returns half a MiB of data with a moderate compression ratio.
pub(crate) fn sample() -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut bytes = Vec::new();
    while bytes.len() < 512 << 10 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
        bytes.extend_from_slice(b"0000000000000000 the same");
    }
    bytes
}

/// Compresses data as the codec's own program does, with checksums for LZ4 and Zstandard.
pub(crate) fn encode(codec: Codec, plain: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Plain => plain.to_vec(),
        Codec::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new().content_checksum(true);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Zstd => ruzstd::encoding::compress_to_vec(plain, ruzstd::encoding::CompressionLevel::Fastest),
    }
}

fn decode(codec: Codec, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    codec.decode(Cursor::new(bytes.to_vec())).read_to_end(&mut plain)?;
    Ok(plain)
}

#[test]
fn the_codec_is_selected_by_the_archive_name() {
    assert_eq!(Codec::of("base.tar"), Some((Codec::Plain, "base")));
    assert_eq!(Codec::of("16384.tar.gz"), Some((Codec::Gzip, "16384")));
    assert_eq!(Codec::of("base.tar.lz4"), Some((Codec::Lz4, "base")));
    assert_eq!(Codec::of("base.tar.zst"), Some((Codec::Zstd, "base")));
    assert_eq!(Codec::of("base.tar.bz2"), None);
    assert_eq!(Codec::of("backup_manifest"), None);
}

#[test]
fn every_codec_decodes_its_own_output() {
    for codec in CODECS {
        for plain in [Vec::new(), b"x".to_vec(), sample()] {
            assert_eq!(decode(codec, &encode(codec, &plain)).unwrap(), plain, "{codec:?} {}", plain.len());
        }
    }
}

#[test]
fn concatenated_streams_are_decoded_as_one() {
    let (one, two) = (sample(), b"and more".to_vec());
    for codec in CODECS {
        let both = [encode(codec, &one), encode(codec, b""), encode(codec, &two)].concat();
        assert_eq!(decode(codec, &both).unwrap(), [one.clone(), two.clone()].concat(), "{codec:?}");
    }
}

#[test]
fn a_truncated_stream_is_an_error_wherever_it_ends() {
    let plain = &sample()[..200 << 10];
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        let whole = encode(codec, plain);
        let lengths = (1..100).chain((100..whole.len()).step_by(997)).chain(whole.len() - 100..whole.len());
        for length in lengths {
            let error = decode(codec, &whole[..length]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{codec:?} {length}: {error}");
        }
        let second = [whole.clone(), whole[..whole.len() / 2].to_vec()].concat();
        assert_eq!(decode(codec, &second).unwrap_err().kind(), ErrorKind::UnexpectedEof, "{codec:?}");
    }
}

#[test]
fn an_lz4_stream_without_a_checksum_is_truncated_without_its_end_mark_too() {
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    encoder.write_all(&sample()).unwrap();
    let whole = encoder.finish().unwrap();
    assert_eq!(decode(Codec::Lz4, &whole).unwrap(), sample());
    for cut in 1..=4 {
        let error = decode(Codec::Lz4, &whole[..whole.len() - cut]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{cut}");
    }
}

#[test]
fn garbage_after_a_stream_is_an_error() {
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        for garbage in [&b"g"[..], b"garb", b"garbage!", &[0; 4], &[0; 512]] {
            let bytes = [encode(codec, b"x"), garbage.to_vec()].concat();
            assert!(decode(codec, &bytes).is_err(), "{codec:?} {garbage:?}");
        }
        assert!(decode(codec, b"this is no compressed stream").is_err(), "{codec:?}");
    }
}

#[test]
fn a_changed_stream_does_not_match_its_checksum() {
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        let whole = encode(codec, &sample());
        for at in (20..whole.len()).step_by(whole.len() / 50) {
            let mut changed = whole.clone();
            changed[at] ^= 0x10;
            // The flipped bit may have no meaning, but then the output must not change.
            if let Ok(plain) = decode(codec, &changed) {
                assert_eq!(plain, sample(), "{codec:?} {at}");
            }
        }
    }
}

#[test]
fn a_skippable_zstd_frame_is_skipped() {
    let mut skippable = 0x184D_2A50u32.to_le_bytes().to_vec();
    skippable.extend(5u32.to_le_bytes());
    skippable.extend(b"pzstd");
    let frame = encode(Codec::Zstd, b"x");
    assert_eq!(
        decode(Codec::Zstd, &[skippable.clone(), frame.clone(), skippable.clone()].concat()).unwrap(),
        b"x"
    );
    let truncated = [frame, skippable[..10].to_vec()].concat();
    assert_eq!(decode(Codec::Zstd, &truncated).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}
