use std::io::Write;
use std::process::{Command, Stdio};

use super::*;
use crate::budget::Budget;
use crate::pipeline::Pipeline;

const ALL: [Codec; 9] = [
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

/// Runs a program with `plain` as its input and returns its output.
fn tool(program: &str, arguments: &[&str], plain: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} does not run ({error}): `cargo xtask set-up` installs it"));
    let mut stdin = child.stdin.take().unwrap();
    let plain = plain.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&plain));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{program}");
    output.stdout
}

/// Compresses `plain` with the usual program and its default settings.
fn encoded(codec: Codec, plain: &[u8]) -> Vec<u8> {
    match codec {
        Codec::Gzip => tool("gzip", &["-c"], plain),
        Codec::Lz4 => tool("lz4", &["-c"], plain),
        Codec::Zstd => tool("zstd", &["-c"], plain),
        Codec::Bzip2 => tool("bzip2", &["-c"], plain),
        Codec::Xz => tool("xz", &["-c"], plain),
        Codec::Brotli => tool("brotli", &["-c", "-q", "5"], plain),
        Codec::Lzma => tool("xz", &["--format=lzma", "-c"], plain),
        Codec::Zlib => {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Deflate => {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(plain).unwrap();
            encoder.finish().unwrap()
        }
        Codec::Snappy => {
            let mut encoder = snap::write::FrameEncoder::new(Vec::new());
            encoder.write_all(plain).unwrap();
            encoder.into_inner().unwrap()
        }
    }
}

/// A source that returns at most this many bytes per read.
struct SmallReads(std::io::Cursor<Vec<u8>>, usize);

impl Read for SmallReads {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = buffer.len().min(self.1);
        self.0.read(&mut buffer[..length])
    }
}

fn decoded(codec: Codec, stored: &[u8]) -> Result<Vec<u8>, Error> {
    let mut plain = Vec::new();
    codec.decode(Box::new(std::io::Cursor::new(stored.to_vec())))?.read_to_end(&mut plain)?;
    Ok(plain)
}

#[track_caller]
fn corrupt(codec: Codec, stored: &[u8], what: &str) -> String {
    let error = decoded(codec, stored).expect_err(what);
    assert_eq!(error.kind, Kind::Corrupt, "{} {what}: {error}", codec.name());
    assert!(error.message.contains(codec.name()), "{error}");
    error.message
}

/// Makes bytes, half of which compress well and half of which do not compress.
fn sample(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..length)
        .map(|at| if at / 97 % 2 == 0 { random.u8(..) } else { b'a' + (at / 1000 % 26) as u8 })
        .collect()
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn output_of_the_usual_programs_is_read_whole() {
    for codec in ALL {
        for length in [0, 1, 16 << 10, 3_000_001] {
            let plain = sample(length);
            let stored = encoded(codec, &plain);
            if codec != Codec::Snappy || length > 0 {
                assert!(decoded(codec, &stored) == Ok(plain), "{} of {length} bytes", codec.name());
            }
        }
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn how_the_bytes_arrive_and_how_they_are_asked_for_makes_no_difference() {
    let plain = sample(70_000);
    for codec in ALL {
        let stored = encoded(codec, &plain);
        for (source_bytes, read_bytes) in [(1, 4096), (7, 13), (100_000, 1)] {
            let mut reader = codec
                .decode(Box::new(SmallReads(std::io::Cursor::new(stored.clone()), source_bytes)))
                .unwrap();
            let (mut out, mut buffer) = (Vec::new(), vec![0; read_bytes]);
            loop {
                match reader.read(&mut buffer).unwrap() {
                    0 => break,
                    length => out.extend_from_slice(&buffer[..length]),
                }
            }
            assert!(
                out == plain,
                "{} with {source_bytes} from the source and {read_bytes} per read",
                codec.name()
            );
            assert_eq!(reader.read(&mut buffer).unwrap(), 0, "the end stays the end");
        }
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn concatenated_members_are_read_as_one() {
    let (first, second) = (sample(5000), sample(200_000));
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd, Codec::Bzip2, Codec::Xz, Codec::Snappy] {
        let stored = [encoded(codec, &first), encoded(codec, &second), encoded(codec, &first)].concat();
        assert!(decoded(codec, &stored) == Ok([&*first, &second, &first].concat()), "{}", codec.name());
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn a_second_stream_is_an_error_if_the_format_has_only_one() {
    for codec in [Codec::Zlib, Codec::Brotli, Codec::Lzma] {
        let stored = encoded(codec, &sample(5000)).repeat(2);
        assert!(corrupt(codec, &stored, "two streams").contains("follow"));
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn a_skippable_frame_is_skipped_anywhere() {
    let plain = sample(5000);
    for codec in [Codec::Zstd, Codec::Lz4] {
        let stored = encoded(codec, &plain);
        let empty = [0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0];
        let long = [&[0x5F, 0x2A, 0x4D, 0x18, 0xA0, 0x86, 1, 0][..], &[9; 100_000]].concat();
        for skippable in [&empty[..], &long] {
            for order in [[skippable, &stored], [&stored, skippable]] {
                assert!(decoded(codec, &order.concat()) == Ok(plain.clone()), "{}", codec.name());
            }
        }
        assert_eq!(decoded(codec, &long), Ok(Vec::new()));
        corrupt(codec, &long[..50_000], "cut within a skippable frame");
        corrupt(codec, &[&stored[..], &empty[..6]].concat(), "cut within the length of a skippable frame");
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn a_stream_that_is_truncated_anywhere_is_reported() {
    let plain = sample(600);
    for codec in ALL {
        let stored = encoded(codec, &plain);
        for length in 0..stored.len() {
            // Snappy's stream identifier is a chunk, after which a stream may end.
            if codec == Codec::Snappy && length == 10 {
                continue;
            }
            corrupt(codec, &stored[..length], &format!("{length} of {}", stored.len()));
        }
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn a_second_member_that_is_truncated_is_reported() {
    let plain = sample(600);
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd, Codec::Bzip2, Codec::Xz] {
        let stored = encoded(codec, &plain);
        for length in 1..stored.len() {
            corrupt(codec, &[&stored[..], &stored[..length]].concat(), &format!("{length} more"));
        }
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn a_byte_that_changed_is_reported_or_changes_nothing() {
    let plain = sample(600);
    for codec in ALL {
        // Brotli and lzma have no checksum: only a digest of the file detects the change.
        if matches!(codec, Codec::Brotli | Codec::Lzma) {
            continue;
        }
        let stored = encoded(codec, &plain);
        for at in 0..stored.len() {
            // The type of a snappy chunk: it may become one that readers skip.
            if codec == Codec::Snappy && at == 10 {
                continue;
            }
            for flip in [1, 0x80, 0xFF] {
                let mut changed = stored.clone();
                changed[at] ^= flip;
                match decoded(codec, &changed) {
                    Ok(same) => assert!(same == plain, "{} byte {at} ^ {flip}", codec.name()),
                    Err(error) => {
                        assert!(
                            matches!(error.kind, Kind::Corrupt | Kind::Limit),
                            "{}: {error}",
                            codec.name()
                        );
                    }
                }
            }
        }
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn a_changed_brotli_stream_ends_all_the_same() {
    let stored = encoded(Codec::Brotli, &sample(600));
    for at in 0..stored.len() {
        let mut changed = stored.clone();
        changed[at] ^= 0xFF;
        let mut reader =
            Codec::Brotli.decode(Box::new(std::io::Cursor::new(changed))).unwrap().take(64 << 20);
        // The reader only has to end; a digest would detect wrong bytes.
        if let Err(error) = std::io::copy(&mut reader, &mut std::io::sink()) {
            assert_eq!(Error::from(error).kind, Kind::Corrupt);
        }
        assert!(reader.limit() > 0, "byte {at} makes 600 bytes into 64 MiB");
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn bytes_after_the_end_are_reported() {
    for codec in ALL {
        let stored = encoded(codec, &sample(600));
        for garbage in [&b"x"[..], b"\0\0\0", b"some more text that belongs to nothing"] {
            corrupt(codec, &[&stored[..], garbage].concat(), "garbage");
        }
    }
}

#[test]
fn another_format_is_an_error() {
    let other = b"this is plain text and it is longer than every header there is".repeat(10);
    for codec in ALL {
        corrupt(codec, &other, "plain text");
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn a_reader_that_has_failed_returns_the_same_error_again() {
    for codec in ALL {
        let stored = encoded(codec, &sample(100_000));
        let cut = stored[..stored.len() - 1].to_vec();
        let mut reader = codec.decode(Box::new(std::io::Cursor::new(cut))).unwrap();
        let mut plain = Vec::new();
        let first = Error::from(reader.read_to_end(&mut plain).unwrap_err());
        let again = Error::from(reader.read(&mut [0; 10]).unwrap_err());
        assert_eq!(first, again);
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn errors_of_the_source_are_passed_on() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(Error::new(Kind::Transient, "the connection is gone").into())
        }
    }
    for codec in ALL {
        let stored = encoded(codec, &sample(100_000));
        let begins = std::io::Cursor::new(stored[..stored.len() / 2].to_vec());
        for source in [Box::new(Fails) as Box<dyn Read + Send>, Box::new(begins.chain(Fails))] {
            let mut reader = codec.decode(source).unwrap();
            for _ in 0..2 {
                let error = Error::from(reader.read_to_end(&mut Vec::new()).unwrap_err());
                assert_eq!(error, Error::new(Kind::Transient, "the connection is gone"), "{}", codec.name());
            }
        }
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn a_decompression_bomb_yields_only_the_requested_bytes() {
    let zeroes = vec![0; 64 << 20];
    for codec in ALL {
        let bomb = encoded(codec, &zeroes);
        let mut reader = codec.decode(Box::new(std::io::Cursor::new(bomb))).unwrap();
        let mut given = vec![0; 10_000];
        reader.read_exact(&mut given).unwrap();
        assert!(given.iter().all(|&byte| byte == 0), "{}", codec.name());
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn a_zstd_window_beyond_the_bound_is_a_limit_with_advice() {
    let stored = tool("zstd", &["-c", "--ultra", "--long=28", "-1"], &sample(1000));
    let error = decoded(Codec::Zstd, &stored).unwrap_err();
    assert_eq!(error.kind, Kind::Limit);
    assert!(error.message.contains("--long=27"), "{error}");
    let stored = tool("zstd", &["-c", "--long=27", "-1"], &sample(1000));
    assert_eq!(decoded(Codec::Zstd, &stored), Ok(sample(1000)));
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn an_xz_dictionary_beyond_the_bound_is_a_limit_with_advice() {
    let stored = tool("xz", &["-c", "--lzma2=dict=128MiB"], &sample(1000));
    let error = decoded(Codec::Xz, &stored).unwrap_err();
    assert_eq!(error.kind, Kind::Limit);
    assert!(error.message.contains("-9"), "{error}");
    let stored = tool("xz", &["-c", "-9"], &sample(1000));
    assert_eq!(decoded(Codec::Xz, &stored), Ok(sample(1000)));
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn the_other_settings_of_the_programs_are_read_too() {
    let plain = sample(400_000);
    for (codec, program, arguments) in [
        (Codec::Gzip, "gzip", &["-1c"][..]),
        (Codec::Lz4, "lz4", &["-c", "-12", "-B4", "-BX"]),
        (Codec::Lz4, "lz4", &["-c", "--content-size", "-BD", "--no-frame-crc"]),
        (Codec::Zstd, "zstd", &["-c", "-19", "--no-check"]),
        (Codec::Bzip2, "bzip2", &["-1c"]),
        (Codec::Xz, "xz", &["-c", "--check=sha256", "--block-size=65536"]),
        (Codec::Xz, "xz", &["-c", "--check=none", "-0"]),
        (Codec::Brotli, "brotli", &["-c", "-q", "3", "-w", "24"]),
    ] {
        assert!(
            decoded(codec, &tool(program, arguments, &plain)) == Ok(plain.clone()),
            "{program} {arguments:?}"
        );
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn a_pipeline_decrypts_and_then_decompresses() {
    use crate::cipher::CipherFormat;
    use crate::keys::Key;
    use foundation::secret::Secret;
    let plain = sample(300_000);
    let compressed = encoded(Codec::Zstd, &plain);
    let stored = tool(
        "openssl",
        &["enc", "-aes-256-cbc", "-md", "sha1", "-pass", "pass:word of passing"],
        &compressed,
    );
    let key = Key::named("repo", Secret::new("word of passing"));
    let pipeline =
        Pipeline { decrypt: Some((key, CipherFormat::OpensslSha1)), decompress: Some(Codec::Zstd) };
    assert!(!pipeline.is_plain() && Pipeline::default().is_plain());
    let mut out = Vec::new();
    pipeline
        .decode(Box::new(std::io::Cursor::new(stored)), &MemoryAllowance::unlimited())
        .unwrap()
        .read_to_end(&mut out)
        .unwrap();
    assert!(out == plain);
}

/// Decodes `stored` within a budget. Returns the result, and how much of the budget was in use at the end.
fn read_within(codec: Codec, stored: &[u8], budget: &Budget) -> (Result<u64, Error>, u64) {
    let allowance = MemoryAllowance::of(budget);
    let source = Box::new(std::io::Cursor::new(stored.to_vec()));
    match codec.decode_within(source, &allowance) {
        Err(error) => (Err(error), budget.held()),
        Ok(mut plain) => {
            let read = std::io::copy(&mut plain, &mut std::io::sink()).map_err(Error::from);
            (read, budget.held())
        }
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn a_window_is_charged_before_it_is_allocated_and_given_back() {
    let plain = vec![7_u8; 6 << 20];
    let brotli = tool("brotli", &["-c", "-q", "5", "-w", "24"], &plain);
    for (codec, stored, least, most) in [
        (Codec::Zstd, tool("zstd", &["-c", "--long=27"], &plain), 128 << 20, 129 << 20),
        (Codec::Xz, tool("xz", &["-c", "-9"], &plain), 64 << 20, 80 << 20),
        (Codec::Brotli, brotli, 16 << 20, 21 << 20),
        (Codec::Lz4, tool("lz4", &["-c", "-B7"], &plain), 8 << 20, 9 << 20),
        (Codec::Bzip2, tool("bzip2", &["-c", "-9"], &plain), 3 << 20, 4 << 20),
        (Codec::Gzip, encoded(Codec::Gzip, &plain), 0, 0),
        (Codec::Snappy, encoded(Codec::Snappy, &plain), 0, 0),
    ] {
        let budget = Budget::memory(most);
        let (read, held) = read_within(codec, &stored, &budget);
        assert_eq!(read.unwrap(), 6 << 20, "{codec:?}");
        assert!((least..=most).contains(&held), "{codec:?} holds {held}");
        assert_eq!(budget.held(), 0, "{codec:?}");
        if least > 0 {
            let (refused, _) = read_within(codec, &stored, &Budget::memory(least / 2));
            let error = refused.unwrap_err();
            assert_eq!(error.kind, Kind::Limit, "{codec:?}: {error}");
            assert!(error.message.contains("host_memory"), "{codec:?}: {error}");
        }
    }
}

#[test]
#[ignore = "needs programs: cargo xtask test"]
fn the_window_in_a_zstd_header_that_arrives_byte_by_byte_is_charged() {
    let plain = vec![7_u8; 1 << 20];
    let one = tool("zstd", &["-c", "--long=27"], &plain);
    let stored = [one.clone(), one].concat();
    for at_once in [1, 2, 5, 17, 100] {
        let budget = Budget::memory(129 << 20);
        let source = Box::new(SmallReads(std::io::Cursor::new(stored.clone()), at_once));
        let mut plain = Codec::Zstd.decode_within(source, &MemoryAllowance::of(&budget)).unwrap();
        assert_eq!(std::io::copy(&mut plain, &mut std::io::sink()).unwrap(), 2 << 20, "{at_once} at once");
        assert!(budget.held() > 128 << 20);
    }
}
